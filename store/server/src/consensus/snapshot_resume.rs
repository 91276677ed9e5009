//! Going on with a transfer that broke off. Before a checkpoint is sent, the target is asked what it
//! has of the files; what is the same is not sent again.
//!
//! A later checkpoint of the same member shares most files with the one before (RocksDB never
//! changes a file that it has finished), so this also helps when a new checkpoint had to be made.
//! Names alone are not trusted: a beginning counts only with the same SHA-256.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use pintle_proto::raft::peer_client::PeerClient;
use pintle_proto::raft::{Addressed, KeptFile, OfferedFile, SnapshotKept, SnapshotOffer};
use sha2::{Digest, Sha256};

use super::snapshot::{SnapshotData, SnapshotStore, StateSnapshot};
use super::snapshot_stream::files;
use crate::host::blocking;
use crate::peer::PeerChannel;

/// Where to begin with each file.
pub(super) type Starts = BTreeMap<String, u64>;

/// Asks the target. Whatever goes wrong only means that everything is sent.
pub(super) async fn ask(
    client: &mut PeerClient<PeerChannel>,
    addressed: Addressed,
    snapshot: &StateSnapshot,
) -> Starts {
    match try_ask(client, addressed, &snapshot.snapshot).await {
        Ok(starts) => starts,
        Err(error) => {
            tracing::debug!(%error, "a snapshot is sent from its beginning");
            Starts::new()
        }
    }
}

async fn try_ask(
    client: &mut PeerClient<PeerChannel>,
    addressed: Addressed,
    data: &SnapshotData,
) -> io::Result<Starts> {
    let dir = data.dir().ok_or_else(|| io::Error::other("snapshot without files"))?.to_owned();
    let offered = |(name, bytes): (std::path::PathBuf, u64)| OfferedFile {
        name: name.to_string_lossy().into_owned(),
        bytes,
    };
    let files = files(&dir)?.into_iter().map(offered).collect();
    let offer = SnapshotOffer { addressed: Some(addressed), files };
    let kept = client.offer_snapshot(offer).await.map_err(io::Error::other)?.into_inner();
    let alive = data.clone();
    let compare = move || {
        let starts = same(&dir, kept);
        drop(alive);
        starts
    };
    blocking(compare).await.map_err(io::Error::other)
}

/// The beginnings that are the same here.
fn same(dir: &Path, kept: SnapshotKept) -> Starts {
    let is_same = |file: &KeptFile| {
        let checksum = checksum(&dir.join(&file.name), file.bytes);
        checksum.is_ok_and(|checksum| checksum == file.checksum)
    };
    kept.files.into_iter().filter(is_same).map(|file| (file.name, file.bytes)).collect()
}

/// What of an offer's files is here from a transfer that broke off. Others are removed.
pub(crate) async fn kept(store: &SnapshotStore, offer: SnapshotOffer) -> io::Result<SnapshotKept> {
    let busy = |_| io::Error::other("another snapshot is on its way");
    let _filling = store.incoming.try_lock().map_err(busy)?;
    let dir = store.partial();
    let look = move || look(&dir, &offer);
    blocking(look).await.map_err(io::Error::other)?
}

fn look(dir: &Path, offer: &SnapshotOffer) -> io::Result<SnapshotKept> {
    if !dir.exists() {
        return Ok(SnapshotKept::default());
    }
    let offered: BTreeMap<&str, u64> =
        offer.files.iter().map(|file| (file.name.as_str(), file.bytes)).collect();
    keep_only(dir, &offered.keys().map(|name| (*name).to_owned()).collect())?;
    let mut kept = Vec::new();
    for (name, bytes) in files(dir)? {
        let name = name.to_string_lossy().into_owned();
        let bytes = bytes.min(offered.get(name.as_str()).copied().unwrap_or(0));
        if bytes > 0 {
            let checksum = checksum(&dir.join(&name), bytes)?.into();
            kept.push(KeptFile { name, bytes, checksum });
        }
    }
    Ok(SnapshotKept { files: kept })
}

/// Removes what does not belong to a checkpoint with these files.
pub(super) fn keep_only(dir: &Path, names: &BTreeSet<String>) -> io::Result<()> {
    for (name, _) in files(dir)? {
        if !names.contains(name.to_string_lossy().as_ref()) {
            std::fs::remove_file(dir.join(name))?;
        }
    }
    Ok(())
}

fn checksum(path: &Path, bytes: u64) -> io::Result<Vec<u8>> {
    let mut hash = Sha256::new();
    let read = io::copy(&mut File::open(path)?.take(bytes), &mut hash)?;
    if read < bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(hash.finalize().to_vec())
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use pintle_proto::raft::snapshot_chunk::Chunk;
    use pintle_proto::raft::{SnapshotChunk, SnapshotHeader};
    use tonic::Status;

    use super::super::snapshot_stream::{chunks, receive};
    use super::super::types::{SnapshotMeta, Vote};
    use super::*;

    const LARGE: usize = 5 << 20;

    fn checkpoint(store: &SnapshotStore, files: &[(&str, u8, usize)]) -> StateSnapshot {
        let data = store.reserve();
        let dir = data.dir().expect("reserved").to_owned();
        std::fs::create_dir_all(&dir).expect("created");
        for (name, byte, size) in files {
            std::fs::write(dir.join(name), vec![*byte; *size]).expect("written");
        }
        StateSnapshot { meta: SnapshotMeta::default(), snapshot: data }
    }

    async fn starts(target: &SnapshotStore, snapshot: &StateSnapshot) -> Starts {
        let dir = snapshot.snapshot.dir().expect("a folder");
        let offered = files(dir)
            .expect("listed")
            .into_iter()
            .map(|(name, bytes)| OfferedFile { name: name.to_string_lossy().into_owned(), bytes });
        let offer = SnapshotOffer { addressed: None, files: offered.collect() };
        same(dir, kept(target, offer).await.expect("looked"))
    }

    async fn sent(snapshot: StateSnapshot, starts: Starts) -> (SnapshotHeader, Vec<SnapshotChunk>) {
        let vote = Vote::new(1, 1);
        let stream = chunks(Addressed::default(), &vote, snapshot, starts).expect("readable");
        let mut all: Vec<SnapshotChunk> = stream.collect().await;
        match all.remove(0).chunk {
            Some(Chunk::Header(header)) => (header, all),
            other => panic!("begins with {other:?}"),
        }
    }

    async fn received(
        store: &SnapshotStore,
        header: &SnapshotHeader,
        chunks: Vec<SnapshotChunk>,
    ) -> Result<StateSnapshot, Status> {
        receive(store, header, futures::stream::iter(chunks.into_iter().map(Ok))).await
    }

    fn bytes(chunks: &[SnapshotChunk]) -> usize {
        let size = |chunk: &SnapshotChunk| match &chunk.chunk {
            Some(Chunk::File(part)) => part.data.len(),
            _ => 0,
        };
        chunks.iter().map(size).sum()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_transfer_that_broke_off_goes_on_where_it_was() {
        let temp = tempfile::tempdir().expect("temporary folder");
        let source = SnapshotStore::open(temp.path().join("source")).expect("opens");
        let target = SnapshotStore::open(temp.path().join("target")).expect("opens");
        let files = [("000001.sst", 1, LARGE), ("000002.sst", 2, LARGE), ("CURRENT", 3, 16)];
        let first = checkpoint(&source, &files);
        assert!(starts(&target, &first).await.is_empty(), "nothing is there yet");
        let (header, mut all) = sent(first, Starts::new()).await;
        let whole = bytes(&all);
        all.truncate(8);
        received(&target, &header, all).await.expect_err("it broke off");

        // The member restarts, and the leader has gone on: one file is new, one has changed.
        let target = SnapshotStore::open(temp.path().join("target")).expect("opens");
        let files = [
            ("000001.sst", 1, LARGE),
            ("000002.sst", 2, LARGE),
            ("000003.sst", 4, 1_000),
            ("CURRENT", 5, 16),
        ];
        let second = checkpoint(&source, &files);
        let starts = starts(&target, &second).await;
        assert_eq!(starts.get("000001.sst"), Some(&(LARGE as u64)));
        let (header, all) = sent(second, starts).await;
        assert!(bytes(&all) < whole / 2, "{} of {whole} bytes again", bytes(&all));
        let snapshot = received(&target, &header, all).await.expect("complete");
        let dir = snapshot.snapshot.dir().expect("a folder");
        for (name, byte, size) in files {
            assert_eq!(std::fs::read(dir.join(name)).expect("there"), vec![byte; size], "{name}");
        }
        assert!(!target.partial().exists());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_file_of_the_same_name_with_other_bytes_is_sent_again() {
        let temp = tempfile::tempdir().expect("temporary folder");
        let source = SnapshotStore::open(temp.path().join("source")).expect("opens");
        let target = SnapshotStore::open(temp.path().join("target")).expect("opens");
        std::fs::create_dir_all(target.partial()).expect("created");
        std::fs::write(target.partial().join("000001.sst"), vec![9; 500]).expect("written");
        std::fs::write(target.partial().join("000009.sst"), vec![9; 500]).expect("written");
        let snapshot = checkpoint(&source, &[("000001.sst", 1, 1_000)]);
        let starts = starts(&target, &snapshot).await;
        assert!(starts.is_empty(), "{starts:?}");
        assert!(!target.partial().join("000009.sst").exists(), "not offered, so not needed");
        let (header, all) = sent(snapshot, starts).await;
        let snapshot = received(&target, &header, all).await.expect("complete");
        let dir = snapshot.snapshot.dir().expect("a folder");
        assert_eq!(std::fs::read(dir.join("000001.sst")).expect("there"), vec![1; 1_000]);
    }
}
