//! Walks of a value along its schema: which fields it sets, and which differ between two values.

use serde_json::{Map, Value};

use super::FieldSet;
use crate::schema::{ListType, View};

/// What differs between two values.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Added or modified.
    pub changed: FieldSet,
    /// Removed.
    pub removed: FieldSet,
}

impl Changes {
    /// Whether the values are the same.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }
}

/// How a value is split into fields.
pub(crate) enum Shape<'v> {
    /// One value: a scalar, or an atomic list or map.
    Leaf,
    Map(&'v Map<String, Value>),
    /// An associative list: items by path element.
    List(Vec<(String, &'v Value)>),
}

pub(crate) fn shape<'v>(value: &'v Value, schema: View<'_>) -> Shape<'v> {
    match value {
        Value::Object(map) if !schema.is_atomic_map() => Shape::Map(map),
        Value::Array(items) => match schema.list_type() {
            ListType::Atomic => Shape::Leaf,
            ListType::Set | ListType::Map => {
                Shape::List(items.iter().map(|item| (item_path(item, schema), item)).collect())
            }
        },
        _ => Shape::Leaf,
    }
}

/// The path element of an item of an associative list.
pub(crate) fn item_path(item: &Value, list: View<'_>) -> String {
    match (list.list_type(), item) {
        (ListType::Map, Value::Object(map)) => {
            let mut keys = std::collections::BTreeMap::new();
            for key in list.list_map_keys() {
                if let Some(value) = map.get(key).or_else(|| key_default(list, key)) {
                    keys.insert(key, value);
                }
            }
            format!("k:{}", serde_json::to_string(&keys).expect("string keys and JSON values"))
        }
        _ => format!("v:{item}"),
    }
}

/// The default of a list key that an item leaves out.
fn key_default<'a>(list: View<'a>, key: &str) -> Option<&'a Value> {
    list.items()?.property(key)?.default()
}

pub(crate) fn child<'a>(schema: View<'a>, key: &str) -> View<'a> {
    schema.child(key).unwrap_or_else(|| View::any(schema.definitions()))
}

pub(crate) fn items(schema: View<'_>) -> View<'_> {
    schema.items().unwrap_or_else(|| View::any(schema.definitions()))
}

/// Objects that are part of their parent and not optional: nobody owns them, only what is in them.
const ALWAYS_THERE: [&str; 13] = [
    "f:metadata",
    "f:spec",
    "f:status",
    "f:template",
    "f:jobTemplate",
    "f:strategy",
    "f:updateStrategy",
    "f:resources",
    "f:loadBalancer",
    "f:nodeInfo",
    "f:daemonEndpoints",
    "f:names",
    "f:source",
];

/// Takes back the ownership of a container that is there anyway: a part of its parent, or a required
/// list.
fn disown_part(element: &str, value: &Value, node: &mut FieldSet, parent: View<'_>) {
    let required = |field: &str| parent.target().required.iter().any(|r| r == field);
    let is_part = match value {
        Value::Object(_) => ALWAYS_THERE.contains(&element),
        Value::Array(_) => element.strip_prefix("f:").is_some_and(required),
        _ => false,
    };
    if is_part && !node.children.is_empty() {
        node.member = false;
    }
}

/// The fields that a value sets: leaves, list items, entries of maps, and empty containers.
pub fn fields_of(value: &Value, schema: View<'_>) -> FieldSet {
    let mut set = FieldSet::default();
    match shape(value, schema) {
        Shape::Leaf => set.member = true,
        Shape::Map(map) => {
            for (key, below) in map {
                let mut node = fields_of(below, child(schema, key));
                let is_empty_map = below.as_object().is_some_and(Map::is_empty);
                node.member |= below.is_null() || is_empty_map || schema.property(key).is_none();
                set.attach(format!("f:{key}"), node);
            }
        }
        Shape::List(list) => {
            for (element, item) in list {
                let mut node = fields_of(item, items(schema));
                node.member = true;
                set.attach(element, node);
            }
        }
    }
    set
}

/// What changed from `old` to `new`.
pub fn compare(old: &Value, new: &Value, schema: View<'_>) -> Changes {
    let mut changes = Changes::default();
    if old == new {
        return changes;
    }
    match (shape(old, schema), shape(new, schema)) {
        (Shape::Map(old), Shape::Map(new)) => {
            for (key, value) in new {
                let element = format!("f:{key}");
                changes.add(element, old.get(key), Some(value), child(schema, key), schema);
            }
            for (key, value) in old.iter().filter(|(key, _)| !new.contains_key(*key)) {
                let element = format!("f:{key}");
                changes.add(element, Some(value), None, child(schema, key), schema);
            }
        }
        (Shape::List(old), Shape::List(new)) => {
            let find = |list: &[(String, &'_ Value)], element: &str| {
                list.iter().position(|(e, _)| e == element)
            };
            for (element, value) in &new {
                let before = find(&old, element).map(|at| old[at].1);
                changes.add(element.clone(), before, Some(value), items(schema), schema);
            }
            for (element, value) in &old {
                if find(&new, element).is_none() {
                    changes.add(element.clone(), Some(value), None, items(schema), schema);
                }
            }
        }
        _ => changes.changed.member = true,
    }
    changes
}

impl Changes {
    /// Adds what changed at `element` of a container with the schema `parent`.
    fn add(
        &mut self,
        element: String,
        old: Option<&Value>,
        new: Option<&Value>,
        schema: View<'_>,
        parent: View<'_>,
    ) {
        match (old, new) {
            (Some(old), Some(new)) => {
                let below = compare(old, new, schema);
                self.changed.attach(element.clone(), below.changed);
                self.removed.attach(element, below.removed);
            }
            (None, Some(new)) => {
                let mut node = added(new, schema);
                disown_part(&element, new, &mut node, parent);
                self.changed.attach(element, node);
            }
            (Some(old), None) => self.removed.attach(element, everything(old, schema)),
            (None, None) => {}
        }
    }
}

/// Every path of a value, containers too.
fn everything(value: &Value, schema: View<'_>) -> FieldSet {
    let mut set = FieldSet { member: true, ..FieldSet::default() };
    match shape(value, schema) {
        Shape::Leaf => {}
        Shape::Map(map) => {
            for (key, below) in map {
                set.attach(format!("f:{key}"), everything(below, child(schema, key)));
            }
        }
        Shape::List(list) => {
            for (element, item) in list {
                set.attach(element, everything(item, items(schema)));
            }
        }
    }
    set
}

/// The fields of a value that was not there before: as [`fields_of`], and the optional objects and
/// lists that came with it belong to the writer too.
fn added(value: &Value, schema: View<'_>) -> FieldSet {
    let mut set = FieldSet { member: true, ..FieldSet::default() };
    match shape(value, schema) {
        Shape::Leaf => {}
        Shape::Map(map) => {
            for (key, below) in map {
                let element = format!("f:{key}");
                let mut node = added(below, child(schema, key));
                disown_part(&element, below, &mut node, schema);
                set.attach(element, node);
            }
        }
        Shape::List(list) => {
            for (element, item) in list {
                set.attach(element, added(item, items(schema)));
            }
        }
    }
    set
}
