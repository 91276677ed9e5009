//! From a checkpoint to the bytes of an archive.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use bytes::Bytes;
use pintle_store_api::pb::SnapshotResponse;
use sha2::{Digest, Sha256};
use tar::{Builder, Header};

use super::{BLOCK, MANIFEST, Manifest, STATE};
use crate::consensus::snapshot::SnapshotData;

/// As large as etcd's.
const CHUNK_BYTES: usize = 32 << 10;

/// A checkpoint that is going to be archived. Keeps it alive.
pub(crate) struct Plan {
    data: SnapshotData,
    manifest: Vec<u8>,
    files: Vec<(PathBuf, u64)>,
    version: String,
}

impl Plan {
    pub(crate) fn new(data: SnapshotData, manifest: &Manifest) -> io::Result<Self> {
        let dir = data.dir().ok_or_else(|| io::Error::other("snapshot without files"))?;
        let mut files = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            files.push((entry.file_name().into(), entry.metadata()?.len()));
        }
        files.sort();
        let version = manifest.storage_version.clone();
        Ok(Self { data, manifest: serde_json::to_vec_pretty(manifest)?, files, version })
    }

    /// The size of the archive, without its checksum.
    fn bytes(&self) -> u64 {
        let entry = |size: u64| BLOCK + size.div_ceil(BLOCK) * BLOCK;
        let files: u64 = self.files.iter().map(|(_, size)| entry(*size)).sum();
        entry(self.manifest.len() as u64) + files + 2 * BLOCK
    }

    fn write_to(&self, out: impl Write) -> io::Result<()> {
        let mut tar = Builder::new(out);
        let mut header = header(self.manifest.len() as u64);
        tar.append_data(&mut header, MANIFEST, self.manifest.as_slice())?;
        let dir = self.data.dir().ok_or_else(|| io::Error::other("snapshot without files"))?;
        for (name, size) in &self.files {
            let mut header = self::header(*size);
            let file = File::open(dir.join(name))?;
            tar.append_data(&mut header, PathBuf::from(STATE).join(name), file)?;
        }
        tar.into_inner().map(drop)
    }
}

fn header(size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o600);
    header.set_mtime(0);
    header
}

/// Sends an archive piece by piece; the checksum is the last piece. Stops when nobody listens.
pub(crate) fn send(
    plan: &Plan,
    push: impl FnMut(SnapshotResponse) -> io::Result<()>,
) -> io::Result<()> {
    let mut chunks = Chunks {
        push,
        buffer: Vec::with_capacity(CHUNK_BYTES),
        remaining: plan.bytes(),
        version: plan.version.clone(),
        hash: Sha256::new(),
    };
    plan.write_to(&mut chunks)?;
    chunks.finish()
}

struct Chunks<P> {
    push: P,
    buffer: Vec<u8>,
    /// Bytes that were not sent yet.
    remaining: u64,
    version: String,
    hash: Sha256,
}

impl<P: FnMut(SnapshotResponse) -> io::Result<()>> Chunks<P> {
    fn flush_buffer(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let full = Vec::with_capacity(CHUNK_BYTES);
        let blob = Bytes::from(std::mem::replace(&mut self.buffer, full));
        self.hash.update(&blob);
        let grown = || io::Error::other("a file of the snapshot has grown");
        self.remaining = self.remaining.checked_sub(blob.len() as u64).ok_or_else(grown)?;
        self.push(blob)
    }

    fn push(&mut self, blob: Bytes) -> io::Result<()> {
        let (remaining_bytes, version) = (self.remaining, self.version.clone());
        (self.push)(SnapshotResponse { header: None, remaining_bytes, blob, version })
    }

    fn finish(mut self) -> io::Result<()> {
        self.flush_buffer()?;
        if self.remaining != 0 {
            return Err(io::Error::other("a file of the snapshot has shrunk"));
        }
        let checksum = std::mem::take(&mut self.hash).finalize();
        self.push(Bytes::copy_from_slice(&checksum))
    }
}

impl<P: FnMut(SnapshotResponse) -> io::Result<()>> Write for Chunks<P> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == CHUNK_BYTES {
            self.flush_buffer()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Archive, CHECKSUM_BYTES, FORMAT};
    use super::*;
    use crate::consensus::snapshot::SnapshotStore;

    fn manifest() -> Manifest {
        Manifest {
            format: FORMAT,
            storage_version: "3.7.0".into(),
            cluster_id: 1,
            member_id: 2,
            revision: 3,
            compact_revision: -1,
            keys: 4,
            live_bytes: 5,
        }
    }

    fn archived(files: &[(&str, usize)]) -> (tempfile::TempDir, Vec<SnapshotResponse>) {
        let temp = tempfile::tempdir().expect("temporary folder");
        let store = SnapshotStore::open(temp.path().join("snap")).expect("opens");
        let data = store.reserve();
        let dir = data.dir().expect("reserved").to_owned();
        std::fs::create_dir_all(&dir).expect("created");
        for (name, size) in files {
            std::fs::write(dir.join(name), vec![7; *size]).expect("written");
        }
        let mut sent = Vec::new();
        let plan = Plan::new(data, &manifest()).expect("planned");
        let push = |chunk| {
            sent.push(chunk);
            Ok(())
        };
        send(&plan, push).expect("sent");
        (temp, sent)
    }

    #[test]
    fn an_archive_reads_back_and_ends_as_etcds_tools_expect() {
        let (temp, sent) = archived(&[("CURRENT", 16), ("000007.sst", 100_000), ("EMPTY", 0)]);
        let path = temp.path().join("saved");
        let bytes: Vec<u8> = sent.iter().flat_map(|chunk| chunk.blob.to_vec()).collect();
        assert_eq!(bytes.len() as u64 % BLOCK, CHECKSUM_BYTES);
        let total = bytes.len() as u64 - CHECKSUM_BYTES;
        let mut seen = 0;
        for chunk in &sent[..sent.len() - 1] {
            seen += chunk.blob.len() as u64;
            assert_eq!(chunk.remaining_bytes, total - seen);
            assert!(chunk.blob.len() <= CHUNK_BYTES);
        }
        std::fs::write(&path, &bytes).expect("written");
        let archive = Archive::open(&path).expect("opens");
        assert_eq!(archive.manifest(), &manifest());
        archive.verify().expect("unharmed");
        let out = temp.path().join("out");
        archive.unpack(&out).expect("unpacks");
        assert_eq!(std::fs::read(out.join("000007.sst")).expect("there"), vec![7; 100_000]);
        assert_eq!(std::fs::read(out.join("EMPTY")).expect("there"), b"");
    }

    #[test]
    fn a_changed_byte_is_found() {
        let (temp, sent) = archived(&[("CURRENT", 16)]);
        let mut bytes: Vec<u8> = sent.iter().flat_map(|chunk| chunk.blob.to_vec()).collect();
        let place = bytes.len() - 2_000;
        bytes[place] ^= 1;
        let path = temp.path().join("saved");
        std::fs::write(&path, &bytes).expect("written");
        let error = Archive::open(&path).and_then(|archive| archive.verify()).expect_err("changed");
        assert!(error.to_string().contains("checksum"), "{error}");
    }

    #[test]
    fn a_cut_file_or_another_one_is_refused() {
        let (temp, sent) = archived(&[("CURRENT", 16)]);
        let bytes: Vec<u8> = sent.iter().flat_map(|chunk| chunk.blob.to_vec()).collect();
        let path = temp.path().join("saved");
        std::fs::write(&path, &bytes[..bytes.len() - 32]).expect("written");
        let error = Archive::open(&path).and_then(|archive| archive.verify()).expect_err("cut");
        assert!(error.to_string().contains("checksum"), "{error}");
        std::fs::write(&path, b"something else").expect("written");
        Archive::open(&path).expect_err("no archive");
    }
}
