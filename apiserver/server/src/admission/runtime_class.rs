//! `RuntimeClass`: a pod of a runtime class takes over its overhead and where it can run.

use k8s_openapi::api::node::v1::RuntimeClass as Class;
use pintle_machinery::object;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::error::{ApiError, ApiResult};
use crate::registry::Context;

pub(super) struct RuntimeClass;

#[async_trait::async_trait]
impl Plugin for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn handles(&self, cx: &Context, operation: Operation) -> bool {
        operation == Operation::Create && cx.is("", "pods", "")
    }

    async fn admit(&self, cx: &Context, attributes: &mut Attributes<'_>) -> ApiResult<()> {
        let Some(pod) = attributes.object.as_deref_mut() else { return Ok(()) };
        let name = object::get_str(pod, &["spec", "runtimeClassName"]).to_owned();
        if name.is_empty() {
            return Ok(());
        }
        let forbidden = |why: String| ApiError::forbidden(&cx.group_resource(), &cx.name, why);
        let class = match cx.registry.get::<Class>("", &name).await? {
            Some(class) => Some(class),
            None => cx.registry.get_live::<Class>("", &name).await?,
        };
        let class = class
            .ok_or_else(|| forbidden(format!("pod rejected: RuntimeClass \"{name}\" not found")))?;
        apply(pod, &class).map_err(forbidden)
    }
}

fn apply(pod: &mut Value, class: &Class) -> Result<(), String> {
    let spec = object::entry_object(object::as_object_mut(pod), "spec");
    if let Some(fixed) = class.overhead.as_ref().and_then(|overhead| overhead.pod_fixed.as_ref()) {
        let overhead = json!(fixed);
        match spec.get("overhead") {
            Some(given) if *given != overhead => {
                return Err(
                    "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"
                        .into(),
                );
            }
            _ => spec.insert("overhead".into(), overhead),
        };
    }
    let Some(scheduling) = &class.scheduling else { return Ok(()) };
    let selector = object::entry_object(spec, "nodeSelector");
    for (key, value) in scheduling.node_selector.iter().flatten() {
        match selector.get(key) {
            Some(given) if given != value => {
                return Err(format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {}",
                    given.as_str().unwrap_or_default()
                ));
            }
            _ => selector.insert(key.clone(), json!(value)),
        };
    }
    if selector.is_empty() {
        spec.remove("nodeSelector");
    }
    for toleration in scheduling.tolerations.iter().flatten() {
        let toleration = json!(toleration);
        match spec.entry("tolerations").or_insert_with(|| json!([])) {
            Value::Array(list) if list.contains(&toleration) => {}
            Value::Array(list) => list.push(toleration),
            other => *other = json!([toleration]),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overhead_and_scheduling_are_taken_over() {
        let class: Class = serde_json::from_value(json!({
            "handler": "vm", "overhead": {"podFixed": {"memory": "64Mi"}},
            "scheduling": {"nodeSelector": {"vm": "yes"}, "tolerations": [{"key": "vm", "operator": "Exists"}]},
        }))
        .unwrap();
        let mut pod = json!({"spec": {"nodeSelector": {"zone": "a"}}});
        apply(&mut pod, &class).unwrap();
        assert_eq!(pod["spec"]["overhead"], json!({"memory": "64Mi"}));
        assert_eq!(pod["spec"]["nodeSelector"], json!({"zone": "a", "vm": "yes"}));
        assert_eq!(pod["spec"]["tolerations"], json!([{"key": "vm", "operator": "Exists"}]));
        assert!(apply(&mut json!({"spec": {"nodeSelector": {"vm": "no"}}}), &class).is_err());
        assert!(apply(&mut json!({"spec": {"overhead": {"memory": "1"}}}), &class).is_err());
    }
}
