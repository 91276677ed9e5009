//! `DefaultStorageClass` and `StorageObjectInUseProtection`: claims without a class get the default
//! one; volumes and claims are not removed while in use.

use k8s_openapi::api::storage::v1::StorageClass;
use pintle_machinery::object;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::error::ApiResult;
use crate::registry::Context;

const IS_DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
const LEGACY_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

pub(super) struct DefaultStorageClass;

#[async_trait::async_trait]
impl Plugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn handles(&self, cx: &Context, operation: Operation) -> bool {
        operation == Operation::Create && cx.is("", "persistentvolumeclaims", "")
    }

    async fn admit(&self, cx: &Context, attributes: &mut Attributes<'_>) -> ApiResult<()> {
        let Some(claim) = attributes.object.as_deref_mut() else { return Ok(()) };
        if has_class(claim) {
            return Ok(());
        }
        let classes = cx.registry.list::<StorageClass>("").await?;
        if let Some(name) = default_of(&classes) {
            let spec = object::entry_object(object::as_object_mut(claim), "spec");
            spec.insert("storageClassName".into(), name.into());
        }
        Ok(())
    }
}

/// An empty name is a choice: no class at all.
fn has_class(claim: &Value) -> bool {
    object::get(claim, &["spec", "storageClassName"]).is_some_and(Value::is_string)
        || object::annotation(claim, LEGACY_CLASS).is_some()
}

/// Of several defaults the newest, then the first by name.
fn default_of(classes: &[StorageClass]) -> Option<&str> {
    let is_default = |class: &&StorageClass| {
        let annotations = class.metadata.annotations.as_ref();
        annotations.and_then(|a| a.get(IS_DEFAULT)).is_some_and(|value| value == "true")
    };
    let newest_first = |class: &&StorageClass| {
        let created = class.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (std::cmp::Reverse(created), class.metadata.name.clone())
    };
    classes.iter().filter(is_default).min_by_key(newest_first)?.metadata.name.as_deref()
}

pub(super) struct StorageObjectInUseProtection;

#[async_trait::async_trait]
impl Plugin for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn handles(&self, cx: &Context, operation: Operation) -> bool {
        operation == Operation::Create && finalizer_of(cx).is_some()
    }

    async fn admit(&self, cx: &Context, attributes: &mut Attributes<'_>) -> ApiResult<()> {
        let (Some(object), Some(finalizer)) = (attributes.object.as_deref_mut(), finalizer_of(cx))
        else {
            return Ok(());
        };
        if !object::has_finalizer(object, finalizer) {
            let mut finalizers: Vec<String> =
                object::finalizers(object).map(str::to_owned).collect();
            finalizers.push(finalizer.to_owned());
            object::set_finalizers(object, finalizers);
        }
        Ok(())
    }
}

fn finalizer_of(cx: &Context) -> Option<&'static str> {
    if cx.is("", "persistentvolumeclaims", "") {
        Some("kubernetes.io/pvc-protection")
    } else if cx.is("", "persistentvolumes", "") {
        Some("kubernetes.io/pv-protection")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_newest_default_wins() {
        let class = |name: &str, created: &str, default: &str| -> StorageClass {
            serde_json::from_value(json!({"provisioner": "x", "metadata": {"name": name,
                "creationTimestamp": created, "annotations": {IS_DEFAULT: default}}}))
            .unwrap()
        };
        let old = class("old", "2026-01-01T00:00:00Z", "true");
        let new = class("new", "2026-02-01T00:00:00Z", "true");
        let newest = class("newest", "2026-03-01T00:00:00Z", "false");
        assert_eq!(default_of(&[old.clone(), new, newest]), Some("new"));
        assert_eq!(default_of(&[]), None);
    }

    #[test]
    fn an_empty_class_is_a_choice() {
        assert!(!has_class(&json!({"spec": {}})));
        assert!(has_class(&json!({"spec": {"storageClassName": ""}})));
        assert!(has_class(&json!({"metadata": {"annotations": {LEGACY_CLASS: "x"}}, "spec": {}})));
    }
}
