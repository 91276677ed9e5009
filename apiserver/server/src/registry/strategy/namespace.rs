//! Namespaces: deletion waits until `spec.finalizers` is empty, which the namespace controller
//! does through `/finalize` once nothing is left inside.

use pintle_machinery::object;
use serde_json::{Value, json};

use super::pod::with_metadata;
use super::{Context, Strategy};
use crate::error::ApiResult;

const FINALIZER: &str = "kubernetes";
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The strategy of `namespaces`.
pub(super) struct Namespace;

#[async_trait::async_trait]
impl Strategy for Namespace {
    async fn prepare_for_create(&self, cx: &Context, namespace: &mut Value) -> ApiResult<()> {
        namespace["status"] = json!({"phase": "Active"});
        let spec = object::entry_object(object::as_object_mut(namespace), "spec");
        let finalizers = spec.entry("finalizers").or_insert_with(|| json!([]));
        if let Value::Array(list) = finalizers
            && !list.contains(&json!(FINALIZER))
        {
            list.push(json!(FINALIZER));
        }
        set_name_label(cx, namespace);
        Ok(())
    }

    async fn prepare_for_update(
        &self,
        cx: &Context,
        namespace: &mut Value,
        old: &Value,
    ) -> ApiResult<()> {
        let spec = object::entry_object(object::as_object_mut(namespace), "spec");
        match object::get(old, &["spec", "finalizers"]) {
            Some(finalizers) => spec.insert("finalizers".into(), finalizers.clone()),
            None => spec.remove("finalizers"),
        };
        set_name_label(cx, namespace);
        Ok(())
    }

    fn merge_subresource(
        &self,
        cx: &Context,
        object: &Value,
        old: &Value,
    ) -> Option<ApiResult<Value>> {
        if cx.subresource != "finalize" {
            return None;
        }
        let mut merged = with_metadata(object, old);
        let spec = object::entry_object(object::as_object_mut(&mut merged), "spec");
        match object::get(object, &["spec", "finalizers"]) {
            Some(finalizers) => spec.insert("finalizers".into(), finalizers.clone()),
            None => spec.remove("finalizers"),
        };
        Some(Ok(merged))
    }

    fn begin_deletion(&self, _cx: &Context, namespace: &mut Value) {
        let status = object::entry_object(object::as_object_mut(namespace), "status");
        status.insert("phase".into(), "Terminating".into());
    }

    fn is_held(&self, _cx: &Context, namespace: &Value) -> bool {
        !object::get_list(namespace, &["spec", "finalizers"]).is_empty()
    }
}

fn set_name_label(cx: &Context, namespace: &mut Value) {
    let name = object::name(namespace);
    let name = if name.is_empty() { cx.name.clone() } else { name.to_owned() };
    if !name.is_empty() {
        object::set_label(namespace, NAME_LABEL, &name);
    }
}
