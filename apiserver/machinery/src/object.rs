//! Thin accessors for the metadata of a dynamic object: read without cloning, write in place.
//!
//! Getters answer the zero value ("" or an empty iterator) for what is absent, as the Go types do.

use serde_json::{Map, Value};

const METADATA: &str = "metadata";

/// `metadata` as a map, when it is one.
pub fn metadata(object: &Value) -> Option<&Map<String, Value>> {
    object.get(METADATA)?.as_object()
}

/// `metadata` as a map, created when absent. A value that is no object becomes one.
pub fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    entry_object(as_object_mut(object), METADATA)
}

/// The value as a map; whatever else it was is replaced by an empty one.
pub fn as_object_mut(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("made an object above")
}

/// The map under `key`, created when absent.
pub fn entry_object<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    if !map.contains_key(key) {
        map.insert(key.to_owned(), Value::Object(Map::new()));
    }
    as_object_mut(map.get_mut(key).expect("inserted above"))
}

fn meta_str<'a>(object: &'a Value, field: &str) -> &'a str {
    metadata(object).and_then(|m| m.get(field)).and_then(Value::as_str).unwrap_or_default()
}

fn set_meta(object: &mut Value, field: &str, value: impl Into<Value>) {
    metadata_mut(object).insert(field.to_owned(), value.into());
}

/// `apiVersion`.
pub fn api_version(object: &Value) -> &str {
    object.get("apiVersion").and_then(Value::as_str).unwrap_or_default()
}

/// `kind`.
pub fn kind(object: &Value) -> &str {
    object.get("kind").and_then(Value::as_str).unwrap_or_default()
}

/// Sets `apiVersion` and `kind`.
pub fn set_type_meta(object: &mut Value, api_version: &str, kind: &str) {
    let map = as_object_mut(object);
    map.insert("apiVersion".into(), api_version.into());
    map.insert("kind".into(), kind.into());
}

/// `metadata.name`.
pub fn name(object: &Value) -> &str {
    meta_str(object, "name")
}

/// `metadata.generateName`.
pub fn generate_name(object: &Value) -> &str {
    meta_str(object, "generateName")
}

/// `metadata.namespace`.
pub fn namespace(object: &Value) -> &str {
    meta_str(object, "namespace")
}

/// `metadata.uid`.
pub fn uid(object: &Value) -> &str {
    meta_str(object, "uid")
}

/// `metadata.resourceVersion`, opaque.
pub fn resource_version(object: &Value) -> &str {
    meta_str(object, "resourceVersion")
}

/// `metadata.creationTimestamp`, RFC 3339.
pub fn creation_timestamp(object: &Value) -> Option<&str> {
    metadata(object)?.get("creationTimestamp")?.as_str()
}

/// `metadata.deletionTimestamp`, RFC 3339.
pub fn deletion_timestamp(object: &Value) -> Option<&str> {
    metadata(object)?.get("deletionTimestamp")?.as_str()
}

/// `metadata.deletionGracePeriodSeconds`.
pub fn deletion_grace_period_seconds(object: &Value) -> Option<i64> {
    metadata(object)?.get("deletionGracePeriodSeconds")?.as_i64()
}

/// Whether the object is being deleted.
pub fn is_terminating(object: &Value) -> bool {
    deletion_timestamp(object).is_some()
}

/// `metadata.generation`, 0 when absent.
pub fn generation(object: &Value) -> i64 {
    metadata(object).and_then(|m| m.get("generation")).and_then(Value::as_i64).unwrap_or(0)
}

/// `metadata.labels`.
pub fn labels(object: &Value) -> Option<&Map<String, Value>> {
    metadata(object)?.get("labels")?.as_object()
}

/// One label.
pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    labels(object)?.get(key)?.as_str()
}

/// `metadata.annotations`.
pub fn annotations(object: &Value) -> Option<&Map<String, Value>> {
    metadata(object)?.get("annotations")?.as_object()
}

/// One annotation.
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    annotations(object)?.get(key)?.as_str()
}

/// `metadata.finalizers`.
pub fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    metadata(object)
        .and_then(|m| m.get("finalizers"))
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// Whether `finalizer` is set.
pub fn has_finalizer(object: &Value, finalizer: &str) -> bool {
    finalizers(object).any(|f| f == finalizer)
}

/// `metadata.ownerReferences`.
pub fn owner_references(object: &Value) -> &[Value] {
    metadata(object)
        .and_then(|m| m.get("ownerReferences"))
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The owner reference with `controller: true`.
pub fn controller_of(object: &Value) -> Option<&Value> {
    owner_references(object).iter().find(|r| r.get("controller") == Some(&Value::Bool(true)))
}

/// Sets `metadata.name`.
pub fn set_name(object: &mut Value, name: &str) {
    set_meta(object, "name", name);
}

/// Sets `metadata.namespace`, or removes it when empty.
pub fn set_namespace(object: &mut Value, namespace: &str) {
    if namespace.is_empty() {
        metadata_mut(object).remove("namespace");
    } else {
        set_meta(object, "namespace", namespace);
    }
}

/// Sets `metadata.uid`.
pub fn set_uid(object: &mut Value, uid: &str) {
    set_meta(object, "uid", uid);
}

/// Sets `metadata.resourceVersion`, or removes it when empty.
pub fn set_resource_version(object: &mut Value, version: &str) {
    if version.is_empty() {
        metadata_mut(object).remove("resourceVersion");
    } else {
        set_meta(object, "resourceVersion", version);
    }
}

/// Sets `metadata.generation`.
pub fn set_generation(object: &mut Value, generation: i64) {
    set_meta(object, "generation", generation);
}

/// Sets `metadata.creationTimestamp`.
pub fn set_creation_timestamp(object: &mut Value, time: &str) {
    set_meta(object, "creationTimestamp", time);
}

/// Sets `metadata.deletionTimestamp` and the grace period.
pub fn set_deletion(object: &mut Value, time: &str, grace_period_seconds: i64) {
    set_meta(object, "deletionTimestamp", time);
    set_meta(object, "deletionGracePeriodSeconds", grace_period_seconds);
}

/// Replaces `metadata.finalizers`; an empty list removes the field.
pub fn set_finalizers(object: &mut Value, finalizers: Vec<String>) {
    if finalizers.is_empty() {
        metadata_mut(object).remove("finalizers");
    } else {
        set_meta(object, "finalizers", finalizers);
    }
}

/// Sets one label.
pub fn set_label(object: &mut Value, key: &str, value: &str) {
    entry_object(metadata_mut(object), "labels").insert(key.to_owned(), value.into());
}

/// Sets one annotation.
pub fn set_annotation(object: &mut Value, key: &str, value: &str) {
    entry_object(metadata_mut(object), "annotations").insert(key.to_owned(), value.into());
}

/// The value at a path of object keys, e.g. `["spec", "nodeName"]`.
pub fn get<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, key| value.get(key))
}

/// The string at a path, "" when absent.
pub fn get_str<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    get(object, path).and_then(Value::as_str).unwrap_or_default()
}

/// The integer at a path.
pub fn get_i64(object: &Value, path: &[&str]) -> Option<i64> {
    get(object, path).and_then(Value::as_i64)
}

/// The items of the list at a path, none when absent.
pub fn get_list<'a>(object: &'a Value, path: &[&str]) -> &'a [Value] {
    get(object, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
