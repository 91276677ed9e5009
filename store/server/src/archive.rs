//! A snapshot as one file: what the Snapshot call streams and what `pintle store snapshot` keeps.
//!
//! It is a tar archive, so that it can be looked into with any tool: a manifest, then the files of
//! a checkpoint of the state, then, as in etcd, the SHA-256 of everything before. A tar archive is
//! a multiple of 512 bytes long; by the 32 bytes more, etcd's tools know that a checksum is there.

mod read;
mod write;

pub use read::{Archive, ArchiveError};
pub(crate) use write::{Plan, send};

use serde::{Deserialize, Serialize};

/// The manifest's name in the archive.
const MANIFEST: &str = "pintle-snapshot.json";
/// The folder of the checkpoint's files in the archive.
const STATE: &str = "state";
/// The version of this layout.
pub(crate) const FORMAT: u32 = 1;
/// A tar block.
const BLOCK: u64 = 512;
/// SHA-256.
const CHECKSUM_BYTES: u64 = 32;

/// What a snapshot holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The layout of the archive.
    pub format: u32,
    /// The etcd version whose state this is.
    pub storage_version: String,
    /// The cluster that it was taken of.
    pub cluster_id: u64,
    /// The member that it was taken of.
    pub member_id: u64,
    /// The newest revision.
    pub revision: i64,
    /// The compact floor; −1 when nothing was ever compacted.
    pub compact_revision: i64,
    /// Living keys.
    pub keys: u64,
    /// Bytes of living keys and values.
    pub live_bytes: u64,
}
