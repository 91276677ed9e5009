//! Validation of objects: metadata, common kinds, immutable fields.
use crate::{ErrorList, Resource};
use serde_json::Value;
pub mod names;
/// Validates an object to be created.
pub fn validate_create(object: &Value, resource: &Resource) -> ErrorList {
    let _ = (object, resource);
    unimplemented!()
}
/// Validates an update of `old` to `new`.
pub fn validate_update(new: &Value, old: &Value, resource: &Resource) -> ErrorList {
    let _ = (new, old, resource);
    unimplemented!()
}
