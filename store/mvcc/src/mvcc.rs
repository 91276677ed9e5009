//! The owner of the state: applies the committed log, one batch at a time.

use std::path::Path;

use bytes::Bytes;

use crate::{Applied, Entry, Fault, Options, Reader};

/// The one writer of a member's state. Not cloneable; readers are ([`Mvcc::reader`]).
#[derive(Debug)]
pub struct Mvcc {
    reader: Reader,
}

impl Mvcc {
    /// Opens the state under `root`, or makes an empty one. `root` is a folder of its own: it
    /// holds the active database and, around a snapshot install, the next one.
    pub fn open(root: impl AsRef<Path>, options: Options) -> Result<Self, Fault> {
        let _ = (root, options);
        unimplemented!()
    }

    /// A handle for everybody who only reads; stays valid over [`Mvcc::install`].
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// The bytes that the newest apply was given as `applied`; `None` on a fresh state. The
    /// server replays its log from there.
    pub fn applied_meta(&self) -> Result<Option<Bytes>, Fault> {
        unimplemented!()
    }

    /// Applies committed log entries in one atomic write, together with `applied`: the server's
    /// opaque bytes (last applied log id, membership). May be called without commands, to record
    /// a new `applied` alone. After an error the state on disk is unknown: stop, reopen, replay.
    pub fn apply(&mut self, entries: &[Entry<'_>], applied: Bytes) -> Result<Applied, Fault> {
        let _ = (entries, applied);
        unimplemented!()
    }

    /// Replaces the whole state by a checkpoint's ([`Reader::checkpoint`]), which is moved away
    /// from `from` (same file system) or copied. Existing readers see the new state at once;
    /// reads under way finish on the old one.
    pub fn install(&mut self, from: &Path) -> Result<(), Fault> {
        let _ = from;
        unimplemented!()
    }
}
