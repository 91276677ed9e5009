//! NodePorts: a port of a node belongs to one pod.

use super::ClusterEvent;
use crate::cluster::Cluster;
use crate::framework::{Filter, FilterPlugin, Plugin, PreFilter, Rejection};
use crate::node::NodeInfo;
use crate::pod::{HostPort, PodInfo};

pub(super) struct NodePorts;

struct Prepared<'a> {
    ports: &'a [HostPort],
}

impl FilterPlugin for NodePorts {
    fn pre_filter<'a>(&self, _: &'a Cluster, pod: &'a PodInfo) -> PreFilter<'a> {
        if pod.ports.is_empty() {
            return PreFilter::Skip;
        }
        PreFilter::Run(Box::new(Prepared { ports: &pod.ports }))
    }
}

impl Filter for Prepared<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if !conflict(self.ports, &node.ports) {
            return Ok(());
        }
        let reason = "node(s) didn't have free ports for the requested pod ports";
        Err(Rejection::resolvable(Plugin::NodePorts, reason))
    }
}

fn conflict(wanted: &[HostPort], taken: &[HostPort]) -> bool {
    wanted.iter().any(|port| taken.iter().any(|other| port.conflicts(other)))
}

pub(super) fn worth_retrying(event: ClusterEvent<'_>, pod: &PodInfo) -> bool {
    match event {
        ClusterEvent::Node(_, change) => change.added,
        ClusterEvent::PodGone(gone) => conflict(&pod.ports, &gone.ports),
        _ => false,
    }
}
