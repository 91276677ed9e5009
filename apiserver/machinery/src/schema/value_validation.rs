//! Value validations of custom resources: types, bounds, patterns, enumerations, combinators, and
//! the uniqueness that list types promise.

use serde_json::Value;

use super::{ListType, Schema, Type, Validations, View};
use crate::{ErrorList, Path};

/// Checks a value against its schema and adds what is wrong to `errors`.
pub fn validate_value(value: &Value, schema: View<'_>, path: &Path, errors: &mut ErrorList) {
    if value.is_null() && schema.is_nullable() {
        return;
    }
    if !has_type(value, schema) {
        let wanted = type_name(schema);
        let message = format!("{path} in body must be of type {wanted}: \"{}\"", shown_type(value));
        errors.type_invalid(path.clone(), shown_type(value), message);
        return;
    }
    if let Some(rules) = &schema.node().validations {
        validate_rules(value, rules, schema, path, errors);
    }
    match value {
        Value::Object(map) => {
            for required in &schema.target().required {
                if !map.contains_key(required) {
                    errors.required(path.child(required), "");
                }
            }
            for (key, child) in map {
                // The metadata of a resource is validated as ObjectMeta, by other rules.
                if path.as_str().is_empty() && key == "metadata" {
                    continue;
                }
                match (schema.property(key), schema.additional()) {
                    (Some(property), _) => {
                        validate_value(child, property, &path.child(key), errors);
                    }
                    (None, Some(additional)) => {
                        validate_value(child, additional, &path.key(key), errors);
                    }
                    (None, None) => {}
                }
            }
        }
        Value::Array(items) => {
            if let Some(item_schema) = schema.items() {
                for (index, item) in items.iter().enumerate() {
                    validate_value(item, item_schema, &path.index(index), errors);
                }
            }
            validate_list(items, schema, path, errors);
        }
        _ => {}
    }
}

fn has_type(value: &Value, schema: View<'_>) -> bool {
    if schema.is_int_or_string() {
        return value.is_string() || is_integer(value);
    }
    match schema.kind() {
        Type::Any => true,
        Type::Object => value.is_object(),
        Type::Array => value.is_array(),
        Type::String => value.is_string(),
        Type::Integer => is_integer(value),
        Type::Number => value.is_number(),
        Type::Boolean => value.is_boolean(),
    }
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0)
}

fn type_name(schema: View<'_>) -> &'static str {
    match schema.kind() {
        Type::Object => "object",
        Type::Array => "array",
        Type::String => "string",
        Type::Integer => "integer",
        Type::Number => "number",
        Type::Boolean => "boolean",
        Type::Any => "integer,string",
    }
}

fn shown_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn validate_rules(
    value: &Value,
    rules: &Validations,
    schema: View<'_>,
    path: &Path,
    errors: &mut ErrorList,
) {
    if !rules.enumeration.is_empty() && !rules.enumeration.contains(value) {
        let texts: Vec<String> = rules
            .enumeration
            .iter()
            .map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
            .collect();
        let supported: Vec<&str> = texts.iter().map(String::as_str).collect();
        errors.not_supported(path.clone(), value.clone(), &supported);
    }
    match value {
        Value::Number(_) => validate_number(value, rules, path, errors),
        Value::String(text) => validate_string(text, rules, path, errors),
        Value::Array(items) => {
            let count = items.len();
            size(count, rules.items_min, rules.items_max, "items", value, path, errors);
            if rules.unique_items && has_duplicates(items) {
                errors.invalid(
                    path.clone(),
                    value.clone(),
                    format!("{path} in body shouldn't contain duplicates"),
                );
            }
        }
        Value::Object(map) => {
            let count = map.len();
            size(
                count,
                rules.properties_min,
                rules.properties_max,
                "properties",
                value,
                path,
                errors,
            );
        }
        _ => {}
    }
    validate_combinators(value, rules, schema, path, errors);
}

fn validate_number(value: &Value, rules: &Validations, path: &Path, errors: &mut ErrorList) {
    let Some(number) = value.as_f64() else { return };
    if let Some((minimum, exclusive)) = rules.minimum
        && (number < minimum || (exclusive && number == minimum))
    {
        let than = if exclusive { "greater than" } else { "greater than or equal to" };
        errors.invalid(
            path.clone(),
            value.clone(),
            format!("{path} in body should be {than} {minimum}"),
        );
    }
    if let Some((maximum, exclusive)) = rules.maximum
        && (number > maximum || (exclusive && number == maximum))
    {
        let than = if exclusive { "less than" } else { "less than or equal to" };
        errors.invalid(
            path.clone(),
            value.clone(),
            format!("{path} in body should be {than} {maximum}"),
        );
    }
    if let Some(factor) = rules.multiple_of
        && (number / factor).fract() != 0.0
    {
        errors.invalid(
            path.clone(),
            value.clone(),
            format!("{path} in body should be a multiple of {factor}"),
        );
    }
}

fn validate_string(text: &str, rules: &Validations, path: &Path, errors: &mut ErrorList) {
    let length = text.chars().count();
    if let Some(min) = rules.length_min.filter(|min| length < *min) {
        errors.invalid(
            path.clone(),
            text,
            format!("{path} in body should be at least {min} chars long"),
        );
    }
    if let Some(max) = rules.length_max.filter(|max| length > *max) {
        errors.too_long(path.clone(), max);
    }
    if let Some(pattern) = rules.pattern.as_ref().filter(|p| !p.is_match(text)) {
        errors.invalid(path.clone(), text, format!("{path} in body should match '{pattern}'"));
    }
}

fn size(
    count: usize,
    min: Option<usize>,
    max: Option<usize>,
    noun: &str,
    value: &Value,
    path: &Path,
    errors: &mut ErrorList,
) {
    if let Some(min) = min.filter(|min| count < *min) {
        let detail = format!("{path} in body should have at least {min} {noun}");
        errors.invalid(path.clone(), value.clone(), detail);
    }
    if let Some(max) = max.filter(|max| count > *max) {
        errors.too_many(path.clone(), count, max);
    }
}

fn has_duplicates(items: &[Value]) -> bool {
    items.iter().enumerate().any(|(index, item)| items[..index].contains(item))
}

fn passes(value: &Value, schema: &Schema, within: View<'_>, path: &Path) -> bool {
    let mut errors = ErrorList::new();
    validate_value(value, View::new(within.definitions(), schema), path, &mut errors);
    errors.is_empty()
}

fn validate_combinators(
    value: &Value,
    rules: &Validations,
    within: View<'_>,
    path: &Path,
    errors: &mut ErrorList,
) {
    for schema in &rules.all_of {
        validate_value(value, View::new(within.definitions(), schema), path, errors);
    }
    if !rules.any_of.is_empty() && !rules.any_of.iter().any(|s| passes(value, s, within, path)) {
        let detail = format!("{path} in body must validate at least one schema (anyOf)");
        errors.invalid(path.clone(), value.clone(), detail);
    }
    if !rules.one_of.is_empty() {
        let matching = rules.one_of.iter().filter(|s| passes(value, s, within, path)).count();
        if matching != 1 {
            let detail = if matching == 0 {
                format!(
                    "{path} in body must validate one and only one schema (oneOf). Found none valid"
                )
            } else {
                format!(
                    "{path} in body must validate one and only one schema (oneOf). Found {matching} valid alternatives"
                )
            };
            errors.invalid(path.clone(), value.clone(), detail);
        }
    }
    if rules.not.as_deref().is_some_and(|schema| passes(value, schema, within, path)) {
        let detail = format!("{path} in body must not validate the schema (not)");
        errors.invalid(path.clone(), value.clone(), detail);
    }
}

fn validate_list(items: &[Value], schema: View<'_>, path: &Path, errors: &mut ErrorList) {
    match schema.list_type() {
        ListType::Atomic => {}
        ListType::Set => {
            for (index, item) in items.iter().enumerate() {
                if items[..index].contains(item) {
                    errors.duplicate(path.index(index), item.clone());
                }
            }
        }
        ListType::Map => {
            let keys_of = |item: &Value| -> Vec<Option<Value>> {
                schema.list_map_keys().iter().map(|k| item.get(k).cloned()).collect()
            };
            let keys: Vec<_> = items.iter().map(keys_of).collect();
            for (index, key) in keys.iter().enumerate() {
                if keys[..index].contains(key) {
                    let shown = schema.list_map_keys().iter().zip(key);
                    let shown = shown.filter_map(|(k, v)| Some((k.clone(), v.clone()?))).collect();
                    errors.duplicate(path.index(index), Value::Object(shown));
                }
            }
        }
    }
}
