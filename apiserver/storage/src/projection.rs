//! Reads a few fields of a JSON object and skips the rest without building it.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Which fields to keep: a tree of names; a leaf keeps its whole value.
#[derive(Clone, Debug, Default)]
pub(crate) struct Projection(BTreeMap<String, Projection>);

impl Projection {
    pub(crate) fn add(&mut self, path: &[impl AsRef<str>]) {
        let mut node = self;
        for name in path {
            node = node.0.entry(name.as_ref().to_owned()).or_default();
        }
    }

    pub(crate) fn read(&self, json: &[u8]) -> Result<Value, serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let value = self.deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(value)
    }
}

impl<'de> DeserializeSeed<'de> for &Projection {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.0.is_empty() {
            serde::Deserialize::deserialize(deserializer)
        } else {
            deserializer.deserialize_any(self)
        }
    }
}

impl<'de> Visitor<'de> for &Projection {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut kept = Map::new();
        while let Some(name) = access.next_key::<std::borrow::Cow<'de, str>>()? {
            match self.0.get(name.as_ref()) {
                Some(below) => {
                    let value = access.next_value_seed(below)?;
                    kept.insert(name.into_owned(), value);
                }
                None => {
                    access.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Value::Object(kept))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        while access.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_str<E>(self, _: &str) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_asked_for_fields_are_kept() {
        let mut projection = Projection::default();
        projection.add(&["metadata", "name"]);
        projection.add(&["metadata", "labels"]);
        projection.add(&["spec", "nodeName"]);
        projection.add(&["status", "phase"]);
        let json = br#"{"metadata":{"name":"a","uid":"u","labels":{"x":"y"}},"spec":{"nodeName":"n","containers":[{}]},"status":3}"#;
        let expected: Value = serde_json::json!({
            "metadata": {"name": "a", "labels": {"x": "y"}}, "spec": {"nodeName": "n"}, "status": null
        });
        assert_eq!(projection.read(json).expect("valid JSON"), expected);
    }
}
