//! The default plugins: one module each, named as upstream, with upstream's messages and weights.

mod balanced_allocation;
mod image_locality;
mod interpod_affinity;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_unschedulable;
mod resources_fit;
mod taint_toleration;
mod topology_spread;
mod volume_binding;

use crate::cluster::Cluster;
use crate::framework::{FilterPlugin, Plugin, PluginSet, ScorePlugin};
use crate::node::{NodeChange, NodeInfo};
use crate::pod::PodInfo;

/// The filters, in the order in which a node meets them. The first that turns it down is the one that is reported.
pub const FILTERS: [(Plugin, &dyn FilterPlugin); 9] = [
    (Plugin::NodeUnschedulable, &node_unschedulable::NodeUnschedulable),
    (Plugin::NodeName, &node_name::NodeName),
    (Plugin::TaintToleration, &taint_toleration::TaintToleration),
    (Plugin::NodeAffinity, &node_affinity::NodeAffinity),
    (Plugin::NodePorts, &node_ports::NodePorts),
    (Plugin::NodeResourcesFit, &resources_fit::NodeResourcesFit),
    (Plugin::VolumeBinding, &volume_binding::VolumeBinding),
    (Plugin::PodTopologySpread, &topology_spread::PodTopologySpread),
    (Plugin::InterPodAffinity, &interpod_affinity::InterPodAffinity),
];

/// The scorers with their weights.
pub const SCORERS: [(Plugin, i64, &dyn ScorePlugin); 7] = [
    (Plugin::TaintToleration, 3, &taint_toleration::TaintToleration),
    (Plugin::NodeAffinity, 2, &node_affinity::NodeAffinity),
    (Plugin::NodeResourcesFit, 1, &resources_fit::NodeResourcesFit),
    (Plugin::PodTopologySpread, 2, &topology_spread::PodTopologySpread),
    (Plugin::InterPodAffinity, 2, &interpod_affinity::InterPodAffinity),
    (Plugin::NodeResourcesBalancedAllocation, 1, &balanced_allocation::BalancedAllocation),
    (Plugin::ImageLocality, 1, &image_locality::ImageLocality),
];

/// Something that happened in the cluster and may let a rejected pod in.
#[derive(Clone, Copy, Debug)]
pub enum ClusterEvent<'a> {
    /// A node has appeared or changed.
    Node(&'a NodeInfo, NodeChange),
    /// A node has gone.
    NodeGone,
    /// A pod has been placed, or one that is placed has changed.
    PodPlaced(&'a PodInfo),
    /// A pod has left its node.
    PodGone(&'a PodInfo),
    /// The labels of a namespace have changed.
    Namespace,
    /// A claim, a volume or a storage class has changed.
    Storage,
}

impl ClusterEvent<'_> {
    /// The plugins that such an event can make change their mind at all.
    pub fn listeners(self) -> PluginSet {
        let listeners: &[Plugin] = match self {
            Self::Node(..) => &[
                Plugin::NodeUnschedulable,
                Plugin::NodeName,
                Plugin::TaintToleration,
                Plugin::NodeAffinity,
                Plugin::NodePorts,
                Plugin::NodeResourcesFit,
                Plugin::VolumeBinding,
                Plugin::PodTopologySpread,
                Plugin::InterPodAffinity,
            ],
            Self::NodeGone => &[Plugin::PodTopologySpread],
            Self::PodPlaced(_) => &[Plugin::PodTopologySpread, Plugin::InterPodAffinity],
            Self::PodGone(_) => &[
                Plugin::NodePorts,
                Plugin::NodeResourcesFit,
                Plugin::PodTopologySpread,
                Plugin::InterPodAffinity,
            ],
            Self::Namespace => &[Plugin::InterPodAffinity],
            Self::Storage => &[Plugin::VolumeBinding],
        };
        listeners.iter().copied().collect()
    }
}

/// Whether an event may change the mind of one of the plugins that rejected `pod`.
pub fn worth_retrying(
    rejected_by: PluginSet,
    event: ClusterEvent<'_>,
    cluster: &Cluster,
    pod: &PodInfo,
) -> bool {
    // Rejected by nobody in particular: there was no node at all, or something went wrong.
    rejected_by.is_empty()
        || rejected_by.iter().any(|plugin| match plugin {
            Plugin::NodeUnschedulable => node_unschedulable::worth_retrying(event, pod),
            Plugin::NodeName => node_name::worth_retrying(event, pod),
            Plugin::TaintToleration => taint_toleration::worth_retrying(event, pod),
            Plugin::NodeAffinity => node_affinity::worth_retrying(event, pod),
            Plugin::NodePorts => node_ports::worth_retrying(event, pod),
            Plugin::NodeResourcesFit => resources_fit::worth_retrying(event, pod),
            Plugin::VolumeBinding => volume_binding::worth_retrying(event),
            Plugin::PodTopologySpread => topology_spread::worth_retrying(event, pod),
            Plugin::InterPodAffinity => interpod_affinity::worth_retrying(event, cluster, pod),
            Plugin::SchedulingGates
            | Plugin::NodeResourcesBalancedAllocation
            | Plugin::ImageLocality => false,
        })
}
