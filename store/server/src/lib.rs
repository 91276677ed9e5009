//! The store: etcd's v3 API on a Raft-replicated, multi-version keyspace.
//!
//! [`start`] runs one member: it serves its peers and its clients, and gives a [`Handle`] to
//! whoever lives in the same process. Consensus is openraft's (`consensus`); what is replicated is
//! `pintle-mvcc`'s. A write goes through the `proposer` into the log, from the log through the one
//! apply thread into the state, and from there to the `watch` hub; a read asks `read_index` first,
//! unless it may be stale. [`remote`] speaks to any other etcd v3 endpoint through the same trait.

mod alarms;
pub mod archive;
mod auth;
mod compactor;
mod config;
mod consensus;
mod core;
mod corruption;
mod disk;
mod errors;
mod fail_over;
mod grpc;
mod handle;
mod host;
mod http;
mod identity;
pub mod inspect;
mod leadership;
mod lease;
mod listener;
mod member;
mod members;
mod memory;
mod metrics;
pub mod parts;
mod peer;
mod proposer;
mod quota;
mod read_index;
pub mod remote;
mod restore;
mod retention;
pub mod simulation;
mod tls;
mod watch;

pub use auth::TokenError;
pub use compactor::AutoCompaction;
pub use config::{Config, TlsFiles};
pub use disk::{DiskConfig, Space, SpaceProbe};
pub use handle::Handle;
pub use http::{HeapSample, Held, Pprof, WebConfig};
pub use listener::HttpLimits;
pub use member::{Member, StartError, start};
pub use memory::MemoryLimit;
pub use pintle_mvcc as mvcc;
pub use restore::{Restore, RestoreError, restore};
pub use tls::{TlsNames, TlsPolicy, TlsVersion, self_signed};

/// The etcd version whose API this is. Clients decide by it what they may ask for.
pub const VERSION: &str = "3.7.1";
/// The etcd version that first had this state.
pub(crate) const STORAGE_VERSION: &str = "3.7.0";
