//! `meta.k8s.io/v1 Table` and `PartialObjectMetadata`.
use crate::Resource;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
/// A column of a table.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ColumnDefinition {
    /// Header.
    pub name: String,
    /// OpenAPI type.
    #[serde(rename = "type")]
    pub kind: String,
    /// OpenAPI format; `name` marks the primary column.
    pub format: String,
    /// Prose.
    pub description: String,
    /// 0 = always, greater = only in wide output.
    pub priority: i32,
    /// JSONPath of a custom column; built-in columns are code.
    #[serde(skip)]
    pub json_path: String,
}
/// The `includeObject` query parameter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Rows carry no object.
    None,
    /// Rows carry PartialObjectMetadata.
    #[default]
    Metadata,
    /// Rows carry the whole object.
    Object,
}
/// The columns of a kind.
pub fn columns(resource: &Resource) -> Vec<ColumnDefinition> {
    let _ = resource;
    unimplemented!()
}
/// One object's cells.
pub fn cells(resource: &Resource, object: &Value, now: Timestamp) -> Vec<Value> {
    let _ = (resource, object, now);
    unimplemented!()
}
/// A `TableRow`.
pub fn row(resource: &Resource, object: &Value, include: IncludeObject, now: Timestamp) -> Value {
    let _ = (resource, object, include, now);
    unimplemented!()
}
/// A whole `Table`; `list_meta` is the list's metadata (or `{"resourceVersion": …}` of a single object). `columns` = false leaves the definitions empty (later watch events).
pub fn table(
    resource: &Resource,
    objects: &[&Value],
    list_meta: Value,
    include: IncludeObject,
    with_columns: bool,
    now: Timestamp,
) -> Value {
    let _ = (resource, objects, list_meta, include, with_columns, now);
    unimplemented!()
}
/// `PartialObjectMetadata` of an object.
pub fn partial_object_metadata(object: &Value) -> Value {
    let _ = object;
    unimplemented!()
}
