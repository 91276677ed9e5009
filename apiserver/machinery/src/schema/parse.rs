//! JSON schema text to [`Schema`]: the lenient reader under the built-in and the custom schemas.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{ListType, PatchStrategy, Schema, Type, Validations};

/// Reads a schema node and everything below it. What is not understood is left out.
pub(super) fn parse(schema: &Value) -> Schema {
    let Some(map) = schema.as_object() else {
        return Schema {
            preserve_unknown_fields: schema != &Value::Bool(false),
            ..Schema::default()
        };
    };
    Schema {
        reference: reference(map),
        description: text(map, "description"),
        kind: kind(map),
        format: text(map, "format"),
        properties: object(map, "properties").map(|(k, v)| (k.clone(), parse(v))).collect(),
        required: strings(map, "required"),
        items: map.get("items").map(|s| Box::new(parse(s))),
        additional_properties: additional(map),
        default: map.get("default").cloned(),
        nullable: flag(map, "nullable"),
        list_type: map.get("x-kubernetes-list-type").and_then(Value::as_str).and_then(list_type),
        list_map_keys: strings(map, "x-kubernetes-list-map-keys"),
        atomic_map: map.get("x-kubernetes-map-type").is_some_and(|t| t == "atomic"),
        patch_strategy: None,
        patch_merge_key: None,
        int_or_string: flag(map, "x-kubernetes-int-or-string"),
        preserve_unknown_fields: flag(map, "x-kubernetes-preserve-unknown-fields"),
        embedded_resource: flag(map, "x-kubernetes-embedded-resource"),
        validations: validations(map),
        gvks: Vec::new(),
    }
}

/// `x-kubernetes-list-type` by name.
pub(super) fn list_type(name: &str) -> Option<ListType> {
    match name {
        "atomic" => Some(ListType::Atomic),
        "set" => Some(ListType::Set),
        "map" => Some(ListType::Map),
        _ => None,
    }
}

/// `x-kubernetes-patch-strategy` by its comma separated words.
pub(super) fn patch_strategy(words: &str) -> PatchStrategy {
    PatchStrategy {
        merge: words.split(',').any(|w| w == "merge"),
        retain_keys: words.split(',').any(|w| w == "retainKeys"),
    }
}

fn reference(map: &Map<String, Value>) -> Option<Arc<str>> {
    let target = map.get("$ref")?.as_str()?;
    Some(target.rsplit('/').next().unwrap_or(target).into())
}

fn text(map: &Map<String, Value>, key: &str) -> Option<Arc<str>> {
    map.get(key).and_then(Value::as_str).map(Arc::from)
}

fn kind(map: &Map<String, Value>) -> Type {
    match map.get("type").and_then(Value::as_str) {
        Some("object") => Type::Object,
        Some("array") => Type::Array,
        Some("string") => Type::String,
        Some("integer") => Type::Integer,
        Some("number") => Type::Number,
        Some("boolean") => Type::Boolean,
        _ => Type::Any,
    }
}

fn object<'a>(
    map: &'a Map<String, Value>,
    key: &str,
) -> impl Iterator<Item = (&'a String, &'a Value)> {
    map.get(key).and_then(Value::as_object).into_iter().flatten()
}

fn strings(map: &Map<String, Value>, key: &str) -> Vec<String> {
    let items = map.get(key).and_then(Value::as_array).into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn flag(map: &Map<String, Value>, key: &str) -> bool {
    map.get(key) == Some(&Value::Bool(true))
}

fn additional(map: &Map<String, Value>) -> Option<Box<Schema>> {
    match map.get("additionalProperties")? {
        Value::Bool(false) => None,
        schema => Some(Box::new(parse(schema))),
    }
}

fn schemas(map: &Map<String, Value>, key: &str) -> Vec<Schema> {
    map.get(key).and_then(Value::as_array).into_iter().flatten().map(parse).collect()
}

fn size(map: &Map<String, Value>, key: &str) -> Option<usize> {
    map.get(key).and_then(Value::as_u64).map(|n| usize::try_from(n).unwrap_or(usize::MAX))
}

fn bound(map: &Map<String, Value>, key: &str, exclusive: &str) -> Option<(f64, bool)> {
    Some((map.get(key)?.as_f64()?, flag(map, exclusive)))
}

fn list(map: &Map<String, Value>, key: &str) -> Vec<Value> {
    map.get(key).and_then(Value::as_array).cloned().unwrap_or_default()
}

const VALIDATION_KEYS: [&str; 17] = [
    "enum",
    "minimum",
    "maximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "x-kubernetes-validations",
];

fn validations(map: &Map<String, Value>) -> Option<Box<Validations>> {
    if !VALIDATION_KEYS.iter().any(|key| map.contains_key(*key)) {
        return None;
    }
    Some(Box::new(Validations {
        enumeration: list(map, "enum"),
        minimum: bound(map, "minimum", "exclusiveMinimum"),
        maximum: bound(map, "maximum", "exclusiveMaximum"),
        multiple_of: map.get("multipleOf").and_then(Value::as_f64),
        length_min: size(map, "minLength"),
        length_max: size(map, "maxLength"),
        pattern: map.get("pattern").and_then(Value::as_str).and_then(|p| regex::Regex::new(p).ok()),
        items_min: size(map, "minItems"),
        items_max: size(map, "maxItems"),
        unique_items: flag(map, "uniqueItems"),
        properties_min: size(map, "minProperties"),
        properties_max: size(map, "maxProperties"),
        all_of: schemas(map, "allOf"),
        any_of: schemas(map, "anyOf"),
        one_of: schemas(map, "oneOf"),
        not: map.get("not").map(|s| Box::new(parse(s))),
        rules: list(map, "x-kubernetes-validations"),
    }))
}
