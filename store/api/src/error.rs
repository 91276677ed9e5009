//! What can go wrong, and what the caller may conclude: every write error says whether the
//! write certainly did not happen or may have, every error whether a retry is safe.
//!
//! The texts are etcd's (`api/v3rpc/rpctypes/error.go`), because Go clients match on them.

use crate::{AuthError, Revision};

/// A request that the store will answer the same way however often it is asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// `InvalidArgument`.
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    /// `InvalidArgument`: ignore_lease / ignore_value on a missing key.
    #[error("etcdserver: key not found")]
    KeyNotFound,
    /// `InvalidArgument`.
    #[error("etcdserver: value is provided")]
    ValueProvided,
    /// `InvalidArgument`.
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    /// `InvalidArgument`.
    #[error("etcdserver: too many operations in txn request")]
    TooManyOps,
    /// `InvalidArgument`.
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    /// `InvalidArgument`.
    #[error("etcdserver: invalid sort option")]
    InvalidSortOption,
    /// `OutOfRange`; carries the current floor.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted(Revision),
    /// `OutOfRange`.
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    /// `ResourceExhausted`.
    #[error("etcdserver: mvcc: database space exceeded")]
    NoSpace,
    /// `NotFound`.
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    /// `FailedPrecondition`.
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    /// `OutOfRange`.
    #[error("etcdserver: too large lease TTL")]
    LeaseTtlTooLarge,
    /// `InvalidArgument`.
    #[error("etcdserver: request is too large")]
    RequestTooLarge,
    /// Users, roles, tokens and permissions.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// Any other final refusal, in the store's own words, with its gRPC code.
    #[error("{message}")]
    Other {
        /// The gRPC status code.
        code: i32,
        /// The text, etcd's where etcd has one.
        message: String,
    },
}

/// Why a read was not answered. A retry is always safe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Asking again will not help.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// No leader, a changed leader, a time-out, a dead connection: ask again.
    #[error("{0}")]
    Unavailable(String),
}

/// Why a write was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Certainly not applied, and a retry gets the same answer.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Certainly not applied; a retry may succeed ("etcdserver: too many requests", "etcdserver: no leader").
    #[error("{0}")]
    NotApplied(String),
    /// May have been applied or not: read before writing again.
    #[error("{0}")]
    Unknown(String),
}

impl WriteError {
    /// Whether the write certainly did not happen.
    pub fn certainly_not_applied(&self) -> bool {
        !matches!(self, Self::Unknown(_))
    }
}

/// Why a watch could not start, or ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The start revision is below the floor; start again from a fresh list at or above it.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted(Revision),
    /// Bad arguments.
    #[error(transparent)]
    Rejected(Rejection),
    /// Connection or leader lost: resume from the last seen revision + 1.
    #[error("{0}")]
    Unavailable(String),
}
