//! A pod as the scheduler sees it: everything that a cycle asks for is computed once, the rest is dropped.

use std::sync::{Arc, OnceLock};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Toleration, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::jiff::Timestamp;

use crate::affinity::{AffinityTerms, require_own_labels};
use crate::resources::Requests;
use crate::selector::{LabelSelector, Labels, NodeSelector, NodeTerm, NodeView};

/// The spec of a pod that has none; validation lets none through.
static EMPTY: OnceLock<PodSpec> = OnceLock::new();

/// The identity of a pod, through all its updates.
pub type Uid = Arc<str>;

/// A pod, compiled.
#[derive(Clone, Debug)]
pub struct PodInfo {
    /// `metadata.uid`.
    pub uid: Uid,
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `spec.nodeName`: set when the pod is bound.
    pub node_name: Option<Arc<str>>,
    /// `spec.schedulerName`.
    pub scheduler_name: String,
    /// `spec.priority`.
    pub priority: i32,
    /// Whether the pod may displace others.
    pub may_preempt: bool,
    /// What it requests.
    pub requests: Requests,
    /// Whether a container states any request or limit (the pod is not best-effort).
    pub states_resources: bool,
    /// Ports of the node that it takes.
    pub ports: Vec<HostPort>,
    /// `spec.tolerations`.
    pub tolerations: Vec<Toleration>,
    /// `spec.nodeSelector` and required node affinity.
    pub node_requirements: NodeRequirements,
    /// Preferred node affinity: terms and weights.
    pub node_preferences: Vec<(NodeTerm, i64)>,
    /// Pod affinity and anti-affinity.
    pub affinity: AffinityTerms,
    /// `spec.topologySpreadConstraints`.
    pub spread: Vec<SpreadConstraint>,
    /// Images of its containers, normalised.
    pub images: Vec<String>,
    /// Claims that its volumes name.
    pub claims: Vec<Claim>,
    /// Names of `spec.schedulingGates`.
    pub gates: Vec<String>,
    /// The owner that controls it.
    pub controller: Option<OwnerReference>,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// When it was started by its node.
    pub started: Option<Timestamp>,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Whether it has run to its end (and takes no resources).
    pub finished: bool,
    /// `status.nominatedNodeName`.
    pub nominated_node: Option<Arc<str>>,
    /// The message of a `PodScheduled` condition that is `False`.
    pub unschedulable_message: Option<String>,
}

/// A port of the node, as a container asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// The address; empty or `0.0.0.0` means all of them.
    pub ip: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The number.
    pub port: i32,
}

/// What the labels and the name of a node must fulfil.
#[derive(Clone, Debug, Default)]
pub struct NodeRequirements {
    /// `spec.nodeSelector`.
    pub labels: Labels,
    /// Required node affinity.
    pub affinity: Option<NodeSelector>,
}

/// A compiled `TopologySpreadConstraint`.
#[derive(Clone, Debug)]
pub struct SpreadConstraint {
    /// The label of nodes whose values are the domains.
    pub topology_key: String,
    /// How much fuller than the emptiest a domain may be.
    pub max_skew: i64,
    /// Domains that must exist before the emptiest of them counts.
    pub min_domains: Option<i64>,
    /// `DoNotSchedule`, as opposed to `ScheduleAnyway`.
    pub hard: bool,
    /// Pods that are counted.
    pub selector: LabelSelector,
    /// Whether nodes that the pod's affinity excludes are left out of the count.
    pub honor_affinity: bool,
    /// Whether nodes whose taints the pod does not tolerate are left out of the count.
    pub honor_taints: bool,
}

/// A claim that a volume names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Name of the PersistentVolumeClaim, in the pod's namespace.
    pub name: String,
    /// Whether it is made for the pod, by the ephemeral volume controller.
    pub ephemeral: bool,
}

impl PodInfo {
    /// Compiles a pod.
    pub fn new(pod: &Pod) -> Self {
        let spec = pod.spec.as_ref().unwrap_or(EMPTY.get_or_init(PodSpec::default));
        let meta = &pod.metadata;
        let status = pod.status.as_ref();
        let labels = meta.labels.clone().unwrap_or_default();
        let namespace = meta.namespace.clone().unwrap_or_default();
        let affinity = spec.affinity.as_ref();
        let phase = status.and_then(|s| s.phase.as_deref());
        Self {
            uid: identity(meta),
            name: meta.name.as_deref().unwrap_or_default().into(),
            resource_version: meta.resource_version.clone().unwrap_or_default(),
            node_name: spec.node_name.as_deref().filter(|n| !n.is_empty()).map(Into::into),
            scheduler_name: spec.scheduler_name.clone().unwrap_or_default(),
            priority: spec.priority.unwrap_or_default(),
            may_preempt: spec.preemption_policy.as_deref() != Some("Never"),
            requests: Requests::of(spec),
            states_resources: states_resources(spec),
            ports: host_ports(spec),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            node_requirements: NodeRequirements::compile(spec),
            node_preferences: node_preferences(spec),
            affinity: AffinityTerms::compile(affinity, &namespace, &labels),
            spread: spec
                .topology_spread_constraints
                .iter()
                .flatten()
                .map(|constraint| SpreadConstraint::compile(constraint, &labels))
                .collect(),
            images: images(spec),
            claims: claims(spec, meta.name.as_deref().unwrap_or_default()),
            gates: spec.scheduling_gates.iter().flatten().map(|gate| gate.name.clone()).collect(),
            controller: meta
                .owner_references
                .iter()
                .flatten()
                .find(|owner| owner.controller == Some(true))
                .cloned(),
            created: meta.creation_timestamp.as_ref().map(|t| t.0),
            started: status.and_then(|s| s.start_time.as_ref()).map(|t| t.0),
            terminating: meta.deletion_timestamp.is_some(),
            finished: matches!(phase, Some("Succeeded" | "Failed")),
            nominated_node: status
                .and_then(|s| s.nominated_node_name.as_deref())
                .filter(|n| !n.is_empty())
                .map(Into::into),
            unschedulable_message: unschedulable_message(pod),
            namespace: namespace.into(),
            labels,
        }
    }

    /// `namespace/name`.
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Whether two versions of a pod ask the scheduler for the same: a retry would end as the last one did.
    pub fn asks_the_same(&self, other: &Self) -> bool {
        self.labels == other.labels
            && self.gates == other.gates
            && self.tolerations == other.tolerations
            && self.requests == other.requests
            && self.terminating == other.terminating
    }
}

/// The uid; objects of tests without one are known by their name.
fn identity(meta: &ObjectMeta) -> Uid {
    meta.uid.as_deref().or(meta.name.as_deref()).unwrap_or_default().into()
}

fn containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

fn states_resources(spec: &PodSpec) -> bool {
    let requirements = containers(spec).map(|c| c.resources.as_ref());
    requirements.chain([spec.resources.as_ref()]).flatten().any(|r| {
        let lists = [r.requests.as_ref(), r.limits.as_ref()];
        lists
            .into_iter()
            .flatten()
            .any(|list| list.contains_key("cpu") || list.contains_key("memory"))
    })
}

/// Ports of containers and sidecars; an init container that ends leaves its ports to the others.
fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number = port.host_port.filter(|n| *n > 0)?;
            Some(HostPort {
                ip: port.host_ip.clone().unwrap_or_default(),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                port: number,
            })
        })
        .collect()
}

impl HostPort {
    /// Whether both cannot be on one node.
    pub fn conflicts(&self, other: &Self) -> bool {
        let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (any(&self.ip) || any(&other.ip) || self.ip == other.ip)
    }
}

impl NodeRequirements {
    fn compile(spec: &PodSpec) -> Self {
        let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        let required =
            affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        Self {
            labels: spec.node_selector.clone().unwrap_or_default(),
            affinity: required.map(NodeSelector::compile),
        }
    }

    /// Whether the pod requires nothing.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.affinity.is_none()
    }

    /// Whether the node has what the pod requires.
    pub fn matches(&self, node: NodeView<'_>) -> bool {
        self.labels.iter().all(|(key, value)| node.labels.get(key) == Some(value))
            && self.affinity.as_ref().is_none_or(|affinity| affinity.matches(node))
    }
}

fn node_preferences(spec: &PodSpec) -> Vec<(NodeTerm, i64)> {
    let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let preferred =
        affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
    preferred
        .into_iter()
        .flatten()
        .filter(|preferred| preferred.weight != 0)
        .map(|preferred| (NodeTerm::compile(&preferred.preference), preferred.weight.into()))
        .collect()
}

impl SpreadConstraint {
    fn compile(constraint: &TopologySpreadConstraint, labels: &Labels) -> Self {
        let mut selector = constraint.label_selector.clone();
        let keys = constraint.match_label_keys.as_deref().unwrap_or_default();
        require_own_labels(&mut selector, keys, "In", labels);
        Self {
            topology_key: constraint.topology_key.clone(),
            max_skew: constraint.max_skew.into(),
            min_domains: constraint.min_domains.map(Into::into),
            hard: constraint.when_unsatisfiable == "DoNotSchedule",
            selector: LabelSelector::compile(selector.as_ref()),
            honor_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        }
    }
}

fn images(spec: &PodSpec) -> Vec<String> {
    containers(spec).filter_map(|c| c.image.as_deref()).map(normalized_image).collect()
}

/// Adds `:latest` to an image that has neither tag nor digest.
fn normalized_image(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || last.contains('@') {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

fn claims(spec: &PodSpec, pod: &str) -> Vec<Claim> {
    let volumes = spec.volumes.iter().flatten();
    volumes
        .filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(claim), _) => Some(Claim { name: claim.claim_name.clone(), ephemeral: false }),
            (None, Some(_)) => {
                Some(Claim { name: format!("{pod}-{}", volume.name), ephemeral: true })
            }
            (None, None) => None,
        })
        .collect()
}

fn unschedulable_message(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|c| c.type_ == "PodScheduled")?;
    (condition.status == "False").then(|| condition.message.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> PodInfo {
        let object =
            json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": spec});
        PodInfo::new(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn host_ports_of_containers_and_sidecars_count() {
        let port = |n: i32| json!([{"containerPort": 80, "hostPort": n}]);
        let pod = pod(json!({
            "containers": [{"name": "a", "ports": port(1)}, {"name": "b", "ports": [{"containerPort": 5}]}],
            "initContainers": [{"name": "i", "ports": port(2)}, {"name": "s", "ports": port(3), "restartPolicy": "Always"}],
        }));
        let numbers: Vec<i32> = pod.ports.iter().map(|p| p.port).collect();
        assert_eq!(numbers, [1, 3]);
    }

    #[test]
    fn ports_conflict_on_overlapping_addresses_of_one_protocol() {
        let port = |ip: &str, protocol: &str, port| HostPort {
            ip: ip.into(),
            protocol: protocol.into(),
            port,
        };
        let cases = [
            (port("", "TCP", 80), port("10.0.0.1", "TCP", 80), true),
            (port("0.0.0.0", "TCP", 80), port("", "TCP", 80), true),
            (port("10.0.0.1", "TCP", 80), port("10.0.0.2", "TCP", 80), false),
            (port("", "TCP", 80), port("", "UDP", 80), false),
            (port("", "TCP", 80), port("", "TCP", 81), false),
        ];
        for (a, b, expected) in cases {
            assert_eq!(a.conflicts(&b), expected, "{a:?} {b:?}");
            assert_eq!(b.conflicts(&a), expected, "{b:?} {a:?}");
        }
    }

    #[test]
    fn images_get_the_default_tag() {
        let cases = [
            ("nginx", "nginx:latest"),
            ("host:5000/nginx", "host:5000/nginx:latest"),
            ("nginx:1", "nginx:1"),
            ("nginx@sha256:00", "nginx@sha256:00"),
        ];
        for (image, expected) in cases {
            assert_eq!(normalized_image(image), expected);
        }
    }

    #[test]
    fn ephemeral_claims_are_named_after_pod_and_volume() {
        let pod = pod(json!({"containers": [], "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": "mine"}},
            {"name": "tmp", "ephemeral": {}},
            {"name": "none", "emptyDir": {}},
        ]}));
        let expected = [("mine", false), ("p-tmp", true)]
            .map(|(name, ephemeral)| Claim { name: name.into(), ephemeral });
        assert_eq!(pod.claims, expected);
    }
}
