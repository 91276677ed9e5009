//! The JSONPath subset of printer columns and selectable fields.
use serde_json::Value;
/// A compiled path.
#[derive(Clone, Debug)]
pub struct JsonPath {}
impl JsonPath {
    /// Compiles `.spec.x[0].y`, `.status.conditions[?(@.type=="Ready")].status`, `.metadata.annotations['a\.b']`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let _ = text;
        unimplemented!()
    }
    /// All values the path selects.
    pub fn select<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let _ = value;
        unimplemented!()
    }
}
