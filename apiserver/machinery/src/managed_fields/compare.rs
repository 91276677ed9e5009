//! Walks of a value along its schema: which fields it sets, and which differ between two values.

use serde_json::{Map, Value};

use super::FieldSet;
use crate::schema::{ListType, Type, View};

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

/// Whether a map's entries are named by the user and not by the schema.
fn is_free_map(schema: View<'_>) -> bool {
    schema.additional().is_some() || schema.kind() == Type::Any
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
    let (changed, removed) = (&mut changes.changed, &mut changes.removed);
    walk(Some(old), Some(new), schema, changed, removed);
    changes
}

fn walk(
    old: Option<&Value>,
    new: Option<&Value>,
    schema: View<'_>,
    changed: &mut FieldSet,
    removed: &mut FieldSet,
) {
    match (old, new) {
        (None, None) => {}
        (Some(old), Some(new)) if old == new => {}
        (None, Some(new)) => {
            changed.union(&added(new, schema));
        }
        (Some(old), None) => {
            removed.union(&fields_of(old, schema));
            removed.member = true;
        }
        (Some(old), Some(new)) => match (shape(old, schema), shape(new, schema)) {
            (Shape::Map(old), Shape::Map(new)) => {
                for (key, value) in new {
                    descend(
                        &format!("f:{key}"),
                        old.get(key),
                        Some(value),
                        child(schema, key),
                        changed,
                        removed,
                    );
                }
                for (key, value) in old.iter().filter(|(key, _)| !new.contains_key(*key)) {
                    descend(
                        &format!("f:{key}"),
                        Some(value),
                        None,
                        child(schema, key),
                        changed,
                        removed,
                    );
                }
            }
            (Shape::List(old), Shape::List(new)) => {
                let find = |list: &[(String, &'_ Value)], element: &str| {
                    list.iter().position(|(e, _)| e == element)
                };
                for (element, value) in &new {
                    let before = find(&old, element).map(|at| old[at].1);
                    descend(element, before, Some(value), items(schema), changed, removed);
                    if before.is_none() {
                        changed.entry(element.clone()).member = true;
                    }
                }
                for (element, value) in &old {
                    if find(&new, element).is_none() {
                        descend(element, Some(value), None, items(schema), changed, removed);
                    }
                }
            }
            _ => changed.member = true,
        },
    }
}

fn descend(
    element: &str,
    old: Option<&Value>,
    new: Option<&Value>,
    schema: View<'_>,
    changed: &mut FieldSet,
    removed: &mut FieldSet,
) {
    let (mut c, mut r) = (FieldSet::default(), FieldSet::default());
    walk(old, new, schema, &mut c, &mut r);
    if !c.is_empty() {
        changed.attach(element.to_owned(), c);
    }
    if !r.is_empty() {
        removed.attach(element.to_owned(), r);
    }
}

/// The fields of a value that was not there before: as [`fields_of`], and the optional maps and lists
/// that came with it belong to the writer too.
fn added(value: &Value, schema: View<'_>) -> FieldSet {
    let mut set = FieldSet::default();
    match shape(value, schema) {
        Shape::Leaf => set.member = true,
        Shape::Map(map) => {
            set.member = map.is_empty() || is_free_map(schema);
            for (key, below) in map {
                let property = child(schema, key);
                let mut node = added(below, property);
                let optional = !schema.target().required.iter().any(|r| r == key);
                if !optional && below.is_array() && !matches!(shape(below, property), Shape::Leaf) {
                    node.member = false;
                }
                set.attach(format!("f:{key}"), node);
            }
        }
        Shape::List(list) => {
            set.member = true;
            for (element, item) in list {
                let mut node = added(item, items(schema));
                node.member = true;
                set.attach(element, node);
            }
        }
    }
    set
}
