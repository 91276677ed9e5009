//! Pods: born pending, bound once, removed when their node says so.

mod qos;

use pintle_machinery::{ErrorList, object};
use serde_json::{Value, json};

use super::{Context, Grace, Strategy};
use crate::error::ApiResult;
use crate::registry::DeleteOptions;

/// The strategy of `pods`.
pub(super) struct Pod;

#[async_trait::async_trait]
impl Strategy for Pod {
    async fn prepare_for_create(&self, _cx: &Context, pod: &mut Value) -> ApiResult<()> {
        let mut status = json!({"phase": "Pending", "qosClass": qos::class_of(pod)});
        if !object::get_list(pod, &["spec", "schedulingGates"]).is_empty() {
            status["conditions"] = json!([{
                "type": "PodScheduled",
                "status": "False",
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
                "lastProbeTime": null,
                "lastTransitionTime": null,
            }]);
        }
        pod["status"] = status;
        Ok(())
    }

    fn validate_update(&self, cx: &Context, pod: &Value, old: &Value) -> ErrorList {
        if cx.subresource.is_empty() {
            pintle_machinery::validation::validate_pod_object_update(pod, old)
        } else {
            ErrorList::new()
        }
    }

    fn merge_subresource(
        &self,
        cx: &Context,
        pod: &Value,
        old: &Value,
    ) -> Option<ApiResult<Value>> {
        match cx.subresource.as_str() {
            "ephemeralcontainers" => Some(Ok(with_ephemeral_containers(pod, old))),
            "resize" => Some(Ok(with_resources(pod, old))),
            "status" => Some(Ok(with_status(pod, old))),
            _ => None,
        }
    }

    /// A pod that never got a node, or has finished, is removed at once; any other one keeps its
    /// grace for the node agent to stop it.
    fn grace(&self, _cx: &Context, pod: &Value, options: &DeleteOptions) -> Grace {
        let own = object::get_i64(pod, &["spec", "terminationGracePeriodSeconds"]);
        let asked = options.grace_period_seconds.or(own).unwrap_or(30);
        // Upstream takes a negative period for "a second".
        let seconds = if asked < 0 { 1 } else { asked };
        let scheduled = !object::get_str(pod, &["spec", "nodeName"]).is_empty();
        let finished = matches!(object::get_str(pod, &["status", "phase"]), "Succeeded" | "Failed");
        if seconds == 0 || !scheduled || finished {
            Grace::Immediately
        } else {
            Grace::Seconds(seconds)
        }
    }
}

/// The stored pod with the wanted ephemeral containers, and nothing else.
fn with_ephemeral_containers(pod: &Value, old: &Value) -> Value {
    let mut merged = with_metadata(pod, old);
    if let Some(containers) = object::get(pod, &["spec", "ephemeralContainers"]) {
        merged["spec"]["ephemeralContainers"] = containers.clone();
    }
    merged
}

/// The stored pod with the wanted resources of its containers.
fn with_resources(pod: &Value, old: &Value) -> Value {
    let mut merged = with_metadata(pod, old);
    for list in ["initContainers", "containers"] {
        let wanted = object::get_list(pod, &["spec", list]);
        let stored = merged["spec"].get_mut(list).and_then(Value::as_array_mut);
        for container in stored.into_iter().flatten() {
            let Some(new) = wanted.iter().find(|new| new["name"] == container["name"]) else {
                continue;
            };
            for field in ["resources", "resizePolicy"] {
                match new.get(field) {
                    Some(value) => container[field] = value.clone(),
                    None => {
                        object::as_object_mut(container).remove(field);
                    }
                }
            }
        }
    }
    merged
}

/// Status of a pod: what the client says, except for what is decided on creation.
fn with_status(pod: &Value, old: &Value) -> Value {
    let mut merged = with_metadata(pod, old);
    let mut status = pod.get("status").cloned().unwrap_or_else(|| json!({}));
    if let (Value::Object(status), Some(class)) =
        (&mut status, object::get(old, &["status", "qosClass"]))
    {
        status.insert("qosClass".into(), class.clone());
    }
    merged["status"] = status;
    merged
}

/// The stored object with the metadata that a subresource may change.
pub(super) fn with_metadata(object: &Value, old: &Value) -> Value {
    let mut merged = old.clone();
    let metadata = object::metadata_mut(&mut merged);
    for field in [
        "managedFields",
        "labels",
        "annotations",
        "finalizers",
        "ownerReferences",
        "resourceVersion",
    ] {
        match object.get("metadata").and_then(|metadata| metadata.get(field)) {
            Some(value) => metadata.insert(field.into(), value.clone()),
            None => metadata.remove(field),
        };
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Value {
        json!({
            "metadata": {"name": "p", "labels": {"a": "1"}, "resourceVersion": "1", "uid": "u"},
            "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "1"}}}]},
            "status": {"phase": "Running", "qosClass": "Burstable"},
        })
    }

    #[test]
    fn a_subresource_changes_only_its_part() {
        let mut new = pod();
        new["spec"]["nodeName"] = "other".into();
        new["spec"]["containers"][0]["image"] = "other".into();
        new["spec"]["containers"][0]["resources"]["limits"]["cpu"] = "2".into();
        new["spec"]["ephemeralContainers"] = json!([{"name": "debug"}]);
        new["status"] = json!({"phase": "Failed", "qosClass": "Guaranteed"});
        new["metadata"]["uid"] = "other".into();

        let debug = with_ephemeral_containers(&new, &pod());
        assert_eq!(debug["spec"]["ephemeralContainers"], json!([{"name": "debug"}]));
        assert_eq!(debug["spec"]["nodeName"], "n");
        assert_eq!(debug["status"], pod()["status"]);
        assert_eq!(debug["metadata"]["uid"], "u");

        let resized = with_resources(&new, &pod());
        assert_eq!(resized["spec"]["containers"][0]["resources"]["limits"]["cpu"], "2");
        assert_eq!(resized["spec"]["containers"][0]["image"], "i");

        let reported = with_status(&new, &pod());
        assert_eq!(reported["status"], json!({"phase": "Failed", "qosClass": "Burstable"}));
        assert_eq!(reported["spec"], pod()["spec"]);
    }
}
