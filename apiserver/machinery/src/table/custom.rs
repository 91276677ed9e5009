//! Printer columns of custom resources.

use jiff::Timestamp;
use serde_json::Value;

use super::{ColumnDefinition, name};
use crate::json_path::JsonPath;
use crate::resource::Resource;
use crate::time;

const NAME_DESCRIPTION: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";

/// Name, then the columns of the definition, or the age when it has none.
pub(super) fn columns(resource: &Resource) -> Vec<ColumnDefinition> {
    let mut columns = vec![ColumnDefinition {
        name: "Name".to_owned(),
        kind: "string".to_owned(),
        format: "name".to_owned(),
        description: NAME_DESCRIPTION.to_owned(),
        ..ColumnDefinition::default()
    }];
    columns.extend(own_columns(resource));
    columns
}

fn own_columns(resource: &Resource) -> Vec<ColumnDefinition> {
    if !resource.printer_columns.is_empty() {
        return resource.printer_columns.clone();
    }
    vec![ColumnDefinition {
        name: "Age".to_owned(),
        kind: "date".to_owned(),
        json_path: ".metadata.creationTimestamp".to_owned(),
        ..ColumnDefinition::default()
    }]
}

pub(super) fn cells(resource: &Resource, object: &Value, now: Timestamp) -> Vec<Value> {
    let mut cells = vec![name(object)];
    cells.extend(own_columns(resource).iter().map(|column| cell(column, object, now)));
    cells
}

fn cell(column: &ColumnDefinition, object: &Value, now: Timestamp) -> Value {
    let Ok(path) = JsonPath::parse(&column.json_path) else { return Value::Null };
    let Some(value) = path.select(object).first().copied() else { return Value::Null };
    match (column.kind.as_str(), value) {
        (_, Value::Null) => Value::Null,
        ("date", value) => time::age(value.as_str(), now).into(),
        ("string", Value::String(text)) => text.as_str().into(),
        ("string", other) => other.to_string().into(),
        ("integer", value) => match (value.as_i64(), value.as_f64()) {
            (Some(number), _) => number.into(),
            (None, Some(number)) => (number as i64).into(),
            (None, None) => Value::Null,
        },
        ("number", value) if value.is_number() => value.clone(),
        ("boolean", value) if value.is_boolean() => value.clone(),
        _ => Value::Null,
    }
}
