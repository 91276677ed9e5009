//! Something that is made of files, made again when they change.
//!
//! Looked at when it is needed, at each new connection: nothing runs in between. A file that is
//! half replaced (a certificate whose key is not there yet) leaves the old value in force.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

/// What tells one version of a file from another: inode, size, time.
type Stamp = Option<(u64, u64, i64, i64)>;
type Make<T> = dyn Fn() -> io::Result<T> + Send + Sync;

pub(super) struct Reloading<T> {
    files: Vec<PathBuf>,
    make: Box<Make<T>>,
    current: Mutex<Current<T>>,
}

struct Current<T> {
    stamps: Vec<Stamp>,
    value: Arc<T>,
}

impl<T> fmt::Debug for Reloading<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloading").field("files", &self.files).finish_non_exhaustive()
    }
}

impl<T> Reloading<T> {
    pub(super) fn new(
        files: Vec<PathBuf>,
        make: impl Fn() -> io::Result<T> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let stamps = stamps(&files);
        let current = Mutex::new(Current { stamps, value: Arc::new(make()?) });
        Ok(Self { files, make: Box::new(make), current })
    }

    /// The value that the files give now.
    pub(super) fn get(&self) -> Arc<T> {
        let stamps = stamps(&self.files);
        let mut current = self.current.lock();
        if stamps != current.stamps {
            current.stamps = stamps;
            match (self.make)() {
                Ok(value) => {
                    tracing::info!(files = ?self.files, "certificates were read again");
                    current.value = Arc::new(value);
                }
                Err(error) => tracing::warn!(%error, "changed certificates are not used"),
            }
        }
        Arc::clone(&current.value)
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
    };
    files.iter().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_is_not_used() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("file");
        let replace = |text: &str| {
            let draft = dir.path().join("draft");
            std::fs::write(&draft, text).expect("written");
            std::fs::rename(&draft, &path).expect("replaced");
        };
        replace("1");
        let read = path.clone();
        let make = move || {
            let text = std::fs::read_to_string(&read)?;
            text.parse::<u32>().map_err(io::Error::other)
        };
        let reloading = Reloading::new(vec![path.clone()], make).expect("readable");
        assert_eq!(*reloading.get(), 1);
        replace("22");
        assert_eq!(*reloading.get(), 22);
        replace("broken");
        assert_eq!(*reloading.get(), 22);
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(*reloading.get(), 22);
        replace("333");
        assert_eq!(*reloading.get(), 333);
    }
}
