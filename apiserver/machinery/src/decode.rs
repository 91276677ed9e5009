//! Text to value: JSON with duplicate keys found, YAML, canonical JSON out.
use crate::status::Result;
use serde_json::Value;
/// What a body decoded to.
#[derive(Debug)]
pub struct Decoded {
    /// The value; of a duplicate key, the last one.
    pub value: Value,
    /// Strict errors, e.g. `duplicate field "spec.foo"`.
    pub duplicates: Vec<String>,
}
/// Decodes a JSON body.
pub fn json(body: &[u8]) -> Result<Decoded> {
    let _ = body;
    unimplemented!()
}
/// Decodes a YAML body (one document).
pub fn yaml(body: &[u8]) -> Result<Decoded> {
    let _ = body;
    unimplemented!()
}
/// Encodes as YAML for `Accept: application/yaml`.
pub fn to_yaml(value: &Value) -> Result<String> {
    let _ = value;
    unimplemented!()
}
