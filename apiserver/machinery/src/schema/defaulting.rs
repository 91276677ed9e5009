//! Defaulting by schema: custom resources, on write and on read.

use serde_json::Value;

use super::View;

/// Fills in defaults where a field is absent, or null and not nullable.
pub fn apply_defaults(value: &mut Value, schema: View<'_>) {
    match value {
        Value::Object(map) => {
            for (name, property) in schema.properties() {
                let Some(default) = property.default() else { continue };
                let missing = match map.get(name) {
                    None => true,
                    Some(Value::Null) => !property.is_nullable(),
                    Some(_) => false,
                };
                if missing {
                    map.insert(name.to_owned(), default.clone());
                }
            }
            for (key, child) in map.iter_mut() {
                if let Some(schema) = schema.child(key) {
                    apply_defaults(child, schema);
                }
            }
        }
        Value::Array(items) => {
            let Some(schema) = schema.items() else { return };
            items.iter_mut().for_each(|item| apply_defaults(item, schema));
        }
        _ => {}
    }
}
