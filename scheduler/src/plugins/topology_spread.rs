//! PodTopologySpread: hard constraints filter, soft ones score; a pod that states none is spread softly over hosts and zones.
//!
//! What is counted for a constraint are the pods of the same namespace that its selector selects and that are not on
//! their way out, by the value that their node has for the topology key.

use std::borrow::Cow;
use std::collections::HashMap;

use super::ClusterEvent;
use crate::cluster::{Cluster, Slot};
use crate::framework::{
    Filter, FilterPlugin, MAX_SCORE, Plugin, PreFilter, Rejection, Score, ScorePlugin,
};
use crate::node::{HOSTNAME, NodeInfo, ZONE};
use crate::pod::{PodInfo, SpreadConstraint};
use crate::selector::LabelSelector;

pub(super) struct PodTopologySpread;

const REASON: &str = "node(s) didn't match pod topology spread constraints";
const REASON_LABEL: &str =
    "node(s) didn't match pod topology spread constraints (missing required label)";

/// The count in the emptiest domain where there is no domain.
const NO_DOMAIN: i64 = i32::MAX as i64;

/// A hard constraint and how full its domains are.
struct Hard<'a> {
    constraint: &'a SpreadConstraint,
    counts: HashMap<&'a str, i64>,
    emptiest: i64,
    /// 1 if the pod itself would count.
    itself: i64,
}

struct Prepared<'a> {
    pod: &'a PodInfo,
    hard: Vec<Hard<'a>>,
}

impl FilterPlugin for PodTopologySpread {
    fn pre_filter<'a>(&self, cluster: &'a Cluster, pod: &'a PodInfo) -> PreFilter<'a> {
        let constraints = pod.spread.iter().filter(|constraint| constraint.hard);
        let mut hard: Vec<_> = constraints.map(|constraint| Hard::new(constraint, pod)).collect();
        if hard.is_empty() {
            return PreFilter::Skip;
        }
        for slot in cluster.nodes() {
            let node = cluster.node(*slot);
            if !hard.iter().all(|h| node.label(&h.constraint.topology_key).is_some()) {
                continue;
            }
            for hard in &mut hard {
                hard.count(pod, node);
            }
        }
        hard.iter_mut().for_each(Hard::find_emptiest);
        PreFilter::Run(Box::new(Prepared { pod, hard }))
    }
}

impl<'a> Hard<'a> {
    fn new(constraint: &'a SpreadConstraint, pod: &PodInfo) -> Self {
        let itself = i64::from(constraint.selector.matches(&pod.labels));
        Self { constraint, counts: HashMap::new(), emptiest: NO_DOMAIN, itself }
    }

    fn count(&mut self, pod: &PodInfo, node: &'a NodeInfo) {
        if let Some(value) = node.label(&self.constraint.topology_key)
            && includes(self.constraint, pod, node)
        {
            *self.counts.entry(value).or_default() +=
                matching(&self.constraint.selector, pod, node);
        }
    }

    fn find_emptiest(&mut self) {
        let too_few =
            self.constraint.min_domains.is_some_and(|min| (self.counts.len() as i64) < min);
        let min = self.counts.values().copied().min();
        self.emptiest = if too_few { 0 } else { min.unwrap_or(NO_DOMAIN) };
    }
}

impl Prepared<'_> {
    fn suppose(&mut self, pod: &PodInfo, node: &NodeInfo, difference: i64) {
        if pod.namespace != self.pod.namespace || pod.terminating {
            return;
        }
        let labelled = |h: &Hard<'_>| node.label(&h.constraint.topology_key).is_some();
        if !self.hard.iter().all(labelled) {
            return;
        }
        for hard in &mut self.hard {
            let constraint = hard.constraint;
            let value = node.label(&constraint.topology_key).unwrap_or_default();
            if !constraint.selector.matches(&pod.labels) || !includes(constraint, self.pod, node) {
                continue;
            }
            if let Some(count) = hard.counts.get_mut(value) {
                *count += difference;
                hard.find_emptiest();
            }
        }
    }
}

impl Filter for Prepared<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        for hard in &self.hard {
            let Some(value) = node.label(&hard.constraint.topology_key) else {
                return Err(Rejection::unresolvable(Plugin::PodTopologySpread, REASON_LABEL));
            };
            let count = hard.counts.get(value).copied().unwrap_or_default();
            if count + hard.itself - hard.emptiest > hard.constraint.max_skew {
                return Err(Rejection::resolvable(Plugin::PodTopologySpread, REASON));
            }
        }
        Ok(())
    }

    fn add_pod(&mut self, pod: &PodInfo, node: &NodeInfo) {
        self.suppose(pod, node, 1);
    }

    fn remove_pod(&mut self, pod: &PodInfo, node: &NodeInfo) {
        self.suppose(pod, node, -1);
    }
}

/// Whether the pods of a node count for the constraint of `pod`.
fn includes(constraint: &SpreadConstraint, pod: &PodInfo, node: &NodeInfo) -> bool {
    (!constraint.honor_affinity || pod.node_requirements.matches(node.facts.view()))
        && (!constraint.honor_taints || node.facts.untolerated(&pod.tolerations).is_none())
}

fn matching(selector: &LabelSelector, pod: &PodInfo, node: &NodeInfo) -> i64 {
    let peers =
        node.pods.iter().filter(|peer| peer.namespace == pod.namespace && !peer.terminating);
    peers.filter(|peer| selector.matches(&peer.labels)).count() as i64
}

/// A soft constraint, the pod's own or a default one.
struct Soft<'a> {
    topology_key: &'a str,
    max_skew: i64,
    selector: Cow<'a, LabelSelector>,
    /// The pod's own constraint, which says which nodes to include.
    own: Option<&'a SpreadConstraint>,
    /// Pods in each domain that a node is left in. Hosts are counted when they are scored.
    counts: HashMap<&'a str, i64>,
    /// What a pod counts: the more domains, the more, as there are fewer pods in each.
    weight: f64,
}

struct PreparedScore<'a> {
    pod: &'a PodInfo,
    soft: Vec<Soft<'a>>,
    /// Whether nodes that lack one of the keys are out of it.
    all_keys: bool,
}

impl ScorePlugin for PodTopologySpread {
    fn pre_score<'a>(
        &self,
        cluster: &'a Cluster,
        pod: &'a PodInfo,
        nodes: &[Slot],
    ) -> Option<Box<dyn Score + 'a>> {
        let soft = if pod.spread.is_empty() { defaults(cluster, pod) } else { own(pod) };
        if soft.is_empty() {
            return None;
        }
        let mut prepared = PreparedScore { pod, soft, all_keys: !pod.spread.is_empty() };
        prepared.weigh(cluster, nodes);
        prepared.count(cluster);
        Some(Box::new(prepared))
    }
}

fn own(pod: &PodInfo) -> Vec<Soft<'_>> {
    let soft = pod.spread.iter().filter(|constraint| !constraint.hard);
    soft.map(|constraint| Soft {
        topology_key: &constraint.topology_key,
        max_skew: constraint.max_skew,
        selector: Cow::Borrowed(&constraint.selector),
        own: Some(constraint),
        counts: HashMap::new(),
        weight: 0.0,
    })
    .collect()
}

/// The system's defaults: over hosts and, less strictly, over zones.
fn defaults<'a>(cluster: &Cluster, pod: &PodInfo) -> Vec<Soft<'a>> {
    let Some(selector) = cluster.selectors.of_pod(pod) else { return Vec::new() };
    let constraint = |topology_key, max_skew| Soft {
        topology_key,
        max_skew,
        selector: Cow::Owned(selector.clone()),
        own: None,
        counts: HashMap::new(),
        weight: 0.0,
    };
    vec![constraint(HOSTNAME, 3), constraint(ZONE, 5)]
}

impl<'a> PreparedScore<'a> {
    /// Finds the domains that are left, and by their number the weights.
    fn weigh(&mut self, cluster: &'a Cluster, nodes: &[Slot]) {
        let mut hosts = 0_usize;
        for slot in nodes {
            let node = cluster.node(*slot);
            if self.ignores(node) {
                continue;
            }
            hosts += 1;
            for soft in self.soft.iter_mut().filter(|soft| soft.topology_key != HOSTNAME) {
                if let Some(value) = node.label(soft.topology_key) {
                    soft.counts.entry(value).or_default();
                }
            }
        }
        for soft in &mut self.soft {
            let domains = if soft.topology_key == HOSTNAME { hosts } else { soft.counts.len() };
            soft.weight = ((domains + 2) as f64).ln();
        }
    }

    /// Counts the pods of all nodes, by domain.
    fn count(&mut self, cluster: &'a Cluster) {
        if self.soft.iter().all(|soft| soft.counts.is_empty()) {
            return;
        }
        for slot in cluster.nodes() {
            let node = cluster.node(*slot);
            if node.pods.is_empty() || self.ignores(node) {
                continue;
            }
            for soft in &mut self.soft {
                let value = node.label(soft.topology_key);
                if let Some(count) = value.and_then(|value| soft.counts.get_mut(value))
                    && soft.own.is_none_or(|own| includes(own, self.pod, node))
                {
                    *count += matching(&soft.selector, self.pod, node);
                }
            }
        }
    }

    fn ignores(&self, node: &NodeInfo) -> bool {
        self.all_keys && self.soft.iter().any(|soft| node.label(soft.topology_key).is_none())
    }
}

impl Score for PreparedScore<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        if self.ignores(node) {
            return 0;
        }
        let scores = self.soft.iter().filter_map(|soft| {
            let value = node.label(soft.topology_key)?;
            let count = if soft.topology_key == HOSTNAME {
                matching(&soft.selector, self.pod, node)
            } else {
                soft.counts.get(value).copied().unwrap_or_default()
            };
            Some(count as f64 * soft.weight + (soft.max_skew - 1) as f64)
        });
        scores.sum::<f64>().round() as i64
    }

    /// The fullest gets least; nodes that are out of it get nothing.
    fn normalize(&self, nodes: &[&NodeInfo], scores: &mut [i64]) {
        let ignored: Vec<bool> = nodes.iter().map(|node| self.ignores(node)).collect();
        let counted = || scores.iter().zip(&ignored).filter(|(_, ignored)| !**ignored);
        let max = counted().map(|(score, _)| *score).max().unwrap_or_default();
        let min = counted().map(|(score, _)| *score).min().unwrap_or_default();
        for (score, ignored) in scores.iter_mut().zip(ignored) {
            *score = match (ignored, max) {
                (true, _) => 0,
                (false, 0) => MAX_SCORE,
                (false, max) => MAX_SCORE * (max + min - *score) / max,
            };
        }
    }
}

pub(super) fn worth_retrying(event: ClusterEvent<'_>, pod: &PodInfo) -> bool {
    let counts = |other: &PodInfo| {
        other.namespace == pod.namespace
            && pod.spread.iter().any(|constraint| constraint.selector.matches(&other.labels))
    };
    match event {
        ClusterEvent::Node(_, change) => change.labels || change.taints,
        ClusterEvent::NodeGone => true,
        ClusterEvent::PodPlaced(other) | ClusterEvent::PodGone(other) => counts(other),
        _ => false,
    }
}
