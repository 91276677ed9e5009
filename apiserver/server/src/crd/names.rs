//! The names that a definition wants, and whether it may have them.

use std::collections::BTreeSet;

use pintle_machinery::object;
use serde_json::{Value, json};

/// Group and plural name of what a definition defines.
pub(super) fn of(definition: &Value) -> (String, String) {
    let text = |path: &[&str]| object::get_str(definition, path).to_owned();
    (text(&["spec", "group"]), text(&["spec", "names", "plural"]))
}

/// `spec.names` with what was left out.
pub(super) fn completed(definition: &Value) -> Value {
    let mut names =
        object::get(definition, &["spec", "names"]).cloned().unwrap_or_else(|| json!({}));
    let kind = object::get_str(&names, &["kind"]).to_owned();
    if object::get_str(&names, &["singular"]).is_empty() {
        names["singular"] = kind.to_lowercase().into();
    }
    if object::get_str(&names, &["listKind"]).is_empty() {
        names["listKind"] = format!("{kind}List").into();
    }
    names
}

/// The first name of `definition` that another one of its group holds already.
pub(super) fn conflict(definition: &Value, all: &[Value]) -> Option<String> {
    let (group, _) = of(definition);
    let others = all.iter().filter(|other| {
        object::name(other) != object::name(definition)
            && object::get_str(other, &["spec", "group"]) == group
            && !object::is_terminating(other)
            && older(other, definition)
    });
    let (mut resources, mut kinds) = (BTreeSet::new(), BTreeSet::new());
    for other in others {
        let names = completed(other);
        resources.extend(resource_names(&names));
        kinds.extend(kind_names(&names));
    }
    let names = completed(definition);
    let taken = resource_names(&names).into_iter().find(|name| resources.contains(name));
    taken.or_else(|| kind_names(&names).into_iter().find(|name| kinds.contains(name)))
}

/// Who came first keeps the name; the creation time has seconds only, so the name decides a tie.
fn older(a: &Value, b: &Value) -> bool {
    let age = |value: &Value| {
        (
            object::creation_timestamp(value).unwrap_or_default().to_owned(),
            object::name(value).to_owned(),
        )
    };
    age(a) < age(b)
}

fn resource_names(names: &Value) -> Vec<String> {
    let short = object::get_list(names, &["shortNames"]).iter().filter_map(Value::as_str);
    let single = ["plural", "singular"].map(|field| object::get_str(names, &[field]));
    single.into_iter().chain(short).map(str::to_owned).collect()
}

fn kind_names(names: &Value) -> Vec<String> {
    ["kind", "listKind"].map(|field| object::get_str(names, &[field]).to_owned()).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(name: &str, kind: &str, short: &str, created: &str) -> Value {
        json!({
            "metadata": {"name": format!("{name}.example.com"), "creationTimestamp": created},
            "spec": {"group": "example.com", "names": {"plural": name, "kind": kind, "shortNames": [short]}},
        })
    }

    #[test]
    fn the_older_definition_keeps_a_contested_name() {
        let first = definition("foos", "Foo", "f", "2026-01-01T00:00:00Z");
        let second = definition("bars", "Bar", "f", "2026-01-02T00:00:00Z");
        let all = [first.clone(), second.clone()];
        assert_eq!(conflict(&first, &all), None);
        assert_eq!(conflict(&second, &all), Some("f".to_owned()));
    }

    #[test]
    fn left_out_names_come_from_the_kind() {
        let names = completed(&definition("foos", "Foo", "f", ""));
        assert_eq!((&names["singular"], &names["listKind"]), (&json!("foo"), &json!("FooList")));
    }
}
