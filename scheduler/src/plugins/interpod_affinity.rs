//! InterPodAffinity: pods that want to be with or away from others, and others that want to be with or away from the pod.
//!
//! Required terms filter, and so do the required anti-affinity terms of pods that are there already; preferred ones
//! score, both ways, and a required affinity term of another pod that speaks of this one counts a little too.

use std::borrow::Cow;
use std::collections::HashMap;

use super::ClusterEvent;
use crate::affinity::AffinityTerm;
use crate::cluster::{Cluster, Slot};
use crate::framework::{
    Filter, FilterPlugin, MAX_SCORE, Plugin, PreFilter, Rejection, Score, ScorePlugin,
};
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::selector::Labels;

pub(super) struct InterPodAffinity;

const REASON_AFFINITY: &str = "node(s) didn't match pod affinity rules";
const REASON_ANTI_AFFINITY: &str = "node(s) didn't match pod anti-affinity rules";
const REASON_EXISTING: &str = "node(s) didn't satisfy existing pods anti-affinity rules";

/// What the required affinity of another pod counts for when it speaks of the one to be placed.
const HARD_AFFINITY_WEIGHT: i64 = 1;

/// Sums by topology key and value. There are few keys and many values.
#[derive(Default)]
struct TopologyCounts<'a> {
    keys: Vec<(Cow<'a, str>, HashMap<Cow<'a, str>, i64>)>,
}

impl<'a> TopologyCounts<'a> {
    fn add(&mut self, key: Cow<'a, str>, value: Cow<'a, str>, amount: i64) {
        let index = match self.keys.iter().position(|(known, _)| *known == key) {
            Some(index) => index,
            None => {
                self.keys.push((key, HashMap::new()));
                self.keys.len() - 1
            }
        };
        *self.keys[index].1.entry(value).or_default() += amount;
    }

    /// Adds to the domain that `node` is in by `key`; nothing if it is in none.
    fn add_at(&mut self, key: &'a str, node: &'a NodeInfo, amount: i64) {
        if let Some(value) = node.label(key) {
            self.add(Cow::Borrowed(key), Cow::Borrowed(value), amount);
        }
    }

    fn suppose_at(&mut self, key: &str, node: &NodeInfo, amount: i64) {
        if let Some(value) = node.label(key) {
            self.add(Cow::Owned(key.to_owned()), Cow::Owned(value.to_owned()), amount);
        }
    }

    fn get(&self, key: &str, value: &str) -> i64 {
        let values = self.keys.iter().find(|(known, _)| known == key);
        values.and_then(|(_, values)| values.get(value)).copied().unwrap_or_default()
    }

    /// The sums of all domains that a node is in.
    fn at<'s>(&'s self, node: &'s NodeInfo) -> impl Iterator<Item = i64> + 's {
        self.keys.iter().filter_map(|(key, values)| values.get(node.label(key)?).copied())
    }

    fn is_zero(&self) -> bool {
        self.keys.iter().all(|(_, values)| values.values().all(|count| *count == 0))
    }
}

struct Prepared<'a> {
    cluster: &'a Cluster,
    pod: &'a PodInfo,
    /// Labels of the pod's namespace.
    namespace: Option<&'a Labels>,
    /// Required anti-affinity terms of others that speak of the pod.
    existing_anti: TopologyCounts<'a>,
    /// Pods that all required affinity terms of the pod speak of, by the domain of each term.
    affinity: TopologyCounts<'a>,
    /// Pods that a required anti-affinity term of the pod speaks of.
    anti: TopologyCounts<'a>,
}

impl FilterPlugin for InterPodAffinity {
    fn pre_filter<'a>(&self, cluster: &'a Cluster, pod: &'a PodInfo) -> PreFilter<'a> {
        let mut prepared = Prepared {
            cluster,
            pod,
            namespace: cluster.namespace_labels(&pod.namespace),
            existing_anti: TopologyCounts::default(),
            affinity: TopologyCounts::default(),
            anti: TopologyCounts::default(),
        };
        for slot in cluster.nodes_with_required_anti_affinity() {
            prepared.count_existing(cluster.node(slot));
        }
        let has_terms =
            !(pod.affinity.required.is_empty() && pod.affinity.required_anti.is_empty());
        if has_terms {
            for slot in cluster.nodes() {
                prepared.count_own(cluster.node(*slot));
            }
        }
        if !has_terms && prepared.existing_anti.is_zero() && !cluster.has_nominations() {
            return PreFilter::Skip;
        }
        PreFilter::Run(Box::new(prepared))
    }
}

impl<'a> Prepared<'a> {
    fn count_existing(&mut self, node: &'a NodeInfo) {
        for other in node.pods.iter().filter(|other| !other.affinity.required_anti.is_empty()) {
            for term in &other.affinity.required_anti {
                if term.matches(self.pod, |_| self.namespace) {
                    self.existing_anti.add_at(&term.topology_key, node, 1);
                }
            }
        }
    }

    fn count_own(&mut self, node: &'a NodeInfo) {
        let terms = &self.pod.affinity;
        for other in &node.pods {
            if all_match(self.cluster, &terms.required, other) {
                for term in &terms.required {
                    self.affinity.add_at(&term.topology_key, node, 1);
                }
            }
            for term in &terms.required_anti {
                if matches(self.cluster, term, other) {
                    self.anti.add_at(&term.topology_key, node, 1);
                }
            }
        }
    }

    fn suppose(&mut self, other: &PodInfo, node: &NodeInfo, difference: i64) {
        for term in &other.affinity.required_anti {
            if term.matches(self.pod, |_| self.namespace) {
                self.existing_anti.suppose_at(&term.topology_key, node, difference);
            }
        }
        let terms = &self.pod.affinity;
        if all_match(self.cluster, &terms.required, other) {
            for term in &terms.required {
                self.affinity.suppose_at(&term.topology_key, node, difference);
            }
        }
        for term in &terms.required_anti {
            if matches(self.cluster, term, other) {
                self.anti.suppose_at(&term.topology_key, node, difference);
            }
        }
    }

    /// Whether every term has a companion on the node's domains. The first pod of a group, which speaks of itself, may
    /// go anywhere that has the keys.
    fn affinity_holds(&self, node: &NodeInfo) -> bool {
        let terms = &self.pod.affinity.required;
        let mut companions = true;
        for term in terms {
            let Some(value) = node.label(&term.topology_key) else { return false };
            companions &= self.affinity.get(&term.topology_key, value) > 0;
        }
        companions || (self.affinity.is_zero() && all_match(self.cluster, terms, self.pod))
    }

    fn anti_affinity_holds(&self, node: &NodeInfo) -> bool {
        self.pod.affinity.required_anti.iter().all(|term| {
            let value = node.label(&term.topology_key);
            value.is_none_or(|value| self.anti.get(&term.topology_key, value) == 0)
        })
    }
}

fn matches(cluster: &Cluster, term: &AffinityTerm, pod: &PodInfo) -> bool {
    term.matches(pod, |namespace| cluster.namespace_labels(namespace))
}

fn all_match(cluster: &Cluster, terms: &[AffinityTerm], pod: &PodInfo) -> bool {
    !terms.is_empty() && terms.iter().all(|term| matches(cluster, term, pod))
}

impl Filter for Prepared<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if !self.affinity_holds(node) {
            return Err(Rejection::unresolvable(Plugin::InterPodAffinity, REASON_AFFINITY));
        }
        if !self.anti_affinity_holds(node) {
            return Err(Rejection::resolvable(Plugin::InterPodAffinity, REASON_ANTI_AFFINITY));
        }
        if self.existing_anti.at(node).any(|count| count > 0) {
            return Err(Rejection::resolvable(Plugin::InterPodAffinity, REASON_EXISTING));
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

struct PreparedScore<'a> {
    sums: TopologyCounts<'a>,
}

impl ScorePlugin for InterPodAffinity {
    fn pre_score<'a>(
        &self,
        cluster: &'a Cluster,
        pod: &'a PodInfo,
        _: &[Slot],
    ) -> Option<Box<dyn Score + 'a>> {
        let terms = &pod.affinity;
        let namespace = cluster.namespace_labels(&pod.namespace);
        let mut sums = TopologyCounts::default();
        let prefers = !(terms.preferred.is_empty() && terms.preferred_anti.is_empty());
        if prefers {
            for slot in cluster.nodes() {
                let node = cluster.node(*slot);
                for other in &node.pods {
                    add_own_preferences(&mut sums, cluster, pod, other, node);
                }
            }
        }
        for slot in cluster.nodes_with_affinity() {
            let node = cluster.node(slot);
            for other in node.pods.iter().filter(|other| other.affinity.any()) {
                add_their_preferences(&mut sums, pod, namespace, other, node);
            }
        }
        (!sums.keys.is_empty()).then(|| Box::new(PreparedScore { sums }) as Box<dyn Score>)
    }
}

fn add_own_preferences<'a>(
    sums: &mut TopologyCounts<'a>,
    cluster: &Cluster,
    pod: &'a PodInfo,
    other: &PodInfo,
    node: &'a NodeInfo,
) {
    let weighted = [(&pod.affinity.preferred, 1), (&pod.affinity.preferred_anti, -1)];
    for (terms, sign) in weighted {
        for weighted in terms.iter().filter(|weighted| matches(cluster, &weighted.term, other)) {
            sums.add_at(&weighted.term.topology_key, node, sign * weighted.weight);
        }
    }
}

fn add_their_preferences<'a>(
    sums: &mut TopologyCounts<'a>,
    pod: &PodInfo,
    namespace: Option<&Labels>,
    other: &'a PodInfo,
    node: &'a NodeInfo,
) {
    let speaks_of_pod = |term: &AffinityTerm| term.matches(pod, |_| namespace);
    for term in other.affinity.required.iter().filter(|term| speaks_of_pod(term)) {
        sums.add_at(&term.topology_key, node, HARD_AFFINITY_WEIGHT);
    }
    let weighted = [(&other.affinity.preferred, 1), (&other.affinity.preferred_anti, -1)];
    for (terms, sign) in weighted {
        for weighted in terms.iter().filter(|weighted| speaks_of_pod(&weighted.term)) {
            sums.add_at(&weighted.term.topology_key, node, sign * weighted.weight);
        }
    }
}

impl Score for PreparedScore<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        self.sums.at(node).sum()
    }

    fn normalize(&self, _: &[&NodeInfo], scores: &mut [i64]) {
        let max = scores.iter().copied().max().unwrap_or_default();
        let min = scores.iter().copied().min().unwrap_or_default();
        for score in scores {
            *score = if max > min { MAX_SCORE * (*score - min) / (max - min) } else { 0 };
        }
    }
}

pub(super) fn worth_retrying(event: ClusterEvent<'_>, cluster: &Cluster, pod: &PodInfo) -> bool {
    let terms = &pod.affinity;
    match event {
        ClusterEvent::Node(_, change) => change.labels,
        ClusterEvent::Namespace => terms.any(),
        ClusterEvent::PodPlaced(other) => {
            terms.required.iter().any(|term| matches(cluster, term, other))
        }
        ClusterEvent::PodGone(other) => {
            let namespace = cluster.namespace_labels(&pod.namespace);
            terms.required_anti.iter().any(|term| matches(cluster, term, other))
                || other.affinity.required_anti.iter().any(|term| term.matches(pod, |_| namespace))
        }
        _ => false,
    }
}
