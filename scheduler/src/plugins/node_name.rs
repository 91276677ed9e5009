//! NodeName: a pod that names its node goes nowhere else. (One that reaches us unbound does not, upstream or here;
//! the plugin is what a hand-made binding is checked by.)

use super::ClusterEvent;
use crate::cluster::Cluster;
use crate::framework::{Filter, FilterPlugin, Plugin, PreFilter, Rejection};
use crate::node::NodeInfo;
use crate::pod::PodInfo;

pub(super) struct NodeName;

struct Prepared<'a> {
    name: &'a str,
}

impl FilterPlugin for NodeName {
    fn pre_filter<'a>(&self, _: &'a Cluster, pod: &'a PodInfo) -> PreFilter<'a> {
        match pod.node_name.as_deref() {
            Some(name) => PreFilter::Run(Box::new(Prepared { name })),
            None => PreFilter::Skip,
        }
    }
}

impl Filter for Prepared<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if *node.facts.name == *self.name {
            return Ok(());
        }
        let reason = "node(s) didn't match the requested node name";
        Err(Rejection::unresolvable(Plugin::NodeName, reason))
    }
}

pub(super) fn worth_retrying(event: ClusterEvent<'_>, pod: &PodInfo) -> bool {
    match event {
        ClusterEvent::Node(node, change) => {
            change.added && pod.node_name.as_deref() == Some(&*node.facts.name)
        }
        _ => false,
    }
}
