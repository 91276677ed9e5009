//! Label selectors: `a=b,c!=d,e in (f,g),!h,i>1` and the `metav1.LabelSelector` object.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use serde_json::{Map, Value};

use super::parser;
use crate::status::{Result, Status};
use crate::validation::names;

/// What a requirement asks of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// The value is one of these.
    In,
    /// The label is absent, or its value is none of these.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
    /// The value is an integer greater than this.
    GreaterThan,
    /// The value is an integer less than this.
    LessThan,
}

/// One requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Label key.
    pub key: String,
    /// What is asked.
    pub operator: Operator,
    /// Sorted values; none for `Exists` and `DoesNotExist`.
    pub values: Vec<String>,
}

impl Requirement {
    /// Checks key, values and their number.
    pub fn new(key: &str, operator: Operator, mut values: Vec<String>) -> Result<Self, String> {
        if let Some(why) = names::qualified_name(key).into_iter().next() {
            return Err(format!("key: Invalid value: \"{key}\": {why}"));
        }
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                return Err("for 'in', 'notin' operators, values set can't be empty".into());
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                return Err("values set must be empty for exists and does not exist".into());
            }
            Operator::GreaterThan | Operator::LessThan => {
                if values.len() != 1 {
                    return Err("for 'Gt', 'Lt' operators, exactly one value is required".into());
                }
                if values[0].parse::<i64>().is_err() {
                    return Err("for 'Gt', 'Lt' operators, the value must be an integer".into());
                }
            }
            _ => {}
        }
        for value in &values {
            if let Some(why) = names::label_value(value).into_iter().next() {
                return Err(format!("values: Invalid value: \"{value}\": {why}"));
            }
        }
        values.sort();
        values.dedup();
        Ok(Self { key: key.to_owned(), operator, values })
    }

    /// Whether a label with this value (`None`: no label) satisfies it.
    pub fn matches(&self, value: Option<&str>) -> bool {
        match self.operator {
            Operator::In => value.is_some_and(|v| self.has(v)),
            Operator::NotIn => value.is_none_or(|v| !self.has(v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => self.compare(value, |label, bound| label > bound),
            Operator::LessThan => self.compare(value, |label, bound| label < bound),
        }
    }

    fn has(&self, value: &str) -> bool {
        self.values.iter().any(|v| v == value)
    }

    fn compare(&self, value: Option<&str>, holds: impl Fn(i64, i64) -> bool) -> bool {
        let number = |text: &str| text.parse::<i64>().ok();
        match (value.and_then(number), self.values.first().and_then(|v| number(v))) {
            (Some(label), Some(bound)) => holds(label, bound),
            _ => false,
        }
    }
}

impl Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values) = (&self.key, self.values.join(","));
        match self.operator {
            Operator::In if self.values.len() == 1 => write!(f, "{key}={values}"),
            Operator::NotIn if self.values.len() == 1 => write!(f, "{key}!={values}"),
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

/// A label selector: requirements that must all hold. The empty one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    /// The selector that matches no object.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// From requirements.
    pub fn new(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self { requirements, nothing: false }
    }

    /// Parses the `labelSelector` query syntax: `a=b,c!=d,e in (f,g),!h,i>1`.
    pub fn parse(text: &str) -> Result<Self> {
        let requirements = parser::requirements(text)
            .map_err(|why| Status::bad_request(format!("unable to parse requirement: {why}")))?;
        Ok(Self::new(requirements))
    }

    /// From a `metav1.LabelSelector` value. `null` matches nothing, `{}` everything.
    pub fn from_value(selector: &Value) -> Result<Self> {
        let Some(map) = selector.as_object() else { return Ok(Self::nothing()) };
        let mut requirements = Vec::new();
        for (key, value) in map.get("matchLabels").and_then(Value::as_object).into_iter().flatten()
        {
            let values = vec![value.as_str().unwrap_or_default().to_owned()];
            requirements.push(Requirement::new(key, Operator::In, values));
        }
        let expressions = map.get("matchExpressions").and_then(Value::as_array);
        for expression in expressions.into_iter().flatten() {
            let text = |field: &str| expression.get(field).and_then(Value::as_str).unwrap_or("");
            let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
            let values = values.filter_map(Value::as_str).map(str::to_owned).collect();
            requirements.push(expressed(text("key"), text("operator"), values));
        }
        Self::collect(requirements)
    }

    /// From the typed selector. `None` matches nothing, the empty one everything.
    pub fn from_typed(selector: Option<&meta::LabelSelector>) -> Result<Self> {
        let Some(selector) = selector else { return Ok(Self::nothing()) };
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(Requirement::new(key, Operator::In, vec![value.clone()]));
        }
        for expression in selector.match_expressions.iter().flatten() {
            let values = expression.values.clone().unwrap_or_default();
            requirements.push(expressed(&expression.key, &expression.operator, values));
        }
        Self::collect(requirements)
    }

    fn collect(requirements: Vec<Result<Requirement, String>>) -> Result<Self> {
        let requirements: Result<Vec<_>, String> = requirements.into_iter().collect();
        Ok(Self::new(requirements.map_err(Status::bad_request)?))
    }

    /// From a plain map, as services and replication controllers have. Not validated: the labels of
    /// a stored object are.
    pub fn from_map(map: &Map<String, Value>) -> Self {
        Self::new(
            map.iter()
                .map(|(key, value)| exactly(key, value.as_str().unwrap_or_default()))
                .collect(),
        )
    }

    /// From a typed map.
    pub fn from_labels(map: &BTreeMap<String, String>) -> Self {
        Self::new(map.iter().map(|(key, value)| exactly(key, value)).collect())
    }

    /// The requirements, sorted by key.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether everything matches.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// Whether these labels match.
    pub fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        self.matches_with(|key| labels?.get(key)?.as_str())
    }

    /// The same for typed labels.
    pub fn matches_labels(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        self.matches_with(|key| labels?.get(key).map(String::as_str))
    }

    /// The same, with the labels looked up by a function.
    pub fn matches_with<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(get(&r.key)))
    }
}

fn exactly(key: &str, value: &str) -> Requirement {
    Requirement { key: key.to_owned(), operator: Operator::In, values: vec![value.to_owned()] }
}

fn expressed(key: &str, operator: &str, values: Vec<String>) -> Result<Requirement, String> {
    let operator = match operator {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        other => return Err(format!("\"{other}\" is not a valid label selector operator")),
    };
    Requirement::new(key, operator, values)
}

/// The query syntax, canonical.
impl Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{requirement}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn labels() -> Map<String, Value> {
        json!({"app": "web", "tier": "front", "n": "5", "empty": ""}).as_object().unwrap().clone()
    }

    #[test]
    fn selectors_match_as_upstream() {
        let cases = [
            ("", true),
            ("app", true),
            ("!app", false),
            ("!other", true),
            ("app=web", true),
            ("app==web", true),
            ("app = web , tier = front", true),
            ("app!=web", false),
            ("other!=x", true),
            ("app in (web,db)", true),
            ("app in (db)", false),
            ("app notin (db, cache)", true),
            ("other notin (x)", true),
            ("n>4", true),
            ("n<5", false),
            ("app>4", false),
            ("empty=", true),
            ("app=", false),
            ("empty in (,x)", true),
            ("app=web,!tier", false),
            ("example.com/x!=y", true),
        ];
        for (text, expected) in cases {
            let selector = LabelSelector::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(selector.matches(Some(&labels())), expected, "{text}");
        }
    }

    #[test]
    fn malformed_selectors_are_bad_requests() {
        for text in [
            "=a",
            "a=b,",
            "a b",
            "a in b",
            "a in (b",
            "a==b=c",
            "!",
            "a>x",
            "a=b)",
            ",a",
            "a in (b c)",
        ] {
            let error = LabelSelector::parse(text).expect_err(text);
            assert_eq!(error.code, 400, "{text}");
        }
    }

    #[test]
    fn a_missing_selector_matches_nothing_and_an_empty_one_everything() {
        assert!(!LabelSelector::from_value(&Value::Null).unwrap().matches(None));
        assert!(LabelSelector::from_value(&json!({})).unwrap().matches(None));
        assert!(!LabelSelector::from_typed(None).unwrap().matches(None));
    }

    #[test]
    fn selector_objects_combine_labels_and_expressions() {
        let selector = LabelSelector::from_value(&json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["back"]}],
        }))
        .unwrap();
        assert!(selector.matches(Some(&labels())));
        assert_eq!(selector.to_string(), "app=web,tier!=back");
        let wrong = json!({"matchExpressions": [{"key": "a", "operator": "Is"}]});
        assert!(LabelSelector::from_value(&wrong).is_err());
    }

    proptest! {
        #[test]
        fn canonical_text_parses_to_the_same_selector(
            terms in prop::collection::vec(("[a-z]{1,5}", 0..6_u8, prop::collection::vec("[a-z0-9]{1,4}", 1..4)), 0..5)
        ) {
            let requirements: Vec<Requirement> = terms
                .into_iter()
                .map(|(key, kind, values)| match kind {
                    0 => Requirement::new(&key, Operator::In, values),
                    1 => Requirement::new(&key, Operator::NotIn, values),
                    2 => Requirement::new(&key, Operator::Exists, vec![]),
                    3 => Requirement::new(&key, Operator::DoesNotExist, vec![]),
                    4 => Requirement::new(&key, Operator::GreaterThan, vec!["3".into()]),
                    _ => Requirement::new(&key, Operator::LessThan, vec!["-3".into()]),
                })
                .collect::<Result<_, _>>()
                .unwrap_or_default();
            let selector = LabelSelector::new(requirements);
            prop_assert_eq!(LabelSelector::parse(&selector.to_string()).unwrap_or_default(), selector);
        }
    }
}
