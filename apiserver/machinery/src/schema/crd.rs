//! Structural schemas of custom resources: the `openAPIV3Schema` of a version, checked and read.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Definitions, Schema, Type, builtin, parse};
use crate::{ErrorList, Path};

/// Why a schema is not structural.
pub type ParseError = ErrorList;

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// What an ObjectMeta refers to; a custom resource's definitions carry copies of these.
const META_DEFINITIONS: [&str; 7] = [
    OBJECT_META,
    "io.k8s.apimachinery.pkg.apis.meta.v1.OwnerReference",
    "io.k8s.apimachinery.pkg.apis.meta.v1.ManagedFieldsEntry",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time",
    "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta",
    "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
];

/// Parses `spec.versions[*].schema.openAPIV3Schema`; `path` is where it stands in the CRD.
/// `apiVersion`, `kind` and `metadata` are added to the root.
pub fn parse_structural(schema: &Value, path: &Path) -> Result<Schema, ParseError> {
    let mut errors = ErrorList::new();
    check_root(schema, path, &mut errors);
    check(schema, path, &mut errors);
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut root = parse::parse(schema);
    root.embedded_resource = true;
    add_resource_fields(&mut root);
    root.embedded_resource = false;
    Ok(root)
}

impl Definitions {
    /// The definitions of one custom resource version: its schema as `name`, and the metadata types.
    pub fn custom(name: &str, mut root: Schema, gvk: crate::GroupVersionKind) -> Self {
        let mut definitions = Self::default();
        for meta in META_DEFINITIONS {
            if let Some(schema) = builtin().get(meta) {
                definitions.insert(meta, schema.clone());
            }
        }
        root.gvks = vec![gvk];
        definitions.insert(name, root);
        definitions
    }
}

/// Gives every embedded resource its type and object metadata.
fn add_resource_fields(schema: &mut Schema) {
    if schema.embedded_resource {
        for name in ["apiVersion", "kind"] {
            let text = || Schema { kind: Type::String, ..Schema::default() };
            schema.properties.entry(name.to_owned()).or_insert_with(text);
        }
        let reference: Arc<str> = OBJECT_META.into();
        let metadata =
            Schema { reference: Some(reference), kind: Type::Object, ..Schema::default() };
        schema.properties.insert("metadata".to_owned(), metadata);
    }
    schema.properties.values_mut().for_each(add_resource_fields);
    schema.items.iter_mut().for_each(|s| add_resource_fields(s));
    schema.additional_properties.iter_mut().for_each(|s| add_resource_fields(s));
}

fn check_root(schema: &Value, path: &Path, errors: &mut ErrorList) {
    match schema.get("type").and_then(Value::as_str) {
        None => errors.required(path.child("type"), "must not be empty at the root"),
        Some("object") => {}
        Some(other) => errors.invalid(path.child("type"), other, "must be object at the root"),
    }
}

/// Every node says its type, and combinators only restrict what is said outside of them.
fn check(schema: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(map) = schema.as_object() else { return };
    check_node(map, path, errors);
    if let Some(properties) = map.get("properties").and_then(Value::as_object) {
        for (name, property) in properties {
            let path = path.child("properties").key(name);
            check_typed(property, &path, "must not be empty for specified object fields", errors);
            check(property, &path, errors);
        }
    }
    if let Some(items) = map.get("items") {
        let path = path.child("items");
        check_typed(items, &path, "must not be empty for specified array items", errors);
        check(items, &path, errors);
    }
    if let Some(values @ Value::Object(_)) = map.get("additionalProperties") {
        let path = path.child("additionalProperties");
        check_typed(values, &path, "must not be empty for specified object fields", errors);
        check(values, &path, errors);
    }
}

fn check_typed(schema: &Value, path: &Path, detail: &str, errors: &mut ErrorList) {
    let flag = |key: &str| schema.get(key) == Some(&Value::Bool(true));
    let typed = schema.get("type").and_then(Value::as_str).is_some_and(|t| !t.is_empty());
    let free = flag("x-kubernetes-int-or-string") || flag("x-kubernetes-preserve-unknown-fields");
    if !typed && !free {
        errors.required(path.child("type"), detail);
    }
}

fn check_node(map: &Map<String, Value>, path: &Path, errors: &mut ErrorList) {
    if map.contains_key("properties")
        && matches!(map.get("additionalProperties"), Some(Value::Object(_) | Value::Bool(true)))
    {
        errors.forbidden(
            path.child("additionalProperties"),
            "additionalProperties and properties are mutual exclusive",
        );
    }
    if map.contains_key("$ref") {
        errors.forbidden(path.child("$ref"), "$ref is not supported");
    }
    if map.get("uniqueItems") == Some(&Value::Bool(true)) {
        errors.forbidden(
            path.child("uniqueItems"),
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        );
    }
    if let Some(pattern) = map.get("pattern").and_then(Value::as_str)
        && let Err(error) = regex::Regex::new(pattern)
    {
        errors.invalid(
            path.child("pattern"),
            pattern,
            format!("must be a valid regular expression, but isn't: {error}"),
        );
    }
    check_list_type(map, path, errors);
}

fn check_list_type(map: &Map<String, Value>, path: &Path, errors: &mut ErrorList) {
    let Some(list_type) = map.get("x-kubernetes-list-type").and_then(Value::as_str) else { return };
    let at = path.child("x-kubernetes-list-type");
    if parse::list_type(list_type).is_none() {
        errors.not_supported(at, list_type, &["atomic", "map", "set"]);
    } else if map.get("type").and_then(Value::as_str) != Some("array") {
        errors.invalid(
            path.child("type"),
            map.get("type").cloned().unwrap_or_default(),
            "must be array if x-kubernetes-list-type is specified",
        );
    } else if list_type == "map" {
        let keys = map.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
        if keys.is_none_or(Vec::is_empty) {
            errors.required(
                path.child("x-kubernetes-list-map-keys"),
                "must not be empty if x-kubernetes-list-type is map",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{apply_defaults, prune, validate_value};
    use super::*;
    use crate::GroupVersionKind;

    fn definitions(schema: Value) -> Definitions {
        let root = parse_structural(&schema, &Path::new("schema")).unwrap();
        Definitions::custom("x", root, GroupVersionKind::new("example.com", "v1", "X"))
    }

    fn example() -> Definitions {
        definitions(json!({
            "type": "object",
            "required": ["spec"],
            "properties": {
                "spec": {
                    "type": "object",
                    "required": ["size"],
                    "properties": {
                        "size": {"type": "integer", "minimum": 1, "maximum": 9},
                        "mode": {"type": "string", "enum": ["a", "b"], "default": "a"},
                        "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 3},
                        "port": {"x-kubernetes-int-or-string": true},
                        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                        "map": {"type": "object", "additionalProperties": {"type": "string"}},
                        "nested": {"type": "object", "default": {}, "properties": {"n": {"type": "integer", "default": 7}}},
                        "maybe": {"type": "string", "nullable": true, "default": "x"},
                        "list": {
                            "type": "array",
                            "x-kubernetes-list-type": "map",
                            "x-kubernetes-list-map-keys": ["k"],
                            "items": {"type": "object", "properties": {"k": {"type": "string"}}},
                        },
                    },
                },
            },
        }))
    }

    #[test]
    fn unknown_fields_are_pruned_with_their_paths() {
        let definitions = example();
        let mut object = json!({
            "apiVersion": "example.com/v1", "kind": "X", "metadata": {"name": "a"},
            "spec": {"size": 1, "foo": 1, "free": {"x": 1}, "map": {"k": "v"}, "list": [{"k": "a", "z": 1}]},
            "other": 1,
        });
        let mut pruned = prune(&mut object, definitions.view("x"));
        pruned.sort();
        assert_eq!(pruned, ["other", "spec.foo", "spec.list[0].z"]);
        assert_eq!(
            object["spec"],
            json!({"size": 1, "free": {"x": 1}, "map": {"k": "v"}, "list": [{"k": "a"}]})
        );
        assert_eq!(object["metadata"]["name"], "a");
    }

    #[test]
    fn defaults_reach_nested_objects() {
        let definitions = example();
        let mut object = json!({"spec": {"size": 1, "maybe": null}});
        apply_defaults(&mut object, definitions.view("x"));
        assert_eq!(
            object,
            json!({"spec": {"size": 1, "mode": "a", "nested": {"n": 7}, "maybe": null}})
        );
    }

    #[test]
    fn values_are_validated_field_by_field() {
        let definitions = example();
        let cases = [
            (json!({"spec": {"size": 1}}), ""),
            (json!({}), "spec: Required value"),
            (json!({"spec": {}}), "spec.size: Required value"),
            (
                json!({"spec": {"size": 10}}),
                "spec.size: Invalid value: 10: spec.size in body should be less than or equal to 9",
            ),
            (
                json!({"spec": {"size": "x"}}),
                "spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\"",
            ),
            (
                json!({"spec": {"size": 1, "mode": "c"}}),
                "spec.mode: Unsupported value: \"c\": supported values: \"a\", \"b\"",
            ),
            (
                json!({"spec": {"size": 1, "name": "A"}}),
                "spec.name: Invalid value: \"A\": spec.name in body should match '^[a-z]+$'",
            ),
            (
                json!({"spec": {"size": 1, "list": [{"k": "a"}, {"k": "a"}]}}),
                "spec.list[1]: Duplicate value: {\"k\":\"a\"}",
            ),
            (
                json!({"spec": {"size": 1, "map": {"k": 1}}}),
                "spec.map[k]: Invalid value: \"integer\": spec.map[k] in body must be of type string: \"integer\"",
            ),
            (json!({"spec": {"size": 1, "port": "http", "maybe": null}}), ""),
        ];
        for (object, expected) in cases {
            let mut errors = ErrorList::new();
            validate_value(&object, definitions.view("x"), &Path::default(), &mut errors);
            let text = if errors.is_empty() { String::new() } else { errors.to_string() };
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn schemas_that_are_not_structural_are_refused() {
        let cases = [
            (json!({}), "s.type: Required value: must not be empty at the root"),
            (
                json!({"type": "object", "properties": {"a": {}}}),
                "s.properties[a].type: Required value: must not be empty for specified object fields",
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "array", "items": {}}}}),
                "s.properties[a].items.type: Required value: must not be empty for specified array items",
            ),
        ];
        for (schema, expected) in cases {
            let errors = parse_structural(&schema, &Path::new("s")).unwrap_err();
            assert_eq!(errors.to_string(), expected);
        }
    }
}
