//! Label and field selectors.
use crate::status::Result;
use serde_json::{Map, Value};
/// A label selector: requirements that must all hold. The empty one matches everything.
#[derive(Clone, Debug, Default)]
pub struct LabelSelector {}
impl LabelSelector {
    /// Parses the `labelSelector` query syntax: `a=b,c!=d,e in (f,g),!h,i>1`.
    pub fn parse(text: &str) -> Result<Self> {
        let _ = text;
        unimplemented!()
    }
    /// From a `metav1.LabelSelector` value (`matchLabels`, `matchExpressions`).
    pub fn from_value(selector: &Value) -> Result<Self> {
        let _ = selector;
        unimplemented!()
    }
    /// From a plain map, as services and replication controllers have.
    pub fn from_map(map: &Map<String, Value>) -> Self {
        let _ = map;
        unimplemented!()
    }
    /// Whether everything matches.
    pub fn is_empty(&self) -> bool {
        unimplemented!()
    }
    /// Whether these labels match.
    pub fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        let _ = labels;
        unimplemented!()
    }
    /// The same, with the labels looked up by a function (typed objects).
    pub fn matches_with<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        let _ = get;
        unimplemented!()
    }
}
/// A field selector: terms that must all hold.
#[derive(Clone, Debug, Default)]
pub struct FieldSelector {}
impl FieldSelector {
    /// Parses `a=b,c!=d`.
    pub fn parse(text: &str) -> Result<Self> {
        let _ = text;
        unimplemented!()
    }
    /// Refuses labels that the resource does not support (400).
    pub fn check(&self, resource: &crate::Resource) -> Result<()> {
        let _ = resource;
        unimplemented!()
    }
    /// Whether everything matches.
    pub fn is_empty(&self) -> bool {
        unimplemented!()
    }
    /// Whether an object of that resource matches.
    pub fn matches(&self, object: &Value, resource: &crate::Resource) -> bool {
        let _ = (object, resource);
        unimplemented!()
    }
    /// The value that `label` must equal, if a term says so (`metadata.name`, `spec.nodeName`: index look-ups).
    pub fn requires_exact(&self, label: &str) -> Option<&str> {
        let _ = label;
        unimplemented!()
    }
}
