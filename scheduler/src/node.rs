//! A node: what its object says, and what the pods on it add up to. Sums are kept, never recomputed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint, Toleration};

use crate::pod::{HostPort, PodInfo};
use crate::resources::{Resources, value};
use crate::selector::{Labels, NodeView};

pub use pintle_machinery::node::tolerates;

/// The well-known labels of where a node is.
pub const REGION: &str = "topology.kubernetes.io/region";
/// See [`REGION`].
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// The label that tells nodes apart.
pub const HOSTNAME: &str = "kubernetes.io/hostname";

/// What a Node object says, compiled.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFacts {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `spec.taints`.
    pub taints: Vec<Taint>,
    /// `spec.unschedulable`.
    pub unschedulable: bool,
    /// `status.allocatable`.
    pub allocatable: Resources,
    /// `status.allocatable.pods`.
    pub allowed_pods: i64,
    /// `status.images`: names and sizes.
    pub images: HashMap<String, i64>,
}

/// What of a node has changed, as far as a waiting pod may care.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeChange {
    /// The node is new.
    pub added: bool,
    /// Its labels.
    pub labels: bool,
    /// Its taints or `unschedulable`.
    pub taints: bool,
    /// Its allocatable resources.
    pub allocatable: bool,
}

/// A node with its pods.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    /// What its object says.
    pub facts: NodeFacts,
    /// What its pods request.
    pub requested: Resources,
    /// CPU that its pods count as when scoring.
    pub scoring_milli_cpu: i64,
    /// Memory that its pods count as when scoring.
    pub scoring_memory: i64,
    /// Its pods, assumed ones too.
    pub pods: Vec<Arc<PodInfo>>,
    /// Ports that they take.
    pub ports: Vec<HostPort>,
    /// How many of them have a term of affinity or anti-affinity.
    pub with_affinity: usize,
    /// How many of them have a required term of anti-affinity.
    pub with_required_anti_affinity: usize,
}

impl NodeFacts {
    /// Compiles a node.
    pub fn new(node: &Node) -> Self {
        let spec = node.spec.as_ref();
        let status = node.status.as_ref();
        let allocatable = status.and_then(|s| s.allocatable.as_ref());
        let images = status.and_then(|s| s.images.as_ref()).into_iter().flatten();
        let images = images.flat_map(|image| {
            let size = image.size_bytes.unwrap_or_default();
            image.names.iter().flatten().map(move |name| (name.clone(), size))
        });
        Self {
            name: node.metadata.name.as_deref().unwrap_or_default().into(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: spec.and_then(|s| s.taints.clone()).unwrap_or_default(),
            unschedulable: spec.and_then(|s| s.unschedulable).unwrap_or_default(),
            allocatable: Resources::from_list(allocatable),
            allowed_pods: allocatable.and_then(|list| list.get("pods")).map_or(0, value),
            images: images.collect(),
        }
    }

    /// What differs from an older version.
    pub fn change_since(&self, older: &Self) -> NodeChange {
        NodeChange {
            added: false,
            labels: self.labels != older.labels,
            taints: self.taints != older.taints || self.unschedulable != older.unschedulable,
            allocatable: self.allocatable != older.allocatable
                || self.allowed_pods != older.allowed_pods,
        }
    }

    /// What makes nodes fail together; nodes are visited across zones in turn.
    pub fn zone(&self) -> (Option<&str>, Option<&str>) {
        let label = |key| self.labels.get(key).map(String::as_str);
        (label(REGION), label(ZONE))
    }

    /// The node as selectors see it.
    pub fn view(&self) -> NodeView<'_> {
        NodeView { name: &self.name, labels: &self.labels }
    }

    /// The first taint that keeps out a pod with these tolerations.
    pub fn untolerated(&self, tolerations: &[Toleration]) -> Option<&Taint> {
        let hard = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
        self.taints.iter().filter(hard).find(|taint| !tolerates(tolerations, taint))
    }
}

impl NodeChange {
    /// A node that was not there before.
    pub const ADDED: Self = Self { added: true, labels: true, taints: true, allocatable: true };

    /// Whether anything has changed.
    pub fn any(self) -> bool {
        self.added || self.labels || self.taints || self.allocatable
    }
}

impl NodeInfo {
    /// Puts a pod on the node.
    pub fn add_pod(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests.actual);
        self.scoring_milli_cpu += pod.requests.scoring_milli_cpu;
        self.scoring_memory += pod.requests.scoring_memory;
        self.ports.extend_from_slice(&pod.ports);
        self.with_affinity += usize::from(pod.affinity.any());
        self.with_required_anti_affinity += usize::from(!pod.affinity.required_anti.is_empty());
        self.pods.push(pod);
    }

    /// Takes a pod off the node, if it is there.
    pub fn remove_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let index = self.pods.iter().position(|pod| &*pod.uid == uid)?;
        let pod = self.pods.swap_remove(index);
        self.requested.sub(&pod.requests.actual);
        self.scoring_milli_cpu -= pod.requests.scoring_milli_cpu;
        self.scoring_memory -= pod.requests.scoring_memory;
        for port in &pod.ports {
            if let Some(index) = self.ports.iter().position(|p| p == port) {
                self.ports.swap_remove(index);
            }
        }
        self.with_affinity -= usize::from(pod.affinity.any());
        self.with_required_anti_affinity -= usize::from(!pod.affinity.required_anti.is_empty());
        Some(pod)
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.facts.labels.get(key).map(String::as_str)
    }

    /// Everything that is summed up, in an order of its own: equal for equal contents, whatever led to them.
    pub fn totals(&self) -> BTreeMap<String, i64> {
        let mut totals: BTreeMap<String, i64> = [
            ("cpu", self.requested.milli_cpu),
            ("memory", self.requested.memory),
            ("ephemeral-storage", self.requested.ephemeral_storage),
            ("scoring cpu", self.scoring_milli_cpu),
            ("scoring memory", self.scoring_memory),
            ("with affinity", self.with_affinity as i64),
            ("with required anti-affinity", self.with_required_anti_affinity as i64),
        ]
        .map(|(name, amount)| (name.to_owned(), amount))
        .into();
        let scalars = self.requested.scalars.iter().filter(|(_, amount)| *amount != 0);
        totals.extend(scalars.map(|(name, amount)| (format!("scalar {name}"), *amount)));
        for port in &self.ports {
            let key = format!("port {} {} {}", port.ip, port.protocol, port.port);
            *totals.entry(key).or_default() += 1;
        }
        totals.extend(self.pods.iter().map(|pod| (format!("pod {}", pod.uid), 1)));
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn soft_taints_keep_nobody_out() {
        let node = json!({"metadata": {"name": "n"}, "spec": {"taints": [
            {"key": "soft", "effect": "PreferNoSchedule"}, {"key": "hard", "effect": "NoExecute"}]}});
        let facts = NodeFacts::new(&serde_json::from_value(node).unwrap());
        assert_eq!(facts.untolerated(&[]).map(|t| t.key.as_str()), Some("hard"));
    }
}
