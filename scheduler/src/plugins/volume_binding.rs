//! VolumeBinding, in its light form: claims must exist and be bound, and the node must reach their volumes.
//!
//! A claim whose class waits for its first consumer is not bound from here; its pod waits until somebody binds it.

use super::ClusterEvent;
use crate::cluster::Cluster;
use crate::framework::{Filter, FilterPlugin, Plugin, PreFilter, Rejection};
use crate::node::NodeInfo;
use crate::pod::{Claim, PodInfo};
use crate::selector::NodeSelector;

pub(super) struct VolumeBinding;

struct Prepared<'a> {
    /// Where the volumes can be reached from.
    reach: Vec<&'a NodeSelector>,
    /// Whether a claim waits for a node to be chosen.
    waits: bool,
}

enum ClaimState<'a> {
    Reach(Option<&'a NodeSelector>),
    Waits,
}

impl FilterPlugin for VolumeBinding {
    fn pre_filter<'a>(&self, cluster: &'a Cluster, pod: &'a PodInfo) -> PreFilter<'a> {
        let mut prepared = Prepared { reach: Vec::new(), waits: false };
        for claim in &pod.claims {
            match look_up(cluster, &pod.namespace, claim) {
                Ok(ClaimState::Reach(nodes)) => prepared.reach.extend(nodes),
                Ok(ClaimState::Waits) => prepared.waits = true,
                Err(reason) => {
                    return PreFilter::Reject(Rejection::unresolvable(
                        Plugin::VolumeBinding,
                        reason,
                    ));
                }
            }
        }
        if prepared.reach.is_empty() && !prepared.waits {
            return PreFilter::Skip;
        }
        PreFilter::Run(Box::new(prepared))
    }
}

fn look_up<'a>(
    cluster: &'a Cluster,
    namespace: &str,
    claim: &Claim,
) -> Result<ClaimState<'a>, String> {
    let name = &claim.name;
    let Some(info) = cluster.volumes.claim(namespace, name) else {
        return Err(if claim.ephemeral {
            format!(
                "waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}"
            )
        } else {
            format!("persistentvolumeclaim {name:?} not found")
        });
    };
    if info.terminating {
        return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
    }
    match &info.volume {
        Some(volume) if info.bound => match cluster.volumes.volume(volume) {
            Some(bound) => Ok(ClaimState::Reach(bound.nodes)),
            None => Err(format!(
                "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"
            )),
        },
        _ if cluster.volumes.waits_for_consumer(info) => Ok(ClaimState::Waits),
        _ => Err("pod has unbound immediate PersistentVolumeClaims".to_owned()),
    }
}

impl Filter for Prepared<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let reason = if !self.reach.iter().all(|nodes| nodes.matches(node.facts.view())) {
            "node(s) didn't match PersistentVolume's node affinity"
        } else if self.waits {
            "node(s) didn't find available persistent volumes to bind"
        } else {
            return Ok(());
        };
        Err(Rejection::unresolvable(Plugin::VolumeBinding, reason))
    }
}

pub(super) fn worth_retrying(event: ClusterEvent<'_>) -> bool {
    match event {
        ClusterEvent::Node(_, change) => change.labels,
        ClusterEvent::Storage => true,
        _ => false,
    }
}
