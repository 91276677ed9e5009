//! Reads of the state, concurrent with apply.

use std::path::Path;

use bytes::Bytes;
use pintle_store_api::{KeyRange, LeaseId, Revision, mvccpb, pb};

use crate::{Fault, QueryError};

/// Reads a consistent state while apply goes on. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader {}

/// A lease as it is replicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its name.
    pub id: LeaseId,
    /// Seconds, as granted.
    pub granted_ttl: i64,
    /// Seconds that were left at the last checkpoint; 0 when there was none since the last renewal.
    pub remaining_ttl: i64,
}

/// What a watcher that has fallen behind asks for.
#[derive(Clone, Debug)]
pub struct EventQuery {
    /// The keys.
    pub range: KeyRange,
    /// The first revision.
    pub from: Revision,
    /// The last revision; clamped to the current one.
    pub to: Revision,
    /// Stop after the revision that exceeds this many bytes of events.
    pub budget_bytes: usize,
    /// Fill `prev_kv` (where the key existed before and the revision before is not compacted).
    pub prev_kv: bool,
}

/// A stretch of history without gaps.
#[derive(Clone, Debug, PartialEq)]
pub struct CatchUp {
    /// In revision order, only complete revisions.
    pub events: Vec<mvccpb::Event>,
    /// Nothing of the range up to here is missing; continue at the next one.
    pub through: Revision,
}

/// What a checkpoint holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointInfo {
    /// The `applied` bytes of the last apply in it.
    pub applied: Bytes,
    /// Its current revision.
    pub revision: Revision,
}

impl Reader {
    /// The newest applied revision; 1 on a fresh state.
    pub fn current_revision(&self) -> Revision {
        unimplemented!()
    }

    /// The compact floor: revisions below it are gone. −1 when nothing was ever compacted, as in etcd.
    pub fn compact_revision(&self) -> Revision {
        unimplemented!()
    }

    /// Answers a range request from one consistent state. `header.revision` is filled.
    pub fn range(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, QueryError> {
        let _ = request;
        unimplemented!()
    }

    /// Answers a transaction without writes ([`crate::validate::is_read_only`]); one with
    /// writes is refused.
    pub fn txn(&self, request: &pb::TxnRequest) -> Result<pb::TxnResponse, QueryError> {
        let _ = request;
        unimplemented!()
    }

    /// Events of a range from history, for a watcher that is behind the hub's ring.
    /// [`Rejection::Compacted`](pintle_store_api::Rejection::Compacted) when `from` is below the floor.
    pub fn events(&self, query: &EventQuery) -> Result<CatchUp, QueryError> {
        let _ = query;
        unimplemented!()
    }

    /// One lease.
    pub fn lease(&self, id: LeaseId) -> Result<Option<Lease>, Fault> {
        let _ = id;
        unimplemented!()
    }

    /// All leases, by id.
    pub fn leases(&self) -> Result<Vec<Lease>, Fault> {
        unimplemented!()
    }

    /// The keys that go when the lease goes, in key order.
    pub fn lease_keys(&self, id: LeaseId) -> Result<Vec<Bytes>, Fault> {
        let _ = id;
        unimplemented!()
    }

    /// A hash of everything readable between the floor and `revision` (0: the current one). Equal
    /// on all members that have the same floor. Reads the whole state: call it off the hot paths.
    pub fn hash_kv(&self, revision: Revision) -> Result<pb::HashKvResponse, QueryError> {
        let _ = revision;
        unimplemented!()
    }

    /// Bytes that the database takes: files and unflushed buffers.
    pub fn db_size(&self) -> Result<u64, Fault> {
        unimplemented!()
    }

    /// Bytes of living keys and values: what a quota should count. The same on every member.
    pub fn live_bytes(&self) -> Result<u64, Fault> {
        unimplemented!()
    }

    /// The number of living keys.
    pub fn key_count(&self) -> Result<u64, Fault> {
        unimplemented!()
    }

    /// Writes what is only in memory to disk. Blocks on I/O; apply goes on meanwhile.
    pub fn flush(&self) -> Result<(), Fault> {
        unimplemented!()
    }

    /// The `applied` bytes that a crash now would come back to; `None` before the first flush.
    pub fn flushed_meta(&self) -> Result<Option<Bytes>, Fault> {
        unimplemented!()
    }

    /// Removes what lies below the floor from disk, and returns when that is done: for
    /// `CompactionRequest.physical` and for a background task after each compaction. Blocks on I/O.
    pub fn compact_physically(&self) -> Result<(), Fault> {
        unimplemented!()
    }

    /// Writes a complete copy of the state into the new folder `dir`, by hard links where it can.
    /// Apply goes on meanwhile; the answer says what the copy holds.
    pub fn checkpoint(&self, dir: &Path) -> Result<CheckpointInfo, Fault> {
        let _ = dir;
        unimplemented!()
    }
}
