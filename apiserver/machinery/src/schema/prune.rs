//! Pruning: what the structural schema of a custom resource does not know is not stored.

use serde_json::Value;

use super::View;

/// Removes fields that the schema does not know; answers their paths. The metadata of the object and
/// of embedded resources is left to its own rules.
pub fn prune(value: &mut Value, schema: View<'_>) -> Vec<String> {
    let mut pruned = Vec::new();
    walk(value, schema, true, &mut String::new(), &mut pruned);
    pruned
}

fn walk(
    value: &mut Value,
    schema: View<'_>,
    resource: bool,
    path: &mut String,
    out: &mut Vec<String>,
) {
    match value {
        Value::Object(map) => map.retain(|key, child| {
            let length = path.len();
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(key);
            let kept = keep(key, child, schema, resource, path, out);
            path.truncate(length);
            kept
        }),
        Value::Array(items) => {
            let Some(schema) = schema.items() else { return };
            for (index, item) in items.iter_mut().enumerate() {
                let length = path.len();
                path.push_str(&format!("[{index}]"));
                walk(item, schema, schema.node().embedded_resource, path, out);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

fn keep(
    key: &str,
    child: &mut Value,
    schema: View<'_>,
    resource: bool,
    path: &mut String,
    out: &mut Vec<String>,
) -> bool {
    if resource && matches!(key, "apiVersion" | "kind" | "metadata") {
        return true;
    }
    match schema.child(key) {
        Some(known) => {
            walk(child, known, known.node().embedded_resource, path, out);
            true
        }
        None if schema.preserves_unknown_fields() => true,
        None => {
            out.push(path.clone());
            false
        }
    }
}
