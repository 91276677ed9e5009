//! Kinds whose content may be frozen, and kinds that begin in a phase.

use pintle_machinery::{ErrorList, Path, object};
use serde_json::{Value, json};

use super::{Context, Strategy};
use crate::error::ApiResult;

/// The strategy of `configmaps` and `secrets`: with `immutable: true` their data stays as it is.
pub(super) struct Freezable;

#[async_trait::async_trait]
impl Strategy for Freezable {
    fn validate_update(&self, _cx: &Context, object: &Value, old: &Value) -> ErrorList {
        frozen(object, old)
    }
}

fn frozen(object: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    if old.get("immutable") != Some(&Value::Bool(true)) {
        return errors;
    }
    let why = "field is immutable when `immutable` is set";
    if object.get("immutable") != Some(&Value::Bool(true)) {
        errors.forbidden(Path::new("immutable"), why);
    }
    let content = |value: &Value, field: &str| {
        value.get(field).filter(|held| held.as_object().is_none_or(|map| !map.is_empty())).cloned()
    };
    for field in ["data", "binaryData"] {
        if content(object, field) != content(old, field) {
            errors.forbidden(Path::new(field), why);
        }
    }
    errors
}

/// The strategy of kinds whose status begins as `phase: Pending` (claims, volumes).
pub(super) struct BeginsPending;

#[async_trait::async_trait]
impl Strategy for BeginsPending {
    async fn prepare_for_create(&self, _cx: &Context, object: &mut Value) -> ApiResult<()> {
        object::as_object_mut(object).insert("status".into(), json!({"phase": "Pending"}));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frozen_content_stays() {
        let old = json!({"immutable": true, "data": {"a": "1"}});
        assert!(frozen(&old, &old).is_empty());
        assert_eq!(frozen(&json!({"immutable": true, "data": {"a": "2"}}), &old).len(), 1);
        assert_eq!(frozen(&json!({"data": {"a": "1"}}), &old).len(), 1);
        assert!(frozen(&json!({"data": {"a": "2"}}), &json!({"data": {"a": "1"}})).is_empty());
    }
}
