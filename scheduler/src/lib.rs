//! The scheduler: finds a node for every pod that has none.
//!
//! Almost everything here is pure and deterministic. A [`Cluster`](cluster::Cluster) is the snapshot: it is updated in
//! place from watch events, so that nothing is copied for a scheduling cycle. [`framework`] names the extension points
//! and [`plugins`] fills them; [`schedule`] is one cycle, [`preemption`] what follows when a cycle finds no node; the
//! [`queue`] decides which pod is next, and when a rejected one is worth another try. Time and randomness are parameters.
//!
//! [`run`] is the thin part that does I/O: watches, bindings, conditions, events. One task owns cluster and queue.
//! Every member watches, and only the holder of the lease `kube-scheduler` takes pods from its queue,
//! so a fail-over costs the lease and no list.

pub mod affinity;
pub mod cluster;
mod driver;
pub mod engine;
pub mod framework;
pub mod node;
pub mod plugins;
pub mod pod;
pub mod preemption;
pub mod queue;
pub mod resources;
pub mod schedule;
pub mod selector;

pub use driver::{Config, Error, run};
