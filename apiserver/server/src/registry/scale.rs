//! The `scale` view of whatever has replicas: `autoscaling/v1 Scale`.

use pintle_machinery::object;
use serde_json::{Map, Value, json};

use crate::error::{ApiError, ApiResult};

/// The scale of an object.
pub(crate) fn scale_of(paths: &ScalePaths, parent: &Value) -> Value {
    let replicas = |path: &[String]| at(parent, path).and_then(Value::as_i64).unwrap_or(0);
    let mut metadata = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object::metadata(parent).and_then(|metadata| metadata.get(field)) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    let mut status = json!({ "replicas": replicas(&paths.status) });
    let selector = paths.selector.as_deref().and_then(|path| at(parent, path)).map(selector_text);
    if let Some(selector) = selector.filter(|selector| !selector.is_empty()) {
        status["selector"] = selector.into();
    }
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": { "replicas": replicas(&paths.spec) },
        "status": status,
    })
}

/// The object with the replicas that `scale` asks for.
pub(crate) fn set_scale(paths: &ScalePaths, parent: &Value, scale: &Value) -> ApiResult<Value> {
    let replicas = match object::get(scale, &["spec", "replicas"]) {
        None | Some(Value::Null) => 0,
        Some(value) => value
            .as_i64()
            .ok_or_else(|| ApiError::bad_request("spec.replicas of a Scale must be an integer"))?,
    };
    let mut changed = parent.clone();
    let Some((last, above)) = paths.spec.split_last() else { return Ok(changed) };
    let mut map = object::as_object_mut(&mut changed);
    for name in above {
        map = object::entry_object(map, name);
    }
    map.insert(last.clone(), replicas.into());
    object::set_resource_version(&mut changed, object::resource_version(scale));
    let uid = object::uid(scale);
    if !uid.is_empty() {
        object::set_uid(&mut changed, uid);
    }
    Ok(changed)
}

/// Where the numbers are, as object keys.
#[derive(Clone, Debug)]
pub(crate) struct ScalePaths {
    /// The wanted replicas.
    pub(crate) spec: Vec<String>,
    /// The observed ones.
    pub(crate) status: Vec<String>,
    /// The selector of the pods.
    pub(crate) selector: Option<Vec<String>>,
}

/// As all built-in kinds have them.
impl Default for ScalePaths {
    fn default() -> Self {
        let path = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
        Self {
            spec: path("spec.replicas"),
            status: path("status.replicas"),
            selector: Some(path("spec.selector")),
        }
    }
}

fn at<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, name| value.get(name))
}

/// A label selector in the query syntax: text as it is, a plain map, or matchLabels and matchExpressions.
fn selector_text(selector: &Value) -> String {
    if let Some(text) = selector.as_str() {
        return text.to_owned();
    }
    let Some(map) = selector.as_object() else { return String::new() };
    let structured = map.contains_key("matchLabels") || map.contains_key("matchExpressions");
    let labels =
        if structured { selector.get("matchLabels").and_then(Value::as_object) } else { Some(map) };
    let pairs = labels.into_iter().flatten();
    let mut terms: Vec<String> =
        pairs.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    terms.extend(object::get_list(selector, &["matchExpressions"]).iter().map(expression_text));
    terms.join(",")
}

fn expression_text(expression: &Value) -> String {
    let key = object::get_str(expression, &["key"]);
    let values: Vec<&str> =
        object::get_list(expression, &["values"]).iter().filter_map(Value::as_str).collect();
    let values = values.join(",");
    match object::get_str(expression, &["operator"]) {
        "In" => format!("{key} in ({values})"),
        "NotIn" => format!("{key} notin ({values})"),
        "DoesNotExist" => format!("!{key}"),
        _ => key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_written_in_query_syntax() {
        let cases = [
            (json!("a=b"), "a=b"),
            (json!({"app": "x", "tier": "y"}), "app=x,tier=y"),
            (json!({"matchLabels": {"app": "x"}}), "app=x"),
            (
                json!({"matchLabels": {"app": "x"}, "matchExpressions": [
                    {"key": "k", "operator": "In", "values": ["a", "b"]},
                    {"key": "e", "operator": "Exists"},
                    {"key": "n", "operator": "DoesNotExist"}]}),
                "app=x,k in (a,b),e,!n",
            ),
        ];
        for (selector, text) in cases {
            assert_eq!(selector_text(&selector), text);
        }
    }
}
