//! Snapshots: a checkpoint of the state, made when somebody needs one.
//!
//! Building a snapshot, as openraft asks for it every so many entries, only flushes the state: what
//! is flushed may leave the log. A checkpoint (hard links, on the same file system) is taken when a
//! member lags so far that it must be sent, and goes when the transfer is over.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use openraft::storage::{RaftSnapshotBuilder, Snapshot};
use pintle_mvcc::{CheckpointInfo, Reader};
use tokio::sync::Semaphore;

use super::state_machine::{AppliedState, Shared};
use super::types::{CommittedLeader, Node, TypeConfig};
use crate::host::blocking;

pub(crate) type StateSnapshot = Snapshot<CommittedLeader, u64, Node, SnapshotData>;

/// A folder that goes with its last owner.
pub(crate) struct OwnedDir(PathBuf);

impl Drop for OwnedDir {
    fn drop(&mut self) {
        match std::fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, dir = %self.0.display(), "a used snapshot was not removed");
            }
            _ => {}
        }
    }
}

/// Where a snapshot's bytes are.
#[derive(Clone)]
pub(crate) enum SnapshotData {
    /// The member's own state, on disk already.
    Flushed,
    /// A checkpoint in a folder of its own.
    Checkpoint(Arc<OwnedDir>),
}

impl SnapshotData {
    pub(crate) fn dir(&self) -> Option<&Path> {
        match self {
            Self::Flushed => None,
            Self::Checkpoint(dir) => Some(&dir.0),
        }
    }
}

impl fmt::Debug for SnapshotData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SnapshotData({:?})", self.dir())
    }
}

/// The folder in which checkpoints come and go.
#[derive(Debug)]
pub(crate) struct SnapshotStore {
    dir: PathBuf,
    next: AtomicU64,
    /// Places for downloads by clients.
    pub(crate) downloads: Arc<Semaphore>,
    /// Held by whoever fills the folder of the transfer under way.
    pub(crate) incoming: tokio::sync::Mutex<()>,
}

/// The folder of an unfinished transfer.
const PARTIAL: &str = "partial";

/// Snapshots that clients may download at the same time. Each keeps files alive that the state has
/// done with; a client that reads slowly keeps them for long.
const DOWNLOADS_MAX: usize = 4;

impl SnapshotStore {
    /// Empties the folder: what a crash left in it is nobody's, except a transfer that can go on.
    pub(crate) fn open(dir: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        for entry in std::fs::read_dir(&dir)? {
            let path = entry?.path();
            if !path.ends_with(PARTIAL) {
                std::fs::remove_dir_all(&path)?;
            }
        }
        let downloads = Arc::new(Semaphore::new(DOWNLOADS_MAX));
        let incoming = tokio::sync::Mutex::new(());
        Ok(Self { dir, next: AtomicU64::new(0), downloads, incoming })
    }

    /// A name that nobody uses yet, for a checkpoint to be made or received.
    pub(crate) fn reserve(&self) -> SnapshotData {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        SnapshotData::Checkpoint(Arc::new(OwnedDir(self.dir.join(number.to_string()))))
    }

    /// Where the files of a transfer gather until it is complete, over restarts too.
    pub(crate) fn partial(&self) -> PathBuf {
        self.dir.join(PARTIAL)
    }

    /// Takes a complete transfer for a snapshot.
    pub(crate) fn complete(&self) -> io::Result<SnapshotData> {
        let data = self.reserve();
        let dir = data.dir().expect("reserved as a folder");
        std::fs::rename(self.partial(), dir)?;
        Ok(data)
    }

    /// A copy of the state, and what it holds.
    pub(crate) fn copy(&self, reader: &Reader) -> io::Result<(SnapshotData, CheckpointInfo)> {
        let data = self.reserve();
        let dir = data.dir().expect("reserved as a folder");
        let info = reader.checkpoint(dir).map_err(io::Error::other)?;
        Ok((data, info))
    }

    pub(crate) fn checkpoint(&self, reader: &Reader) -> io::Result<StateSnapshot> {
        let (data, info) = self.copy(reader)?;
        let meta = AppliedState::from_bytes(Some(&info.applied))?.snapshot_meta();
        Ok(Snapshot { meta, snapshot: data })
    }
}

/// Flushes the state so that the log below it may go.
pub(crate) struct SnapshotBuilder {
    shared: Arc<Shared>,
}

impl SnapshotBuilder {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<StateSnapshot, io::Error> {
        let shared = Arc::clone(&self.shared);
        let flush = move || {
            shared.reader.flush().map_err(io::Error::other)?;
            shared.reader.flushed_meta().map_err(io::Error::other)
        };
        let flushed = blocking(flush).await.map_err(io::Error::other)??;
        let meta = AppliedState::from_bytes(flushed.as_ref())?.snapshot_meta();
        Ok(Snapshot { meta, snapshot: SnapshotData::Flushed })
    }
}
