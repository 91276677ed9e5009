//! `Priority`: a pod's priority class becomes a number, and only one class is the default.

use k8s_openapi::api::scheduling::v1::PriorityClass;
use pintle_machinery::object;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::error::{ApiError, ApiResult};
use crate::registry::Context;

pub(super) struct Priority;

#[async_trait::async_trait]
impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn handles(&self, cx: &Context, operation: Operation) -> bool {
        let writes = matches!(operation, Operation::Create | Operation::Update);
        writes && (cx.is("", "pods", "") || cx.is("scheduling.k8s.io", "priorityclasses", ""))
    }

    async fn admit(&self, cx: &Context, attributes: &mut Attributes<'_>) -> ApiResult<()> {
        if !cx.is("", "pods", "") {
            return Ok(());
        }
        let Some(pod) = attributes.object.as_deref_mut() else { return Ok(()) };
        if let Some(old) = attributes.old_object {
            keep(pod, old);
            return Ok(());
        }
        let name = object::get_str(pod, &["spec", "priorityClassName"]).to_owned();
        let class = if name.is_empty() {
            default_class(cx).await?
        } else {
            let found = match cx.registry.get::<PriorityClass>("", &name).await? {
                Some(class) => Some(class),
                None => cx.registry.get_live::<PriorityClass>("", &name).await?,
            };
            Some(found.ok_or_else(|| {
                forbidden(cx, format!("no PriorityClass with name {name} was found"))
            })?)
        };
        resolve(pod, class.as_ref()).map_err(|why| forbidden(cx, why))
    }

    async fn validate(&self, cx: &Context, attributes: &Attributes<'_>) -> ApiResult<()> {
        let class = attributes.object.as_deref();
        if cx.is("", "pods", "") || !class.is_some_and(|class| class["globalDefault"] == true) {
            return Ok(());
        }
        match default_class(cx).await?.and_then(|class| class.metadata.name) {
            Some(other) if other != cx.name => Err(forbidden(
                cx,
                format!(
                    "PriorityClass {other} is already marked as default. Only one default can exist"
                ),
            )),
            _ => Ok(()),
        }
    }
}

fn forbidden(cx: &Context, why: String) -> ApiError {
    ApiError::forbidden(&cx.group_resource(), &cx.name, why)
}

/// The global default; of several (created at once on different members) the lowest.
async fn default_class(cx: &Context) -> ApiResult<Option<PriorityClass>> {
    let classes = cx.registry.list::<PriorityClass>("").await?;
    let defaults = classes.into_iter().filter(|class| class.global_default == Some(true));
    Ok(defaults.min_by_key(|class| class.value))
}

fn resolve(pod: &mut Value, class: Option<&PriorityClass>) -> Result<(), String> {
    let (value, policy) =
        class.map_or((0, None), |c| (c.value.unwrap_or(0), c.preemption_policy.as_deref()));
    let policy = policy.unwrap_or("PreemptLowerPriority");
    let spec = object::entry_object(object::as_object_mut(pod), "spec");
    if let Some(given) = spec.get("priority").and_then(Value::as_i64)
        && given != i64::from(value)
    {
        return Err(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
        ));
    }
    if let Some(given) = spec.get("preemptionPolicy").and_then(Value::as_str)
        && given != policy
    {
        return Err(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
        ));
    }
    if let Some(name) = class.and_then(|class| class.metadata.name.as_ref()) {
        spec.insert("priorityClassName".into(), json!(name));
    }
    spec.insert("priority".into(), json!(value));
    spec.insert("preemptionPolicy".into(), json!(policy));
    Ok(())
}

/// What was resolved on create stays, when an update leaves it out.
fn keep(pod: &mut Value, old: &Value) {
    let spec = object::entry_object(object::as_object_mut(pod), "spec");
    for field in ["priority", "preemptionPolicy"] {
        if let (None, Some(value)) = (spec.get(field), object::get(old, &["spec", field])) {
            spec.insert(field.into(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(name: &str, value: i32) -> PriorityClass {
        serde_json::from_value(json!({"metadata": {"name": name}, "value": value})).unwrap()
    }

    #[test]
    fn the_class_becomes_a_number() {
        let mut pod = json!({"spec": {"priorityClassName": "high"}});
        resolve(&mut pod, Some(&class("high", 1000))).unwrap();
        assert_eq!(pod["spec"]["priority"], 1000);
        assert_eq!(pod["spec"]["preemptionPolicy"], "PreemptLowerPriority");
        let mut pod = json!({"spec": {}});
        resolve(&mut pod, None).unwrap();
        assert_eq!(pod["spec"]["priority"], 0);
        assert!(pod["spec"].get("priorityClassName").is_none());
    }

    #[test]
    fn a_made_up_number_is_refused() {
        let mut pod = json!({"spec": {"priorityClassName": "high", "priority": 5}});
        assert!(resolve(&mut pod, Some(&class("high", 1000))).unwrap_err().contains("(5)"));
        let mut pod = json!({"spec": {"preemptionPolicy": "Never"}});
        assert!(resolve(&mut pod, None).unwrap_err().contains("(Never)"));
    }

    #[test]
    fn an_update_that_leaves_it_out_keeps_it() {
        let mut pod = json!({"spec": {}});
        keep(&mut pod, &json!({"spec": {"priority": 7, "preemptionPolicy": "Never"}}));
        assert_eq!(pod["spec"], json!({"priority": 7, "preemptionPolicy": "Never"}));
    }
}
