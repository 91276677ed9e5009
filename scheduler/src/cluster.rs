//! The snapshot: nodes with their pods, and the few other objects that decisions depend on.
//!
//! Owned by one task and updated in place between cycles. An *assumed* pod is one that we have placed and whose binding
//! has not come back through the watch; it counts like any other. Invariant: whatever order events arrive in, the
//! contents equal those of a cluster built from the present objects (held by a property test).

mod budgets;
mod selectors;
mod volumes;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::node::{NodeChange, NodeFacts, NodeInfo};
use crate::pod::{PodInfo, Uid};
use crate::selector::Labels;

pub use budgets::{Budget, Budgets};
pub use selectors::{OwnerKey, Selectors};
pub use volumes::{BoundClaim, ClaimInfo, Volumes};

/// Where a node is in the [`Cluster`]; valid until the node is gone and its last pod too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(usize);

#[derive(Clone, Debug)]
struct Placed {
    pod: Arc<PodInfo>,
    slot: Slot,
    assumed: bool,
}

/// What became of a pod that was reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodChange {
    /// It is new on its node.
    Added,
    /// It was known there.
    Updated,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Cluster {
    nodes: Vec<NodeInfo>,
    free: Vec<Slot>,
    by_name: HashMap<Arc<str>, Slot>,
    /// Slots of nodes whose object exists, across zones in turn.
    order: Vec<Slot>,
    order_is_stale: bool,
    known: BTreeSet<Slot>,
    pods: HashMap<Uid, Placed>,
    with_affinity: BTreeSet<Slot>,
    with_required_anti_affinity: BTreeSet<Slot>,
    nominated: HashMap<Uid, (Arc<PodInfo>, Slot)>,
    image_nodes: HashMap<String, usize>,
    namespaces: HashMap<String, Labels>,
    /// Claims, volumes and classes.
    pub volumes: Volumes,
    /// Pods that had better not be displaced.
    pub budgets: Budgets,
    /// Selectors of services and of the owners of pods.
    pub selectors: Selectors,
}

impl Cluster {
    /// Takes in a node.
    pub fn set_node(&mut self, facts: NodeFacts) -> NodeChange {
        let slot = self.slot_for(&facts.name);
        let added = self.known.insert(slot);
        let change =
            if added { NodeChange::ADDED } else { facts.change_since(&self.nodes[slot.0].facts) };
        self.count_images(slot, false);
        self.order_is_stale |= added || facts.zone() != self.nodes[slot.0].facts.zone();
        self.nodes[slot.0].facts = facts;
        self.count_images(slot, true);
        change
    }

    /// Forgets a node. Its pods keep their slot until they are gone too.
    pub fn remove_node(&mut self, name: &str) {
        let Some(slot) = self.by_name.get(name).copied() else { return };
        if self.known.remove(&slot) {
            self.count_images(slot, false);
            let name = self.nodes[slot.0].facts.name.clone();
            self.nodes[slot.0].facts = NodeFacts { name, ..NodeFacts::default() };
            self.order_is_stale = true;
        }
        self.free_if_unused(slot);
    }

    /// Takes in a pod that is bound to a node. It replaces what was known or assumed of it.
    pub fn set_pod(&mut self, pod: Arc<PodInfo>) -> Option<PodChange> {
        let node = pod.node_name.clone()?;
        let known = self.remove_pod(&pod.uid).is_some();
        let slot = self.slot_for(&node);
        self.place(pod, slot, false);
        Some(if known { PodChange::Updated } else { PodChange::Added })
    }

    /// Places a pod before its binding is known to have succeeded.
    pub fn assume(&mut self, pod: Arc<PodInfo>, slot: Slot) {
        self.remove_pod(&pod.uid);
        self.denominate(&pod.uid);
        self.place(pod, slot, true);
    }

    /// Takes back [`assume`](Self::assume), unless the watch has confirmed it meanwhile.
    pub fn forget(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        if self.pods.get(uid).is_some_and(|placed| placed.assumed) {
            self.remove_pod(uid)
        } else {
            None
        }
    }

    /// Takes a pod off its node.
    pub fn remove_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let placed = self.pods.remove(uid)?;
        self.nodes[placed.slot.0].remove_pod(uid);
        self.index_affinity(placed.slot);
        self.free_if_unused(placed.slot);
        Some(placed.pod)
    }

    /// A pod that is on a node.
    pub fn pod(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        self.pods.get(uid).map(|placed| &placed.pod)
    }

    /// Whether a pod is on a node by our word alone.
    pub fn is_assumed(&self, uid: &str) -> bool {
        self.pods.get(uid).is_some_and(|placed| placed.assumed)
    }

    /// All pods that are on nodes.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<PodInfo>> {
        self.pods.values().map(|placed| &placed.pod)
    }

    /// Notes that room is being made for a waiting pod on a node.
    pub fn nominate(&mut self, pod: Arc<PodInfo>, node: &str) {
        let slot = self.by_name.get(node).copied().filter(|slot| self.known.contains(slot));
        match slot {
            Some(slot) => self.nominated.insert(pod.uid.clone(), (pod, slot)),
            None => self.nominated.remove(&pod.uid),
        };
    }

    /// Takes back [`nominate`](Self::nominate).
    pub fn denominate(&mut self, uid: &str) {
        self.nominated.remove(uid);
    }

    /// The name of the node that a waiting pod is nominated to.
    pub fn nomination(&self, uid: &str) -> Option<&Arc<str>> {
        self.nominated.get(uid).map(|(_, slot)| &self.nodes[slot.0].facts.name)
    }

    /// The pods nominated to a node that `pod` must leave room for.
    pub fn nominated_before(&self, slot: Slot, pod: &PodInfo) -> Vec<Arc<PodInfo>> {
        let rivals = self.nominated.values().filter(|(rival, at)| {
            *at == slot && rival.uid != pod.uid && rival.priority >= pod.priority
        });
        let mut rivals: Vec<_> = rivals.map(|(rival, _)| rival.clone()).collect();
        rivals.sort_by(|a, b| a.uid.cmp(&b.uid));
        rivals
    }

    /// Whether any pod is nominated to any node.
    pub fn has_nominations(&self) -> bool {
        !self.nominated.is_empty()
    }

    /// Brings the order of nodes up to date; to be called before a cycle.
    pub fn refresh(&mut self) {
        if std::mem::take(&mut self.order_is_stale) {
            self.order = self.zones_in_turn();
        }
    }

    /// The nodes whose objects exist, in the order in which they are visited.
    pub fn nodes(&self) -> &[Slot] {
        debug_assert!(!self.order_is_stale, "refresh() comes first");
        &self.order
    }

    /// The node at a slot.
    pub fn node(&self, slot: Slot) -> &NodeInfo {
        &self.nodes[slot.0]
    }

    /// The slot of a node whose object exists.
    pub fn find(&self, name: &str) -> Option<Slot> {
        self.by_name.get(name).copied().filter(|slot| self.known.contains(slot))
    }

    /// Nodes that have a pod with any term of affinity.
    pub fn nodes_with_affinity(&self) -> impl Iterator<Item = Slot> + '_ {
        self.with_affinity.iter().copied().filter(|slot| self.known.contains(slot))
    }

    /// Nodes that have a pod with a required term of anti-affinity.
    pub fn nodes_with_required_anti_affinity(&self) -> impl Iterator<Item = Slot> + '_ {
        self.with_required_anti_affinity.iter().copied().filter(|slot| self.known.contains(slot))
    }

    /// On how many nodes an image is.
    pub fn nodes_with_image(&self, image: &str) -> usize {
        self.image_nodes.get(image).copied().unwrap_or_default()
    }

    /// Takes in a namespace; `None` when it is gone. Tells whether its labels have changed.
    pub fn set_namespace(&mut self, name: &str, labels: Option<Labels>) -> bool {
        match labels {
            Some(labels) => self.namespaces.insert(name.to_owned(), labels.clone()) != Some(labels),
            None => self.namespaces.remove(name).is_some(),
        }
    }

    /// The labels of a namespace.
    pub fn namespace_labels(&self, name: &str) -> Option<&Labels> {
        self.namespaces.get(name)
    }

    /// The sums of every node, for comparing.
    pub fn totals(&self) -> BTreeMap<String, BTreeMap<String, i64>> {
        let named = self.by_name.iter();
        named.map(|(name, slot)| (name.to_string(), self.nodes[slot.0].totals())).collect()
    }

    fn slot_for(&mut self, name: &Arc<str>) -> Slot {
        if let Some(slot) = self.by_name.get(name) {
            return *slot;
        }
        let facts = NodeFacts { name: name.clone(), ..NodeFacts::default() };
        let node = NodeInfo { facts, ..NodeInfo::default() };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.nodes[slot.0] = node;
                slot
            }
            None => {
                self.nodes.push(node);
                Slot(self.nodes.len() - 1)
            }
        };
        self.by_name.insert(name.clone(), slot);
        slot
    }

    fn free_if_unused(&mut self, slot: Slot) {
        if self.nodes[slot.0].pods.is_empty() && !self.known.contains(&slot) {
            let node = std::mem::take(&mut self.nodes[slot.0]);
            if self.by_name.remove(&node.facts.name).is_some() {
                self.nominated.retain(|_, (_, at)| *at != slot);
                self.free.push(slot);
            }
        }
    }

    fn place(&mut self, pod: Arc<PodInfo>, slot: Slot, assumed: bool) {
        self.nodes[slot.0].add_pod(pod.clone());
        self.index_affinity(slot);
        self.pods.insert(pod.uid.clone(), Placed { pod, slot, assumed });
    }

    fn index_affinity(&mut self, slot: Slot) {
        let node = &self.nodes[slot.0];
        let counts = [
            (node.with_affinity, &mut self.with_affinity),
            (node.with_required_anti_affinity, &mut self.with_required_anti_affinity),
        ];
        for (count, index) in counts {
            if count > 0 {
                index.insert(slot);
            } else {
                index.remove(&slot);
            }
        }
    }

    fn count_images(&mut self, slot: Slot, add: bool) {
        for image in self.nodes[slot.0].facts.images.keys() {
            if add {
                *self.image_nodes.entry(image.clone()).or_default() += 1;
            } else if let Some(count) = self.image_nodes.get_mut(image) {
                *count -= 1;
                if *count == 0 {
                    self.image_nodes.remove(image);
                }
            }
        }
    }

    fn zones_in_turn(&self) -> Vec<Slot> {
        let mut zones: BTreeMap<_, Vec<Slot>> = BTreeMap::new();
        for slot in &self.known {
            zones.entry(self.nodes[slot.0].facts.zone()).or_default().push(*slot);
        }
        let longest = zones.values().map(Vec::len).max().unwrap_or_default();
        let turns = (0..longest).flat_map(|i| zones.values().filter_map(move |zone| zone.get(i)));
        turns.copied().collect()
    }
}

#[cfg(test)]
mod tests;
