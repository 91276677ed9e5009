//! Server-side apply: a configuration is merged into the live object by schema; the applier owns
//! what it configures, takes what nobody disputes, and removes what only it owned.

use serde_json::{Map, Value};

use crate::managed_fields::{
    Entry, FieldSet, Operation, Writer, compare, entries, fields_of, item_path, set_entries,
    strip_system_fields,
};
use crate::object;
use crate::schema::{self, ListType, View};
use crate::status::{Cause, Result, Status};

/// The field manager of `kubectl apply --server-side`.
const KUBECTL: &str = "kubectl";
/// Where client-side apply keeps its last configuration.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Who owns the fields of an object that was never tracked.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Applies `config` to `live` (or creates): merge by schema, ownership, conflicts (409), removal of
/// what only this manager owned. The result carries the new `managedFields` and equals `live` when
/// nothing changes. It is not defaulted or validated yet.
pub fn apply(
    live: Option<&Value>,
    config: &Value,
    schema: View<'_>,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value> {
    if object::metadata(config).and_then(|m| m.get("managedFields")).is_some_and(|m| !m.is_null()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    check_keys(config, schema, "")?;
    let config = &without_reset_fields(config, schema, writer);
    let nothing = Value::Object(Map::new());
    let mut managers = live.map(|live| known_entries(live, schema, writer)).unwrap_or_default();
    let live = live.unwrap_or(&nothing);
    let configured = fields_of(config, schema);
    let at = managers.iter().position(|entry| entry.is_of(writer, Operation::Apply));
    let last = at.map(|at| std::mem::take(&mut managers[at].fields));

    let mut merged = merge(live, config, schema);
    if let Some(last) = &last {
        let mut owned = configured.clone();
        managers.iter().for_each(|entry| owned.union(&entry.fields));
        prune_root(&mut merged, last, &owned, schema);
    }
    let changes = compare(live, &merged, schema);
    let disputed = conflicts(&managers, &changes.changed);
    if !force && !disputed.is_empty() && !was_applied_by_client(live, &disputed, schema, writer) {
        return Err(conflict_status(&disputed));
    }
    for entry in &mut managers {
        entry.fields.subtract(&changes.changed);
        entry.fields.subtract(&changes.removed);
    }
    let mut fields = configured;
    strip_system_fields(&mut fields);
    let has_changed = !changes.is_empty();
    match at {
        Some(at) => {
            let entry = &mut managers[at];
            entry.api_version = writer.api_version.to_owned();
            if has_changed || last.as_ref() != Some(&fields) {
                entry.time = writer.time.to_owned();
            }
            entry.fields = fields;
        }
        None => managers.push(Entry { fields, ..Entry::new(writer, Operation::Apply) }),
    }
    refresh_last_applied(live, &mut merged, config, writer);
    set_entries(&mut merged, managers);
    Ok(merged)
}

/// Status is written through its subresource alone, and nothing else is written through it. A custom
/// resource may have a status that is an ordinary field.
fn without_reset_fields(config: &Value, schema: View<'_>, writer: &Writer<'_>) -> Value {
    let mut config = config.clone();
    let is_builtin = std::ptr::eq(schema.definitions(), &**schema::builtin());
    if let Some(map) = config.as_object_mut() {
        match writer.subresource {
            "status" => map.retain(|key, _| {
                matches!(key.as_str(), "apiVersion" | "kind" | "metadata" | "status")
            }),
            "" if is_builtin => {
                map.remove("status");
            }
            _ => {}
        }
    }
    config
}

/// The live entries; an object that nobody tracked belongs to whoever wrote it before.
fn known_entries(live: &Value, schema: View<'_>, writer: &Writer<'_>) -> Vec<Entry> {
    let known = entries(live);
    if !known.is_empty() {
        return known;
    }
    let before = Writer { manager: BEFORE_FIRST_APPLY, subresource: "", ..writer.clone() };
    let mut fields = fields_of(live, schema);
    strip_system_fields(&mut fields);
    vec![Entry { fields, ..Entry::new(&before, Operation::Update) }]
}

fn last_applied(live: &Value) -> Option<Value> {
    serde_json::from_str(object::annotation(live, LAST_APPLIED)?).ok()
}

/// kubectl users move from client-side to server-side apply without conflicts with themselves: what
/// the last client-side configuration set may be taken over.
fn was_applied_by_client(
    live: &Value,
    disputed: &[(&Entry, String)],
    schema: View<'_>,
    writer: &Writer<'_>,
) -> bool {
    if writer.manager != KUBECTL {
        return false;
    }
    let Some(applied) = last_applied(live) else { return false };
    let own = fields_of(&applied, schema).paths();
    disputed.iter().all(|(_, path)| own.contains(path))
}

/// Keeps the annotation of client-side apply in step, so that a user may go back.
fn refresh_last_applied(live: &Value, merged: &mut Value, config: &Value, writer: &Writer<'_>) {
    if writer.manager != KUBECTL || last_applied(live).is_none() {
        return;
    }
    let mut config = config.clone();
    if let Some(annotations) =
        object::metadata_mut(&mut config).get_mut("annotations").and_then(Value::as_object_mut)
    {
        annotations.remove(LAST_APPLIED);
    }
    object::set_annotation(merged, LAST_APPLIED, &format!("{config}\n"));
}

/// The keys of associative lists must be there, and no two items may share them.
fn check_keys(value: &Value, schema: View<'_>, path: &str) -> Result<()> {
    match value {
        Value::Object(map) => map.iter().try_for_each(|(key, below)| {
            schema.child(key).map_or(Ok(()), |s| check_keys(below, s, &format!("{path}.{key}")))
        }),
        Value::Array(list) if schema.list_type() != ListType::Atomic => {
            let mut seen = Vec::with_capacity(list.len());
            for item in list {
                let element = item_path(item, schema);
                if element == "k:{}" && !schema.list_map_keys().is_empty() {
                    let keys = schema.list_map_keys().join(", ");
                    return Err(Status::new(
                        500,
                        crate::Reason::Unknown,
                        format!(
                            "failed to create typed patch object: {path}: element 0: associative list with keys has an element that omits key field \"{keys}\" (and doesn't have default value)"
                        ),
                    ));
                }
                if seen.contains(&element) {
                    return Err(Status::new(
                        500,
                        crate::Reason::Unknown,
                        format!(
                            "failed to create typed patch object: {path}: duplicate entries for key [{}]",
                            element.get(2..).unwrap_or_default()
                        ),
                    ));
                }
                if let Some(items) = schema.items() {
                    check_keys(item, items, &format!("{path}[{}]", seen.len()))?;
                }
                seen.push(element);
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn child<'a>(schema: View<'a>, key: &str) -> View<'a> {
    schema.child(key).unwrap_or_else(|| View::any(schema.definitions()))
}

fn items(schema: View<'_>) -> View<'_> {
    schema.items().unwrap_or_else(|| View::any(schema.definitions()))
}

/// `config` over `live`: granular maps and associative lists are merged, everything else replaced.
fn merge(live: &Value, config: &Value, schema: View<'_>) -> Value {
    match (live, config) {
        (Value::Object(live), Value::Object(config)) if !schema.is_atomic_map() => {
            let mut merged = live.clone();
            for (key, value) in config {
                let value = match live.get(key) {
                    Some(live) => merge(live, value, child(schema, key)),
                    None => value.clone(),
                };
                merged.insert(key.clone(), value);
            }
            Value::Object(merged)
        }
        (Value::Array(live), Value::Array(config)) if schema.list_type() != ListType::Atomic => {
            Value::Array(merge_list(live, config, schema))
        }
        _ => config.clone(),
    }
}

/// The items of both lists: the configured ones in their order, live ones that are not configured
/// where they stood relative to the next item that both have.
fn merge_list(live: &[Value], config: &[Value], schema: View<'_>) -> Vec<Value> {
    let live: Vec<(String, &Value)> = live.iter().map(|v| (item_path(v, schema), v)).collect();
    let config: Vec<(String, &Value)> = config.iter().map(|v| (item_path(v, schema), v)).collect();
    let find =
        |list: &[(String, &Value)], element: &str| list.iter().position(|(e, _)| e == element);
    let merged = |index: usize| {
        let (element, value) = &config[index];
        match find(&live, element) {
            Some(at) => merge(live[at].1, value, items(schema)),
            None => (*value).clone(),
        }
    };
    let mut shared = config.iter().map(|(e, _)| e).filter(|e| find(&live, e).is_some()).peekable();
    let mut out = Vec::with_capacity(live.len().max(config.len()));
    let (mut l, mut c) = (0, 0);
    while l < live.len() || c < config.len() {
        if let Some((element, value)) = live.get(l) {
            match find(&config, element) {
                None => {
                    out.push((*value).clone());
                    l += 1;
                    continue;
                }
                Some(at) if at < c => {
                    // Taken already, with the configured item.
                    l += 1;
                    continue;
                }
                Some(at) if at == c => l += 1,
                Some(_) if shared.peek().is_some_and(|next| *next != element) => {
                    // It comes later in the configuration: what stands behind it comes first.
                    l += 1;
                    continue;
                }
                Some(_) => {}
            }
        }
        if c < config.len() {
            shared.next_if(|next| **next == config[c].0);
            out.push(merged(c));
            c += 1;
        }
    }
    out
}

/// Type and object metadata themselves are never removed, only what is inside the metadata.
fn prune_root(value: &mut Value, last: &FieldSet, owned: &FieldSet, schema: View<'_>) {
    let Some(map) = value.as_object_mut() else { return };
    map.retain(|key, below| {
        let element = format!("f:{key}");
        let Some(last) = last.children.get(&element) else { return true };
        let owned = owned.children.get(&element);
        if matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
            let nothing = FieldSet::default();
            prune(below, last, owned.unwrap_or(&nothing), child(schema, key));
            return true;
        }
        keep(below, last, owned, child(schema, key))
    });
}

/// Removes from `value` what `last` has and `owned` has not.
fn prune(value: &mut Value, last: &FieldSet, owned: &FieldSet, schema: View<'_>) {
    match value {
        Value::Object(map) if !schema.is_atomic_map() => map.retain(|key, below| {
            let element = format!("f:{key}");
            match last.children.get(&element) {
                Some(last) => keep(below, last, owned.children.get(&element), child(schema, key)),
                None => true,
            }
        }),
        Value::Array(list) if schema.list_type() != ListType::Atomic => list.retain_mut(|item| {
            let element = item_path(item, schema);
            match last.children.get(&element) {
                Some(last) => keep(item, last, owned.children.get(&element), items(schema)),
                None => true,
            }
        }),
        _ => {}
    }
}

fn keep(value: &mut Value, last: &FieldSet, owned: Option<&FieldSet>, schema: View<'_>) -> bool {
    match owned {
        None => false,
        Some(owned) => {
            prune(value, last, owned, schema);
            true
        }
    }
}

fn conflicts<'a>(managers: &'a [Entry], changed: &FieldSet) -> Vec<(&'a Entry, String)> {
    let mut out = Vec::new();
    for entry in managers {
        for path in entry.fields.intersection(changed).paths() {
            out.push((entry, path));
        }
    }
    out
}

/// The name of a manager as a conflict shows it.
fn shown(entry: &Entry) -> String {
    let mut text = format!("{:?}", entry.manager);
    if !entry.subresource.is_empty() {
        text.push_str(&format!(" with subresource {:?}", entry.subresource));
    }
    if entry.operation == Operation::Update {
        text.push_str(&format!(" using {}", entry.api_version));
        if !entry.time.is_empty() {
            text.push_str(&format!(" at {}", entry.time));
        }
    }
    text
}

fn conflict_status(conflicts: &[(&Entry, String)]) -> Status {
    let causes = conflicts.iter().map(|(entry, path)| Cause {
        reason: "FieldManagerConflict".to_owned(),
        message: format!("conflict with {}", shown(entry)),
        field: path.clone(),
    });
    Status::apply_conflict(causes.collect(), conflict_message(conflicts))
}

fn conflict_message(conflicts: &[(&Entry, String)]) -> String {
    if let [(entry, path)] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {path}", shown(entry));
    }
    let mut by_manager = std::collections::BTreeMap::<String, Vec<&str>>::new();
    for (entry, path) in conflicts {
        by_manager.entry(shown(entry)).or_default().push(path);
    }
    let messages = by_manager.iter().map(|(manager, paths)| {
        let paths: Vec<String> = paths.iter().map(|path| format!("- {path}")).collect();
        format!("conflicts with {manager}:\n{}", paths.join("\n"))
    });
    let messages: Vec<String> = messages.collect();
    format!("Apply failed with {} conflicts: {}", conflicts.len(), messages.join("\n"))
}

#[cfg(test)]
mod tests;
