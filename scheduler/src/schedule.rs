//! One scheduling cycle: from a pod and the snapshot to a node, or to why there is none. Deterministic for a given seed.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::cluster::{Cluster, Slot};
use crate::framework::{Diagnosis, Filter, Plugin, PreFilter, Rejection};
use crate::node::NodeInfo;
use crate::plugins::{FILTERS, SCORERS};
use crate::pod::PodInfo;

/// Up to so many nodes, all of them are looked at.
const MIN_NODES_TO_FIND: usize = 100;
/// The least share of nodes that is looked at, in percent.
const MIN_PERCENTAGE: usize = 5;

/// What lasts from one cycle to the next.
#[derive(Debug)]
pub struct Scheduler {
    /// Where the next cycle starts looking, so that all nodes have their turn.
    next_start: usize,
    /// Breaks ties.
    random: SmallRng,
}

/// A node for the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The node.
    pub slot: Slot,
    /// How many nodes were looked at.
    pub evaluated: usize,
    /// How many of them would do.
    pub feasible: usize,
}

/// The filters of a cycle, prepared.
pub(crate) struct Filters<'a> {
    filters: Vec<Box<dyn Filter + 'a>>,
    /// The nodes that can do at all, and who says so.
    only: Option<(Vec<Slot>, Plugin)>,
}

impl Scheduler {
    /// One that breaks ties by this seed.
    pub fn new(seed: u64) -> Self {
        Self { next_start: 0, random: SmallRng::seed_from_u64(seed) }
    }

    /// Finds the node for a pod. The cluster has been [refreshed](Cluster::refresh).
    pub fn schedule(
        &mut self,
        cluster: &Cluster,
        pod: &PodInfo,
    ) -> Result<Decision, Box<Diagnosis>> {
        let nodes_total = cluster.nodes().len();
        let mut diagnosis = Diagnosis { nodes_total, ..Diagnosis::default() };
        let mut filters = match Filters::prepare(cluster, pod) {
            Ok(filters) => filters,
            Err(rejection) => {
                diagnosis.plugins.insert(rejection.plugin);
                diagnosis.rejected_all = Some(rejection);
                return Err(Box::new(diagnosis));
            }
        };
        if let Some(slot) = nominated_node(cluster, pod)
            && filters.accepts(cluster, pod, slot).is_ok()
        {
            return Ok(Decision { slot, evaluated: 1, feasible: 1 });
        }
        let feasible = self.find_feasible(cluster, pod, &mut filters, &mut diagnosis);
        if feasible.is_empty() {
            return Err(Box::new(diagnosis));
        }
        let evaluated = feasible.len() + diagnosis.rejected.len();
        let slot = match feasible.as_slice() {
            [only] => *only,
            _ => self.best(cluster, pod, &feasible),
        };
        Ok(Decision { slot, evaluated, feasible: feasible.len() })
    }

    /// Asks the nodes in turn until enough of them would do.
    fn find_feasible(
        &mut self,
        cluster: &Cluster,
        pod: &PodInfo,
        filters: &mut Filters<'_>,
        diagnosis: &mut Diagnosis,
    ) -> Vec<Slot> {
        let mut feasible = Vec::new();
        if let Some((only, plugin)) = filters.only.take() {
            for slot in &only {
                match filters.accepts(cluster, pod, *slot) {
                    Ok(()) => feasible.push(*slot),
                    Err(rejection) => diagnosis.reject(*slot, rejection),
                }
            }
            diagnosis.plugins.insert(plugin);
            diagnosis.not_asked = Some("node(s) didn't satisfy plugin(s) [NodeAffinity]".into());
            return feasible;
        }
        let nodes = cluster.nodes();
        let wanted = nodes_to_find(nodes.len());
        let start = self.next_start.checked_rem(nodes.len()).unwrap_or_default();
        let mut asked = 0;
        for slot in nodes[start..].iter().chain(&nodes[..start]) {
            asked += 1;
            match filters.accepts(cluster, pod, *slot) {
                Ok(()) => feasible.push(*slot),
                Err(rejection) => diagnosis.reject(*slot, rejection),
            }
            if feasible.len() >= wanted {
                break;
            }
        }
        self.next_start = (start + asked).checked_rem(nodes.len()).unwrap_or_default();
        feasible
    }

    /// The node with the highest score; among equals, any.
    fn best(&mut self, cluster: &Cluster, pod: &PodInfo, feasible: &[Slot]) -> Slot {
        let totals = scores(cluster, pod, feasible);
        let mut best = (feasible[0], totals[0]);
        let mut equals = 1_u32;
        for (slot, total) in feasible.iter().zip(&totals).skip(1) {
            if *total > best.1 {
                best = (*slot, *total);
                equals = 1;
            } else if *total == best.1 {
                equals += 1;
                if self.random.random_range(0..equals) == 0 {
                    best = (*slot, *total);
                }
            }
        }
        best.0
    }
}

/// The weighted scores of the nodes.
pub fn scores(cluster: &Cluster, pod: &PodInfo, slots: &[Slot]) -> Vec<i64> {
    let mut totals = vec![0; slots.len()];
    for (plugin, weight, _) in SCORERS {
        let Some(column) = plugin_scores(cluster, pod, slots, plugin) else { continue };
        for (total, score) in totals.iter_mut().zip(&column) {
            *total += weight * score;
        }
    }
    totals
}

/// The normalised scores that one plugin gives; `None` if the nodes are all the same to it.
pub fn plugin_scores(
    cluster: &Cluster,
    pod: &PodInfo,
    slots: &[Slot],
    plugin: Plugin,
) -> Option<Vec<i64>> {
    let (_, _, scorer) = SCORERS.into_iter().find(|(known, _, _)| *known == plugin)?;
    let prepared = scorer.pre_score(cluster, pod, slots)?;
    let nodes: Vec<&NodeInfo> = slots.iter().map(|slot| cluster.node(*slot)).collect();
    let mut column: Vec<i64> = nodes.iter().map(|node| prepared.score(node)).collect();
    prepared.normalize(&nodes, &mut column);
    Some(column)
}

/// What the filters say about each node; `Err` if the pod is turned down as a whole.
pub fn verdicts(
    cluster: &Cluster,
    pod: &PodInfo,
) -> Result<Vec<(Slot, Result<(), Rejection>)>, Rejection> {
    let mut filters = Filters::prepare(cluster, pod)?;
    let nodes = cluster.nodes().iter();
    Ok(nodes.map(|slot| (*slot, filters.accepts(cluster, pod, *slot))).collect())
}

impl<'a> Filters<'a> {
    /// Pre-filters.
    pub(crate) fn prepare(cluster: &'a Cluster, pod: &'a PodInfo) -> Result<Self, Rejection> {
        let mut filters = Vec::with_capacity(FILTERS.len());
        let mut only = None;
        for (plugin, filter) in FILTERS {
            match filter.pre_filter(cluster, pod) {
                PreFilter::Skip => {}
                PreFilter::Reject(rejection) => return Err(rejection),
                PreFilter::Run(filter) => filters.push(filter),
                PreFilter::Among(slots, filter) => {
                    only = Some((slots, plugin));
                    filters.push(filter);
                }
            }
        }
        Ok(Self { filters, only })
    }

    /// Whether the pod may go to the node: as it is, and as it will be once those nominated to it are there.
    pub(crate) fn accepts(
        &mut self,
        cluster: &Cluster,
        pod: &PodInfo,
        slot: Slot,
    ) -> Result<(), Rejection> {
        let node = cluster.node(slot);
        if cluster.has_nominations() {
            let rivals = cluster.nominated_before(slot, pod);
            if !rivals.is_empty() {
                let mut with_rivals = node.clone();
                for rival in &rivals {
                    with_rivals.add_pod(rival.clone());
                    self.add_pod(rival, node);
                }
                let verdict = self.check(&with_rivals);
                rivals.iter().for_each(|rival| self.remove_pod(rival, node));
                verdict?;
            }
        }
        self.check(node)
    }

    pub(crate) fn check(&self, node: &NodeInfo) -> Result<(), Rejection> {
        self.filters.iter().try_for_each(|filter| filter.filter(node))
    }

    pub(crate) fn add_pod(&mut self, pod: &PodInfo, node: &NodeInfo) {
        self.filters.iter_mut().for_each(|filter| filter.add_pod(pod, node));
    }

    pub(crate) fn remove_pod(&mut self, pod: &PodInfo, node: &NodeInfo) {
        self.filters.iter_mut().for_each(|filter| filter.remove_pod(pod, node));
    }
}

/// The node that room has been made on for this pod.
fn nominated_node(cluster: &Cluster, pod: &PodInfo) -> Option<Slot> {
    let name = cluster.nomination(&pod.uid)?;
    cluster.find(name)
}

/// How many nodes that would do are enough: all of a small cluster, and a share of a large one that falls as it grows.
fn nodes_to_find(total: usize) -> usize {
    let percentage = 50_usize.saturating_sub(total / 125).max(MIN_PERCENTAGE);
    (total * percentage / 100).max(MIN_NODES_TO_FIND)
}
