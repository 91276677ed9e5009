//! A checkpoint on its way to another member: the files of a folder as a stream of chunks, and back.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use pintle_proto::raft::snapshot_chunk::Chunk;
use pintle_proto::raft::{Addressed, SnapshotChunk, SnapshotEnd, SnapshotFile, SnapshotHeader};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::convert::{
    Missing, log_id_from_pb, log_id_to_pb, membership_from_pb, membership_to_pb, vote_to_pb,
};
use super::snapshot::{SnapshotData, SnapshotStore, StateSnapshot};
use super::snapshot_resume::{Starts, keep_only};
use super::types::{SnapshotMeta, StoredMembership, Vote};
use crate::host::{blocking, own};
use crate::simulation::is_simulated;

const CHUNK_BYTES: usize = 1 << 20;
/// Chunks read ahead of the network.
const CHUNKS_AHEAD: usize = 4;

/// Streams a checkpoint, each file from where the target has it already. The files are read by a thread,
/// which keeps the checkpoint alive.
pub(super) fn chunks(
    addressed: Addressed,
    vote: &Vote,
    snapshot: StateSnapshot,
    starts: Starts,
) -> io::Result<impl Stream<Item = SnapshotChunk> + use<>> {
    let dir = snapshot.snapshot.dir().ok_or_else(|| io::Error::other("snapshot without files"))?;
    let files = files(dir)?;
    let total_bytes = files.iter().map(|(_, size)| size).sum();
    let membership = &snapshot.meta.last_membership;
    let header = SnapshotHeader {
        addressed: Some(addressed),
        vote: Some(vote_to_pb(vote)),
        last_log_id: snapshot.meta.last_log_id.as_ref().map(log_id_to_pb),
        membership_log_id: membership.log_id().as_ref().map(log_id_to_pb),
        membership: Some(membership_to_pb(membership.membership())),
        total_bytes,
    };
    let (sender, receiver) = mpsc::channel(ahead(files.len()));
    let data = snapshot.snapshot;
    own("raft-snapshot", async move {
        if let Err(error) = send(&sender, header, &data, &files, &starts).await {
            // The stream ends without its end marker, so the target discards what it has.
            tracing::warn!(%error, "a snapshot could not be read");
        }
    })?;
    Ok(ReceiverStream::new(receiver))
}

/// In a simulation everything is read at once: how often a reader would have to wait depends on how
/// many files RocksDB has made, which a seed does not decide.
fn ahead(files: usize) -> usize {
    if is_simulated() { 2 * files + CHUNKS_AHEAD } else { CHUNKS_AHEAD }
}

async fn send(
    sender: &mpsc::Sender<SnapshotChunk>,
    header: SnapshotHeader,
    data: &SnapshotData,
    files: &[(PathBuf, u64)],
    starts: &Starts,
) -> io::Result<()> {
    let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the transfer was given up");
    let push = async |chunk| {
        let chunk = SnapshotChunk { chunk: Some(chunk) };
        sender.send(chunk).await.map_err(gone)
    };
    let dir = data.dir().ok_or_else(|| io::Error::other("snapshot without files"))?;
    push(Chunk::Header(header)).await?;
    for (name, _) in files {
        let mut file = File::open(dir.join(name))?;
        let name = name.to_string_lossy().into_owned();
        let mut offset = starts.get(&name).copied().unwrap_or(0);
        file.seek(SeekFrom::Start(offset))?;
        // At least one chunk a file, so that the target knows of it.
        let mut told = false;
        loop {
            let mut buffer = Vec::with_capacity(CHUNK_BYTES);
            let read = (&file).take(CHUNK_BYTES as u64).read_to_end(&mut buffer)? as u64;
            if read == 0 && told {
                break;
            }
            let (name, data) = (name.clone(), Bytes::from(buffer));
            push(Chunk::File(SnapshotFile { name, offset, data })).await?;
            told = true;
            offset += read;
        }
    }
    push(Chunk::End(SnapshotEnd { files: files.len() as u64 })).await
}

/// The files below `dir`, as relative paths with their sizes, in a fixed order.
pub(super) fn files(dir: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(dir.join(&folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                folders.push(path);
            } else {
                found.push((path, metadata.len()));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Writes the files of a stream; complete only with the end marker. What a broken stream has
/// brought stays, for the next one to go on.
pub(crate) async fn receive(
    store: &SnapshotStore,
    header: &SnapshotHeader,
    mut chunks: impl Stream<Item = Result<SnapshotChunk, Status>> + Unpin,
) -> Result<StateSnapshot, Status> {
    let io = |error: io::Error| Status::internal(format!("snapshot: {error}"));
    let under_way = || Status::aborted("another snapshot is on its way");
    let _filling = store.incoming.try_lock().map_err(|_| under_way())?;
    let dir = store.partial();
    std::fs::create_dir_all(&dir).map_err(io)?;
    let mut names = BTreeSet::new();
    let mut open: Option<Incoming> = None;
    while let Some(chunk) = chunks.next().await {
        match chunk?.chunk {
            Some(Chunk::File(part)) => {
                let dir = dir.clone();
                names.insert(part.name.clone());
                let previous = open.take();
                let write = move || Incoming::write(previous, &dir, &part);
                let written = blocking(write).await;
                open = Some(written.map_err(io::Error::other).flatten().map_err(io)?);
            }
            Some(Chunk::End(end)) => {
                if let Some(last) = open.take() {
                    last.file.sync_all().map_err(io)?;
                }
                if end.files != names.len() as u64 {
                    return Err(Status::data_loss("snapshot with missing files"));
                }
                keep_only(&dir, &names).map_err(io)?;
                let snapshot = store.complete().map_err(io)?;
                return Ok(StateSnapshot { meta: meta(header)?, snapshot });
            }
            Some(Chunk::Header(_)) | None => {
                return Err(Status::invalid_argument("unexpected snapshot chunk"));
            }
        }
    }
    Err(Status::aborted("the snapshot broke off"))
}

fn meta(header: &SnapshotHeader) -> Result<SnapshotMeta, Missing> {
    let membership = membership_from_pb(header.membership.clone().unwrap_or_default())?;
    let log_id = header.membership_log_id.as_ref().map(log_id_from_pb);
    Ok(SnapshotMeta {
        last_log_id: header.last_log_id.as_ref().map(log_id_from_pb),
        last_membership: StoredMembership::new(log_id, membership),
    })
}

/// The file that is being received.
struct Incoming {
    name: String,
    file: File,
    written: u64,
}

impl Incoming {
    fn write(previous: Option<Self>, dir: &Path, part: &SnapshotFile) -> io::Result<Self> {
        let mut incoming = match previous {
            Some(same) if same.name == part.name => same,
            other => {
                if let Some(finished) = other {
                    finished.file.sync_all()?;
                }
                let file = open_at(dir, &part.name, part.offset)?;
                Self { name: part.name.clone(), file, written: part.offset }
            }
        };
        if incoming.written != part.offset {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "snapshot chunks out of order"));
        }
        incoming.file.write_all(&part.data)?;
        incoming.written += part.data.len() as u64;
        Ok(incoming)
    }
}

/// Opens a file inside `dir`, to be written from `offset` on, up to which it is there already; a
/// name that points elsewhere is refused.
fn open_at(dir: &Path, name: &str, offset: u64) -> io::Result<File> {
    let relative = Path::new(name);
    if !relative.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "snapshot file outside of its folder",
        ));
    }
    let path = dir.join(relative);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    if file.metadata()?.len() < offset {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the snapshot begins too late"));
    }
    file.set_len(offset)?;
    file.seek(SeekFrom::Start(offset))?;
    Ok(file)
}
