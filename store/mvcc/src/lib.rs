//! The state of one store member: etcd's multi-version keyspace, transactions, compaction, leases,
//! users and roles on RocksDB. Synchronous and deterministic: no async runtime, no clock, no
//! randomness, so that the same log gives the same bytes on every member.
//!
//! # Who calls what
//!
//! One owner holds [`Mvcc`] and feeds it the committed log in order ([`Mvcc::apply`]). Everybody
//! else holds a [`Reader`]: cheap to clone, usable from any thread while apply runs, and still
//! valid after a snapshot replaced the whole state ([`Mvcc::install`]).
//! The leader additionally drives a [`Lessor`], which turns replicated time-to-live values into
//! deadlines on the leader's own clock; nothing of it is replicated.
//!
//! # Layout
//!
//! | column family | key | value |
//! |---|---|---|
//! | `current` | key | newest record of a living key: revisions, version, lease, value |
//! | `history` | key, revision that ended it | a record that was superseded or deleted |
//! | `log` | revision, position in it | put or delete, key |
//! | `lease` | lease id | granted and checkpointed time to live |
//! | `lease_keys` | lease id, key | nothing |
//! | `census` | first key of a bucket | keys in it |
//! | `auth` | kind, name | users, roles; whether authentication is on, its revision |
//! | `meta` | fixed | revision, compact floor, sizes, the server's applied metadata; raised alarms |
//!
//! A history entry is filed under the revision that *ended* it, not the one that began it. The
//! record that a reader at revision R wants is then the first entry of the key that ended after
//! R; no tombstones are needed; the previous value of an event at R is the entry that ended at
//! R; and whether compaction may drop an entry depends on its key alone.
//!
//! # Durability
//!
//! The state is written without a write-ahead log, and all column families are flushed
//! together. What many calls of [`Mvcc::apply`] have changed becomes one RocksDB write batch with data, revision,
//! leases, users and the server's applied metadata, so a crash returns to the state after some earlier apply
//! ([`Reader::flushed_meta`]), from which the server replays its log. Hence the log may be purged
//! only below [`Reader::flushed_meta`], and compaction may drop only what was below the
//! *flushed* compact floor: replay must find what the first run found.

mod alarms;
mod auth;
mod batch;
mod census;
mod command_keys;
pub mod cost;
mod database;
mod events;
mod fault;
mod hash;
mod keyspace;
mod lessor;
mod mvcc;
pub mod offline;
mod options;
mod outcome;
mod overlay;
mod pages;
mod pending;
mod range;
mod reader;
mod recent;
mod settler;
pub mod validate;
mod view;

pub use auth::{Auth, Authorizer, Caller, LeaseKeys, Permit};
pub use events::LoggedChange;
pub use fault::{Fault, QueryError};
pub use lessor::{Lessor, LessorConfig, Renewal};
pub use mvcc::Mvcc;
pub use options::Options;
pub use outcome::{Applied, Entry, Outcome, Response, RevisionEvents};
pub use reader::{CatchUp, CheckpointInfo, EventQuery, Lease, Reader};
