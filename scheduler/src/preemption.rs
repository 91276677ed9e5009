//! Preemption: when a pod finds no node, which less important ones would have to go from which node to make room.
//!
//! Every node that was turned down for something pods can change is tried: without its less important pods first, and
//! then with as many of them back as possible, the most important first. The filters are told of each step and are
//! left as they were. What is chosen is a suggestion; the pod goes through another cycle once the victims are gone.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;

use crate::cluster::{Cluster, Slot};
use crate::framework::{Diagnosis, Rejection, histogram};
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::schedule::Filters;

/// Up to so many nodes, all of them are tried; of more, a tenth.
const MIN_CANDIDATES: usize = 100;

/// What preemption comes to.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// These pods have to go from this node.
    Nominate {
        /// The node.
        slot: Slot,
        /// The pods, the most important first.
        victims: Vec<Arc<PodInfo>>,
    },
    /// Room is being made already.
    Wait(String),
    /// It cannot help, for this reason.
    Hopeless(String),
}

/// A node and what it would cost.
struct Candidate {
    slot: Slot,
    victims: Vec<Arc<PodInfo>>,
    /// How many of them a disruption budget has no room for.
    violations: usize,
}

/// Looks for the node on which making room costs least.
pub fn preempt(cluster: &Cluster, pod: &PodInfo, diagnosis: &Diagnosis) -> Outcome {
    if !pod.may_preempt {
        return Outcome::Hopeless(not_eligible("preemptionPolicy=Never"));
    }
    if waits_for_victims(cluster, pod) {
        return Outcome::Wait(not_eligible("a terminating pod on the nominated node"));
    }
    let mut reasons = BTreeMap::<String, usize>::new();
    let mut note = |reason: &str, count: usize| {
        *reasons.entry(reason.to_owned()).or_default() += count;
    };
    let resolvable: Vec<Slot> = diagnosis
        .rejected
        .iter()
        .filter(|(_, rejection)| rejection.resolvable)
        .map(|(slot, _)| *slot)
        .collect();
    note("Preemption is not helpful for scheduling", diagnosis.nodes_total - resolvable.len());
    let mut candidates = Vec::new();
    if let Ok(mut filters) = Filters::prepare(cluster, pod) {
        let enough = (resolvable.len() / 10).max(MIN_CANDIDATES);
        for slot in resolvable {
            match make_room(cluster, pod, slot, &mut filters) {
                Ok(candidate) => candidates.push(candidate),
                Err(Some(rejection)) => rejection.reasons.iter().for_each(|r| note(r, 1)),
                Err(None) => note("No preemption victims found for incoming pod", 1),
            }
            if candidates.len() >= enough {
                break;
            }
        }
    }
    match candidates.into_iter().min_by_key(Candidate::cost) {
        Some(Candidate { slot, victims, .. }) => Outcome::Nominate { slot, victims },
        None => {
            let reasons = reasons.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
            Outcome::Hopeless(format!("preemption: {}", histogram(diagnosis.nodes_total, &reasons)))
        }
    }
}

fn not_eligible(reason: &str) -> String {
    format!("preemption: not eligible due to {reason}.")
}

/// Whether a victim of an earlier preemption for this pod is still on its way out.
fn waits_for_victims(cluster: &Cluster, pod: &PodInfo) -> bool {
    let slot = cluster.nomination(&pod.uid).and_then(|name| cluster.find(name));
    slot.is_some_and(|slot| {
        let pods = &cluster.node(slot).pods;
        pods.iter().any(|other| other.terminating && other.priority < pod.priority)
    })
}

/// The victims without which the pod would fit; `Err(None)` if there is nobody less important.
fn make_room(
    cluster: &Cluster,
    pod: &PodInfo,
    slot: Slot,
    filters: &mut Filters<'_>,
) -> Result<Candidate, Option<Rejection>> {
    let node = cluster.node(slot);
    let less_important = node.pods.iter().filter(|other| other.priority < pod.priority);
    let mut removed: Vec<Arc<PodInfo>> = less_important.cloned().collect();
    if removed.is_empty() {
        return Err(None);
    }
    removed.sort_by_key(|other| importance(other));
    let rivals = cluster.nominated_before(slot, pod);
    let mut supposed = Supposition { node: node.clone(), filters };
    rivals.iter().for_each(|rival| supposed.add(rival.clone()));
    removed.iter().for_each(|other| supposed.remove(other));
    let result = supposed.filters.check(&supposed.node);
    // Those that a budget protects come back first.
    let (protected, others) = cluster.budgets.split(removed);
    let mut victims = Vec::new();
    let mut violations = 0;
    for (other, is_protected) in protected
        .into_iter()
        .map(|pod| (pod, true))
        .chain(others.into_iter().map(|pod| (pod, false)))
    {
        supposed.add(other.clone());
        if result.is_ok() && supposed.filters.check(&supposed.node).is_err() {
            supposed.remove(&other);
            victims.push(other);
            violations += usize::from(is_protected);
        }
    }
    // The filters serve the next node too.
    victims.iter().for_each(|victim| supposed.add(victim.clone()));
    rivals.iter().for_each(|rival| supposed.remove(rival));
    result.map(|()| Candidate { slot, victims, violations }).map_err(Some)
}

/// A node as it would be, with filters that know.
struct Supposition<'f, 'a> {
    node: NodeInfo,
    filters: &'f mut Filters<'a>,
}

impl Supposition<'_, '_> {
    fn add(&mut self, pod: Arc<PodInfo>) {
        self.filters.add_pod(&pod, &self.node);
        self.node.add_pod(pod);
    }

    fn remove(&mut self, pod: &PodInfo) {
        self.filters.remove_pod(pod, &self.node);
        self.node.remove_pod(&pod.uid);
    }
}

/// The most important first: by priority, then the longest running.
fn importance(pod: &PodInfo) -> (Reverse<i32>, Timestamp) {
    (Reverse(pod.priority), pod.started.unwrap_or(Timestamp::MAX))
}

impl Candidate {
    /// Less is better: the fewest violated budgets, the least important highest victim, the lowest sum of priorities, the fewest victims, and of
    /// the most important ones those that have run for the shortest time.
    fn cost(&self) -> (usize, i32, i64, usize, Reverse<Timestamp>) {
        let highest = self.victims.iter().map(|victim| victim.priority).max().unwrap_or(i32::MIN);
        // Shifted, so that more victims never make a smaller sum.
        let shifted = |victim: &Arc<PodInfo>| i64::from(victim.priority) - i64::from(i32::MIN) + 1;
        let sum = self.victims.iter().map(shifted).sum();
        let most_important = self.victims.iter().filter(|victim| victim.priority == highest);
        let earliest = most_important.map(|victim| victim.started.unwrap_or(Timestamp::MAX)).min();
        let latest = Reverse(earliest.unwrap_or(Timestamp::MAX));
        (self.violations, highest, sum, self.victims.len(), latest)
    }
}
