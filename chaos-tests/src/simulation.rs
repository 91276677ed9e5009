//! A seeded simulation of a store cluster: real members (openraft with the store's own adapters,
//! proposer, read index, watch hub, lessor and state on RocksDB) in the tasks of one thread, on a
//! network, a clock and log disks that the seed decides over.
//!
//! # What is simulated, and what is not
//! Time is tokio's paused clock: it moves only when nothing is left to do. Peers reach each other
//! through `network`, which carries whole gRPC calls and the frames of streams: late, one way
//! only, twice, or not at all. The log is a real RocksDB on files; `disk` decides how long a sync
//! takes and whether it fails. A crash is a copy of a member's files as they were at that moment,
//! with the part of the log that no sync has covered cut off or torn; the member itself is cut off
//! from everybody, and the next one starts on the copy. The state has no write-ahead log, so the
//! copy holds what was flushed.
//!
//! # Why a seed replays
//! One process runs one seed on one thread: threads of a member are tasks, blocking work is done
//! on the spot, and whatever randomness there is comes from the seed (the test's `entropy`).
//! RocksDB keeps its own threads for compactions. What they do cannot be seen: reads judge by the
//! flushed floor, which only flushes move, and those the members wait for. That this is enough is
//! not believed but tested: seeds are run twice and their histories compared.

mod clients;
mod cluster;
mod disk;
mod holders;
mod nemesis;
mod network;
mod plan;
mod recorder;
mod requests;
mod run;
mod settle;
mod watchers;

pub use pintle_store::simulation::Broken;
pub use plan::Plan;
pub use run::{Outcome, run};
