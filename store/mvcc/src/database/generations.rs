//! Which database under the root is the state.
//!
//! The root holds one folder per generation and a file that names the active one. A snapshot
//! becomes a new generation; renaming that file is the moment at which it becomes the state, so a
//! crash leaves either the old state or the new one. Other generations are left-overs.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::Fault;

const ACTIVE: &str = "ACTIVE";
const ACTIVE_NEXT: &str = "ACTIVE.next";
const PREFIX: &str = "generation-";

/// The root folder and the number of its active generation.
#[derive(Debug)]
pub(crate) struct Generations {
    root: PathBuf,
    active: u64,
}

impl Generations {
    /// Finds the active generation, and removes what a crash has left of others.
    pub(crate) fn open(root: &Path) -> Result<Self, Fault> {
        within(root, fs::create_dir_all(root))?;
        let generations = Self { root: root.to_owned(), active: read_active(root)? };
        generations.remove_others()?;
        Ok(generations)
    }

    /// The active folder of a root that somebody else may be using; touches nothing.
    pub(crate) fn peek(root: &Path) -> Result<PathBuf, Fault> {
        Ok(folder(root, read_active(root)?))
    }

    pub(crate) fn active(&self) -> PathBuf {
        folder(&self.root, self.active)
    }

    /// Where the next generation goes; empty.
    pub(crate) fn stage(&self, from: &Path) -> Result<PathBuf, Fault> {
        let next = folder(&self.root, self.active + 1);
        if next.exists() {
            within(&next, fs::remove_dir_all(&next))?;
        }
        match fs::rename(from, &next) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                within(&next, copy_folder(from, &next))?;
            }
            other => within(from, other)?,
        }
        self.sync()?;
        Ok(next)
    }

    /// Makes the staged generation the active one.
    pub(crate) fn activate(&mut self) -> Result<(), Fault> {
        let next = self.root.join(ACTIVE_NEXT);
        let write = || {
            let mut file = File::create(&next)?;
            writeln!(file, "{}", self.active + 1)?;
            file.sync_all()?;
            fs::rename(&next, self.root.join(ACTIVE))
        };
        within(&next, write())?;
        self.sync()?;
        self.active += 1;
        Ok(())
    }

    fn sync(&self) -> Result<(), Fault> {
        within(&self.root, File::open(&self.root).and_then(|root| root.sync_all()))
    }

    fn remove_others(&self) -> Result<(), Fault> {
        for entry in within(&self.root, fs::read_dir(&self.root))? {
            let path = within(&self.root, entry)?.path();
            let is_other = path
                .file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| name.strip_prefix(PREFIX))
                .is_some_and(|number| number.parse() != Ok(self.active));
            if is_other {
                within(&path, fs::remove_dir_all(&path))?;
            }
        }
        Ok(())
    }
}

fn read_active(root: &Path) -> Result<u64, Fault> {
    let path = root.join(ACTIVE);
    match fs::read_to_string(&path) {
        Ok(text) => {
            text.trim().parse().map_err(|_| Fault::Corrupt { what: "name of the active state" })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(source) => Err(Fault::File { path, source }),
    }
}

fn folder(root: &Path, number: u64) -> PathBuf {
    root.join(format!("{PREFIX}{number}"))
}

/// Copies the files of a checkpoint, which has no folders inside.
fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        fs::copy(entry.path(), &target)?;
        File::open(&target)?.sync_all()?;
    }
    File::open(to)?.sync_all()?;
    fs::remove_dir_all(from)
}

fn within<T>(path: &Path, result: io::Result<T>) -> Result<T, Fault> {
    result.map_err(|source| Fault::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(parent: &Path, content: &str) -> PathBuf {
        let dir = parent.join("checkpoint");
        fs::create_dir(&dir).expect("create");
        fs::write(dir.join("file"), content).expect("write");
        dir
    }

    #[test]
    fn a_staged_generation_counts_only_once_activated() {
        let temp = tempfile::tempdir().expect("tempdir");
        let root = temp.path().join("state");
        let mut generations = Generations::open(&root).expect("open");
        fs::create_dir(generations.active()).expect("create");

        generations.stage(&checkpoint(temp.path(), "one")).expect("stage");
        drop(generations);
        generations = Generations::open(&root).expect("open after a crash");
        assert_eq!(generations.active(), root.join("generation-0"));
        assert!(!root.join("generation-1").exists(), "left-overs are removed");

        let staged = generations.stage(&checkpoint(temp.path(), "two")).expect("stage");
        generations.activate().expect("activate");
        assert_eq!(generations.active(), staged);
        let reopened = Generations::open(&root).expect("reopen");
        assert_eq!(fs::read_to_string(reopened.active().join("file")).expect("read"), "two");
        assert!(!root.join("generation-0").exists());
    }
}
