//! `FieldSet`: a set of field paths as `FieldsV1` writes it.
//!
//! A path element is the text of its key: `f:NAME`, `k:{"key":value}`, `v:VALUE`, `i:INDEX`. A node is
//! a member when its own path is in the set, whatever is below it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};

/// A set of field paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    pub(crate) member: bool,
    pub(crate) children: BTreeMap<String, FieldSet>,
}

impl FieldSet {
    /// Whether no path is in the set.
    pub fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    /// The node at `element`, created when absent.
    pub(crate) fn entry(&mut self, element: String) -> &mut Self {
        self.children.entry(element).or_default()
    }

    /// Adds `other`, unless it is empty, below `element`.
    pub(crate) fn attach(&mut self, element: String, other: Self) {
        if !other.is_empty() {
            self.entry(element).union(&other);
        }
    }

    /// Adds all paths of `other`.
    pub fn union(&mut self, other: &Self) {
        self.member |= other.member;
        for (element, node) in &other.children {
            self.entry(element.clone()).union(node);
        }
    }

    /// Removes the paths that are in `other`.
    pub fn subtract(&mut self, other: &Self) {
        self.member &= !other.member;
        self.children.retain(|element, node| {
            if let Some(other) = other.children.get(element) {
                node.subtract(other);
            }
            !node.is_empty()
        });
    }

    /// The paths in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut out = Self { member: self.member && other.member, ..Self::default() };
        for (element, node) in &self.children {
            if let Some(other) = other.children.get(element) {
                let both = node.intersection(other);
                if !both.is_empty() {
                    out.children.insert(element.clone(), both);
                }
            }
        }
        out
    }

    /// Removes one path and everything below it.
    pub(crate) fn remove_path(&mut self, path: &[&str]) {
        match path {
            [] => {}
            [last] => {
                self.children.remove(*last);
            }
            [first, rest @ ..] => {
                if let Some(node) = self.children.get_mut(*first) {
                    node.remove_path(rest);
                    if node.is_empty() {
                        self.children.remove(*first);
                    }
                }
            }
        }
    }

    /// All member paths in upstream's text form: `.spec.containers[name="c"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect(&mut String::new(), &mut out);
        out
    }

    fn collect(&self, path: &mut String, out: &mut Vec<String>) {
        if self.member {
            out.push(path.clone());
        }
        for (element, node) in &self.children {
            let length = path.len();
            show(element, path);
            node.collect(path, out);
            path.truncate(length);
        }
    }

    /// Reads `fieldsV1`.
    pub fn from_value(value: &Value) -> Self {
        let mut set = Self::read(value);
        // An empty object is a member everywhere but at the root.
        set.member = false;
        set
    }

    fn read(value: &Value) -> Self {
        let Some(map) = value.as_object() else { return Self::default() };
        let mut set = Self { member: map.is_empty(), ..Self::default() };
        for (element, below) in map {
            if element == "." {
                set.member = true;
            } else {
                set.children.insert(canonical(element), Self::read(below));
            }
        }
        set
    }

    /// As `fieldsV1`.
    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        if self.member && !self.children.is_empty() {
            map.insert(".".to_owned(), json!({}));
        }
        for (element, node) in &self.children {
            map.insert(element.clone(), node.to_value());
        }
        Value::Object(map)
    }
}

/// Keys and values as we write them: sorted keys, no spaces.
fn canonical(element: &str) -> String {
    match element.split_at_checked(2) {
        Some((prefix @ ("k:" | "v:"), json)) => match serde_json::from_str::<Value>(json) {
            Ok(value) => format!("{prefix}{value}"),
            Err(_) => element.to_owned(),
        },
        _ => element.to_owned(),
    }
}

fn show(element: &str, path: &mut String) {
    let Some((prefix, rest)) = element.split_at_checked(2) else { return };
    let _ = match prefix {
        "f:" => write!(path, ".{rest}"),
        "k:" => {
            let keys: Map<String, Value> = serde_json::from_str(rest).unwrap_or_default();
            let shown: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
            write!(path, "[{}]", shown.join(","))
        }
        "v:" => write!(path, "[={rest}]"),
        _ => write!(path, "[{rest}]"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(value: Value) -> FieldSet {
        FieldSet::from_value(&value)
    }

    #[test]
    fn sets_round_trip_and_show_their_paths() {
        let value = json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}, "f:finalizers": {"v:\"x\"": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}}}, "f:list": {"i:0": {}}},
        });
        assert_eq!(set(value.clone()).to_value(), value);
        assert_eq!(
            set(value).paths(),
            [
                ".metadata.finalizers[=\"x\"]",
                ".metadata.labels",
                ".metadata.labels.app",
                ".spec.containers[name=\"c\"]",
                ".spec.containers[name=\"c\"].image",
                ".spec.list[0]",
            ]
        );
    }

    #[test]
    fn set_algebra_works_on_paths() {
        let a = set(json!({"f:a": {}, "f:b": {".": {}, "f:c": {}}}));
        let b = set(json!({"f:b": {"f:c": {}}, "f:d": {}}));
        let mut union = a.clone();
        union.union(&b);
        assert_eq!(union.to_value(), json!({"f:a": {}, "f:b": {".": {}, "f:c": {}}, "f:d": {}}));
        assert_eq!(a.intersection(&b).to_value(), json!({"f:b": {"f:c": {}}}));
        let mut difference = a;
        difference.subtract(&b);
        assert_eq!(difference.to_value(), json!({"f:a": {}, "f:b": {}}));
    }
}
