//! The taints that follow from the state of a node. Pure.

use k8s_openapi::{
    api::core::v1::{Node, Taint},
    jiff::Timestamp,
};

/// The effect that only keeps new pods off.
pub(super) const NO_SCHEDULE: &str = "NoSchedule";
/// The effect that evicts pods too.
pub(super) const NO_EXECUTE: &str = "NoExecute";
/// On a node that says it is not ready.
pub(super) const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// On a node that says nothing.
pub(super) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// On a node that is out of service for good: its pods need not be waited for.
pub(super) const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// The `NoSchedule` taints that stand for conditions: condition, its status, the taint.
const CONDITIONS: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];

/// The status of a condition of a node.
pub(super) fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a str> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| c.type_ == type_).map(|c| c.status.as_str())
}

/// Whether the node says that it is ready.
pub(super) fn is_ready(node: &Node) -> bool {
    condition(node, "Ready") == Some("True")
}

/// The taints of a node.
pub(super) fn of(node: &Node) -> &[Taint] {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref());
    taints.unwrap_or_default()
}

/// The `NoExecute` taint that the node's readiness asks for.
pub(super) fn evicting(node: &Node) -> Option<&'static str> {
    match condition(node, "Ready") {
        Some("True") => None,
        Some("False") => Some(NOT_READY),
        // A node that has never said anything is not ready either.
        None => Some(NOT_READY),
        Some(_) => Some(UNREACHABLE),
    }
}

/// What the taints have to be; `None` if they are. Taints of others stay as they are, and so do ours that stay valid.
/// `may_evict` says whether a new `NoExecute` taint may be set; one that is there stays as long as its cause does.
pub(super) fn reconcile(node: &Node, may_evict: bool, now: Timestamp) -> Option<Vec<Taint>> {
    let old = of(node);
    let wanted_effects = wanted(node);
    let ours = |taint: &Taint| {
        let by_condition = CONDITIONS.iter().any(|(_, _, key)| *key == taint.key);
        (by_condition || taint.key == UNSCHEDULABLE) && taint.effect == NO_SCHEDULE
            || [NOT_READY, UNREACHABLE].contains(&taint.key.as_str()) && taint.effect == NO_EXECUTE
    };
    let is_wanted = |taint: &Taint| {
        wanted_effects.iter().any(|(key, effect)| *key == taint.key && *effect == taint.effect)
    };
    let mut new: Vec<Taint> =
        old.iter().filter(|taint| !ours(taint) || is_wanted(taint)).cloned().collect();
    for (key, effect) in wanted_effects {
        let present = new.iter().any(|taint| taint.key == key && taint.effect == effect);
        if present || (effect == NO_EXECUTE && !may_evict) {
            continue;
        }
        new.push(Taint {
            key: key.to_owned(),
            effect: effect.to_owned(),
            time_added: Some(crate::object::time(now)),
            value: None,
        });
    }
    (new != old).then_some(new)
}

fn wanted(node: &Node) -> Vec<(&'static str, &'static str)> {
    let conditions =
        CONDITIONS.iter().filter(|(type_, status, _)| condition(node, type_) == Some(*status));
    let mut wanted: Vec<_> = conditions.map(|(_, _, key)| (*key, NO_SCHEDULE)).collect();
    if condition(node, "Ready").is_none() {
        wanted.push((NOT_READY, NO_SCHEDULE));
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    wanted.extend(evicting(node).map(|key| (key, NO_EXECUTE)));
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node(conditions: &[(&str, &str)], taints: Value, unschedulable: bool) -> Node {
        let conditions: Vec<_> =
            conditions.iter().map(|(t, s)| json!({"type": t, "status": s})).collect();
        serde_json::from_value(json!({
            "metadata": {"name": "n"},
            "spec": {"taints": taints, "unschedulable": unschedulable},
            "status": {"conditions": conditions},
        }))
        .unwrap()
    }

    fn names(taints: Option<Vec<Taint>>) -> Option<Vec<String>> {
        taints.map(|taints| {
            let short = |t: &Taint| {
                format!("{}:{}", t.key.trim_start_matches("node.kubernetes.io/"), t.effect)
            };
            taints.iter().map(short).collect()
        })
    }

    #[test]
    fn taints_follow_the_state() {
        let none = json!([]);
        let not_ready = json!([
            {"key": NOT_READY, "effect": NO_SCHEDULE}, {"key": NOT_READY, "effect": NO_EXECUTE}]);
        let own = json!([{"key": "mine", "effect": "NoExecute"}]);
        let cases: Vec<(Node, bool, Option<&[&str]>)> = vec![
            (node(&[("Ready", "True")], none.clone(), false), true, None),
            (node(&[("Ready", "True")], own.clone(), false), true, None),
            (
                node(&[("Ready", "False")], none.clone(), false),
                true,
                Some(&["not-ready:NoSchedule", "not-ready:NoExecute"]),
            ),
            (
                node(&[("Ready", "Unknown")], none.clone(), false),
                true,
                Some(&["unreachable:NoSchedule", "unreachable:NoExecute"]),
            ),
            (
                node(&[("Ready", "Unknown")], none.clone(), false),
                false,
                Some(&["unreachable:NoSchedule"]),
            ),
            (
                node(&[("Ready", "Unknown")], not_ready.clone(), false),
                true,
                Some(&["unreachable:NoSchedule", "unreachable:NoExecute"]),
            ),
            (node(&[("Ready", "False")], not_ready.clone(), false), false, None),
            (node(&[("Ready", "True")], not_ready, false), true, Some(&[])),
            (
                node(&[], none.clone(), false),
                true,
                Some(&["not-ready:NoSchedule", "not-ready:NoExecute"]),
            ),
            (
                node(&[("Ready", "True")], own, true),
                true,
                Some(&["mine:NoExecute", "unschedulable:NoSchedule"]),
            ),
            (
                node(&[("Ready", "True"), ("DiskPressure", "True")], none, false),
                true,
                Some(&["disk-pressure:NoSchedule"]),
            ),
        ];
        for (node, may_evict, expected) in cases {
            let expected = expected.map(|names| names.iter().map(|n| (*n).to_owned()).collect());
            let taints = reconcile(&node, may_evict, Timestamp::UNIX_EPOCH);
            assert_eq!(names(taints), expected, "{node:?}");
        }
    }
}
