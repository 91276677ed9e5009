//! The store seam: what a client of the store may ask, and nothing of how it is answered.
//!
//! Implementations: the in-process handle of `pintle-store`, a remote adapter over any etcd v3
//! endpoint, and [`memory`] for tests. Requests and answers are etcd's own messages (the wire
//! shape is the contract, see `proto/etcd/rpc.proto`); identities and errors are types of this crate.

mod auth_error;
mod error;
mod key_range;
pub mod memory;
mod watch;

pub use auth_error::AuthError;
pub use error::{ReadError, Rejection, WatchError, WriteError};
pub use key_range::{KeyRange, prefix_end};
pub use pintle_proto::{authpb, etcdserverpb as pb, mvccpb};
pub use watch::{WatchItem, WatchStream};

use std::fmt;

/// A point in the store's history. A fresh store is at 1; the first write makes 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub i64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names a lease. 0 means "no lease".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// Sees every write acknowledged before the read began.
    #[default]
    Linearizable,
    /// Answers from the local state at once, possibly behind.
    Serializable,
}

/// Reads, writes, watches and leases. Cheap to clone behind an `Arc`; every method may be called
/// concurrently, and a dropped future of a write leaves its outcome unknown.
#[async_trait::async_trait]
pub trait Store: Send + Sync + 'static {
    /// `RangeRequest.serializable` chooses the [`Consistency`].
    async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, ReadError>;

    /// Puts, deletes and ranges in one revision, guarded by compares.
    async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, WriteError>;

    /// Raises the floor below which old revisions are no longer readable.
    async fn compact(
        &self,
        request: pb::CompactionRequest,
    ) -> Result<pb::CompactionResponse, WriteError>;

    /// Events of a range from `start_revision` on (0: from now). The first item is
    /// [`WatchItem::Created`]; dropping the stream ends the watch.
    async fn watch(&self, request: pb::WatchCreateRequest) -> Result<WatchStream, WatchError>;

    /// The revision that a linearizable read started now would see.
    async fn read_index(&self) -> Result<Revision, ReadError>;

    /// A new lease; id 0 lets the store choose.
    async fn lease_grant(
        &self,
        request: pb::LeaseGrantRequest,
    ) -> Result<pb::LeaseGrantResponse, WriteError>;

    /// Extends a lease once. The answer's `ttl` is 0 when there is no such lease.
    async fn lease_keep_alive(&self, id: LeaseId)
    -> Result<pb::LeaseKeepAliveResponse, WriteError>;

    /// Ends a lease and deletes its keys.
    async fn lease_revoke(&self, id: LeaseId) -> Result<pb::LeaseRevokeResponse, WriteError>;

    /// Version, size, leader, term and applied index as this member sees them.
    async fn status(&self) -> Result<pb::StatusResponse, ReadError>;

    /// The members of the cluster.
    async fn member_list(&self) -> Result<pb::MemberListResponse, ReadError>;
}
