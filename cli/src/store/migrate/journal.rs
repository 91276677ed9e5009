//! How far a copy is, on disk after every page.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    source: u64,
    target: u64,
    revision: i64,
    next_key: Option<Vec<u8>>,
    keys_done: bool,
}

/// Where the copy stands.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    source: u64,
    target: u64,
    /// The revision of the source that is copied, and later the one up to which its changes are; 0:
    /// nothing has begun.
    pub(super) revision: i64,
    /// The next key to copy.
    pub(super) next_key: Bytes,
    /// All keys are copied.
    pub(super) keys_done: bool,
}

impl Journal {
    pub(super) fn open(path: &Path, source: u64, target: u64) -> anyhow::Result<Self> {
        let kept = match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is no journal of a copy", path.display()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Kept { source, target, ..Kept::default() }
            }
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        if (kept.source, kept.target) != (source, target) {
            bail!("{} is about other clusters: remove it to begin anew", path.display());
        }
        Ok(Self {
            path: path.to_owned(),
            source,
            target,
            revision: kept.revision,
            next_key: kept.next_key.unwrap_or_default().into(),
            keys_done: kept.keys_done,
        })
    }

    /// The copy begins, as of a revision.
    pub(super) fn begin(&mut self, revision: i64) -> anyhow::Result<()> {
        self.revision = revision;
        (self.next_key, self.keys_done) = (Bytes::new(), false);
        self.save()
    }

    /// Everything before `next` is copied; `None`: everything is.
    pub(super) fn copied(&mut self, next: Option<Bytes>) -> anyhow::Result<()> {
        self.keys_done = next.is_none();
        self.next_key = next.unwrap_or_default();
        self.save()
    }

    /// The changes up to a revision are replayed.
    pub(super) fn replayed(&mut self, revision: i64) -> anyhow::Result<()> {
        self.revision = revision;
        self.save()
    }

    /// There is nothing to resume any more.
    pub(super) fn finish(&self) -> anyhow::Result<()> {
        std::fs::remove_file(&self.path).with_context(|| self.path.display().to_string())
    }

    fn save(&self) -> anyhow::Result<()> {
        let kept = Kept {
            source: self.source,
            target: self.target,
            revision: self.revision,
            next_key: Some(self.next_key.to_vec()).filter(|key| !key.is_empty()),
            keys_done: self.keys_done,
        };
        let draft = self.path.with_extension("new");
        let write = || {
            let mut file = File::create(&draft)?;
            file.write_all(&serde_json::to_vec(&kept)?)?;
            file.sync_all()?;
            std::fs::rename(&draft, &self.path)
        };
        write().with_context(|| self.path.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_goes_on_where_it_was() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("journal.json");
        let mut journal = Journal::open(&path, 1, 2).expect("new");
        assert_eq!(journal.revision, 0);
        journal.begin(7).expect("saved");
        journal.copied(Some(Bytes::from_static(b"k\xff"))).expect("saved");
        let again = Journal::open(&path, 1, 2).expect("kept");
        assert_eq!((again.revision, again.next_key.as_ref()), (7, &b"k\xff"[..]));
        assert!(!again.keys_done);
        Journal::open(&path, 1, 3).expect_err("another target");
        journal.copied(None).expect("saved");
        assert!(Journal::open(&path, 1, 2).expect("kept").keys_done);
        journal.finish().expect("removed");
        assert!(!path.exists());
    }
}
