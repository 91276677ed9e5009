//! Strategic merge patch: a merge patch that merges lists by key, with directives.
//!
//! Directives in a patch: `$patch: replace|delete|merge` in a map or a list item, `$retainKeys` (what
//! is not named is removed), `$setElementOrder/F` (the order of list F),
//! `$deleteFromPrimitiveList/F` (values to remove from list F).

use serde_json::{Map, Value};

use crate::schema::View;
use crate::status::{Result, Status};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ELEMENT_ORDER: &str = "$setElementOrder/";
const DELETE_FROM_PRIMITIVE_LIST: &str = "$deleteFromPrimitiveList/";

/// Applies a strategic merge patch by the kind's merge keys.
pub fn strategic_merge_patch(original: &Value, patch: &Value, schema: View<'_>) -> Result<Value> {
    let Some(patch) = patch.as_object() else {
        return Err(Status::bad_request(
            "error decoding patch: a strategic merge patch is an object",
        ));
    };
    let mut merged = original.as_object().cloned().unwrap_or_default();
    merge_map(&mut merged, patch, schema)?;
    Ok(Value::Object(merged))
}

fn child<'a>(schema: View<'a>, key: &str) -> View<'a> {
    schema.child(key).unwrap_or_else(|| View::any(schema.definitions()))
}

fn merge_map(
    target: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    schema: View<'_>,
) -> Result<()> {
    match directive(patch)? {
        Some("replace") => {
            *target = without_directives(patch);
            return Ok(());
        }
        Some("delete") => {
            target.clear();
            return Ok(());
        }
        _ => {}
    }
    let orders = ordered_fields(target, patch)?;
    retain_keys(target, patch)?;
    for (key, value) in patch {
        if key == PATCH || key == RETAIN_KEYS {
            continue;
        }
        if let Some(field) = key.strip_prefix(DELETE_FROM_PRIMITIVE_LIST) {
            delete_values(target, field, value)?;
        } else if !key.starts_with(SET_ELEMENT_ORDER) {
            merge_field(target, key, value, child(schema, key))?;
        }
    }
    for (field, order, original) in orders {
        let merge_key = child(schema, field).patch_merge_key();
        if let Some(Value::Array(items)) = target.get_mut(field) {
            let added = patch.get(field).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let baseline = match merge_key {
                Some(_) => baseline(original, items, added, merge_key),
                None => original,
            };
            interleave(items, order, &baseline, merge_key);
        }
    }
    Ok(())
}

/// The order that unnamed items keep to: the list before the patch. Upstream deletes and appends in
/// place, so that there new items take the places of deleted ones at the end of it; clients that
/// compute patches see the same order only if we do so too.
fn baseline(
    mut original: Vec<Value>,
    items: &[Value],
    added: &[Value],
    merge_key: Option<&str>,
) -> Vec<Value> {
    let is_in = |list: &[Value], item: &Value| {
        let id = identity(item, merge_key);
        list.iter().any(|other| identity(other, merge_key) == id)
    };
    let length = original.len();
    let new: Vec<&Value> =
        added.iter().filter(|item| is_in(items, item) && !is_in(&original, item)).collect();
    original.retain(|item| is_in(items, item));
    let freed = length - original.len();
    original.extend(new.into_iter().take(freed).cloned());
    original
}

/// A list to be put in order: its field, the order, and the list as it was before the patch.
type Ordered<'a> = (&'a str, &'a [Value], Vec<Value>);

fn ordered_fields<'a>(
    target: &Map<String, Value>,
    patch: &'a Map<String, Value>,
) -> Result<Vec<Ordered<'a>>> {
    let mut orders = Vec::new();
    for (key, order) in patch {
        if let Some(field) = key.strip_prefix(SET_ELEMENT_ORDER) {
            let original = target.get(field).and_then(Value::as_array).cloned();
            orders.push((field, list(order, key)?, original.unwrap_or_default()));
        }
    }
    Ok(orders)
}

fn merge_field(
    target: &mut Map<String, Value>,
    key: &str,
    value: &Value,
    schema: View<'_>,
) -> Result<()> {
    if value.is_null() {
        target.remove(key);
        return Ok(());
    }
    let strategy = schema.patch_strategy();
    match (target.get_mut(key), value) {
        (Some(Value::Object(existing)), Value::Object(patch)) => merge_map(existing, patch, schema),
        (Some(Value::Array(existing)), Value::Array(patch)) if strategy.merge => {
            merge_list(existing, patch, schema)
        }
        (None, Value::Object(patch)) if directive(patch)? == Some("delete") => Ok(()),
        _ => {
            target.insert(key.to_owned(), cleaned(value));
            Ok(())
        }
    }
}

fn directive(patch: &Map<String, Value>) -> Result<Option<&str>> {
    match patch.get(PATCH) {
        None => Ok(None),
        Some(Value::String(name)) if matches!(name.as_str(), "replace" | "delete" | "merge") => {
            Ok(Some(name))
        }
        Some(other) => {
            Err(Status::bad_request(format!("Unknown patch type found: {other} in map: {patch:?}")))
        }
    }
}

fn list<'a>(value: &'a Value, key: &str) -> Result<&'a [Value]> {
    let list = value.as_array().map(Vec::as_slice);
    list.ok_or_else(|| Status::bad_request(format!("invalid patch format of {key}: not a list")))
}

/// `$retainKeys` names every key that stays; the patch may not set others.
fn retain_keys(target: &mut Map<String, Value>, patch: &Map<String, Value>) -> Result<()> {
    let Some(keys) = patch.get(RETAIN_KEYS) else { return Ok(()) };
    let keys = list(keys, RETAIN_KEYS)?;
    let retained = |key: &String| keys.iter().any(|k| k.as_str() == Some(key));
    let set = patch.iter().filter(|(key, value)| !key.starts_with('$') && !value.is_null());
    if let Some((key, _)) = set.into_iter().find(|(key, _)| !retained(key)) {
        return Err(Status::bad_request(format!(
            "The items in $retainKeys list doesn't contain all the keys in the patch: {key}"
        )));
    }
    target.retain(|key, _| retained(key));
    Ok(())
}

fn delete_values(target: &mut Map<String, Value>, field: &str, values: &Value) -> Result<()> {
    let values = list(values, DELETE_FROM_PRIMITIVE_LIST)?;
    if let Some(Value::Array(items)) = target.get_mut(field) {
        items.retain(|item| !values.contains(item));
    }
    Ok(())
}

fn merge_list(target: &mut Vec<Value>, patch: &[Value], schema: View<'_>) -> Result<()> {
    if target.is_empty() && patch.is_empty() {
        return Ok(());
    }
    let original = target.clone();
    if !patch.iter().chain(target.iter()).any(Value::is_object) {
        merge_scalars(target, patch);
        interleave(target, patch, &original, None);
        return Ok(());
    }
    let Some(merge_key) = schema.patch_merge_key() else {
        return Err(Status::bad_request("cannot merge lists without merge key for the elements"));
    };
    let items = schema.items().unwrap_or_else(|| View::any(schema.definitions()));
    let mut plain = Vec::with_capacity(patch.len());
    let mut replace = false;
    for item in patch {
        let Some(map) = item.as_object() else {
            return Err(Status::bad_request("a merged list of objects holds only objects"));
        };
        match directive(map)? {
            Some("replace") => replace = true,
            Some("delete") => {
                let key = key_of(map, merge_key)?;
                target.retain(|existing| existing.get(merge_key) != Some(key));
            }
            _ => plain.push(map),
        }
    }
    if replace {
        *target = plain.into_iter().map(|map| Value::Object(without_directives(map))).collect();
        return Ok(());
    }
    for map in &plain {
        let key = key_of(map, merge_key)?;
        let existing = target.iter_mut().find(|item| item.get(merge_key) == Some(key));
        match existing.and_then(Value::as_object_mut) {
            Some(existing) => merge_map(existing, map, items)?,
            None => target.push(Value::Object(without_directives(map))),
        }
    }
    let order: Vec<Value> = plain.into_iter().map(|map| Value::Object(map.clone())).collect();
    interleave(target, &order, &original, Some(merge_key));
    Ok(())
}

fn key_of<'a>(item: &'a Map<String, Value>, merge_key: &str) -> Result<&'a Value> {
    item.get(merge_key).ok_or_else(|| {
        let shown = Value::Object(item.clone());
        Status::bad_request(format!(
            "map: {shown} does not contain declared merge key: {merge_key}"
        ))
    })
}

fn merge_scalars(target: &mut Vec<Value>, patch: &[Value]) {
    for value in patch {
        if !target.contains(value) {
            target.push(value.clone());
        }
    }
}

fn identity<'a>(item: &'a Value, merge_key: Option<&str>) -> Option<&'a Value> {
    match (item, merge_key) {
        (Value::Object(map), Some(key)) => map.get(key),
        (other, _) => Some(other),
    }
}

/// Puts the items that `order` names into that order; inserts the others, in their own order, before
/// the first named item that stood behind them in `original`.
fn interleave(
    items: &mut Vec<Value>,
    order: &[Value],
    original: &[Value],
    merge_key: Option<&str>,
) {
    let position = |list: &[Value], item: &Value| {
        let id = identity(item, merge_key);
        list.iter().position(|other| id.is_some() && identity(other, merge_key) == id)
    };
    let (mut named, mut others): (Vec<_>, Vec<_>) =
        std::mem::take(items).into_iter().partition(|item| position(order, item).is_some());
    named.sort_by_key(|item| position(order, item));
    others.sort_by_key(|item| position(original, item).unwrap_or(usize::MAX));
    let mut others = others.into_iter().peekable();
    for item in named {
        while let Some(other) = others.peek() {
            let before = match (position(original, other), position(original, &item)) {
                (Some(other), Some(item)) => other < item,
                _ => false,
            };
            if !before {
                break;
            }
            items.extend(others.next());
        }
        items.push(item);
    }
    items.extend(others);
}

/// The value a patch sets where nothing was: without nulls, directives and deleted items.
fn cleaned(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(without_directives(map)),
        Value::Array(items) => {
            let kept = items.iter().filter(|item| item.get(PATCH).is_none_or(|p| p == "merge"));
            Value::Array(kept.map(cleaned).collect())
        }
        scalar => scalar.clone(),
    }
}

fn without_directives(map: &Map<String, Value>) -> Map<String, Value> {
    let kept = map.iter().filter(|(key, value)| {
        *key != PATCH
            && *key != RETAIN_KEYS
            && !key.starts_with(SET_ELEMENT_ORDER)
            && !key.starts_with(DELETE_FROM_PRIMITIVE_LIST)
            && !value.is_null()
    });
    kept.map(|(key, value)| (key.clone(), cleaned(value))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::RestMapper;

    fn patched(group: &str, plural: &str, original: Value, patch: Value) -> Result<Value> {
        let mapper = RestMapper::builtin();
        strategic_merge_patch(&original, &patch, mapper.preferred(group, plural).unwrap().schema())
    }

    fn names(value: &Value) -> Vec<&str> {
        value.as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap()).collect()
    }

    fn pod() -> Value {
        json!({
            "metadata": {"name": "p", "labels": {"a": "1", "b": "2"}, "finalizers": ["x", "y"]},
            "spec": {
                "nodeSelector": {"k": "v"},
                "containers": [
                    {"name": "one", "image": "i1", "args": ["x"], "ports": [{"containerPort": 80, "name": "http"}]},
                    {"name": "two", "image": "i2"},
                ],
                "tolerations": [{"key": "t"}],
                "volumes": [{"name": "v", "emptyDir": {}}],
            },
        })
    }

    #[test]
    fn maps_and_keyed_lists_merge_and_other_lists_are_replaced() {
        let patch = json!({
            "metadata": {"labels": {"a": null, "c": "3"}},
            "spec": {
                "containers": [{"name": "one", "image": "new", "args": ["y"], "ports": [{"containerPort": 80, "name": "web"}]}],
                "tolerations": [{"key": "u"}],
            },
        });
        let got = patched("", "pods", pod(), patch).unwrap();
        assert_eq!(got["metadata"]["labels"], json!({"b": "2", "c": "3"}));
        assert_eq!(
            got["spec"]["containers"][0],
            json!({"name": "one", "image": "new", "args": ["y"], "ports": [{"containerPort": 80, "name": "web"}]})
        );
        assert_eq!(names(&got["spec"]["containers"]), ["one", "two"]);
        assert_eq!(got["spec"]["tolerations"], json!([{"key": "u"}]));
    }

    #[test]
    fn directives_delete_replace_and_order() {
        let delete = json!({"spec": {"containers": [{"name": "two", "$patch": "delete"}]}});
        assert_eq!(
            names(&patched("", "pods", pod(), delete).unwrap()["spec"]["containers"]),
            ["one"]
        );
        let replace =
            json!({"spec": {"containers": [{"name": "x", "image": "i"}, {"$patch": "replace"}]}});
        let got = patched("", "pods", pod(), replace).unwrap();
        assert_eq!(got["spec"]["containers"], json!([{"name": "x", "image": "i"}]));
        let map = json!({"spec": {"nodeSelector": {"$patch": "replace", "n": "m"}}});
        assert_eq!(
            patched("", "pods", pod(), map).unwrap()["spec"]["nodeSelector"],
            json!({"n": "m"})
        );
        let order = json!({"spec": {
            "$setElementOrder/containers": [{"name": "two"}, {"name": "new"}, {"name": "one"}],
            "containers": [{"name": "new", "image": "i"}],
        }});
        let got = patched("", "pods", pod(), order).unwrap();
        assert_eq!(names(&got["spec"]["containers"]), ["two", "new", "one"]);
    }

    #[test]
    fn items_the_order_does_not_name_keep_their_place() {
        let original =
            json!({"spec": {"containers": [{"name": "injected"}, {"name": "a"}, {"name": "b"}]}});
        let patch = json!({"spec": {
            "$setElementOrder/containers": [{"name": "a"}, {"name": "b"}],
            "containers": [{"name": "a", "image": "x"}],
        }});
        let got = patched("", "pods", original, patch).unwrap();
        assert_eq!(names(&got["spec"]["containers"]), ["injected", "a", "b"]);
    }

    #[test]
    fn scalar_lists_merge_and_lose_named_values() {
        let patch = json!({"metadata": {
            "$deleteFromPrimitiveList/finalizers": ["x"],
            "$setElementOrder/finalizers": ["y", "z"],
            "finalizers": ["z"],
        }});
        let got = patched("", "pods", pod(), patch).unwrap();
        assert_eq!(got["metadata"]["finalizers"], json!(["y", "z"]));
    }

    #[test]
    fn retained_keys_drop_the_others() {
        let deployment = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
        let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
        let got = patched("apps", "deployments", deployment, patch).unwrap();
        assert_eq!(got["spec"]["strategy"], json!({"type": "Recreate"}));
        let volume = json!({"spec": {"volumes": [{"$retainKeys": ["name", "configMap"], "name": "v", "configMap": {"name": "c"}}]}});
        let got = patched("", "pods", pod(), volume).unwrap();
        assert_eq!(got["spec"]["volumes"], json!([{"name": "v", "configMap": {"name": "c"}}]));
    }

    #[test]
    fn malformed_patches_are_bad_requests() {
        let cases = [
            json!([]),
            json!({"spec": {"containers": [{"image": "x"}]}}),
            json!({"spec": {"nodeSelector": {"$patch": "jump"}}}),
            json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name"], "emptyDir": {}}]}}),
        ];
        for patch in cases {
            assert_eq!(patched("", "pods", pod(), patch).unwrap_err().code, 400);
        }
    }

    #[test]
    fn a_value_where_nothing_was_loses_nulls_and_directives() {
        let patch = json!({"spec": {"affinity": {"nodeAffinity": null, "podAffinity": {}}, "$setElementOrder/initContainers": [{"name": "i"}],
            "initContainers": [{"name": "i", "image": "x", "command": null}, {"name": "j", "$patch": "delete"}]}});
        let got = patched("", "pods", json!({}), patch).unwrap();
        assert_eq!(
            got,
            json!({"spec": {"affinity": {"podAffinity": {}}, "initContainers": [{"name": "i", "image": "x"}]}})
        );
    }
}
