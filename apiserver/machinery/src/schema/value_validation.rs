//! Value validations of custom resources.
use super::View;
use crate::{ErrorList, Path};
use serde_json::Value;
/// Checks types, bounds, patterns, enums, required fields and combinators.
pub fn validate_value(value: &Value, schema: View<'_>, path: &Path, errors: &mut ErrorList) {
    let _ = (value, schema, path, errors);
    unimplemented!()
}
