//! What can go wrong here that is not an answer.
//!
//! Deterministic refusals are [`Rejection`]s: every member computes the same one. A [`Fault`] is
//! this member's own trouble (disk, corruption); after one in apply the member must stop, because
//! it can no longer answer as its peers do.

use std::path::PathBuf;

use pintle_store_api::{AuthError, Rejection};

/// This member's database cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// RocksDB reported an error.
    #[error("database: {0}")]
    Database(#[from] rocksdb::Error),
    /// Stored bytes are not what this version writes.
    #[error("corrupt {what}")]
    Corrupt {
        /// Which kind of entry.
        what: &'static str,
    },
    /// A file operation around the database failed.
    #[error("{path}: {source}")]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The operating system gave no thread.
    #[error("no thread to write with: {0}")]
    Thread(std::io::Error),
}

/// Why a read has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// A final refusal, etcd's own.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// This member cannot read its database.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl From<AuthError> for QueryError {
    fn from(error: AuthError) -> Self {
        Self::Rejected(error.into())
    }
}

impl From<rocksdb::Error> for QueryError {
    fn from(error: rocksdb::Error) -> Self {
        Self::Fault(error.into())
    }
}
