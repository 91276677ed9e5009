//! The scheduler without its I/O: takes in what the watches say, gives out what is to be done.
//!
//! The owner calls [`Engine::apply`] for every update, [`Engine::next`] while it leads and has capacity for another
//! binding, and reports how each binding ended. Everything in here is deterministic in its inputs.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::cluster::{Budget, ClaimInfo, Cluster, OwnerKey, PodChange};
use crate::framework::{Diagnosis, PluginSet};
use crate::node::NodeFacts;
use crate::plugins::{ClusterEvent, worth_retrying};
use crate::pod::{PodInfo, Uid};
use crate::preemption::{Outcome, preempt};
use crate::queue::Queue;
use crate::schedule::Scheduler;
use crate::selector::Labels;

/// A change in the cluster, compiled by whoever watched it.
#[derive(Debug)]
pub enum Update {
    /// A pod has appeared or changed.
    Pod(Arc<PodInfo>),
    /// A pod is gone.
    PodGone(Uid),
    /// A node has appeared or changed.
    Node(Box<NodeFacts>),
    /// A node is gone.
    NodeGone(String),
    /// The labels of a namespace; `None` when it is gone.
    Namespace(String, Option<Labels>),
    /// A claim, by namespace and name; `None` when it is gone.
    Claim(String, String, Option<ClaimInfo>),
    /// A volume, by name; `None` when it is gone.
    Volume(String, Option<Box<PersistentVolume>>),
    /// Whether a storage class waits for the first consumer of a claim.
    Class(String, bool),
    /// A PodDisruptionBudget, by namespace and name; `None` when it is gone.
    Budget(String, String, Option<Budget>),
    /// The selector of a service, by namespace and name; `None` when it is gone.
    Service(String, String, Option<Labels>),
    /// The selector of an owner of pods; `None` when it is gone.
    Owner(OwnerKey, Option<LabelSelector>),
}

/// What is to be done about a pod.
#[derive(Debug)]
pub enum Action {
    /// Bind it, and report with [`Engine::bound`] or [`Engine::bind_failed`].
    Bind {
        /// The pod.
        pod: Arc<PodInfo>,
        /// The name of the node.
        node: Arc<str>,
    },
    /// Say why it has no node, and make room for it if victims are named.
    Unschedulable {
        /// The pod.
        pod: Arc<PodInfo>,
        /// Why.
        message: String,
        /// The node that room is being made on.
        nominated: Option<Arc<str>>,
        /// Pods that have to go from there.
        victims: Vec<Arc<PodInfo>>,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Engine {
    cluster: Cluster,
    queue: Queue,
    scheduler: Scheduler,
    scheduler_name: String,
}

impl Engine {
    /// One for the pods that ask for `scheduler_name`; ties are broken by `seed`.
    pub fn new(scheduler_name: String, seed: u64) -> Self {
        Self {
            cluster: Cluster::default(),
            queue: Queue::default(),
            scheduler: Scheduler::new(seed),
            scheduler_name,
        }
    }

    /// The snapshot.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The queue.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Brings the order of nodes up to date, for looking at the [`cluster`](Self::cluster) between cycles.
    pub fn refresh(&mut self) {
        self.cluster.refresh();
    }

    /// Takes in a change.
    pub fn apply(&mut self, update: Update, now: Duration) {
        match update {
            Update::Pod(pod) if pod.finished => self.pod_gone(&pod.uid, now),
            Update::Pod(pod) if pod.node_name.is_some() => self.pod_placed(pod, now),
            Update::Pod(pod) => self.pod_waiting(pod, now),
            Update::PodGone(uid) => self.pod_gone(&uid, now),
            Update::Node(facts) => self.node_changed(*facts, now),
            Update::NodeGone(name) => {
                self.cluster.remove_node(&name);
                self.retry(ClusterEvent::NodeGone, now);
            }
            Update::Namespace(name, labels) => {
                if self.cluster.set_namespace(&name, labels) {
                    self.retry(ClusterEvent::Namespace, now);
                }
            }
            Update::Claim(namespace, name, claim) => {
                if self.cluster.volumes.set_claim(&namespace, &name, claim) {
                    self.retry(ClusterEvent::Storage, now);
                }
            }
            Update::Volume(name, volume) => {
                match volume {
                    Some(volume) => self.cluster.volumes.set_volume(&name, &volume),
                    None => self.cluster.volumes.remove_volume(&name),
                }
                self.retry(ClusterEvent::Storage, now);
            }
            Update::Class(name, waits) => {
                self.cluster.volumes.set_class(&name, waits);
                self.retry(ClusterEvent::Storage, now);
            }
            Update::Budget(namespace, name, budget) => {
                self.cluster.budgets.set(&namespace, &name, budget);
            }
            Update::Service(namespace, name, selector) => {
                self.cluster.selectors.set_service(&namespace, &name, selector);
            }
            Update::Owner(key, selector) => self.cluster.selectors.set_owner(key, selector),
        }
    }

    /// Runs a cycle for the pod whose turn it is. `None` if it is nobody's.
    pub fn next(&mut self, now: Duration) -> Option<Action> {
        let pod = self.queue.pop(now)?;
        self.cluster.refresh();
        match self.scheduler.schedule(&self.cluster, &pod) {
            Ok(decision) => {
                self.cluster.assume(pod.clone(), decision.slot);
                let node = self.cluster.node(decision.slot).facts.name.clone();
                Some(Action::Bind { pod, node })
            }
            Err(diagnosis) => Some(self.post_filter(pod, *diagnosis, now)),
        }
    }

    /// When [`next`](Self::next) has something to do, if nothing else happens.
    pub fn next_due(&self) -> Option<Duration> {
        self.queue.next_due()
    }

    /// A binding has succeeded. The pod stays assumed until the watch confirms it.
    pub fn bound(&mut self, uid: &str, now: Duration) {
        self.queue.remove(uid);
        if let Some(pod) = self.cluster.pod(uid).cloned() {
            self.retry(ClusterEvent::PodPlaced(&pod), now);
        }
    }

    /// A binding has failed: the pod is to be tried again, and its place is free.
    pub fn bind_failed(&mut self, uid: &str, now: Duration) {
        self.queue.fail(uid, now);
        if let Some(pod) = self.cluster.forget(uid) {
            self.retry(ClusterEvent::PodGone(&pod), now);
        }
    }

    /// The bindings in flight are given up: their pods are to be tried again by whoever leads then.
    pub fn abandon_bindings(&mut self, now: Duration) {
        for uid in self.queue.all_in_flight() {
            self.bind_failed(&uid, now);
        }
    }

    fn pod_placed(&mut self, pod: Arc<PodInfo>, now: Duration) {
        self.queue.remove(&pod.uid);
        self.cluster.denominate(&pod.uid);
        let old = self.cluster.pod(&pod.uid).cloned();
        let change = self.cluster.set_pod(pod.clone());
        let same = old.as_ref().is_some_and(|old| old.asks_the_same(&pod));
        if change == Some(PodChange::Added) || !same {
            self.retry(ClusterEvent::PodPlaced(&pod), now);
        }
        if let Some(old) = old.filter(|_| !same) {
            self.retry(ClusterEvent::PodGone(&old), now);
        }
    }

    fn pod_waiting(&mut self, pod: Arc<PodInfo>, now: Duration) {
        if pod.scheduler_name != self.scheduler_name {
            return;
        }
        if pod.terminating {
            self.queue.remove(&pod.uid);
            self.cluster.denominate(&pod.uid);
            return;
        }
        // A version from before the binding that we know has succeeded.
        if self.cluster.is_assumed(&pod.uid) && self.queue.get(&pod.uid).is_none() {
            return;
        }
        match pod.nominated_node.clone() {
            Some(node) if !self.cluster.is_assumed(&pod.uid) => {
                self.cluster.nominate(pod.clone(), &node);
            }
            _ => {}
        }
        self.queue.set(pod, now);
    }

    fn pod_gone(&mut self, uid: &str, now: Duration) {
        self.queue.remove(uid);
        self.cluster.denominate(uid);
        if let Some(pod) = self.cluster.remove_pod(uid) {
            self.retry(ClusterEvent::PodGone(&pod), now);
        }
    }

    fn node_changed(&mut self, facts: NodeFacts, now: Duration) {
        let name = facts.name.clone();
        let change = self.cluster.set_node(facts);
        if change.any()
            && let Some(slot) = self.cluster.find(&name)
        {
            let event = ClusterEvent::Node(self.cluster.node(slot), change);
            retry(&mut self.queue, &self.cluster, event, now);
        }
    }

    fn retry(&mut self, event: ClusterEvent<'_>, now: Duration) {
        retry(&mut self.queue, &self.cluster, event, now);
    }

    fn post_filter(
        &mut self,
        pod: Arc<PodInfo>,
        mut diagnosis: Diagnosis,
        now: Duration,
    ) -> Action {
        let mut plugins = diagnosis.plugins;
        let mut nominated = None;
        let mut victims = Vec::new();
        if diagnosis.nodes_total == 0 {
            plugins = PluginSet::default();
        } else {
            match preempt(&self.cluster, &pod, &diagnosis) {
                Outcome::Hopeless(message) => {
                    self.cluster.denominate(&pod.uid);
                    diagnosis.post_filter = Some(message);
                }
                Outcome::Wait(message) => {
                    nominated = self.cluster.nomination(&pod.uid).cloned();
                    diagnosis.post_filter = Some(message);
                }
                Outcome::Nominate { slot, victims: chosen } => {
                    let node = self.cluster.node(slot).facts.name.clone();
                    self.cluster.nominate(pod.clone(), &node);
                    nominated = Some(node);
                    victims = chosen.into_iter().filter(|victim| !victim.terminating).collect();
                }
            }
        }
        self.queue.reject(&pod.uid, plugins, now);
        Action::Unschedulable { message: diagnosis.message(), pod, nominated, victims }
    }
}

fn retry(queue: &mut Queue, cluster: &Cluster, event: ClusterEvent<'_>, now: Duration) {
    let worth = |pod: &PodInfo, by| worth_retrying(by, event, cluster, pod);
    queue.retry_if(now, event.listeners(), worth);
}
