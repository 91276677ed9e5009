//! Real clusters under test: started by the real binary, driven by real kubectl and etcdctl,
//! hurt by signals. The end-to-end scenario in `tests/` is built from these parts.

mod cluster;
mod command;
mod scenario;
mod wait;

pub use cluster::{Agent, Cluster, Files, Member};
pub use command::{Background, Failed, Tool};
pub use scenario::Scenario;
pub use wait::wait_for;

/// Why a step failed, in words for the person who reads the log.
pub type Result<T = (), E = String> = std::result::Result<T, E>;
