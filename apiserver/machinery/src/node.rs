//! What a pod asks of a node: node selectors, which know `Gt`, `Lt` and fields, and tolerations of taints.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::core::v1::{Taint, Toleration};

/// A node as selectors see it.
#[derive(Clone, Copy, Debug)]
pub struct NodeView<'a> {
    /// `metadata.name`.
    pub name: &'a str,
    /// `metadata.labels`.
    pub labels: &'a BTreeMap<String, String>,
}

/// A compiled `NodeSelector`: terms of which one must match. None at all matches nothing.
#[derive(Clone, Debug, Default)]
pub struct NodeSelector {
    terms: Vec<NodeTerm>,
}

/// A compiled `NodeSelectorTerm`: requirements that must all hold. An empty term matches nothing.
#[derive(Clone, Debug, Default)]
pub struct NodeTerm {
    labels: Vec<Requirement>,
    names: Vec<Requirement>,
}

#[derive(Clone, Debug)]
struct Requirement {
    key: String,
    operator: Operator,
}

#[derive(Clone, Debug)]
enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
    Gt(i64),
    Lt(i64),
    /// An operator or operand that validation would have refused.
    Never,
}

impl NodeSelector {
    /// Compiles.
    pub fn compile(selector: &core::NodeSelector) -> Self {
        Self { terms: selector.node_selector_terms.iter().map(NodeTerm::compile).collect() }
    }

    /// Whether one of the terms matches.
    pub fn matches(&self, node: NodeView<'_>) -> bool {
        self.terms.iter().any(|term| term.matches(node))
    }

    /// The only nodes that can match, when every term names its nodes (as the daemon set controller's do).
    pub fn node_names(&self) -> Option<Vec<&str>> {
        let mut names = Vec::new();
        for term in &self.terms {
            names.extend(term.node_names()?);
        }
        names.sort_unstable();
        names.dedup();
        (!self.terms.is_empty()).then_some(names)
    }
}

impl NodeTerm {
    /// Compiles.
    pub fn compile(term: &core::NodeSelectorTerm) -> Self {
        let compile = |list: &Option<Vec<core::NodeSelectorRequirement>>| {
            list.iter().flatten().map(Requirement::compile).collect()
        };
        Self { labels: compile(&term.match_expressions), names: compile(&term.match_fields) }
    }

    /// Whether there is no requirement in it.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.names.is_empty()
    }

    /// Whether the node fulfils every requirement of a non-empty term.
    pub fn matches(&self, node: NodeView<'_>) -> bool {
        !self.is_empty()
            && self.labels.iter().all(|r| r.holds(node.labels.get(&r.key).map(String::as_str)))
            && self.names.iter().all(|r| r.key == "metadata.name" && r.holds(Some(node.name)))
    }

    fn node_names(&self) -> Option<Vec<&str>> {
        self.names.iter().find_map(|requirement| match &requirement.operator {
            Operator::In(names) if requirement.key == "metadata.name" => {
                Some(names.iter().map(String::as_str).collect())
            }
            _ => None,
        })
    }
}

impl Requirement {
    fn compile(requirement: &core::NodeSelectorRequirement) -> Self {
        let values = requirement.values.clone().unwrap_or_default();
        let bound = || match values.as_slice() {
            [value] => value.parse::<i64>().ok(),
            _ => None,
        };
        let operator = match requirement.operator.as_str() {
            "In" => Operator::In(values),
            "NotIn" => Operator::NotIn(values),
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            "Gt" => bound().map_or(Operator::Never, Operator::Gt),
            "Lt" => bound().map_or(Operator::Never, Operator::Lt),
            _ => Operator::Never,
        };
        Self { key: requirement.key.clone(), operator }
    }

    fn holds(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|v| v.parse::<i64>().ok());
        match &self.operator {
            Operator::In(values) => value.is_some_and(|v| values.iter().any(|x| x == v)),
            Operator::NotIn(values) => !value.is_some_and(|v| values.iter().any(|x| x == v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Gt(bound) => number().is_some_and(|n| n > *bound),
            Operator::Lt(bound) => number().is_some_and(|n| n < *bound),
            Operator::Never => false,
        }
    }
}

/// Whether one of the tolerations tolerates the taint.
pub fn tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| is_tolerated(toleration, taint))
}

/// Whether this toleration tolerates the taint.
pub fn is_tolerated(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    (effect.is_empty() || effect == taint.effect)
        && (key.is_empty() || key == taint.key)
        && value_tolerated(toleration, taint)
}

fn value_tolerated(toleration: &Toleration, taint: &Taint) -> bool {
    let mine = toleration.value.as_deref().unwrap_or_default();
    let theirs = taint.value.as_deref().unwrap_or_default();
    let numbers = || Some((theirs.parse::<i64>().ok()?, mine.parse::<i64>().ok()?));
    match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => mine == theirs,
        "Exists" => true,
        "Lt" => numbers().is_some_and(|(taint, bound)| taint < bound),
        "Gt" => numbers().is_some_and(|(taint, bound)| taint > bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn node_terms_follow_the_table() {
        let labels: BTreeMap<String, String> =
            [("zone", "a"), ("gen", "7")].map(|(k, v)| (k.into(), v.into())).into();
        let node = NodeView { name: "n1", labels: &labels };
        let label = |key: &str, op: &str, values: &[&str]| json!({"nodeSelectorTerms": [{"matchExpressions": [{"key": key, "operator": op, "values": values}]}]});
        let field = |op: &str, values: &[&str]| json!({"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": op, "values": values}]}]});
        let cases = [
            (label("zone", "In", &["b", "a"]), true),
            (label("zone", "In", &["b"]), false),
            (label("zone", "NotIn", &["b"]), true),
            (label("none", "NotIn", &["b"]), true),
            (label("zone", "NotIn", &["a"]), false),
            (label("zone", "Exists", &[]), true),
            (label("none", "Exists", &[]), false),
            (label("none", "DoesNotExist", &[]), true),
            (label("gen", "Gt", &["6"]), true),
            (label("gen", "Gt", &["7"]), false),
            (label("gen", "Lt", &["8"]), true),
            (label("zone", "Lt", &["8"]), false),
            (label("gen", "Gt", &["x"]), false),
            (field("In", &["n1"]), true),
            (field("In", &["n2"]), false),
            (field("NotIn", &["n2"]), true),
            (json!({"nodeSelectorTerms": []}), false),
            (json!({"nodeSelectorTerms": [{}]}), false),
        ];
        for (selector, expected) in cases {
            let compiled =
                NodeSelector::compile(&serde_json::from_value(selector.clone()).unwrap());
            assert_eq!(compiled.matches(node), expected, "{selector}");
        }
    }

    #[test]
    fn node_names_are_known_only_if_every_term_names_them() {
        let names = |terms: serde_json::Value| {
            let selector = serde_json::from_value(json!({"nodeSelectorTerms": terms})).unwrap();
            let selector = NodeSelector::compile(&selector);
            selector.node_names().map(|names| names.join(","))
        };
        let named = |n: &str| json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [n]}]});
        let free = json!({"matchExpressions": [{"key": "zone", "operator": "Exists"}]});
        assert_eq!(names(json!([named("b"), named("a")])).as_deref(), Some("a,b"));
        assert_eq!(names(json!([named("b"), free])), None);
        assert_eq!(names(json!([])), None);
    }

    #[test]
    fn tolerations_follow_the_table() {
        let taint: Taint =
            serde_json::from_value(json!({"key": "k", "value": "5", "effect": "NoSchedule"}))
                .unwrap();
        let cases = [
            (json!({"key": "k", "value": "5", "effect": "NoSchedule"}), true),
            (json!({"key": "k", "operator": "Equal", "value": "5"}), true),
            (json!({"key": "k", "value": "6"}), false),
            (json!({"key": "k", "operator": "Exists"}), true),
            (json!({"operator": "Exists"}), true),
            (json!({"operator": "Exists", "effect": "NoExecute"}), false),
            (json!({"key": "other", "operator": "Exists"}), false),
            (json!({"key": "k", "operator": "Lt", "value": "6"}), true),
            (json!({"key": "k", "operator": "Gt", "value": "6"}), false),
        ];
        for (toleration, expected) in cases {
            let list = [serde_json::from_value(toleration.clone()).unwrap()];
            assert_eq!(tolerates(&list, &taint), expected, "{toleration}");
        }
        assert!(!tolerates(&[], &taint));
    }
}
