//! `pods/binding` and `bindings`: the scheduler's decision, taken once.

use k8s_openapi::api::core::v1::Binding;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use pintle_machinery::{GroupResource, Status, object};
use serde_json::{Value, json};

use super::Action;
use crate::authz::reviews::decode;
use crate::error::{ApiError, ApiResult};
use crate::registry::Context;

/// Binds a pod to a node.
pub(crate) struct Bindings;

#[async_trait::async_trait]
impl Action for Bindings {
    async fn create(&self, cx: &Context, object: Value) -> ApiResult<Value> {
        let binding: Binding = decode(object)?;
        let name = pod_name(cx, &binding)?;
        let target = &binding.target;
        let node = target.name.clone().unwrap_or_default();
        if !matches!(target.kind.as_deref(), None | Some("" | "Node")) {
            return Err(ApiError::bad_request(
                "target.kind: Unsupported value: must be one of \"\", \"Node\"",
            ));
        }
        if node.is_empty() {
            return Err(ApiError::bad_request("target.name: Required value"));
        }
        let now = pintle_machinery::time::format(jiff::Timestamp::now());
        let bind = |pod: &mut Value| bind(pod, &binding.metadata, &node, &now);
        if cx.dry_run {
            let pod = cx.registry.get_live_value("", "pods", &cx.namespace, &name).await?;
            let missing = || ApiError::not_found(&GroupResource::new("", "pods"), &name);
            bind(&mut pod.ok_or_else(missing)?)?;
        } else {
            cx.registry.mutate("", "pods", &cx.namespace, &name, bind).await?;
        }
        let mut success = Status::success(None);
        success.code = 201;
        Ok(success.to_value())
    }
}

/// `bindings` names the pod in the object, `pods/NAME/binding` in the path.
fn pod_name(cx: &Context, binding: &Binding) -> ApiResult<String> {
    let named = binding.metadata.name.clone().unwrap_or_default();
    if cx.subresource.is_empty() || cx.name.is_empty() {
        return Ok(named);
    }
    if !named.is_empty() && named != cx.name {
        return Err(ApiError::bad_request("name in URL does not match name in Binding object"));
    }
    Ok(cx.name.clone())
}

/// Sets the node, unless the pod has one, is going away, or is held back.
fn bind(pod: &mut Value, wanted: &ObjectMeta, node: &str, now: &str) -> ApiResult<()> {
    let name = object::name(pod).to_owned();
    let conflict =
        |why: String| Err(ApiError::conflict(&GroupResource::new("", "pods/binding"), &name, why));
    if let Some(uid) = wanted.uid.as_deref().filter(|uid| !uid.is_empty())
        && uid != object::uid(pod)
    {
        return conflict(format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            object::uid(pod)
        ));
    }
    if object::is_terminating(pod) {
        return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let bound = object::get_str(pod, &["spec", "nodeName"]);
    if !bound.is_empty() {
        return conflict(format!("pod {name} is already assigned to node \"{bound}\""));
    }
    if !object::get_list(pod, &["spec", "schedulingGates"]).is_empty() {
        return conflict(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let spec = object::entry_object(object::as_object_mut(pod), "spec");
    spec.insert("nodeName".into(), node.into());
    for (key, value) in wanted.annotations.iter().flatten() {
        object::set_annotation(pod, key, value);
    }
    for (key, value) in wanted.labels.iter().flatten() {
        if object::label(pod, key).is_none() {
            object::set_label(pod, key, value);
        }
    }
    set_condition(pod, json!({"type": "PodScheduled", "status": "True"}), now);
    Ok(())
}

/// Replaces the condition of the same type; the transition time moves when the status does.
pub(super) fn set_condition(object: &mut Value, mut condition: Value, now: &str) {
    let generation = object::generation(object);
    if generation > 0 && object::kind(object) == "Pod" {
        condition["observedGeneration"] = generation.into();
    }
    let status = object::entry_object(object::as_object_mut(object), "status");
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    let Value::Array(conditions) = conditions else {
        return;
    };
    let old = conditions.iter_mut().find(|old| old["type"] == condition["type"]);
    let unchanged = old.as_ref().is_some_and(|old| old["status"] == condition["status"]);
    condition["lastProbeTime"] = Value::Null;
    condition["lastTransitionTime"] = match &old {
        Some(old) if unchanged => old["lastTransitionTime"].clone(),
        _ => now.into(),
    };
    match old {
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn pod() -> Value {
        json!({"metadata": {"name": "p", "uid": "u"}, "spec": {}, "status": {"conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "lastTransitionTime": "2025-01-01T00:00:00Z"},
        ]}})
    }

    #[test]
    fn a_pod_is_bound_and_says_so() {
        let mut pod = pod();
        let wanted = ObjectMeta { uid: Some("u".into()), ..ObjectMeta::default() };
        bind(&mut pod, &wanted, "n1", NOW).unwrap();
        assert_eq!(pod["spec"]["nodeName"], "n1");
        assert_eq!(
            pod["status"]["conditions"],
            json!([{"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": NOW}])
        );
    }

    #[test]
    fn a_pod_is_bound_only_once_alive_and_ungated() {
        let refused = |change: fn(&mut Value)| {
            let mut pod = pod();
            change(&mut pod);
            let error = bind(&mut pod, &ObjectMeta::default(), "n1", NOW).unwrap_err();
            assert_eq!(error.code, 409);
            error.message
        };
        let message = refused(|pod| pod["spec"]["nodeName"] = "n2".into());
        assert!(message.contains("pod p is already assigned to node \"n2\""), "{message}");
        refused(|pod| pod["metadata"]["deletionTimestamp"] = NOW.into());
        refused(|pod| pod["spec"]["schedulingGates"] = json!([{"name": "g"}]));
        let mut other = pod();
        let wanted = ObjectMeta { uid: Some("other".into()), ..ObjectMeta::default() };
        assert_eq!(bind(&mut other, &wanted, "n1", NOW).unwrap_err().code, 409);
    }
}
