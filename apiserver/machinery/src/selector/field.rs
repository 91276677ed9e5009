//! Field selectors: `status.phase=Running,spec.nodeName!=`.

use std::fmt::{self, Display};

use serde_json::Value;

use crate::object;
use crate::resource::{Resource, SelectableField};
use crate::status::{Result, Status};

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    label: String,
    equal: bool,
    value: String,
}

/// A field selector: terms that must all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

impl FieldSelector {
    /// Parses `a=b,c!=d`; backslash escapes `,`, `=` and itself.
    pub fn parse(text: &str) -> Result<Self> {
        let mut terms = Vec::new();
        for part in split_terms(text) {
            if part.is_empty() {
                continue;
            }
            terms.push(parse_term(part).ok_or_else(|| {
                Status::bad_request(format!(
                    "invalid selector: '{text}'; can't understand '{part}'"
                ))
            })?);
        }
        Ok(Self { terms })
    }

    /// The selector of one object: `metadata.name=NAME`.
    pub fn for_name(name: &str) -> Self {
        let label = "metadata.name".to_owned();
        Self { terms: vec![Term { label, equal: true, value: name.to_owned() }] }
    }

    /// Refuses labels that the resource does not support (400).
    pub fn check(&self, resource: &Resource) -> Result<()> {
        for term in &self.terms {
            let known = term.label == "metadata.name"
                || (term.label == "metadata.namespace" && resource.namespaced)
                || find(resource, &term.label).is_some();
            if !known {
                return Err(Status::bad_request(unsupported(&term.label, resource)));
            }
        }
        Ok(())
    }

    /// Whether everything matches.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether an object of that resource matches.
    pub fn matches(&self, object: &Value, resource: &Resource) -> bool {
        self.terms.iter().all(|term| {
            let equal = match term.label.as_str() {
                "metadata.name" => object::name(object) == term.value,
                "metadata.namespace" => object::namespace(object) == term.value,
                label => match find(resource, label) {
                    Some(field) => field_equals(object, field, &term.value),
                    None => false,
                },
            };
            equal == term.equal
        })
    }

    /// The value that `label` must equal, if a term says so (`metadata.name`, `spec.nodeName`).
    pub fn requires_exact(&self, label: &str) -> Option<&str> {
        self.terms.iter().find(|t| t.equal && t.label == label).map(|t| &*t.value)
    }
}

impl Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let operator = if term.equal { "=" } else { "!=" };
            write!(f, "{comma}{}{operator}{}", term.label, term.value)?;
        }
        Ok(())
    }
}

fn unsupported(label: &str, resource: &Resource) -> String {
    if resource.selectable_fields.is_empty() && !resource.custom {
        return format!(
            "\"{label}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        );
    }
    format!("field label not supported: {label}")
}

fn find<'a>(resource: &'a Resource, label: &str) -> Option<&'a SelectableField> {
    resource.selectable_fields.iter().find(|f| f.label == label)
}

fn field_equals(object: &Value, field: &SelectableField, wanted: &str) -> bool {
    let value = field.path.iter().try_fold(object, |value, key| value.get(key));
    match value {
        Some(Value::String(text)) => text == wanted,
        Some(Value::Bool(flag)) => wanted == if *flag { "true" } else { "false" },
        Some(Value::Number(number)) => number.to_string() == wanted,
        // A list of addresses (`status.podIPs`) is compared as its items joined by commas.
        Some(Value::Array(items)) => {
            let text = |item: &Value| item.get("ip").and_then(Value::as_str).map(str::to_owned);
            items.iter().filter_map(text).collect::<Vec<_>>().join(",") == wanted
        }
        _ => field.default == wanted,
    }
}

fn split_terms(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (index, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn parse_term(part: &str) -> Option<Term> {
    let at = part.find('=')?;
    let (label, equal) = match part[..at].strip_suffix('!') {
        Some(label) => (label, false),
        None => (&part[..at], true),
    };
    let value = part[at + 1..].strip_prefix('=').unwrap_or(&part[at + 1..]);
    Some(Term { label: label.to_owned(), equal, value: unescape(value)? })
}

fn unescape(value: &str) -> Option<String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next()? {
                escaped @ ('\\' | ',' | '=') => out.push(escaped),
                _ => return None,
            },
            ',' | '=' => return None,
            c => out.push(c),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::RestMapper;

    #[test]
    fn pods_are_selected_by_their_fields() {
        let mapper = RestMapper::builtin();
        let pods = mapper.preferred("", "pods").unwrap();
        let pod = json!({
            "metadata": {"name": "a", "namespace": "ns"},
            "spec": {"nodeName": "n1"},
            "status": {"phase": "Running"},
        });
        let cases = [
            ("", true),
            ("metadata.name=a", true),
            ("metadata.name==a,metadata.namespace=ns", true),
            ("metadata.name!=a", false),
            ("spec.nodeName=n1", true),
            ("spec.nodeName=", false),
            ("status.phase!=Succeeded,status.phase!=Failed", true),
            ("status.nominatedNodeName=", true),
            ("spec.hostNetwork=false", true),
        ];
        for (text, expected) in cases {
            let selector = FieldSelector::parse(text).unwrap();
            selector.check(pods).unwrap();
            assert_eq!(selector.matches(&pod, pods), expected, "{text}");
        }
        assert_eq!(
            FieldSelector::parse("spec.nodeName=n1").unwrap().requires_exact("spec.nodeName"),
            Some("n1")
        );
    }

    #[test]
    fn unknown_labels_and_bad_syntax_are_bad_requests() {
        let mapper = RestMapper::builtin();
        let pods = mapper.preferred("", "pods").unwrap();
        let error = FieldSelector::parse("spec.foo=x").unwrap().check(pods).unwrap_err();
        assert_eq!(error.code, 400);
        assert_eq!(error.message, "field label not supported: spec.foo");
        let leases = mapper.preferred("coordination.k8s.io", "leases").unwrap();
        let error = FieldSelector::parse("spec.foo=x").unwrap().check(leases).unwrap_err();
        assert!(error.message.starts_with("\"spec.foo\" is not a known field selector"));
        assert_eq!(FieldSelector::parse("nonsense").unwrap_err().code, 400);
        assert_eq!(FieldSelector::parse(r"a=b\,c").unwrap().requires_exact("a"), Some("b,c"));
    }
}
