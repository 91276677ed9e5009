//! JSON patch, merge patch and strategic merge patch.

use serde_json::Value;

use crate::status::{Result, Status};

mod strategic;

pub use strategic::strategic_merge_patch;

/// Operations in one JSON patch; upstream's bound, against patches that cost more than they say.
pub const JSON_PATCH_OPERATIONS_MAX: usize = 10_000;

/// Applies an RFC 6902 patch (`application/json-patch+json`). A malformed patch is a 400, one that
/// does not fit the object a 422.
pub fn json_patch(original: &Value, patch: &Value) -> Result<Value> {
    let count = patch.as_array().map_or(0, Vec::len);
    if count > JSON_PATCH_OPERATIONS_MAX {
        return Err(Status::request_entity_too_large(format!(
            "The allowed maximum operations in a JSON patch is {JSON_PATCH_OPERATIONS_MAX}, got {count}"
        )));
    }
    let operations: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|e| Status::bad_request(format!("error decoding patch: {e}")))?;
    let mut patched = original.clone();
    json_patch::patch(&mut patched, &operations)
        .map_err(|e| Status::unprocessable(refusal(&operations, &e)))?;
    Ok(patched)
}

/// Why a patch does not fit, in the words of the server that users know (evanphx/json-patch).
fn refusal(operations: &json_patch::Patch, error: &json_patch::PatchError) -> String {
    use json_patch::{PatchErrorKind, PatchOperation};
    let name = match operations.get(error.operation) {
        Some(PatchOperation::Test(_)) if matches!(error.kind, PatchErrorKind::TestFailed) => {
            return format!("testing value {} failed: test failed", error.path);
        }
        Some(PatchOperation::Test(_)) => {
            return format!("testing value {} failed: missing value", error.path);
        }
        Some(PatchOperation::Add(_)) => "add",
        Some(PatchOperation::Remove(_)) => "remove",
        Some(PatchOperation::Replace(_)) => "replace",
        Some(PatchOperation::Move(_)) => "move",
        Some(PatchOperation::Copy(_)) => "copy",
        None => return error.to_string(),
    };
    match error.kind {
        PatchErrorKind::InvalidPointer | PatchErrorKind::InvalidFromPointer => format!(
            "{name} operation does not apply: doc is missing path: \"{}\": missing value",
            error.path
        ),
        _ => format!("{name} operation does not apply: {}", error.kind),
    }
}

/// Applies an RFC 7386 patch (`application/merge-patch+json`).
pub fn merge_patch(original: &mut Value, patch: &Value) {
    json_patch::merge(original, patch);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn json_patches_apply_or_say_why_not() {
        let object = json!({"spec": {"replicas": 1, "list": [1, 2]}});
        let patch = json!([
            {"op": "test", "path": "/spec/replicas", "value": 1},
            {"op": "replace", "path": "/spec/replicas", "value": 3},
            {"op": "add", "path": "/spec/list/-", "value": 3},
            {"op": "remove", "path": "/spec/list/0"},
        ]);
        let patched = json_patch(&object, &patch).unwrap();
        assert_eq!(patched, json!({"spec": {"replicas": 3, "list": [2, 3]}}));
        let cases = [
            (json!([{"op": "test", "path": "/spec/replicas", "value": 2}]), 422),
            (json!([{"op": "remove", "path": "/spec/none"}]), 422),
            (json!([{"op": "jump", "path": "/spec"}]), 400),
            (json!({"op": "remove"}), 400),
            (json!(vec![json!({"op": "remove", "path": "/a"}); 10_001]), 413),
        ];
        for (patch, code) in cases {
            assert_eq!(json_patch(&object, &patch).unwrap_err().code, code);
        }
    }

    #[test]
    fn a_refused_json_patch_names_the_operation_and_the_path() {
        let object = json!({"spec": {"replicas": 1}});
        let cases = [
            (
                json!([{"op": "test", "path": "/spec/replicas", "value": 2}]),
                "testing value /spec/replicas failed: test failed",
            ),
            (
                json!([{"op": "remove", "path": "/spec/none"}]),
                "remove operation does not apply: doc is missing path: \"/spec/none\": missing value",
            ),
        ];
        for (patch, reason) in cases {
            let status = json_patch(&object, &patch).unwrap_err();
            let text = serde_json::to_string(&status).unwrap();
            assert!(
                status.message.contains(reason) || text.contains(&reason.replace('"', "\\\"")),
                "{text}"
            );
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-c~/]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-c~/]{1,2}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// The merge patch that turns `from` into `to`.
    fn merge_diff(from: &Value, to: &Value) -> Value {
        let (Value::Object(a), Value::Object(b)) = (from, to) else { return to.clone() };
        let removed = a.keys().filter(|k| !b.contains_key(*k)).map(|k| (k.clone(), Value::Null));
        let changed = b.iter().filter(|(k, v)| a.get(*k) != Some(v));
        let changed = changed.map(|(k, v)| match a.get(k) {
            Some(old) => (k.clone(), merge_diff(old, v)),
            None => (k.clone(), v.clone()),
        });
        Value::Object(removed.chain(changed).collect())
    }

    proptest! {
        #[test]
        fn patching_with_the_difference_gives_the_other(a in values(), b in values()) {
            let difference = serde_json::to_value(json_patch::diff(&a, &b)).unwrap();
            prop_assert_eq!(json_patch(&a, &difference).unwrap(), b.clone());
            let mut merged = a.clone();
            merge_patch(&mut merged, &merge_diff(&a, &b));
            prop_assert_eq!(merged, b);
        }
    }
}
