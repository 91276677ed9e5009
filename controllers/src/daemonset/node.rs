//! Which nodes a pod of the set can run on: those that its selector and affinity allow and whose taints it tolerates.

use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use kube::ResourceExt;
use pintle_machinery::node::{NodeSelector, NodeView, tolerates};

/// What should be on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Eligibility {
    /// A pod should be started.
    pub(super) run: bool,
    /// A pod that is there may stay.
    pub(super) go_on: bool,
}

/// Decides about one node; `template` has all tolerations.
pub(super) fn eligibility(node: &Node, template: &Pod) -> Eligibility {
    let Some(spec) = &template.spec else { return Eligibility { run: false, go_on: false } };
    let named = spec.node_name.as_deref().filter(|name| !name.is_empty());
    if named.is_some_and(|name| name != node.name_any()) || !fits_selectors(node, template) {
        return Eligibility { run: false, go_on: false };
    }
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let repels = |effects: &[&str]| {
        let is_hard = |taint: &&Taint| effects.contains(&taint.effect.as_str());
        taints.iter().filter(is_hard).any(|taint| !tolerates(tolerations, taint))
    };
    Eligibility { run: !repels(&["NoExecute", "NoSchedule"]), go_on: !repels(&["NoExecute"]) }
}

fn fits_selectors(node: &Node, template: &Pod) -> bool {
    let Some(spec) = &template.spec else { return false };
    let labels = node.labels();
    let selected =
        spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    let name = node.name_any();
    let view = NodeView { name: &name, labels };
    selected && required.is_none_or(|required| NodeSelector::compile(required).matches(view))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemonset::pods;
    use serde_json::{Value, from_value, json};

    #[test]
    fn selectors_and_taints_decide() {
        let node = |taints: Value| -> Node {
            from_value(json!({"metadata": {"name": "n1", "labels": {"disk": "ssd"}}, "spec": {"taints": taints}})).unwrap()
        };
        let taint = |key: &str, effect: &str| json!([{"key": key, "effect": effect}]);
        let affinity = |values: Value| {
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{"matchExpressions": [{"key": "disk", "operator": "In", "values": values}]}]}}}})
        };
        let tolerant = json!({"tolerations": [{"key": "own", "operator": "Exists"}]});
        for (spec, taints, run, go_on) in [
            (json!({}), json!([]), true, true),
            (json!({"nodeName": "n1"}), json!([]), true, true),
            (json!({"nodeName": "n2"}), json!([]), false, false),
            (json!({"nodeSelector": {"disk": "ssd"}}), json!([]), true, true),
            (json!({"nodeSelector": {"disk": "hdd"}}), json!([]), false, false),
            (affinity(json!(["ssd", "nvme"])), json!([]), true, true),
            (affinity(json!(["hdd"])), json!([]), false, false),
            (json!({}), taint("own", "NoSchedule"), false, true),
            (json!({}), taint("own", "NoExecute"), false, false),
            (json!({}), taint("own", "PreferNoSchedule"), true, true),
            (tolerant, taint("own", "NoExecute"), true, true),
            (json!({}), taint("node.kubernetes.io/unschedulable", "NoSchedule"), true, true),
            (json!({}), taint("node.kubernetes.io/not-ready", "NoExecute"), true, true),
            (json!({}), taint("node.kubernetes.io/unreachable", "NoExecute"), true, true),
            (json!({}), taint("node.kubernetes.io/disk-pressure", "NoSchedule"), true, true),
            (json!({}), taint("node.kubernetes.io/network-unavailable", "NoSchedule"), false, true),
            (
                json!({"hostNetwork": true}),
                taint("node.kubernetes.io/network-unavailable", "NoSchedule"),
                true,
                true,
            ),
        ] {
            let mut spec_of = json!({"containers": []});
            spec_of.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
            let set = from_value(json!({"metadata": {"name": "s"}, "spec": {"selector": {}, "template": {"spec": spec_of}}})).unwrap();
            let got = eligibility(&node(taints.clone()), &pods::template(&set));
            assert_eq!(got, Eligibility { run, go_on }, "{spec} {taints}");
        }
    }
}
