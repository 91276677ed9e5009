//! DaemonSets: one pod on every node that can run it.
//!
//! The scheduler binds the pods; each is pinned to its node by an affinity to the node's name. [`plan`] first puts the nodes
//! in order: a pod where there should be one, none where there should not, failed ones replaced after a while. Only when
//! there is nothing of that to do, [`rolling`] moves on with an update.

mod node;
mod pods;
mod rolling;
mod status;
mod sync;
#[cfg(test)]
mod tests;

use crate::{
    intstr::{Round, scaled},
    object::{created_at, is_deleting},
    pod::{is_available, is_finished, is_ready, node_name, phase},
    runtime::EventType,
};
use k8s_openapi::{
    api::{
        apps::v1::DaemonSet,
        core::v1::{Node, Pod},
    },
    apimachinery::pkg::util::intstr::IntOrString,
    jiff::Timestamp,
};
use kube::ResourceExt;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

pub use sync::register;

/// Most pods that one pass creates, and most that it deletes.
const BURST: usize = 250;
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(900);

/// What a pass looks at.
pub struct Inputs<'a> {
    /// The DaemonSet.
    pub set: &'a DaemonSet,
    /// All nodes.
    pub nodes: &'a [Arc<Node>],
    /// Its own pods.
    pub pods: &'a [Arc<Pod>],
    /// The hash of its current revision.
    pub hash: &'a str,
    /// The nodes on which pods have failed.
    pub retries: &'a HashMap<String, Retry>,
    /// The time.
    pub now: Timestamp,
}

/// How long a node waits for the next pod after one has failed: 1 s, doubling up to 15 minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    since: Timestamp,
    wait: Duration,
}

impl Retry {
    /// After another failure.
    pub fn next(last: Option<&Self>, now: Timestamp) -> Self {
        let been = last.map(|last| Duration::try_from(now.duration_since(last.since)));
        let wait = match (last, been) {
            (Some(last), Some(Ok(been))) if been <= BACKOFF_MAX * 2 => {
                (last.wait * 2).min(BACKOFF_MAX)
            }
            _ => BACKOFF_MIN,
        };
        Self { since: now, wait }
    }

    fn left(&self, now: Timestamp) -> Duration {
        let been = Duration::try_from(now.duration_since(self.since)).unwrap_or_default();
        self.wait.saturating_sub(been)
    }
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Nodes that need a pod.
    pub create: Vec<String>,
    /// Pods that have to go.
    pub delete: Vec<Arc<Pod>>,
    /// Nodes whose pod has failed and is replaced now.
    pub failed: Vec<String>,
    /// What to tell in events: type, reason, message.
    pub news: Vec<(EventType, &'static str, String)>,
    /// When to look again, although nothing may have changed.
    pub again: Option<Duration>,
}

impl Plan {
    fn look_again_in(&mut self, wait: Duration) {
        self.again = Some(self.again.map_or(wait, |known| known.min(wait)));
    }
}

/// The nodes and their pods, as a pass sees them.
struct View<'a> {
    inputs: &'a Inputs<'a>,
    template: Pod,
    by_node: BTreeMap<&'a str, Vec<&'a Arc<Pod>>>,
}

/// Decides what to do about the pods.
pub fn plan(inputs: &Inputs<'_>) -> Plan {
    let view = View::new(inputs);
    let mut plan = view.manage();
    let strategy = inputs.set.spec.update_strategy.as_ref();
    let rolls = strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete");
    if plan.create.is_empty() && plan.delete.is_empty() && rolls {
        let rolled = rolling::plan(&view);
        plan.create = rolled.create;
        plan.delete = rolled.delete;
    }
    plan.create.truncate(BURST);
    plan.delete.truncate(BURST);
    plan
}

impl<'a> View<'a> {
    fn new(inputs: &'a Inputs<'a>) -> Self {
        let mut by_node = BTreeMap::<_, Vec<_>>::new();
        for pod in inputs.pods {
            let is_over = is_finished(pod) && is_deleting(&pod.metadata);
            if let Some(node) = pods::target_node(pod).filter(|_| !is_over) {
                by_node.entry(node).or_default().push(pod);
            }
        }
        Self { inputs, template: pods::template(inputs.set), by_node }
    }

    fn manage(&self) -> Plan {
        let mut plan = Plan::default();
        for node in self.inputs.nodes {
            let should = node::eligibility(node, &self.template);
            let pods = self.by_node.get(node.name_any().as_str());
            match pods {
                None if should.run => plan.create.push(node.name_any()),
                None => {}
                Some(pods) if should.go_on => self.keep_one(node, should.run, pods, &mut plan),
                Some(pods) => plan.delete.extend(pods.iter().copied().filter(is_staying).cloned()),
            }
        }
        plan.delete.extend(self.lost());
        plan
    }

    /// Pods that were meant for nodes that are gone, and never got there.
    fn lost(&self) -> impl Iterator<Item = Arc<Pod>> {
        let nodes: Vec<_> = self.inputs.nodes.iter().map(|node| node.name_any()).collect();
        let gone =
            self.by_node.iter().filter(move |(name, _)| !nodes.iter().any(|node| node == *name));
        let pods = gone.flat_map(|(_, pods)| pods.iter().copied());
        pods.filter(|pod| node_name(pod).is_empty() && is_staying(pod)).cloned()
    }

    /// Of the pods on one node, one stays (with a surge, an old and a new one while the new one starts).
    fn keep_one(&self, node: &Node, may_create: bool, pods: &[&Arc<Pod>], plan: &mut Plan) {
        let mut running: Vec<_> = Vec::new();
        for pod in pods.iter().copied().filter(is_staying) {
            if is_finished(pod) {
                self.replace_ended(node, pod, plan);
            } else {
                running.push(pod);
            }
        }
        running.sort_by_key(|pod| {
            (node_name(pod).is_empty(), created_at(&pod.metadata), pod.name_any())
        });
        if !self.surges() {
            return plan.delete.extend(running.into_iter().skip(1).cloned());
        }
        if running.is_empty() && may_create {
            plan.create.push(node.name_any());
        }
        plan.delete.extend(self.surplus_of_surge(&running));
    }

    fn replace_ended(&self, node: &Node, pod: &Arc<Pod>, plan: &mut Plan) {
        let (node, name) = (node.name_any(), pod.name_any());
        let namespace = pod.namespace().unwrap_or_default();
        if phase(pod) == "Succeeded" {
            let text = format!(
                "Found succeeded daemon pod {namespace}/{name} on node {node}, will try to delete it"
            );
            plan.news.push((EventType::Normal, "SucceededDaemonPod", text));
            return plan.delete.push(pod.clone());
        }
        let left = self.inputs.retries.get(&node).map(|retry| retry.left(self.inputs.now));
        if let Some(left) = left.filter(|left| !left.is_zero()) {
            return plan.look_again_in(left);
        }
        let text = format!(
            "Found failed daemon pod {namespace}/{name} on node {node}, will try to kill it"
        );
        plan.news.push((EventType::Warning, "FailedDaemonPod", text));
        plan.failed.push(node);
        plan.delete.push(pod.clone());
    }

    fn surplus_of_surge(&self, running: &[&Arc<Pod>]) -> Vec<Arc<Pod>> {
        if running.len() <= 1 {
            return Vec::new();
        }
        let mut of_age = running.iter().copied().partition::<Vec<_>, _>(|pod| self.is_new(pod));
        let mut going: Vec<_> = Vec::new();
        going.extend(of_age.0.drain(1.min(of_age.0.len())..).cloned());
        going.extend(of_age.1.drain(1.min(of_age.1.len())..).cloned());
        if let ([new], [old]) = (of_age.0.as_slice(), of_age.1.as_slice())
            && (!is_ready(old) || self.is_available(new))
        {
            going.push((*old).clone());
        }
        going
    }

    fn is_new(&self, pod: &Pod) -> bool {
        pod.labels().get(crate::history::HASH_LABEL).map(String::as_str) == Some(self.inputs.hash)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        let seconds = self.inputs.set.spec.min_ready_seconds.unwrap_or(0);
        is_available(pod, seconds, self.inputs.now)
    }

    fn limit(&self, which: &str, total: i32) -> i32 {
        let strategy = self.inputs.set.spec.update_strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let value = rolling.and_then(|rolling| match which {
            "maxSurge" => rolling.max_surge.as_ref(),
            _ => rolling.max_unavailable.as_ref(),
        });
        value.and_then(|value: &IntOrString| scaled(value, total, Round::Up)).unwrap_or(0).max(0)
    }

    fn surges(&self) -> bool {
        let strategy = self.inputs.set.spec.update_strategy.as_ref();
        let on_delete = strategy.and_then(|it| it.type_.as_deref()) == Some("OnDelete");
        !on_delete && self.limit("maxSurge", self.inputs.nodes.len().max(1) as i32) > 0
    }
}

fn is_staying(pod: &&Arc<Pod>) -> bool {
    !is_deleting(&pod.metadata)
}
