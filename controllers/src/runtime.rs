//! What all controllers stand on: informers, queues, expectations, events, and the manager that runs them.
//!
//! A controller is registered through [`Setup`]: it takes a queue, connects informers to it, and hands over a
//! [`Controller`]. Nothing acts before [`Manager::run`] has filled the caches and won the lease.

mod expectations;
mod informer;
mod manager;
mod queue;
mod recorder;
mod store;
mod written;

pub use expectations::{Expectations, random_suffix};
pub use informer::{Change, Informer, Kind};
pub use manager::{Controller, Manager, Setup, SyncError, Task, Term, Verdict};
pub use queue::Queue;
pub use recorder::{EventType, Recorder};
pub use store::{IndexKey, Store};
pub use written::Written;
