//! The controllers of the cluster itself: namespaces, nodes, service accounts, and what is left behind.

mod clusterrole_aggregation;
mod discovery;
mod garbage;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod pod_gc;
mod root_ca;
mod serviceaccount;
mod taint_eviction;
mod taints;
mod ttl_after_finished;

use crate::runtime::Setup;

/// Registers all of them.
pub(crate) fn register(setup: &mut Setup) {
    namespace::register(setup);
    serviceaccount::register(setup);
    root_ca::register(setup);
    garbage::register(setup);
    node_ipam::register(setup);
    node_lifecycle::register(setup);
    taint_eviction::register(setup);
    pod_gc::register(setup);
    clusterrole_aggregation::register(setup);
    ttl_after_finished::register(setup);
}
