//! The field numbers of the built-in kinds, from `fields.txt` (made by `facts.py`).
//!
//! Lines: `= APIVERSION KIND MESSAGE` names the message of a kind (`meta` for the kinds of every
//! group); `: MESSAGE` starts a message; `NUMBER NAME TYPE` is a field of it, named as in JSON, `~` if
//! its fields are the parent's own. Types: `s` text, `b` bool, `i` integer, `d` double, `y` bytes, a
//! message, or one of the special types; `[]`, `{}` and `*` in front mean list, map by text and pointer; `!`
//! behind: Go's JSON writes the field even when it is zero.

use std::collections::HashMap;
use std::sync::OnceLock;

use serde_json::{Value, json};

/// The message of `JSONSchemaProps`.
pub(super) const JSON_SCHEMA: &str = "apiextensions-apiserver/apiextensions/v1.JSONSchemaProps";

/// What may stand in a schema's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SchemaOr {
    Array,
    Bool,
    Strings,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Bool,
    Integer,
    Double,
    Bytes,
    Message(String),
    Repeated(Box<Kind>),
    Map(Box<Kind>),
    Time,
    MicroTime,
    Duration,
    Quantity,
    Raw,
    Items,
    IntOrString,
    SchemaOr(SchemaOr),
}

impl Kind {
    fn parse(text: &str) -> Self {
        if let Some(item) = text.strip_prefix("[]") {
            return Self::Repeated(Box::new(Self::parse(item)));
        }
        if let Some(item) = text.strip_prefix("{}") {
            return Self::Map(Box::new(Self::parse(item)));
        }
        match text.trim_start_matches('*') {
            "s" => Self::Text,
            "b" => Self::Bool,
            "i" => Self::Integer,
            "d" => Self::Double,
            "y" => Self::Bytes,
            "Time" => Self::Time,
            "MicroTime" => Self::MicroTime,
            "Duration" => Self::Duration,
            "Quantity" => Self::Quantity,
            "Raw" => Self::Raw,
            "items" => Self::Items,
            "IntOrString" => Self::IntOrString,
            "SchemaOrArray" => Self::SchemaOr(SchemaOr::Array),
            "SchemaOrBool" => Self::SchemaOr(SchemaOr::Bool),
            "SchemaOrStrings" => Self::SchemaOr(SchemaOr::Strings),
            message => Self::Message(message.to_owned()),
        }
    }

    /// The value of a map entry that leaves it out.
    pub(super) fn zero(&self) -> Value {
        match self {
            Self::Text | Self::Bytes => json!(""),
            Self::Bool => json!(false),
            Self::Integer | Self::IntOrString => json!(0),
            Self::Double => json!(0.0),
            Self::Quantity => json!("0"),
            Self::Repeated(_) | Self::Items => json!([]),
            Self::Message(_) | Self::Map(_) => json!({}),
            _ => Value::Null,
        }
    }

    #[cfg(test)]
    fn message(&self) -> Option<&str> {
        match self {
            Self::Message(name) => Some(name),
            Self::Repeated(item) | Self::Map(item) => item.message(),
            _ => None,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) inline: bool,
    /// A pointer tells zero from nothing.
    pointer: bool,
    /// Go writes it even when it is zero.
    always: bool,
}

impl Field {
    /// Whether the value says anything.
    pub(super) fn keeps(&self, value: &Value) -> bool {
        match value {
            Value::Null => false,
            _ if self.pointer || self.always => true,
            Value::String(text) => !text.is_empty(),
            Value::Bool(set) => *set,
            Value::Number(number) => number.as_f64() != Some(0.0),
            Value::Object(map) => !map.is_empty(),
            Value::Array(list) => !list.is_empty(),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Message(HashMap<u64, Field>);

impl Message {
    pub(super) fn field(&self, number: u64) -> Option<&Field> {
        self.0.get(&number)
    }
}

#[derive(Debug, Default)]
pub(super) struct Table {
    kinds: HashMap<(String, String), String>,
    messages: HashMap<String, Message>,
}

/// The table, read once.
pub(super) fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| Table::parse(include_str!("fields.txt")))
}

impl Table {
    /// The message of a kind, where it is known.
    pub(super) fn kind(&self, api_version: &str, kind: &str) -> Option<&Message> {
        let key = |api_version: &str| (api_version.to_owned(), kind.to_owned());
        let name = self.kinds.get(&key(api_version)).or_else(|| self.kinds.get(&key("meta")))?;
        self.messages.get(name)
    }

    pub(super) fn message(&self, name: &str) -> Option<&Message> {
        self.messages.get(name)
    }

    fn parse(text: &str) -> Self {
        let mut table = Self::default();
        let mut current = String::new();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["=", api_version, kind, message] => {
                    let key = ((*api_version).to_owned(), (*kind).to_owned());
                    table.kinds.insert(key, (*message).to_owned());
                }
                [":", message] => {
                    current = (*message).to_owned();
                    table.messages.insert(current.clone(), Message::default());
                }
                [number, name, kind] => {
                    let number = number.parse().expect("the generator writes field numbers");
                    let message = table.messages.entry(current.clone()).or_default();
                    message.0.insert(number, field(name, kind));
                }
                _ => unreachable!("the generator writes no other lines: {line}"),
            }
        }
        table
    }

    /// References to messages that the table does not have.
    #[cfg(test)]
    pub(super) fn dangling(&self) -> Vec<String> {
        let fields = self.messages.values().flat_map(|message| message.0.values());
        let named = fields
            .filter_map(|field| field.kind.message())
            .chain(self.kinds.values().map(String::as_str));
        named.filter(|name| !self.messages.contains_key(*name)).map(str::to_owned).collect()
    }
}

fn field(name: &str, kind: &str) -> Field {
    let bare = kind.trim_end_matches('!');
    Field {
        name: name.to_owned(),
        kind: Kind::parse(bare),
        inline: name == "~",
        pointer: bare.starts_with('*'),
        always: bare.len() != kind.len(),
    }
}
