//! Schemas as OpenAPI writes them.

use serde_json::{Map, Value, json};

use crate::schema::{ListType, Schema, Type, Validations};

/// The version of OpenAPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    V2,
    V3,
}

impl Dialect {
    /// A reference to a definition.
    pub(super) fn reference(self, name: &str) -> Value {
        match self {
            Self::V2 => json!({"$ref": format!("#/definitions/{name}")}),
            Self::V3 => json!({"$ref": format!("#/components/schemas/{name}")}),
        }
    }
}

/// A definition with the kinds it is the body of.
pub(super) fn definition(name: &str, schema: &Schema, dialect: Dialect) -> Value {
    let mut value = schema_value(schema, dialect);
    let map = value.as_object_mut().expect("a schema is an object");
    if name.ends_with("api.resource.Quantity") && dialect == Dialect::V3 {
        map.remove("type");
        map.insert("oneOf".into(), json!([{"type": "string"}, {"type": "number"}]));
    }
    if !schema.gvks.is_empty() {
        let gvks = schema
            .gvks
            .iter()
            .map(|gvk| json!({"group": gvk.group, "version": gvk.version, "kind": gvk.kind}));
        map.insert("x-kubernetes-group-version-kind".into(), gvks.collect());
    }
    value
}

fn schema_value(schema: &Schema, dialect: Dialect) -> Value {
    let mut map = Map::new();
    if let Some(description) = &schema.description {
        map.insert("description".into(), (**description).into());
    }
    match &schema.reference {
        // Version 3 allows nothing beside a reference, so that it stands in an `allOf`.
        Some(name) if dialect == Dialect::V3 => {
            map.insert("allOf".into(), json!([dialect.reference(name)]));
        }
        Some(name) => {
            map.insert("$ref".into(), dialect.reference(name)["$ref"].take());
        }
        None => add_type(schema, dialect, &mut map),
    }
    if let Some(default) = &schema.default {
        map.insert("default".into(), default.clone());
    }
    add_structure(schema, dialect, &mut map);
    add_extensions(schema, &mut map);
    if let Some(validations) = &schema.validations {
        add_validations(validations, dialect, &mut map);
    }
    Value::Object(map)
}

fn add_type(schema: &Schema, dialect: Dialect, map: &mut Map<String, Value>) {
    if schema.int_or_string {
        map.insert("format".into(), "int-or-string".into());
        match dialect {
            Dialect::V2 => map.insert("type".into(), "string".into()),
            Dialect::V3 => {
                map.insert("oneOf".into(), json!([{"type": "integer"}, {"type": "string"}]))
            }
        };
        return;
    }
    let name = match schema.kind {
        Type::Any => return,
        Type::Object => "object",
        Type::Array => "array",
        Type::String => "string",
        Type::Integer => "integer",
        Type::Number => "number",
        Type::Boolean => "boolean",
    };
    map.insert("type".into(), name.into());
    if let Some(format) = &schema.format {
        map.insert("format".into(), (**format).into());
    }
}

fn add_structure(schema: &Schema, dialect: Dialect, map: &mut Map<String, Value>) {
    if !schema.properties.is_empty() {
        let properties = schema.properties.iter();
        let properties = properties.map(|(k, s)| (k.clone(), schema_value(s, dialect)));
        map.insert("properties".into(), Value::Object(properties.collect()));
    }
    if !schema.required.is_empty() {
        map.insert("required".into(), schema.required.clone().into());
    }
    if let Some(items) = &schema.items {
        map.insert("items".into(), schema_value(items, dialect));
    }
    if let Some(values) = &schema.additional_properties {
        map.insert("additionalProperties".into(), schema_value(values, dialect));
    }
    if schema.nullable && dialect == Dialect::V3 {
        map.insert("nullable".into(), true.into());
    }
}

fn add_extensions(schema: &Schema, map: &mut Map<String, Value>) {
    if let Some(list_type) = schema.list_type {
        let name = match list_type {
            ListType::Atomic => "atomic",
            ListType::Set => "set",
            ListType::Map => "map",
        };
        map.insert("x-kubernetes-list-type".into(), name.into());
    }
    if !schema.list_map_keys.is_empty() {
        map.insert("x-kubernetes-list-map-keys".into(), schema.list_map_keys.clone().into());
    }
    if schema.atomic_map {
        map.insert("x-kubernetes-map-type".into(), "atomic".into());
    }
    if let Some(strategy) = schema.patch_strategy {
        let name = match (strategy.merge, strategy.retain_keys) {
            (true, true) => "merge,retainKeys",
            (true, false) => "merge",
            (false, true) => "retainKeys",
            (false, false) => "replace",
        };
        map.insert("x-kubernetes-patch-strategy".into(), name.into());
    }
    if let Some(key) = &schema.patch_merge_key {
        map.insert("x-kubernetes-patch-merge-key".into(), key.clone().into());
    }
    for (name, flag) in [
        ("x-kubernetes-preserve-unknown-fields", schema.preserve_unknown_fields),
        ("x-kubernetes-embedded-resource", schema.embedded_resource),
    ] {
        if flag {
            map.insert(name.into(), true.into());
        }
    }
}

fn add_validations(rules: &Validations, dialect: Dialect, map: &mut Map<String, Value>) {
    if !rules.enumeration.is_empty() {
        map.insert("enum".into(), rules.enumeration.clone().into());
    }
    for (bound, name, exclusive) in [
        (rules.minimum, "minimum", "exclusiveMinimum"),
        (rules.maximum, "maximum", "exclusiveMaximum"),
    ] {
        if let Some((value, is_exclusive)) = bound {
            map.insert(name.into(), number(value));
            if is_exclusive {
                map.insert(exclusive.into(), true.into());
            }
        }
    }
    if let Some(factor) = rules.multiple_of {
        map.insert("multipleOf".into(), number(factor));
    }
    for (name, size) in [
        ("minLength", rules.length_min),
        ("maxLength", rules.length_max),
        ("minItems", rules.items_min),
        ("maxItems", rules.items_max),
        ("minProperties", rules.properties_min),
        ("maxProperties", rules.properties_max),
    ] {
        if let Some(size) = size {
            map.insert(name.into(), size.into());
        }
    }
    if let Some(pattern) = &rules.pattern {
        map.insert("pattern".into(), pattern.as_str().into());
    }
    if !rules.rules.is_empty() {
        map.insert("x-kubernetes-validations".into(), rules.rules.clone().into());
    }
    if dialect == Dialect::V3 {
        add_combinators(rules, map);
    }
}

fn add_combinators(rules: &Validations, map: &mut Map<String, Value>) {
    for (name, schemas) in
        [("allOf", &rules.all_of), ("anyOf", &rules.any_of), ("oneOf", &rules.one_of)]
    {
        if !schemas.is_empty() {
            let schemas = schemas.iter().map(|s| schema_value(s, Dialect::V3));
            map.insert(name.into(), schemas.collect());
        }
    }
    if let Some(schema) = &rules.not {
        map.insert("not".into(), schema_value(schema, Dialect::V3));
    }
}

/// Whole numbers without a fraction.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 9e15 { (value as i64).into() } else { value.into() }
}
