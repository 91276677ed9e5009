//! Strict decoding: unknown fields and wrong types, by schema.
use crate::resource::Resource;
use crate::status::Result;
use serde_json::Value;
/// The `fieldValidation` query parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop unknown fields silently.
    Ignore,
    /// Drop them with a warning each.
    Warn,
    /// Refuse the request.
    Strict,
}
impl FieldValidation {
    /// Parses the parameter; absent or empty is `Warn`.
    pub fn parse(parameter: &str) -> Result<Self> {
        let _ = parameter;
        unimplemented!()
    }
}
/// Checks a decoded object against the kind's schema: wrong types are a 400, unknown fields are
/// removed and handled as `mode` says together with `duplicates`. Answers the warnings.
pub fn check(
    object: &mut Value,
    duplicates: Vec<String>,
    resource: &Resource,
    mode: FieldValidation,
) -> Result<Vec<String>> {
    let _ = (object, duplicates, resource, mode);
    unimplemented!()
}
