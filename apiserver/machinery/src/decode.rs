//! Text to value: JSON with duplicate keys found, YAML, and YAML out.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::status::{Result, Status};

/// What a body decoded to.
#[derive(Debug)]
pub struct Decoded {
    /// The value; of a duplicate key, the last one.
    pub value: Value,
    /// Strict errors, e.g. `duplicate field "spec.foo"`.
    pub duplicates: Vec<String>,
}

/// Decodes a JSON body.
pub fn json(body: &[u8]) -> Result<Decoded> {
    let mut duplicates = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let seed = Seed { at: At::Root, duplicates: &mut duplicates };
    let value = seed
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|e| Status::bad_request(format!("json parse error: {e}")))?;
    Ok(Decoded { value, duplicates })
}

/// Decodes a YAML body (one document). Clients mostly send JSON as YAML, which is read as such:
/// faster, and with JSON's own escapes.
pub fn yaml(body: &[u8]) -> Result<Decoded> {
    if body.trim_ascii_start().starts_with(b"{")
        && let Ok(decoded) = json(body)
    {
        return Ok(decoded);
    }
    let mut duplicates = Vec::new();
    let options = serde_saphyr::options! {
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::PassThrough,
        with_snippet: false,
    };
    let value = serde_saphyr::with_deserializer_from_slice_with_options(body, options, |de| {
        Seed { at: At::Root, duplicates: &mut duplicates }.deserialize(de)
    })
    .map_err(|e| Status::bad_request(format!("error converting YAML to JSON: {e}")))?;
    Ok(Decoded { value, duplicates })
}

/// Encodes as YAML for `Accept: application/yaml`.
pub fn to_yaml(value: &Value) -> Result<String> {
    serde_saphyr::to_string(value).map_err(Status::internal_error)
}

/// Where a value stands, linked to its parents on the stack: a path costs nothing until it is shown.
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

struct Seed<'a> {
    at: At<'a>,
    duplicates: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("numbers must be finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let at = At::Index(&self.at, items.len());
            match access.next_element_seed(Seed { at, duplicates: self.duplicates })? {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let at = At::Key(&self.at, &key);
            let value = access.next_value_seed(Seed { at, duplicates: self.duplicates })?;
            if map.contains_key(&key) {
                let message = format!("duplicate field \"{at}\"");
                if !self.duplicates.contains(&message) {
                    self.duplicates.push(message);
                }
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn duplicate_keys_are_found_with_their_paths() {
        let body = br#"{"a":1,"a":2,"spec":{"list":[{"x":1},{"x":1,"x":3}]}}"#;
        let decoded = json(body).unwrap();
        assert_eq!(decoded.value, json!({"a": 2, "spec": {"list": [{"x": 1}, {"x": 3}]}}));
        assert_eq!(
            decoded.duplicates,
            ["duplicate field \"a\"", "duplicate field \"spec.list[1].x\""]
        );
        let decoded = yaml(b"spec:\n  a: 1\n  a: x\n").unwrap();
        assert_eq!(decoded.value, json!({"spec": {"a": "x"}}));
        assert_eq!(decoded.duplicates, ["duplicate field \"spec.a\""]);
    }

    #[test]
    fn yaml_scalars_have_their_json_types() {
        let text = b"s: text\nn: 3\nf: 1.5\nb: true\nnil: ~\nq: \"5\"\nl: [a, 1]\nm: |\n  x\n  y\n";
        let expected = json!({
            "s": "text", "n": 3, "f": 1.5, "b": true, "nil": null, "q": "5", "l": ["a", 1],
            "m": "x\ny\n",
        });
        assert_eq!(yaml(text).unwrap().value, expected);
    }

    #[test]
    fn json_is_yaml_with_its_own_escapes() {
        let body = br#" {"a": "\ud83d\ude00\/", "b": [1, {"c": null}]}"#;
        let expected = json!({"a": "\u{1f600}/", "b": [1, {"c": null}]});
        assert_eq!(yaml(body).unwrap().value, expected);
        assert_eq!(yaml(b"{a: 1, b: [x]}").unwrap().value, json!({"a": 1, "b": ["x"]}));
    }

    #[test]
    fn yaml_round_trips() {
        let value =
            json!({"a": "yes", "b": ["1", 1, null, true], "c": {"d": "x: y", "e": "", "f": {}}});
        assert_eq!(yaml(to_yaml(&value).unwrap().as_bytes()).unwrap().value, value);
    }

    #[test]
    fn malformed_bodies_are_bad_requests() {
        for body in [&b"{"[..], b"{\"a\":}", b"{} x", b"\xff"] {
            assert_eq!(json(body).unwrap_err().code, 400);
        }
        assert_eq!(yaml(b"a: [").unwrap_err().code, 400);
    }
}
