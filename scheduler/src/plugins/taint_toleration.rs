//! TaintToleration: hard taints keep pods off, soft ones (`PreferNoSchedule`) count against a node.

use k8s_openapi::api::core::v1::Toleration;

use super::ClusterEvent;
use crate::cluster::{Cluster, Slot};
use crate::framework::{
    Filter, FilterPlugin, Plugin, PreFilter, Rejection, Score, ScorePlugin, normalize_by_max,
};
use crate::node::{NodeInfo, tolerates};
use crate::pod::PodInfo;

pub(super) struct TaintToleration;

struct Prepared<'a> {
    tolerations: &'a [Toleration],
}

struct PreparedScore {
    /// The tolerations that speak of soft taints.
    tolerations: Vec<Toleration>,
}

impl FilterPlugin for TaintToleration {
    fn pre_filter<'a>(&self, _: &'a Cluster, pod: &'a PodInfo) -> PreFilter<'a> {
        PreFilter::Run(Box::new(Prepared { tolerations: &pod.tolerations }))
    }
}

impl Filter for Prepared<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let Some(taint) = node.facts.untolerated(self.tolerations) else { return Ok(()) };
        let value = taint.value.as_deref().unwrap_or_default();
        let reason = format!("node(s) had untolerated taint {{{}: {value}}}", taint.key);
        Err(Rejection::unresolvable(Plugin::TaintToleration, reason))
    }
}

impl ScorePlugin for TaintToleration {
    fn pre_score<'a>(
        &self,
        _: &'a Cluster,
        pod: &'a PodInfo,
        _: &[Slot],
    ) -> Option<Box<dyn Score + 'a>> {
        let soft =
            |t: &&Toleration| matches!(t.effect.as_deref(), None | Some("" | "PreferNoSchedule"));
        let tolerations = pod.tolerations.iter().filter(soft).cloned().collect();
        Some(Box::new(PreparedScore { tolerations }))
    }
}

impl Score for PreparedScore {
    fn score(&self, node: &NodeInfo) -> i64 {
        let soft = node.facts.taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
        soft.filter(|taint| !tolerates(&self.tolerations, taint)).count() as i64
    }

    fn normalize(&self, _: &[&NodeInfo], scores: &mut [i64]) {
        normalize_by_max(scores, true);
    }
}

pub(super) fn worth_retrying(event: ClusterEvent<'_>, pod: &PodInfo) -> bool {
    match event {
        ClusterEvent::Node(node, change) => {
            change.taints && node.facts.untolerated(&pod.tolerations).is_none()
        }
        _ => false,
    }
}
