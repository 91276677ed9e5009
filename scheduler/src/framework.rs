//! The extension points of a scheduling cycle, and what comes out of them.
//!
//! A plugin prepares itself once per cycle: pre-filtering gives a [`Filter`], pre-scoring a [`Score`], each borrowing the
//! snapshot and holding whatever it has computed in its own types. A plugin that has nothing to say about a pod gives none
//! and costs nothing per node.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::cluster::{Cluster, Slot};
use crate::node::NodeInfo;
use crate::pod::PodInfo;

/// The best score a plugin gives to a node.
pub const MAX_SCORE: i64 = 100;

/// The plugins, in the order in which they filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
#[expect(missing_docs, reason = "each is documented by the module of its name")]
pub enum Plugin {
    SchedulingGates,
    NodeUnschedulable,
    NodeName,
    TaintToleration,
    NodeAffinity,
    NodePorts,
    NodeResourcesFit,
    VolumeBinding,
    PodTopologySpread,
    InterPodAffinity,
    NodeResourcesBalancedAllocation,
    ImageLocality,
}

/// A set of plugins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PluginSet(u16);

/// Why a plugin turns a node, or a pod, down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Who says so.
    pub plugin: Plugin,
    /// Whether removing pods from the node could change it.
    pub resolvable: bool,
    /// What is wrong.
    pub reasons: Vec<Cow<'static, str>>,
}

/// What pre-filtering says about a pod.
pub enum PreFilter<'a> {
    /// Every node will do.
    Skip,
    /// No node will do.
    Reject(Rejection),
    /// Each node is to be asked about.
    Run(Box<dyn Filter + 'a>),
    /// Only these nodes can do, and are to be asked about.
    Among(Vec<Slot>, Box<dyn Filter + 'a>),
}

/// A plugin that can turn nodes down.
pub trait FilterPlugin: Send + Sync {
    /// Prepares for a cycle.
    fn pre_filter<'a>(&self, cluster: &'a Cluster, pod: &'a PodInfo) -> PreFilter<'a>;
}

/// A plugin prepared to look at nodes.
pub trait Filter {
    /// Whether the pod may go to this node.
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection>;

    /// Supposes that `pod` were on `node` too. What depends on the node itself is seen in [`filter`](Self::filter)'s node.
    fn add_pod(&mut self, pod: &PodInfo, node: &NodeInfo) {
        let _ = (pod, node);
    }

    /// Supposes that `pod` were not on `node`.
    fn remove_pod(&mut self, pod: &PodInfo, node: &NodeInfo) {
        let _ = (pod, node);
    }
}

/// A plugin that prefers some nodes to others.
pub trait ScorePlugin: Send + Sync {
    /// Prepares for a cycle in which `nodes` are left; `None` if they are all the same to it.
    fn pre_score<'a>(
        &self,
        cluster: &'a Cluster,
        pod: &'a PodInfo,
        nodes: &[Slot],
    ) -> Option<Box<dyn Score + 'a>>;
}

/// A plugin prepared to score nodes.
pub trait Score {
    /// The raw score of a node.
    fn score(&self, node: &NodeInfo) -> i64;

    /// Brings the raw scores of all nodes into 0 to [`MAX_SCORE`].
    fn normalize(&self, nodes: &[&NodeInfo], scores: &mut [i64]) {
        let _ = (nodes, scores);
    }
}

/// Why no node could be found: everything that has been learnt on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnosis {
    /// How many nodes there are.
    pub nodes_total: usize,
    /// What was found about single nodes.
    pub rejected: Vec<(Slot, Rejection)>,
    /// What was found about the pod as a whole.
    pub rejected_all: Option<Rejection>,
    /// Whether the nodes that were not asked were ruled out beforehand.
    pub not_asked: Option<Cow<'static, str>>,
    /// Who turned anything down.
    pub plugins: PluginSet,
    /// What preemption says.
    pub post_filter: Option<String>,
}

impl PluginSet {
    /// Adds one.
    pub fn insert(&mut self, plugin: Plugin) {
        self.0 |= 1 << plugin as u16;
    }

    /// Whether it is in.
    pub fn contains(self, plugin: Plugin) -> bool {
        self.0 & (1 << plugin as u16) != 0
    }

    /// Whether none is in.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether any plugin is in both.
    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The plugins of the set.
    pub fn iter(self) -> impl Iterator<Item = Plugin> {
        ALL.into_iter().filter(move |plugin| self.contains(*plugin))
    }
}

const ALL: [Plugin; 12] = [
    Plugin::SchedulingGates,
    Plugin::NodeUnschedulable,
    Plugin::NodeName,
    Plugin::TaintToleration,
    Plugin::NodeAffinity,
    Plugin::NodePorts,
    Plugin::NodeResourcesFit,
    Plugin::VolumeBinding,
    Plugin::PodTopologySpread,
    Plugin::InterPodAffinity,
    Plugin::NodeResourcesBalancedAllocation,
    Plugin::ImageLocality,
];

impl FromIterator<Plugin> for PluginSet {
    fn from_iter<I: IntoIterator<Item = Plugin>>(plugins: I) -> Self {
        let mut set = Self::default();
        plugins.into_iter().for_each(|plugin| set.insert(plugin));
        set
    }
}

impl Rejection {
    /// Removing pods from the node could help.
    pub fn resolvable(plugin: Plugin, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { plugin, resolvable: true, reasons: vec![reason.into()] }
    }

    /// Removing pods from the node would not help.
    pub fn unresolvable(plugin: Plugin, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { plugin, resolvable: false, reasons: vec![reason.into()] }
    }
}

impl Diagnosis {
    /// Notes what was found about a node.
    pub fn reject(&mut self, slot: Slot, rejection: Rejection) {
        self.plugins.insert(rejection.plugin);
        self.rejected.push((slot, rejection));
    }

    /// The sentence that ends up in the pod's condition and event.
    pub fn message(&self) -> String {
        if self.nodes_total == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let mut reasons = BTreeMap::<&str, usize>::new();
        for reason in self.rejected.iter().flat_map(|(_, rejection)| &rejection.reasons) {
            *reasons.entry(reason).or_default() += 1;
        }
        if let Some(reason) = &self.not_asked {
            *reasons.entry(reason).or_default() += self.nodes_total - self.rejected.len();
        }
        let mut message = match &self.rejected_all {
            Some(rejection) => {
                format!("{} {}.", none_available(self.nodes_total), rejection.reasons.join(", "))
            }
            None => histogram(self.nodes_total, &reasons),
        };
        if let Some(preemption) = &self.post_filter {
            message.push(' ');
            message.push_str(preemption);
        }
        message
    }
}

/// `0/3 nodes are available: 1 this, 2 that.`
pub(crate) fn histogram(nodes_total: usize, reasons: &BTreeMap<&str, usize>) -> String {
    let mut counted: Vec<String> = reasons
        .iter()
        .filter(|(_, n)| **n > 0)
        .map(|(reason, n)| format!("{n} {reason}"))
        .collect();
    counted.sort();
    let mut message = none_available(nodes_total);
    if !counted.is_empty() {
        message.push(' ');
        message.push_str(&counted.join(", "));
        message.push('.');
    }
    message
}

fn none_available(nodes_total: usize) -> String {
    format!("0/{nodes_total} nodes are available:")
}

/// Scales scores so that the highest is [`MAX_SCORE`]; `reverse` turns them round, so that the lowest raw score wins.
pub fn normalize_by_max(scores: &mut [i64], reverse: bool) {
    let max = scores.iter().copied().max().unwrap_or_default();
    for score in scores {
        let scaled = if max == 0 { 0 } else { *score * MAX_SCORE / max };
        *score = if reverse { MAX_SCORE - scaled } else { scaled };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_scaled_to_the_highest() {
        let scaled = |scores: &[i64], reverse| {
            let mut scores = scores.to_vec();
            normalize_by_max(&mut scores, reverse);
            scores
        };
        assert_eq!(scaled(&[1, 2, 4], false), [25, 50, 100]);
        assert_eq!(scaled(&[0, 2, 4], true), [100, 50, 0]);
        assert_eq!(scaled(&[0, 0], true), [100, 100]);
        assert_eq!(scaled(&[0, 0], false), [0, 0]);
    }

    #[test]
    fn plugin_sets_give_back_what_went_in() {
        let set: PluginSet = [Plugin::NodePorts, Plugin::ImageLocality].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [Plugin::NodePorts, Plugin::ImageLocality]);
        assert!(!set.contains(Plugin::NodeName) && PluginSet::default().is_empty());
        assert_eq!(ALL.into_iter().collect::<PluginSet>().iter().count(), ALL.len());
    }
}
