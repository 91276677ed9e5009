//! PodDisruptionBudgets: how many of their pods may be disrupted now. Eviction and preemption ask this status before they take
//! a pod, and note it in `disruptedPods`; here such a pod counts as gone until it is, or until it has been spared too long.

mod scale;
mod stale;
mod sync;

use crate::{
    intstr::{Round, scaled},
    object::{is_deleting, time},
    pod::is_ready,
};
use k8s_openapi::{
    api::{
        core::v1::Pod,
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus},
    },
    apimachinery::pkg::{
        apis::meta::v1::{Condition, Time},
        util::intstr::IntOrString,
    },
    jiff::{SignedDuration, Timestamp},
};
use kube::ResourceExt;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

pub use sync::register;

/// How long a pod that was to be disrupted may take to begin to go.
const DELETION_TIMEOUT: SignedDuration = SignedDuration::from_secs(120);
const DISRUPTION_ALLOWED: &str = "DisruptionAllowed";

/// How many pods there should be, and how many must be healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Pods that there should be.
    pub pods: i32,
    /// Pods that must be healthy.
    pub healthy: i32,
}

/// What [`reconcile`] decides.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The status.
    pub status: PodDisruptionBudgetStatus,
    /// Pods that should have gone and have not.
    pub spared: Vec<String>,
    /// When to look again, although nothing may have changed.
    pub again: Option<Duration>,
}

/// Whether the number of pods that there should be has to be asked of their controllers.
pub fn asks_for_scale(budget: &PodDisruptionBudget) -> bool {
    let Some(spec) = &budget.spec else { return false };
    spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
}

/// What the budget expects; `scale` is what the controllers of its pods ask for, where [`asks_for_scale`].
pub fn expected(budget: &PodDisruptionBudget, pods: i32, scale: i32) -> Result<Expected, String> {
    let Some(spec) = &budget.spec else { return Ok(Expected { pods: 0, healthy: 0 }) };
    let number = |value: &IntOrString| {
        scaled(value, scale, Round::Up).ok_or_else(|| format!("invalid value: {value:?}"))
    };
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(value), _) => {
            Ok(Expected { pods: scale, healthy: scale.saturating_sub(number(value)?).max(0) })
        }
        (None, Some(IntOrString::Int(least))) => Ok(Expected { pods, healthy: *least }),
        (None, Some(value)) => Ok(Expected { pods: scale, healthy: number(value)? }),
        (None, None) => Ok(Expected { pods: 0, healthy: 0 }),
    }
}

/// Counts the pods of a budget.
pub fn reconcile(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    expected: Expected,
    now: Timestamp,
) -> Outcome {
    let last = budget.status.clone().unwrap_or_default();
    let mut spared = Vec::new();
    let mut again = None;
    let mut disrupted = BTreeMap::new();
    for pod in pods.iter().filter(|pod| !is_deleting(&pod.metadata)) {
        let name = pod.name_any();
        let since = last.disrupted_pods.as_ref().and_then(|pods| pods.get(&name));
        let Some(since) = since else { continue };
        let left = DELETION_TIMEOUT - now.duration_since(since.0);
        match Duration::try_from(left) {
            Ok(left) if !left.is_zero() => {
                again = Some(again.map_or(left, |known: Duration| known.min(left)));
                disrupted.insert(name, since.clone());
            }
            _ => spared.push(name),
        }
    }
    let healthy = healthy(pods, &disrupted);
    let allowed = if expected.pods > 0 { (healthy - expected.healthy).max(0) } else { 0 };
    let status = PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(expected.healthy),
        expected_pods: Some(expected.pods),
        disruptions_allowed: Some(allowed),
        disrupted_pods: Some(disrupted).filter(|pods| !pods.is_empty()),
        observed_generation: budget.metadata.generation,
        conditions: last.conditions,
    };
    let (holds, reason) =
        if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    Outcome { status: with_condition(budget, status, holds, reason, "", now), spared, again }
}

fn healthy(pods: &[Arc<Pod>], disrupted: &BTreeMap<String, Time>) -> i32 {
    let counts = |pod: &&Arc<Pod>| {
        !is_deleting(&pod.metadata) && !disrupted.contains_key(&pod.name_any()) && is_ready(pod)
    };
    pods.iter().filter(counts).count() as i32
}

/// What cannot be counted allows nothing.
pub fn failed(
    budget: &PodDisruptionBudget,
    why: &str,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let last = budget.status.clone().unwrap_or_default();
    let status = PodDisruptionBudgetStatus { disruptions_allowed: Some(0), ..last };
    with_condition(budget, status, "False", "SyncFailed", why, now)
}

fn with_condition(
    budget: &PodDisruptionBudget,
    mut status: PodDisruptionBudgetStatus,
    holds: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let conditions = status.conditions.get_or_insert_default();
    let known = conditions.iter().find(|condition| condition.type_ == DISRUPTION_ALLOWED);
    let since = known.filter(|known| known.status == holds);
    let since = since.map_or_else(|| time(now), |known| known.last_transition_time.clone());
    conditions.retain(|condition| condition.type_ != DISRUPTION_ALLOWED);
    conditions.push(Condition {
        type_: DISRUPTION_ALLOWED.to_owned(),
        status: holds.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: budget.metadata.generation,
        last_transition_time: since,
    });
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::tests::{at, running};
    use serde_json::{Value, from_value, json};

    fn budget(spec: Value, status: Value) -> PodDisruptionBudget {
        from_value(
            json!({"metadata": {"name": "b", "generation": 3}, "spec": spec, "status": status}),
        )
        .unwrap()
    }

    /// `r`: ready, `u`: not ready, `d`: ready, but on its way out.
    fn pods(text: &str) -> Vec<Arc<Pod>> {
        let pod = |(index, kind)| {
            let mut pod = running(&format!("p{index}"), (kind != 'u').then_some(1));
            pod.metadata.deletion_timestamp = (kind == 'd').then(|| time(at(50)));
            Arc::new(pod)
        };
        text.chars().enumerate().map(pod).collect()
    }

    #[test]
    fn budget_is_what_is_healthy_beyond_what_must_be() {
        for (spec, scale, of, want) in [
            (json!({"minAvailable": 2}), 9, "rrr", (3, 3, 2, 1)),
            (json!({"minAvailable": 2}), 9, "rru", (3, 2, 2, 0)),
            (json!({"minAvailable": 2}), 9, "rrrd", (4, 3, 2, 1)),
            (json!({"minAvailable": 5}), 9, "rr", (2, 2, 5, 0)),
            (json!({"minAvailable": 0}), 9, "", (0, 0, 0, 0)),
            (json!({"minAvailable": "50%"}), 5, "rrrrr", (5, 5, 3, 2)),
            (json!({"minAvailable": "50%"}), 5, "rrr", (5, 3, 3, 0)),
            (json!({"maxUnavailable": 1}), 3, "rrr", (3, 3, 2, 1)),
            (json!({"maxUnavailable": 1}), 3, "rr", (3, 2, 2, 0)),
            (json!({"maxUnavailable": 4}), 3, "rrr", (3, 3, 0, 3)),
            (json!({"maxUnavailable": "34%"}), 3, "rrr", (3, 3, 1, 2)),
            (json!({"maxUnavailable": 0}), 3, "rrr", (3, 3, 3, 0)),
            (json!({}), 3, "rrr", (0, 3, 0, 0)),
        ] {
            let (budget, pods) = (budget(spec.clone(), json!({})), pods(of));
            let expected = expected(&budget, pods.len() as i32, scale).unwrap();
            let status = reconcile(&budget, &pods, expected, at(100)).status;
            let got = (
                status.expected_pods.unwrap(),
                status.current_healthy.unwrap(),
                status.desired_healthy.unwrap(),
                status.disruptions_allowed.unwrap(),
            );
            assert_eq!(got, want, "{spec} of {scale}: {of}");
            assert_eq!(status.observed_generation, Some(3));
            let condition = &status.conditions.unwrap()[0];
            assert_eq!(condition.reason == "SufficientPods", want.3 > 0);
        }
    }

    #[test]
    fn evicted_pod_counts_as_gone_until_it_has_been_spared_too_long() {
        let noted =
            json!({"disruptedPods": {"p0": at(100).to_string(), "p9": at(100).to_string()}});
        let budget = budget(json!({"minAvailable": 1}), noted);
        let expected = Expected { pods: 3, healthy: 1 };
        let early = reconcile(&budget, &pods("rrr"), expected, at(150));
        assert_eq!(
            (early.status.current_healthy, early.status.disruptions_allowed),
            (Some(2), Some(1))
        );
        assert_eq!(early.again, Some(Duration::from_secs(70)));
        assert_eq!(early.status.disrupted_pods.unwrap().into_keys().collect::<Vec<_>>(), ["p0"]);
        let late = reconcile(&budget, &pods("rrr"), expected, at(221));
        assert_eq!((late.status.current_healthy, late.status.disrupted_pods), (Some(3), None));
        assert_eq!((late.spared, late.again), (vec!["p0".to_owned()], None));
        let gone = reconcile(&budget, &pods("drr"), expected, at(150));
        assert_eq!((gone.status.current_healthy, gone.status.disrupted_pods), (Some(2), None));
    }

    #[test]
    fn transition_time_moves_with_the_status_alone() {
        let mut budget = budget(json!({"minAvailable": 1}), json!({}));
        let expected = Expected { pods: 3, healthy: 1 };
        let step = |budget: &mut PodDisruptionBudget, of: &str, second| {
            budget.status = Some(reconcile(budget, &pods(of), expected, at(second)).status);
            budget.status.clone().unwrap().conditions.unwrap()[0].last_transition_time.clone()
        };
        assert_eq!(step(&mut budget, "rr", 10), time(at(10)));
        assert_eq!(step(&mut budget, "rrr", 20), time(at(10)));
        assert_eq!(step(&mut budget, "r", 30), time(at(30)));
        let failed = failed(&budget, "why", at(40));
        assert_eq!(failed.disruptions_allowed, Some(0));
        let condition = &failed.conditions.unwrap()[0];
        assert_eq!((condition.reason.as_str(), condition.message.as_str()), ("SyncFailed", "why"));
    }
}
