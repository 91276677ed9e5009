//! JSON patch, merge patch and strategic merge patch.
use crate::schema::View;
use crate::status::Result;
use serde_json::Value;
/// Applies an RFC 6902 patch (`application/json-patch+json`).
pub fn json_patch(original: &Value, patch: &Value) -> Result<Value> {
    let _ = (original, patch);
    unimplemented!()
}
/// Applies an RFC 7386 patch (`application/merge-patch+json`).
pub fn merge_patch(original: &mut Value, patch: &Value) {
    let _ = (original, patch);
    unimplemented!()
}
/// Applies a strategic merge patch by the kind's merge keys.
pub fn strategic_merge_patch(original: &Value, patch: &Value, schema: View<'_>) -> Result<Value> {
    let _ = (original, patch, schema);
    unimplemented!()
}
