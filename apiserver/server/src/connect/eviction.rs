//! `pods/eviction`: a delete that a disruption budget can refuse.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{Eviction, PodDisruptionBudget};
use pintle_machinery::status::Cause;
use pintle_machinery::{GroupResource, LabelSelector, Status, object};
use serde_json::{Value, json};

use super::Action;
use super::binding::set_condition;
use crate::authz::reviews::decode;
use crate::error::{ApiError, ApiResult};
use crate::registry::{Context, DeleteOptions, Target};

/// More names than this in `disruptedPods` mean that the disruption controller is not working.
const DISRUPTED_PODS_MAX: usize = 2000;
/// Seconds after which an eviction is worth another try.
const RETRY_SECONDS: u32 = 10;
const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// Evicts a pod.
pub(crate) struct Evictions;

#[async_trait::async_trait]
impl Action for Evictions {
    async fn create(&self, cx: &Context, object: Value) -> ApiResult<Value> {
        let options = object.get("deleteOptions").cloned().unwrap_or_else(|| json!({}));
        let eviction: Eviction = decode(object)?;
        let named = eviction.metadata.name.as_deref().unwrap_or_default();
        if !named.is_empty() && named != cx.name {
            return Err(ApiError::bad_request(
                "name in URL does not match name in Eviction object",
            ));
        }
        let options = DeleteOptions::read(Some(&options), &Default::default())?;
        let dry_run = cx.dry_run || options.dry_run;
        let pods = GroupResource::new("", "pods");
        let pod = cx.registry.get_live::<Pod>(&cx.namespace, &cx.name).await?;
        let pod = pod.ok_or_else(|| ApiError::not_found(&pods, &cx.name))?;
        if !is_free_to_go(&pod) {
            spend_budget(cx, &pod, dry_run).await?;
            if !dry_run {
                mark(cx, &pod).await?;
            }
        }
        let options = DeleteOptions { dry_run, ..options };
        let target = Target {
            plural: "pods",
            namespace: &cx.namespace,
            name: &cx.name,
            ..Target::default()
        };
        cx.registry.delete(target, &options).await?;
        let mut success = Status::success(None);
        success.code = 201;
        Ok(success.to_value())
    }
}

/// A pod that does not run disrupts nobody.
fn is_free_to_go(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    pod.metadata.deletion_timestamp.is_some() || matches!(phase, "Succeeded" | "Failed" | "Pending")
}

/// Takes one disruption from the budget that covers the pod, if there is one.
async fn spend_budget(cx: &Context, pod: &Pod, dry_run: bool) -> ApiResult<()> {
    let budgets = cx.registry.list::<PodDisruptionBudget>(&cx.namespace).await?;
    let mut covering = Vec::new();
    for budget in budgets {
        if covers(&budget, pod)? {
            covering.push(budget);
        }
    }
    let budget = match covering.as_slice() {
        [] => return Ok(()),
        [budget] => budget,
        _ => {
            return Err(ApiError::internal_error(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
    };
    if ignores_budget(pod, budget) {
        return Ok(());
    }
    let name = budget.metadata.name.clone().unwrap_or_default();
    let now = pintle_machinery::time::format(jiff::Timestamp::now());
    let spend = |budget: &mut Value| spend(budget, &cx.name, &now);
    let group = "policy";
    if dry_run {
        let found =
            cx.registry.get_live_value(group, "poddisruptionbudgets", &cx.namespace, &name).await?;
        return found.map_or(Ok(()), |mut budget| spend(&mut budget));
    }
    cx.registry.mutate(group, "poddisruptionbudgets", &cx.namespace, &name, spend).await?;
    Ok(())
}

fn covers(budget: &PodDisruptionBudget, pod: &Pod) -> ApiResult<bool> {
    let Some(selector) = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref()) else {
        return Ok(false);
    };
    let selector = serde_json::to_value(selector).map_err(ApiError::internal_error)?;
    let labels = pod.metadata.labels.as_ref();
    let selector = LabelSelector::from_value(&selector)?;
    Ok(selector.matches_with(|key| labels.and_then(|labels| labels.get(key)).map(String::as_str)))
}

/// A pod that is not ready does not count for the budget: it may go when enough others are healthy,
/// or always if the budget says so.
fn ignores_budget(pod: &Pod, budget: &PodDisruptionBudget) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref());
    let ready =
        conditions.unwrap_or_default().iter().any(|c| c.type_ == "Ready" && c.status == "True");
    if ready {
        return false;
    }
    let policy = budget.spec.as_ref().and_then(|s| s.unhealthy_pod_eviction_policy.as_deref());
    let Some(status) = &budget.status else { return false };
    policy == Some("AlwaysAllow")
        || (status.current_healthy >= status.desired_healthy && status.desired_healthy > Some(0))
}

fn spend(budget: &mut Value, pod: &str, now: &str) -> ApiResult<()> {
    let name = object::name(budget).to_owned();
    let status = |field: &str| object::get_i64(budget, &["status", field]).unwrap_or(0);
    let refused = |message: String| {
        Err(ApiError::too_many_requests(REFUSED, RETRY_SECONDS).with_cause(Cause {
            reason: "DisruptionBudget".into(),
            message,
            field: String::new(),
        }))
    };
    if status("observedGeneration") < object::generation(budget) {
        return refused(format!(
            "The disruption budget {name} is still being processed by the server."
        ));
    }
    let allowed = status("disruptionsAllowed");
    let resource = GroupResource::new("policy", "poddisruptionbudgets");
    if allowed < 0 {
        return Err(ApiError::forbidden(&resource, &name, "pdb disruptions allowed is negative"));
    }
    let disrupted = object::get(budget, &["status", "disruptedPods"]).and_then(Value::as_object);
    if disrupted.is_some_and(|pods| pods.len() > DISRUPTED_PODS_MAX) {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(ApiError::forbidden(&resource, &name, why));
    }
    if allowed == 0 {
        return refused(format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            status("desiredHealthy"),
            status("currentHealthy")
        ));
    }
    let status = object::entry_object(object::as_object_mut(budget), "status");
    status.insert("disruptionsAllowed".into(), (allowed - 1).into());
    // The controller counts the pod as gone until it sees it so, or gives up waiting.
    object::entry_object(status, "disruptedPods").insert(pod.to_owned(), now.into());
    Ok(())
}

/// Tells the pod's owner why it goes.
async fn mark(cx: &Context, pod: &Pod) -> ApiResult<()> {
    let now = pintle_machinery::time::format(jiff::Timestamp::now());
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let marked = cx
        .registry
        .mutate("", "pods", &cx.namespace, &cx.name, |pod| {
            if object::uid(pod) == uid {
                let condition = json!({
                    "type": "DisruptionTarget",
                    "status": "True",
                    "reason": "EvictionByEvictionAPI",
                    "message": "Eviction API: evicting",
                });
                set_condition(pod, condition, &now);
            }
            Ok(())
        })
        .await;
    match marked {
        Err(error) if error.code == 404 => Ok(()),
        other => other.map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn budget(status: Value) -> Value {
        json!({"metadata": {"name": "b", "generation": 1}, "status": status})
    }

    #[test]
    fn a_budget_is_spent_one_by_one() {
        let mut budget = budget(
            json!({"observedGeneration": 1, "disruptionsAllowed": 1, "desiredHealthy": 2, "currentHealthy": 3}),
        );
        spend(&mut budget, "p", NOW).unwrap();
        assert_eq!(budget["status"]["disruptionsAllowed"], 0);
        assert_eq!(budget["status"]["disruptedPods"], json!({"p": NOW}));
        let refused = spend(&mut budget, "q", NOW).unwrap_err();
        assert_eq!((refused.code, refused.retry_after_seconds()), (429, Some(10)));
        assert_eq!(refused.message, REFUSED);
        assert_eq!(
            refused.details.unwrap().causes[0].message,
            "The disruption budget b needs 2 healthy pods and has 3 currently"
        );
    }

    #[test]
    fn a_budget_nobody_has_looked_at_yet_refuses() {
        let refused = spend(&mut budget(json!({"disruptionsAllowed": 1})), "p", NOW).unwrap_err();
        assert_eq!(refused.code, 429);
    }

    #[test]
    fn unready_pods_go_by_policy() {
        let pod = |ready: &str| -> Pod {
            serde_json::from_value(
                json!({"status": {"conditions": [{"type": "Ready", "status": ready}]}}),
            )
            .unwrap()
        };
        let budget = |policy: &str, healthy: i32| -> PodDisruptionBudget {
            serde_json::from_value(json!({
                "spec": {"unhealthyPodEvictionPolicy": policy},
                "status": {"currentHealthy": healthy, "desiredHealthy": 2, "disruptionsAllowed": 0, "expectedPods": 3},
            }))
            .unwrap()
        };
        let cases = [
            ("True", "AlwaysAllow", 0, false),
            ("False", "AlwaysAllow", 0, true),
            ("False", "IfHealthyBudget", 2, true),
            ("False", "IfHealthyBudget", 1, false),
        ];
        for (ready, policy, healthy, expected) in cases {
            assert_eq!(
                ignores_budget(&pod(ready), &budget(policy, healthy)),
                expected,
                "{ready} {policy} {healthy}"
            );
        }
    }

    #[test]
    fn pods_that_do_not_run_are_free_to_go() {
        for (phase, free) in [("Pending", true), ("Running", false), ("Failed", true)] {
            let pod: Pod = serde_json::from_value(json!({"status": {"phase": phase}})).unwrap();
            assert_eq!(is_free_to_go(&pod), free, "{phase}");
        }
    }
}
