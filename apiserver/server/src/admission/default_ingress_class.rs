//! `DefaultIngressClass`: an ingress without a class gets the default one.

use k8s_openapi::api::networking::v1::IngressClass;
use pintle_machinery::object;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::error::{ApiError, ApiResult};
use crate::registry::Context;

const IS_DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
const LEGACY_CLASS: &str = "kubernetes.io/ingress.class";

pub(super) struct DefaultIngressClass;

#[async_trait::async_trait]
impl Plugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn handles(&self, cx: &Context, operation: Operation) -> bool {
        operation == Operation::Create && cx.is("networking.k8s.io", "ingresses", "")
    }

    async fn admit(&self, cx: &Context, attributes: &mut Attributes<'_>) -> ApiResult<()> {
        let Some(ingress) = attributes.object.as_deref_mut() else { return Ok(()) };
        if has_class(ingress) {
            return Ok(());
        }
        let classes = cx.registry.list::<IngressClass>("").await?;
        let defaults: Vec<&str> = classes.iter().filter_map(default_name).collect();
        match defaults.as_slice() {
            [] => {}
            [name] => {
                let spec = object::entry_object(object::as_object_mut(ingress), "spec");
                spec.insert("ingressClassName".into(), (*name).into());
            }
            several => {
                let why =
                    format!("{} default IngressClasses were found, only 1 allowed", several.len());
                return Err(ApiError::forbidden(&cx.group_resource(), &cx.name, why));
            }
        }
        Ok(())
    }
}

fn has_class(ingress: &Value) -> bool {
    object::get(ingress, &["spec", "ingressClassName"]).is_some_and(Value::is_string)
        || object::annotation(ingress, LEGACY_CLASS).is_some()
}

fn default_name(class: &IngressClass) -> Option<&str> {
    let annotations = class.metadata.annotations.as_ref()?;
    let is_default = annotations.get(IS_DEFAULT).is_some_and(|value| value == "true");
    is_default.then_some(class.metadata.name.as_deref()).flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_class_by_field_or_annotation_is_a_choice() {
        assert!(!has_class(&json!({"spec": {}})));
        assert!(has_class(&json!({"spec": {"ingressClassName": "x"}})));
        assert!(has_class(&json!({"metadata": {"annotations": {LEGACY_CLASS: "x"}}})));
    }

    #[test]
    fn only_marked_classes_are_defaults() {
        let class = |value: &str| -> IngressClass {
            serde_json::from_value(
                json!({"metadata": {"name": "c", "annotations": {IS_DEFAULT: value}}}),
            )
            .unwrap()
        };
        assert_eq!(default_name(&class("true")), Some("c"));
        assert_eq!(default_name(&class("false")), None);
    }
}
