//! Cell texts that several printers share.

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::object::{get, get_list, get_str};
use crate::time;

pub(super) const NONE: &str = "<none>";
pub(super) const UNSET: &str = "<unset>";

/// The text, or `<none>` when empty.
pub(super) fn or_none(text: &str) -> Value {
    if text.is_empty() { NONE.into() } else { text.into() }
}

/// The integer at a path, 0 when absent.
pub(super) fn int(object: &Value, path: &[&str]) -> i64 {
    get(object, path).and_then(Value::as_i64).unwrap_or(0)
}

/// `a=b,c=d` in key order, or `<none>`.
pub(super) fn labels(map: Option<&Map<String, Value>>) -> String {
    let Some(map) = map.filter(|m| !m.is_empty()) else { return NONE.to_owned() };
    let mut pairs: Vec<String> =
        map.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    pairs.sort();
    pairs.join(",")
}

/// A `metav1.LabelSelector` in selector syntax, or `<none>`.
pub(super) fn label_selector(selector: Option<&Value>) -> String {
    let Some(selector) = selector else { return NONE.to_owned() };
    match crate::LabelSelector::from_value(selector) {
        Ok(selector) if selector.is_empty() => NONE.to_owned(),
        Ok(selector) => selector.to_string(),
        Err(_) => "<error>".to_owned(),
    }
}

/// Names and images of the containers of a pod spec.
pub(super) fn containers(spec: Option<&Value>) -> (String, String) {
    let list = spec.map_or(&[][..], |spec| get_list(spec, &["containers"]));
    let join =
        |field: &str| list.iter().map(|c| get_str(c, &[field])).collect::<Vec<_>>().join(",");
    (join("name"), join("image"))
}

/// At most `max` items, then `+ N more...`.
pub(super) fn limited(items: &[String], max: usize) -> String {
    let shown = items[..items.len().min(max)].join(",");
    match items.len().saturating_sub(max) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}

/// `ReadWriteOnce` → `RWO`, joined.
pub(super) fn access_modes(modes: &[Value]) -> String {
    let mut short: Vec<&str> = Vec::new();
    for mode in modes {
        let name = match mode.as_str() {
            Some("ReadWriteOnce") => "RWO",
            Some("ReadOnlyMany") => "ROX",
            Some("ReadWriteMany") => "RWX",
            Some("ReadWriteOncePod") => "RWOP",
            _ => continue,
        };
        if !short.contains(&name) {
            short.push(name);
        }
    }
    short.join(",")
}

/// The age of the time at a path, or `<unknown>`.
pub(super) fn age_of(object: &Value, path: &[&str], now: Timestamp) -> String {
    time::age(get(object, path).and_then(Value::as_str), now)
}

/// Whether a condition of this type is true.
pub(super) fn is_true(object: &Value, condition: &str) -> bool {
    condition_status(object, condition) == Some("True")
}

/// The status of a condition.
pub(super) fn condition_status<'a>(object: &'a Value, condition: &str) -> Option<&'a str> {
    get_list(object, &["status", "conditions"])
        .iter()
        .find(|c| get_str(c, &["type"]) == condition)
        .map(|c| get_str(c, &["status"]))
}
