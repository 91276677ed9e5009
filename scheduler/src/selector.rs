//! Selectors of the machinery, compiled once per pod.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
pub use pintle_machinery::node::{NodeSelector, NodeTerm, NodeView};
use pintle_machinery::selector::LabelSelector as Machinery;

/// The labels of an object.
pub type Labels = BTreeMap<String, String>;

/// A compiled `metav1.LabelSelector`. An absent one selects nothing, an empty one everything.
#[derive(Clone, Debug)]
pub enum LabelSelector {
    /// Selects nothing.
    Nothing,
    /// Selects what the requirements say.
    Requirements(Machinery),
}

impl LabelSelector {
    /// Compiles a selector. One that validation would have refused selects nothing.
    pub fn compile(selector: Option<&meta::LabelSelector>) -> Self {
        let value = selector.and_then(|s| serde_json::to_value(s).ok());
        match value.map(|value| Machinery::from_value(&value)) {
            Some(Ok(selector)) => Self::Requirements(selector),
            Some(Err(_)) | None => Self::Nothing,
        }
    }

    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        match self {
            Self::Nothing => false,
            Self::Requirements(selector) => {
                selector.matches_with(|key| labels.get(key).map(String::as_str))
            }
        }
    }

    /// Whether every object is selected.
    pub fn is_everything(&self) -> bool {
        matches!(self, Self::Requirements(selector) if selector.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_label_selector_selects_nothing_and_empty_everything() {
        let labels = Labels::new();
        assert!(!LabelSelector::compile(None).matches(&labels));
        let empty = LabelSelector::compile(Some(&meta::LabelSelector::default()));
        assert!(empty.matches(&labels) && empty.is_everything());
    }
}
