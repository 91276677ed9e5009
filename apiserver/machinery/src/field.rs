//! Field paths and field errors: what a validation says about one field, in upstream's wording.

use std::fmt::{self, Display, Write as _};

use serde_json::Value;

use crate::status::Cause;

/// A field path such as `spec.containers[0].name`; cheap to extend, empty at the root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    /// A path that starts with `name`.
    pub fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// `self.name`.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() {
            return Self::new(name);
        }
        let mut path = String::with_capacity(self.0.len() + name.len() + 1);
        path.push_str(&self.0);
        path.push('.');
        path.push_str(name);
        Self(path)
    }

    /// `self[index]`.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// `self[key]`: an entry of a map.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }

    /// The dotted form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "<nil>" } else { &self.0 })
    }
}

/// `field.ErrorType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorType {
    /// A reference to something that is not there.
    NotFound,
    /// The field must be set.
    Required,
    /// The value occurs twice.
    Duplicate,
    /// The value is malformed.
    Invalid,
    /// The value is not in the supported set.
    NotSupported,
    /// The field may not be set (now).
    Forbidden,
    /// Longer than allowed.
    TooLong,
    /// More items than allowed.
    TooMany,
    /// The server's own fault.
    Internal,
    /// The value has the wrong type.
    TypeInvalid,
}

impl ErrorType {
    /// `StatusCause.reason`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Internal => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }

    fn shows_value(self) -> bool {
        !matches!(
            self,
            Self::Required | Self::Forbidden | Self::TooLong | Self::TooMany | Self::Internal
        )
    }
}

/// `field.Error`.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    /// What kind of mistake.
    pub kind: ErrorType,
    /// Where.
    pub field: Path,
    /// The offending value, for the kinds that show it.
    pub bad_value: Value,
    /// Why, in words.
    pub detail: String,
}

impl Error {
    /// The message without the field: `Invalid value: "x": why`.
    pub fn body(&self) -> String {
        let mut out = String::from(self.kind.text());
        if self.kind.shows_value() {
            let _ = match &self.bad_value {
                Value::Array(_) | Value::Object(_) => write!(out, ": {}", self.bad_value),
                Value::Null => write!(out, ": null"),
                scalar => write!(out, ": {scalar}"),
            };
        }
        if !self.detail.is_empty() {
            out.push_str(": ");
            out.push_str(&self.detail);
        }
        out
    }

    /// As a `StatusCause`.
    pub fn to_cause(&self) -> Cause {
        Cause {
            reason: self.kind.reason().to_owned(),
            message: self.body(),
            field: self.field.to_string(),
        }
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

/// The errors of one validation, in the order found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ErrorList(Vec<Error>);

impl ErrorList {
    /// No errors yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an error.
    pub fn push(&mut self, error: Error) {
        self.0.push(error);
    }

    fn add(&mut self, kind: ErrorType, field: Path, bad_value: Value, detail: String) {
        self.0.push(Error { kind, field, bad_value, detail });
    }

    /// `Required value`.
    pub fn required(&mut self, field: Path, detail: impl Into<String>) {
        self.add(ErrorType::Required, field, Value::Null, detail.into());
    }

    /// `Invalid value`.
    pub fn invalid(&mut self, field: Path, value: impl Into<Value>, detail: impl Into<String>) {
        self.add(ErrorType::Invalid, field, value.into(), detail.into());
    }

    /// `Invalid value` of the wrong type.
    pub fn type_invalid(
        &mut self,
        field: Path,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) {
        self.add(ErrorType::TypeInvalid, field, value.into(), detail.into());
    }

    /// `Duplicate value`.
    pub fn duplicate(&mut self, field: Path, value: impl Into<Value>) {
        self.add(ErrorType::Duplicate, field, value.into(), String::new());
    }

    /// `Forbidden`.
    pub fn forbidden(&mut self, field: Path, detail: impl Into<String>) {
        self.add(ErrorType::Forbidden, field, Value::Null, detail.into());
    }

    /// `Not found`.
    pub fn not_found(&mut self, field: Path, value: impl Into<Value>) {
        self.add(ErrorType::NotFound, field, value.into(), String::new());
    }

    /// `Too long: may not be more than N bytes`.
    pub fn too_long(&mut self, field: Path, bytes_max: usize) {
        let detail = format!("may not be more than {bytes_max} bytes");
        self.add(ErrorType::TooLong, field, Value::Null, detail);
    }

    /// `Too many: N: must have at most M items`.
    pub fn too_many(&mut self, field: Path, actual: usize, max: usize) {
        let detail = format!("{actual}: must have at most {max} items");
        self.add(ErrorType::TooMany, field, Value::Null, detail);
    }

    /// `Unsupported value: "x": supported values: "a", "b"`.
    pub fn not_supported(&mut self, field: Path, value: impl Into<Value>, supported: &[&str]) {
        let quoted: Vec<String> = supported.iter().map(|s| format!("\"{s}\"")).collect();
        let detail = format!("supported values: {}", quoted.join(", "));
        self.add(ErrorType::NotSupported, field, value.into(), detail);
    }

    /// Appends all errors of `other`.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many errors there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The errors.
    pub fn iter(&self) -> std::slice::Iter<'_, Error> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a ErrorList {
    type Item = &'a Error;
    type IntoIter = std::slice::Iter<'a, Error>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// One error alone, several as `[a, b]`, equal texts once, as upstream aggregates them.
impl Display for ErrorList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut texts: Vec<String> = Vec::with_capacity(self.0.len());
        for error in &self.0 {
            let text = error.to_string();
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        match texts.as_slice() {
            [] => f.write_str("<nil>"),
            [one] => f.write_str(one),
            many => write!(f, "[{}]", many.join(", ")),
        }
    }
}
