//! Strict decoding: unknown fields and wrong types, by schema.
//!
//! [`check`] does to a decoded value what decoding into a Go struct does to a body: wrong types fail,
//! unknown fields are dropped and reported, nulls mean absent, quantities and times take their
//! canonical form. Everything behind it may rely on the types that the schema states.

use std::fmt;

use base64::Engine as _;
use serde_json::Value;

use crate::resource::Resource;
use crate::schema::{Type, View};
use crate::status::{Result, Status};
use crate::{Quantity, time};

/// The `fieldValidation` query parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop unknown fields silently.
    Ignore,
    /// Drop them with a warning each.
    Warn,
    /// Refuse the request.
    Strict,
}

impl FieldValidation {
    /// Parses the parameter; absent or empty is `Warn`.
    pub fn parse(parameter: &str) -> Result<Self> {
        match parameter {
            "" | "Warn" => Ok(Self::Warn),
            "Ignore" => Ok(Self::Ignore),
            "Strict" => Ok(Self::Strict),
            other => Err(Status::bad_request(format!(
                "fieldValidation: Unsupported value: \"{other}\": supported values: \"Ignore\", \"Warn\", \"Strict\""
            ))),
        }
    }
}

/// Checks a decoded object against the kind's schema: wrong types are a 400, unknown fields are
/// removed and handled as `mode` says together with `duplicates`. Answers the warnings.
pub fn check(
    object: &mut Value,
    duplicates: Vec<String>,
    resource: &Resource,
    mode: FieldValidation,
) -> Result<Vec<String>> {
    let fail = |why: &str| {
        let (version, kind) = (&resource.version, &resource.kind);
        Status::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"
        ))
    };
    let mut strict = duplicates;
    let schema = resource.schema();
    if resource.custom {
        check_custom(object, schema, &mut strict).map_err(|why| fail(&why))?;
    } else {
        check_schema(object, schema, &mut strict).map_err(|why| fail(&why))?;
    }
    match mode {
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Warn => Ok(strict),
        FieldValidation::Strict if strict.is_empty() => Ok(Vec::new()),
        FieldValidation::Strict => {
            Err(fail(&format!("strict decoding error: {}", strict.join(", "))))
        }
    }
}

/// The same for any built-in definition, e.g. the body of a subresource. Unknown fields are removed
/// and added to `unknown` as `unknown field "path"`; the error is the reason alone.
pub fn check_schema(
    object: &mut Value,
    schema: View<'_>,
    unknown: &mut Vec<String>,
) -> Result<(), String> {
    Walk { unknown }.value(object, schema, At::Root, root_name(schema))
}

/// Custom resources: only the metadata is typed here; the rest is pruned by its schema and its types
/// are a matter of validation.
fn check_custom(
    object: &mut Value,
    schema: View<'_>,
    unknown: &mut Vec<String>,
) -> Result<(), String> {
    if !object.is_object() {
        return Err(format!("json: cannot unmarshal {} into an object", json_type(object)));
    }
    if let (Some(metadata), Some(meta)) = (object.get_mut("metadata"), schema.property("metadata"))
    {
        let mut dropped = Vec::new();
        let at = At::Root;
        Walk { unknown: &mut dropped }.value(
            metadata,
            meta,
            At::Key(&at, "metadata"),
            "ObjectMeta",
        )?;
        unknown.append(&mut dropped);
    }
    let pruned = crate::schema::prune(object, schema);
    unknown.extend(pruned.into_iter().map(|path| format!("unknown field \"{path}\"")));
    Ok(())
}

fn root_name(schema: View<'_>) -> &str {
    schema.target().gvks.first().map_or("", |gvk| &gvk.kind)
}

#[derive(Clone, Copy)]
enum At<'a> {
    Root,
    Key(&'a At<'a>, &'a str),
    Index(&'a At<'a>, usize),
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Root => Ok(()),
            At::Key(At::Root, key) => f.write_str(key),
            At::Key(parent, key) => write!(f, "{parent}.{key}"),
            At::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

impl At<'_> {
    /// Without indices, as Go names a field.
    fn field(&self) -> String {
        match self {
            At::Root => String::new(),
            At::Key(parent, key) => match parent.field() {
                prefix if prefix.is_empty() => (*key).to_owned(),
                prefix => format!("{prefix}.{key}"),
            },
            At::Index(parent, _) => parent.field(),
        }
    }
}

struct Walk<'u> {
    unknown: &'u mut Vec<String>,
}

impl Walk<'_> {
    /// `owner` is the struct that the field at `at` belongs to.
    fn value(
        &mut self,
        value: &mut Value,
        schema: View<'_>,
        at: At<'_>,
        owner: &str,
    ) -> Result<(), String> {
        if let Some(definition) = schema.node().reference.as_deref() {
            match short_name(definition) {
                "Quantity" => return quantity(value),
                "Time" => return timestamp(value, time::format),
                "MicroTime" => return timestamp(value, time::format_micro),
                _ => {}
            }
        }
        if schema.is_int_or_string() {
            let fits = value.is_string() || value.is_i64();
            return if fits {
                Ok(())
            } else {
                Err(mismatch(value, at, owner, "intstr.IntOrString"))
            };
        }
        match (schema.kind(), &mut *value) {
            (Type::Object, Value::Object(_)) => self.object(value, schema, at, owner),
            (Type::Array, Value::Array(items)) => {
                let Some(schema) = schema.items() else { return Ok(()) };
                for (index, item) in items.iter_mut().enumerate() {
                    self.value(item, schema, At::Index(&at, index), owner)?;
                }
                Ok(())
            }
            (Type::String, Value::String(text)) => {
                if schema.node().format.as_deref() == Some("byte") {
                    base64(text)?;
                }
                Ok(())
            }
            (Type::Integer, Value::Number(number)) => {
                let fits = number.as_i64().is_some_and(|n| {
                    schema.node().format.as_deref() != Some("int32") || i32::try_from(n).is_ok()
                });
                if fits { Ok(()) } else { Err(mismatch(value, at, owner, go_type(schema))) }
            }
            (Type::Number, Value::Number(_)) | (Type::Boolean, Value::Bool(_)) | (Type::Any, _) => {
                Ok(())
            }
            _ => Err(mismatch(value, at, owner, go_type(schema))),
        }
    }

    fn object(
        &mut self,
        value: &mut Value,
        schema: View<'_>,
        at: At<'_>,
        owner: &str,
    ) -> Result<(), String> {
        let Value::Object(map) = value else { return Ok(()) };
        if schema.preserves_unknown_fields() {
            return Ok(());
        }
        let own_name = schema.node().reference.as_deref().map_or(owner, short_name);
        let mut result = Ok(());
        map.retain(|key, value| {
            if result.is_err() {
                return true;
            }
            let at = At::Key(&at, key);
            match schema.child(key) {
                None => {
                    self.unknown.push(format!("unknown field \"{at}\""));
                    false
                }
                Some(_) if value.is_null() => false,
                Some(child) => {
                    result = self.value(value, child, at, own_name);
                    true
                }
            }
        });
        result
    }
}

fn short_name(definition: &str) -> &str {
    definition.rsplit('.').next().unwrap_or(definition)
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn go_type(schema: View<'_>) -> &str {
    match schema.kind() {
        Type::Integer => match schema.node().format.as_deref() {
            Some("int32") => "int32",
            _ => "int64",
        },
        Type::Number => "float64",
        Type::Boolean => "bool",
        Type::String => "string",
        Type::Object if schema.additional().is_some() => "map",
        Type::Array => "slice",
        _ => schema.node().reference.as_deref().map_or("object", short_name),
    }
}

fn mismatch(value: &Value, at: At<'_>, owner: &str, go_type: &str) -> String {
    let shown = match value {
        Value::Number(number) => format!("number {number}"),
        other => json_type(other).to_owned(),
    };
    match at.field() {
        field if field.is_empty() => {
            format!("json: cannot unmarshal {shown} into Go value of type {owner}")
        }
        field => format!(
            "json: cannot unmarshal {shown} into Go struct field {owner}.{field} of type {go_type}"
        ),
    }
}

fn quantity(value: &mut Value) -> Result<(), String> {
    let parsed = Quantity::from_value(value).map_err(|e| e.to_string())?;
    let canonical = parsed.to_string();
    if value.as_str() != Some(&*canonical) {
        *value = Value::String(canonical);
    }
    Ok(())
}

fn timestamp(value: &mut Value, format: fn(jiff::Timestamp) -> String) -> Result<(), String> {
    let text = value.as_str().unwrap_or_default();
    let Some(parsed) = time::parse(text) else {
        return Err(format!(
            "parsing time \"{text}\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"{text}\""
        ));
    };
    let canonical = format(parsed);
    if text != canonical {
        *value = Value::String(canonical);
    }
    Ok(())
}

fn base64(text: &mut str) -> Result<(), String> {
    use base64::engine::general_purpose::STANDARD;
    let compact;
    let text = if text.contains(['\n', '\r']) {
        compact = text.replace(['\n', '\r'], "");
        &compact
    } else {
        &*text
    };
    match STANDARD.decode(text) {
        Ok(_) => Ok(()),
        Err(base64::DecodeError::InvalidByte(at, _)) => {
            Err(format!("illegal base64 data at input byte {at}"))
        }
        Err(_) => Err(format!("illegal base64 data at input byte {}", text.len())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::RestMapper;

    fn run(
        group: &str,
        plural: &str,
        mut object: Value,
        mode: FieldValidation,
    ) -> Result<(Value, Vec<String>)> {
        let mapper = RestMapper::builtin();
        let resource = mapper.preferred(group, plural).unwrap();
        let warnings = check(&mut object, Vec::new(), resource, mode)?;
        Ok((object, warnings))
    }

    #[test]
    fn unknown_fields_are_dropped_reported_or_refused() {
        let pod = json!({"spec": {"foo": 1, "containers": [{"name": "a", "imag": "x"}]}});
        let (clean, warnings) = run("", "pods", pod.clone(), FieldValidation::Warn).unwrap();
        assert_eq!(clean, json!({"spec": {"containers": [{"name": "a"}]}}));
        let expected = ["unknown field \"spec.containers[0].imag\"", "unknown field \"spec.foo\""];
        assert_eq!(warnings, expected);
        assert!(run("", "pods", pod.clone(), FieldValidation::Ignore).unwrap().1.is_empty());
        let error = run("", "pods", pod, FieldValidation::Strict).unwrap_err();
        assert_eq!(error.code, 400);
        assert_eq!(
            error.message,
            "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \"spec.containers[0].imag\", unknown field \"spec.foo\""
        );
    }

    #[test]
    fn wrong_types_are_named_as_go_names_them() {
        let cases = [
            (
                json!({"spec": {"replicas": "3"}}),
                "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                json!({"spec": {"replicas": 1.5}}),
                "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                json!({"metadata": {"labels": {"a": 1}}}),
                "json: cannot unmarshal number 1 into Go struct field ObjectMeta.metadata.labels.a of type string",
            ),
            (
                json!({"spec": {"template": {"spec": {"containers": [{"resources": {"limits": {"cpu": "1x"}}}]}}}}),
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            ),
            (
                json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": true}}}}),
                "json: cannot unmarshal bool into Go struct field RollingUpdateDeployment.spec.strategy.rollingUpdate.maxSurge of type intstr.IntOrString",
            ),
        ];
        for (object, why) in cases {
            let error = run("apps", "deployments", object, FieldValidation::Ignore).unwrap_err();
            assert_eq!(
                error.message,
                format!("Deployment in version \"v1\" cannot be handled as a Deployment: {why}")
            );
        }
        let secret = json!({"data": {"a": "***"}});
        assert!(run("", "secrets", secret, FieldValidation::Ignore).is_err());
    }

    #[test]
    fn values_take_their_canonical_form() {
        let pod = json!({
            "metadata": {"name": "a", "creationTimestamp": null, "labels": {"x": null}},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1000m", "memory": 1024}}}]},
            "status": {"startTime": "2026-01-01T02:00:00.5+01:00"},
        });
        let (clean, warnings) = run("", "pods", pod, FieldValidation::Strict).unwrap();
        assert!(warnings.is_empty());
        assert_eq!(
            clean,
            json!({
                "metadata": {"name": "a", "labels": {}},
                "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1", "memory": "1024"}}}]},
                "status": {"startTime": "2026-01-01T01:00:00Z"},
            })
        );
    }

    #[test]
    fn free_form_values_are_left_alone() {
        let revision = json!({"data": {"a": null, "b": [1]}, "revision": 1});
        let (clean, _) =
            run("apps", "controllerrevisions", revision.clone(), FieldValidation::Strict).unwrap();
        assert_eq!(clean, revision);
    }
}
