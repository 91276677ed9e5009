//! `podFailurePolicy` and `successPolicy`: what the end of a pod, or of some indexes, means for the whole job.

use super::indexes::Indexes;
use k8s_openapi::api::{
    batch::v1::{
        PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
        PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule, SuccessPolicy,
        SuccessPolicyRule,
    },
    core::v1::{ContainerStatus, Pod, PodCondition},
};
use kube::ResourceExt;

/// What a rule says about a failed pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// The job fails, for this reason.
    FailJob(String),
    /// The pod's index fails.
    FailIndex,
    /// The failure does not count.
    Ignore,
    /// The failure counts.
    Count,
}

/// The action of the first rule that matches.
pub(super) fn action(policy: Option<&PodFailurePolicy>, pod: &Pod) -> Option<Action> {
    let rules = policy?.rules.iter().enumerate();
    rules.into_iter().find_map(|(index, rule)| apply(index, rule, pod))
}

/// Whether the failure of this pod counts towards a limit.
pub(super) fn counts(policy: Option<&PodFailurePolicy>, pod: &Pod) -> bool {
    action(policy, pod) != Some(Action::Ignore)
}

fn apply(index: usize, rule: &PodFailurePolicyRule, pod: &Pod) -> Option<Action> {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let why = if let Some(requirement) = &rule.on_exit_codes {
        let (container, code) = exit_code(requirement, pod)?;
        format!("Container {container} for pod {namespace}/{name} failed with exit code {code}")
    } else {
        let condition = matching_condition(rule.on_pod_conditions.as_deref()?, pod)?;
        format!("Pod {namespace}/{name} has condition {}", condition.type_)
    };
    match rule.action.as_str() {
        "FailJob" => Some(Action::FailJob(format!("{why} matching FailJob rule at index {index}"))),
        "FailIndex" => Some(Action::FailIndex),
        "Ignore" => Some(Action::Ignore),
        "Count" => Some(Action::Count),
        _ => None,
    }
}

/// The container that ended with a code as required. A code of 0 is no failure and matches nothing.
fn exit_code<'a>(
    requirement: &PodFailurePolicyOnExitCodesRequirement,
    pod: &'a Pod,
) -> Option<(&'a str, i32)> {
    let code = |container: &'a ContainerStatus| {
        let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
        let named = requirement.container_name.as_ref().is_none_or(|name| *name == container.name);
        let listed = requirement.values.contains(&code);
        let matches = match requirement.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        };
        (code != 0 && named && matches).then_some((container.name.as_str(), code))
    };
    let status = pod.status.as_ref()?;
    let containers = status.container_statuses.iter().flatten();
    containers.chain(status.init_container_statuses.iter().flatten()).find_map(code)
}

fn matching_condition<'a>(
    patterns: &[PodFailurePolicyOnPodConditionsPattern],
    pod: &'a Pod,
) -> Option<&'a PodCondition> {
    let matches = |condition: &&PodCondition| {
        patterns.iter().any(|pattern| {
            let status = pattern.status.as_deref().unwrap_or("True");
            pattern.type_ == condition.type_ && status == condition.status
        })
    };
    pod.status.as_ref()?.conditions.iter().flatten().find(matches)
}

/// Which rule declares the job a success, if one does.
pub(super) fn success(
    policy: Option<&SuccessPolicy>,
    completions: i32,
    succeeded: &Indexes,
) -> Option<String> {
    let met = |rule: &SuccessPolicyRule| {
        let count = rule.succeeded_count;
        match &rule.succeeded_indexes {
            Some(required) => {
                let required = Indexes::parse(required, completions);
                let done = required.common(succeeded);
                required.total() > 0
                    && (done == required.total() || count.is_some_and(|count| done >= count))
            }
            None => count.is_some_and(|count| succeeded.total() >= count),
        }
    };
    if succeeded.total() == 0 {
        return None;
    }
    let index = policy?.rules.iter().position(met)?;
    Some(format!("Matched rules at index {index}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json};

    fn pod(code: i32, conditions: Value) -> Pod {
        from_value(json!({
            "metadata": {"name": "p", "namespace": "ns"},
            "status": {
                "conditions": conditions,
                "containerStatuses": [{"name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"terminated": {"exitCode": code}}}],
            },
        }))
        .unwrap()
    }

    #[test]
    fn first_matching_rule_decides() {
        let policy: PodFailurePolicy = from_value(json!({"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [42]}},
            {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [7]}},
            {"action": "FailJob", "onExitCodes": {"containerName": "other", "operator": "NotIn", "values": [1]}},
            {"action": "Count", "onExitCodes": {"operator": "NotIn", "values": [1]}},
        ]}))
        .unwrap();
        let disrupted = json!([{"type": "DisruptionTarget", "status": "True"}]);
        let fails =
            "Container main for pod ns/p failed with exit code 42 matching FailJob rule at index 1";
        for (pod, want) in [
            (pod(42, disrupted), Some(Action::Ignore)),
            (pod(42, json!([])), Some(Action::FailJob(fails.to_owned()))),
            (
                pod(7, json!([{"type": "DisruptionTarget", "status": "False"}])),
                Some(Action::FailIndex),
            ),
            (pod(9, json!([])), Some(Action::Count)),
            (pod(1, json!([])), None),
            (pod(0, json!([])), None),
        ] {
            assert_eq!(action(Some(&policy), &pod), want);
            assert_eq!(counts(Some(&policy), &pod), want != Some(Action::Ignore));
        }
        assert!(counts(None, &pod(42, json!([]))));
    }

    #[test]
    fn success_needs_the_indexes_or_enough_of_them() {
        let policy: SuccessPolicy = from_value(json!({"rules": [
            {"succeededIndexes": "0,2-4", "succeededCount": 3},
            {"succeededIndexes": "7,8"},
            {"succeededCount": 6},
        ]}))
        .unwrap();
        for (succeeded, want) in [
            ("", None),
            ("0,2,9", None),
            ("0,2,3", Some(0)),
            ("7", None),
            ("1,7,8", Some(1)),
            ("0,1,5-7,9", Some(2)),
        ] {
            let got = success(Some(&policy), 10, &Indexes::parse(succeeded, 10));
            assert_eq!(
                got,
                want.map(|rule| format!("Matched rules at index {rule}")),
                "{succeeded}"
            );
        }
        assert_eq!(success(None, 10, &Indexes::parse("0-9", 10)), None);
    }
}
