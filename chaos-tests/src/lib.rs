//! Clusters under test, real and simulated.
//!
//! Real ones are started by the real binary, driven by real kubectl and etcdctl, and hurt by
//! signals; the end-to-end scenario in `tests/` is built from these parts. `simulation` runs
//! store clusters on a simulated network, disk and clock, from a seed; [`invariants`] judge the
//! [`history`] that its clients and watchers saw. [`differential`] holds the store against a real
//! etcd, [`soak`] kills its processes under load.

mod cluster;
mod command;
pub mod crash;
pub mod differential;
pub mod history;
pub mod invariants;
pub mod linearizability;
mod scenario;
#[cfg(feature = "simulation")]
pub mod simulation;
pub mod soak;
mod wait;

pub use cluster::{Agent, Cluster, Files, Member};
pub use command::{Background, Failed, Tool};
pub use scenario::Scenario;
pub use wait::{wait_for, wait_until};

/// Why a step failed, in words for the person who reads the log.
pub type Result<T = (), E = String> = std::result::Result<T, E>;
