//! What pods and the node use, from cgroups and the runtime.

pub mod cgroup_usage;
pub mod metrics;
pub mod summary;
