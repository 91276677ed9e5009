//! Between the registry and the store: keys, conditional writes, and a watch cache.
//!
//! Writes go to the store ([`Storage`]), guarded by the revision that the writer saw. Reads come
//! from the cache: one [`feed`] follows every change of the store in revision order and hands each to
//! the [`Cache`] of its resource, which keeps immutable encoded objects in a copy-on-write [`Snapshot`]
//! and the recent changes in a bounded ring. A watcher is a cursor into that ring, so a slow one costs
//! nobody anything: it loses its place and is closed.
//!
//! Invariant: when the feed says "revision N", every cache holds exactly the store's state at N.

mod cache;
mod caches;
mod compactor;
mod continuation;
mod error;
mod feed;
mod lease;
mod limits;
mod object;
mod projection;
mod read;
mod ring;
mod splice;
mod storage;
mod update;

pub use cache::{Cache, CacheEvent, Encoding, Scope, Snapshot, WatchEnd, Watcher};
pub use caches::{CacheSpec, Caches};
pub use compactor::run as run_compactor;
pub use error::Error;
pub use object::Object;
pub use read::{Freshness, ListQuery, Listing, parse_version};
pub use storage::{Outcome, Storage, Stored};
pub use update::{Change, Current, Updated, Updater, guaranteed_update};

/// The root of all keys of Kubernetes objects.
pub const REGISTRY: &str = "/registry/";
