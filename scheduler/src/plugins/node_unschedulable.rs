//! NodeUnschedulable: keeps pods off cordoned nodes, unless they tolerate the taint that cordoning brings.

use k8s_openapi::api::core::v1::Taint;

use super::ClusterEvent;
use crate::cluster::Cluster;
use crate::framework::{Filter, FilterPlugin, Plugin, PreFilter, Rejection};
use crate::node::{NodeInfo, tolerates};
use crate::pod::PodInfo;

pub(super) struct NodeUnschedulable;

struct Prepared;

impl FilterPlugin for NodeUnschedulable {
    fn pre_filter<'a>(&self, _: &'a Cluster, pod: &'a PodInfo) -> PreFilter<'a> {
        if tolerates_cordon(pod) { PreFilter::Skip } else { PreFilter::Run(Box::new(Prepared)) }
    }
}

impl Filter for Prepared {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if node.facts.unschedulable {
            let reason = "node(s) were unschedulable";
            return Err(Rejection::unresolvable(Plugin::NodeUnschedulable, reason));
        }
        Ok(())
    }
}

fn tolerates_cordon(pod: &PodInfo) -> bool {
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    tolerates(&pod.tolerations, &taint)
}

pub(super) fn worth_retrying(event: ClusterEvent<'_>, pod: &PodInfo) -> bool {
    match event {
        ClusterEvent::Node(node, change) => {
            change.taints && (!node.facts.unschedulable || tolerates_cordon(pod))
        }
        _ => false,
    }
}
