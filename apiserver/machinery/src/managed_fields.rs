//! `metadata.managedFields`: who owns which field.
//!
//! [`track_update`] follows creates, updates and patches: what a write changes belongs to its writer
//! and to nobody else afterwards. Server-side apply has its own rules in [`crate::apply`]; both share
//! the field sets, the comparison and the entries here.

use serde_json::{Map, Value};

use crate::object;
use crate::schema::View;
use crate::status::{Result, Status};

mod compare;
mod field_set;

pub(crate) use compare::item_path;
pub use compare::{Changes, compare, fields_of};
pub use field_set::FieldSet;

/// Metadata that belongs to the system and to no manager.
const SYSTEM_FIELDS: [&[&str]; 11] = [
    &["f:apiVersion"],
    &["f:kind"],
    &["f:metadata", "f:name"],
    &["f:metadata", "f:namespace"],
    &["f:metadata", "f:creationTimestamp"],
    &["f:metadata", "f:selfLink"],
    &["f:metadata", "f:uid"],
    &["f:metadata", "f:clusterName"],
    &["f:metadata", "f:generation"],
    &["f:metadata", "f:managedFields"],
    &["f:metadata", "f:resourceVersion"],
];

/// Update entries of one object; beyond them the oldest are merged into one.
const UPDATE_ENTRIES_MAX: usize = 10;
/// The name of the entry that old updates are merged into.
const ANCIENT_CHANGES: &str = "ancient-changes";

/// How fields came to be owned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// By server-side apply.
    Apply,
    /// By any other write.
    Update,
}

/// Who writes, and how the entry is named.
#[derive(Clone, Debug)]
pub struct Writer<'a> {
    /// `fieldManager`, or the user agent's first part.
    pub manager: &'a str,
    /// `apiVersion` of the request.
    pub api_version: &'a str,
    /// Subresource of the request, or "".
    pub subresource: &'a str,
    /// The time of the entry, RFC 3339.
    pub time: &'a str,
}

/// One entry of `managedFields`.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Name of the manager.
    pub manager: String,
    /// How it came to own the fields.
    pub operation: Operation,
    /// The version that the fields are spelled in.
    pub api_version: String,
    /// Subresource, or "".
    pub subresource: String,
    /// When the set last changed.
    pub time: String,
    /// What it owns.
    pub fields: FieldSet,
}

impl Entry {
    pub(crate) fn new(writer: &Writer<'_>, operation: Operation) -> Self {
        Self {
            manager: writer.manager.to_owned(),
            operation,
            api_version: writer.api_version.to_owned(),
            subresource: writer.subresource.to_owned(),
            time: writer.time.to_owned(),
            fields: FieldSet::default(),
        }
    }

    /// Whether this is the entry of that writer; an applier has one entry whatever the version.
    pub(crate) fn is_of(&self, writer: &Writer<'_>, operation: Operation) -> bool {
        self.operation == operation
            && self.manager == writer.manager
            && self.subresource == writer.subresource
            && (operation == Operation::Apply || self.api_version == writer.api_version)
    }

    fn from_value(value: &Value) -> Option<Self> {
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
        let operation = match text("operation") {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        Some(Self {
            manager: text("manager").to_owned(),
            operation,
            api_version: text("apiVersion").to_owned(),
            subresource: text("subresource").to_owned(),
            time: text("time").to_owned(),
            fields: FieldSet::from_value(value.get("fieldsV1")?),
        })
    }

    fn to_value(&self) -> Value {
        let operation = if self.operation == Operation::Apply { "Apply" } else { "Update" };
        let mut entry = Map::new();
        entry.insert("manager".to_owned(), self.manager.clone().into());
        entry.insert("operation".to_owned(), operation.into());
        entry.insert("apiVersion".to_owned(), self.api_version.clone().into());
        if !self.time.is_empty() {
            entry.insert("time".to_owned(), self.time.clone().into());
        }
        entry.insert("fieldsType".to_owned(), "FieldsV1".into());
        entry.insert("fieldsV1".to_owned(), self.fields.to_value());
        if !self.subresource.is_empty() {
            entry.insert("subresource".to_owned(), self.subresource.clone().into());
        }
        Value::Object(entry)
    }
}

/// The entries of an object; entries that cannot be read are dropped.
pub fn entries(object: &Value) -> Vec<Entry> {
    let list = object::metadata(object).and_then(|m| m.get("managedFields"));
    let list = list.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Entry::from_value).collect()
}

/// Writes the entries in upstream's order: appliers first, then by time, then by name.
pub fn set_entries(object: &mut Value, mut entries: Vec<Entry>) {
    entries.retain(|entry| !entry.fields.is_empty());
    entries.sort_by(|a, b| {
        let key = |e: &Entry| {
            (
                e.operation,
                e.time.clone(),
                e.manager.clone(),
                e.api_version.clone(),
                e.subresource.clone(),
            )
        };
        key(a).cmp(&key(b))
    });
    let metadata = object::metadata_mut(object);
    if entries.is_empty() {
        metadata.remove("managedFields");
    } else {
        let list: Vec<Value> = entries.iter().map(Entry::to_value).collect();
        metadata.insert("managedFields".to_owned(), list.into());
    }
}

/// Checks the `managedFields` that a client sends: each entry must be readable.
pub fn validate(object: &Value) -> Result<()> {
    let list = object::metadata(object).and_then(|m| m.get("managedFields"));
    for entry in list.and_then(Value::as_array).into_iter().flatten() {
        if entry.as_object().is_some_and(|m| !m.is_empty()) && Entry::from_value(entry).is_none() {
            return Err(Status::bad_request(
                "metadata.managedFields: Invalid value: an entry needs `operation` Apply or Update and fieldsV1",
            ));
        }
    }
    Ok(())
}

/// Tracks a create, update or patch: `live` is `None` on create. Rewrites `new.metadata.managedFields`.
/// A list of one empty entry (`[{}]`) in `new` is the client's reset; an absent or empty list keeps
/// what the live object has.
pub fn track_update(live: Option<&Value>, new: &mut Value, schema: View<'_>, writer: &Writer<'_>) {
    let list = object::metadata(new).and_then(|m| m.get("managedFields")).and_then(Value::as_array);
    let is_given = list.is_some_and(|l| !l.is_empty());
    let mut entries = if is_given { entries(new) } else { live.map(entries).unwrap_or_default() };
    if live.is_some() && entries.is_empty() {
        // Reset, or never tracked: the next apply begins anew.
        object::metadata_mut(new).remove("managedFields");
        return;
    }
    let mut changes = match live {
        Some(live) => compare(live, new, schema),
        None => compare(&Value::Object(Map::new()), new, schema),
    };
    strip_system_fields(&mut changes.changed);
    let mut own = None;
    for (index, entry) in entries.iter_mut().enumerate() {
        let before = (entry.is_of(writer, Operation::Update)).then(|| entry.fields.clone());
        entry.fields.subtract(&changes.removed);
        match before {
            Some(before) => own = Some((index, before)),
            None => entry.fields.subtract(&changes.changed),
        }
    }
    match own {
        Some((index, before)) => {
            let entry = &mut entries[index];
            entry.fields.union(&changes.changed);
            if entry.fields != before || !changes.changed.is_empty() {
                entry.time = writer.time.to_owned();
            }
        }
        None if !changes.changed.is_empty() => {
            let fields = changes.changed;
            entries.push(Entry { fields, ..Entry::new(writer, Operation::Update) });
        }
        None => {}
    }
    merge_old_updates(&mut entries);
    set_entries(new, entries);
}

/// Keeps the number of entries bounded: an object that many managers touch would grow for ever.
fn merge_old_updates(entries: &mut Vec<Entry>) {
    let updates = entries.iter().filter(|entry| entry.operation == Operation::Update).count();
    if updates <= UPDATE_ENTRIES_MAX {
        return;
    }
    entries.sort_by(|a, b| (a.operation, &a.time).cmp(&(b.operation, &b.time)));
    let first = entries.len() - updates;
    let mut kept: Vec<Entry> = Vec::new();
    for entry in entries.drain(first..first + updates - UPDATE_ENTRIES_MAX + 1) {
        match kept.iter_mut().find(|k| k.api_version == entry.api_version) {
            Some(ancient) => {
                ancient.fields.union(&entry.fields);
                ancient.time = entry.time;
            }
            None => kept.push(Entry {
                manager: ANCIENT_CHANGES.to_owned(),
                subresource: String::new(),
                ..entry
            }),
        }
    }
    entries.extend(kept);
}

pub(crate) fn strip_system_fields(fields: &mut FieldSet) {
    for path in SYSTEM_FIELDS {
        fields.remove_path(path);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::RestMapper;

    fn writer<'a>(manager: &'a str, time: &'a str) -> Writer<'a> {
        Writer { manager, api_version: "apps/v1", subresource: "", time }
    }

    fn track(live: Option<&Value>, new: &mut Value, writer: &Writer<'_>) {
        let mapper = RestMapper::builtin();
        track_update(live, new, mapper.preferred("apps", "deployments").unwrap().schema(), writer);
    }

    fn deployment(replicas: i64, image: &str) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "d", "namespace": "ns", "labels": {"app": "d"}},
            "spec": {"replicas": replicas, "template": {"spec": {"containers": [{"name": "c", "image": image}]}}},
        })
    }

    #[test]
    fn a_create_owns_what_it_wrote_and_a_change_moves_ownership() {
        let mut live = deployment(1, "a");
        track(None, &mut live, &writer("kubectl-create", "t1"));
        let fields = &live["metadata"]["managedFields"][0]["fieldsV1"];
        assert_eq!(
            *fields,
            json!({
                "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                "f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {
                    "k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:name": {}},
                }}}},
            })
        );
        let mut new = deployment(3, "a");
        track(Some(&live), &mut new, &writer("scaler", "t2"));
        let entries = entries(&new);
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[1].manager, "scaler");
        assert_eq!(entries[1].fields.to_value(), json!({"f:spec": {"f:replicas": {}}}));
        assert!(!entries[0].fields.to_value().to_string().contains("replicas"));
    }

    #[test]
    fn a_write_that_changes_nothing_leaves_the_entries_alone() {
        let mut live = deployment(1, "a");
        track(None, &mut live, &writer("m", "t1"));
        let mut new = deployment(1, "a");
        track(Some(&live), &mut new, &writer("other", "t2"));
        assert_eq!(new, live);
    }

    #[test]
    fn many_updaters_are_merged_into_one_entry() {
        let mut live = deployment(0, "a");
        track(None, &mut live, &writer("m", "t00"));
        for n in 1..30 {
            let mut new = live.clone();
            new["metadata"]["labels"][format!("l{n}")] = json!("x");
            track(Some(&live), &mut new, &writer(&format!("m{n}"), &format!("t{n:02}")));
            live = new;
        }
        let entries = entries(&live);
        assert_eq!(entries.len(), UPDATE_ENTRIES_MAX);
        assert!(entries.iter().any(|entry| entry.manager == ANCIENT_CHANGES));
        let mut all = FieldSet::default();
        entries.iter().for_each(|entry| all.union(&entry.fields));
        assert_eq!(all.children["f:metadata"].children["f:labels"].children.len(), 30);
    }

    #[test]
    fn a_removed_field_leaves_all_owners_and_a_reset_clears_them() {
        let mut live = deployment(1, "a");
        track(None, &mut live, &writer("m", "t1"));
        let mut new = deployment(1, "a");
        new["metadata"].as_object_mut().unwrap().remove("labels");
        track(Some(&live), &mut new, &writer("other", "t2"));
        assert!(!new["metadata"]["managedFields"].to_string().contains("f:labels"));
        let mut reset = live.clone();
        reset["metadata"]["managedFields"] = json!([{}]);
        track(Some(&live), &mut reset, &writer("other", "t2"));
        assert_eq!(reset["metadata"].get("managedFields"), None);
    }
}
