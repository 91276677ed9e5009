//! The pods of a DaemonSet: pinned to a node, and tolerant of what is wrong with it.

use crate::{
    history::HASH_LABEL,
    object::controller_reference,
    pod::{generate, node_name},
};
use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration},
};
use kube::ResourceExt;

const NODE_NAME: &str = "metadata.name";

/// What a daemon tolerates as a matter of course.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
/// And on the network of the node.
const TOLERATED_BY_HOST_NETWORK: (&str, &str) =
    ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// What every pod of the set is like, before it has a node and a name.
pub(super) fn template(set: &DaemonSet) -> Pod {
    let template = &set.spec.template;
    let meta = template.metadata.clone().unwrap_or_default();
    let mut pod = Pod { metadata: meta, spec: template.spec.clone(), status: None };
    if let Some(spec) = &mut pod.spec {
        tolerate(spec);
    }
    pod
}

fn tolerate(spec: &mut PodSpec) {
    let host = (spec.host_network == Some(true)).then_some(TOLERATED_BY_HOST_NETWORK);
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in TOLERATED.into_iter().chain(host) {
        let wanted = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Default::default()
        };
        tolerations.retain(|known| {
            let limited = Toleration { toleration_seconds: None, ..known.clone() };
            limited != wanted
        });
        tolerations.push(wanted);
    }
}

/// A new pod for this node.
pub(super) fn new(set: &DaemonSet, hash: &str, node: &str) -> Pod {
    let (namespace, name) = (set.namespace().unwrap_or_default(), set.name_any());
    let mut pod = generate(&set.spec.template, &namespace, &name, controller_reference(set));
    pod.labels_mut().insert(HASH_LABEL.to_owned(), hash.to_owned());
    if let Some(spec) = &mut pod.spec {
        tolerate(spec);
        pin(spec, node);
    }
    pod
}

/// The scheduler binds the pod, but to this node only. What else was required is fulfilled there, or it would not be chosen.
fn pin(spec: &mut PodSpec, node: &str) {
    let term = NodeSelectorTerm {
        match_fields: Some(vec![NodeSelectorRequirement {
            key: NODE_NAME.to_owned(),
            operator: "In".to_owned(),
            values: Some(vec![node.to_owned()]),
        }]),
        match_expressions: None,
    };
    let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    affinity.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
}

/// The node that a pod is bound, or pinned, to.
pub(super) fn target_node(pod: &Pod) -> Option<&str> {
    let bound = node_name(pod);
    if !bound.is_empty() {
        return Some(bound);
    }
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fields =
        required.node_selector_terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let mut names = fields.filter(|field| field.key == NODE_NAME && field.operator == "In");
    match names.next()?.values.as_deref()? {
        [node] => Some(node),
        _ => None,
    }
}
