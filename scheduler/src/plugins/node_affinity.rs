//! NodeAffinity: `nodeSelector` and required node affinity filter, preferred node affinity scores.

use super::ClusterEvent;
use crate::cluster::{Cluster, Slot};
use crate::framework::{
    Filter, FilterPlugin, Plugin, PreFilter, Rejection, Score, ScorePlugin, normalize_by_max,
};
use crate::node::NodeInfo;
use crate::pod::{NodeRequirements, PodInfo};
use crate::selector::NodeTerm;

pub(super) struct NodeAffinity;

struct Prepared<'a> {
    requirements: &'a NodeRequirements,
}

struct PreparedScore<'a> {
    preferences: &'a [(NodeTerm, i64)],
}

const REASON: &str = "node(s) didn't match Pod's node affinity/selector";

impl FilterPlugin for NodeAffinity {
    fn pre_filter<'a>(&self, cluster: &'a Cluster, pod: &'a PodInfo) -> PreFilter<'a> {
        let requirements = &pod.node_requirements;
        if requirements.is_empty() {
            return PreFilter::Skip;
        }
        let filter = Box::new(Prepared { requirements });
        match requirements.affinity.as_ref().and_then(|affinity| affinity.node_names()) {
            Some(names) => {
                let slots = names.into_iter().filter_map(|name| cluster.find(name));
                PreFilter::Among(slots.collect(), filter)
            }
            None => PreFilter::Run(filter),
        }
    }
}

impl Filter for Prepared<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if self.requirements.matches(node.facts.view()) {
            return Ok(());
        }
        Err(Rejection::unresolvable(Plugin::NodeAffinity, REASON))
    }
}

impl ScorePlugin for NodeAffinity {
    fn pre_score<'a>(
        &self,
        _: &'a Cluster,
        pod: &'a PodInfo,
        _: &[Slot],
    ) -> Option<Box<dyn Score + 'a>> {
        let preferences = pod.node_preferences.as_slice();
        (!preferences.is_empty()).then(|| Box::new(PreparedScore { preferences }) as Box<dyn Score>)
    }
}

impl Score for PreparedScore<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let matching = self.preferences.iter().filter(|(term, _)| term.matches(node.facts.view()));
        matching.map(|(_, weight)| weight).sum()
    }

    fn normalize(&self, _: &[&NodeInfo], scores: &mut [i64]) {
        normalize_by_max(scores, false);
    }
}

pub(super) fn worth_retrying(event: ClusterEvent<'_>, pod: &PodInfo) -> bool {
    match event {
        ClusterEvent::Node(node, change) => {
            change.labels && pod.node_requirements.matches(node.facts.view())
        }
        _ => false,
    }
}
