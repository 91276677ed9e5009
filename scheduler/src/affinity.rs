//! Terms of pod affinity and anti-affinity, compiled once per pod.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;

use crate::pod::PodInfo;
use crate::selector::{LabelSelector, Labels};

/// A compiled `PodAffinityTerm`.
#[derive(Clone, Debug)]
pub struct AffinityTerm {
    /// The label of nodes whose values are the domains.
    pub topology_key: String,
    namespaces: BTreeSet<String>,
    namespace_selector: LabelSelector,
    selector: LabelSelector,
}

/// A preferred term and its weight.
#[derive(Clone, Debug)]
pub struct WeightedTerm {
    /// The term.
    pub term: AffinityTerm,
    /// From 1 to 100.
    pub weight: i64,
}

/// The terms of one pod.
#[derive(Clone, Debug, Default)]
pub struct AffinityTerms {
    /// Required affinity.
    pub required: Vec<AffinityTerm>,
    /// Preferred affinity.
    pub preferred: Vec<WeightedTerm>,
    /// Required anti-affinity.
    pub required_anti: Vec<AffinityTerm>,
    /// Preferred anti-affinity.
    pub preferred_anti: Vec<WeightedTerm>,
}

impl AffinityTerms {
    /// Compiles the terms of a pod in `namespace` with `labels`.
    pub fn compile(affinity: Option<&core::Affinity>, namespace: &str, labels: &Labels) -> Self {
        let compile = |terms: Option<&Vec<core::PodAffinityTerm>>| -> Vec<AffinityTerm> {
            let terms = terms.into_iter().flatten();
            terms.map(|term| AffinityTerm::compile(term, namespace, labels)).collect()
        };
        let weighted = |terms: Option<&Vec<core::WeightedPodAffinityTerm>>| -> Vec<WeightedTerm> {
            let terms = terms.into_iter().flatten();
            terms
                .map(|weighted| WeightedTerm {
                    term: AffinityTerm::compile(&weighted.pod_affinity_term, namespace, labels),
                    weight: weighted.weight.into(),
                })
                .collect()
        };
        let with = affinity.and_then(|a| a.pod_affinity.as_ref());
        let anti = affinity.and_then(|a| a.pod_anti_affinity.as_ref());
        Self {
            required: compile(
                with.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()),
            ),
            preferred: weighted(
                with.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()),
            ),
            required_anti: compile(
                anti.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()),
            ),
            preferred_anti: weighted(
                anti.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()),
            ),
        }
    }

    /// Whether the pod has any term.
    pub fn any(&self) -> bool {
        !(self.required.is_empty()
            && self.preferred.is_empty()
            && self.required_anti.is_empty()
            && self.preferred_anti.is_empty())
    }
}

impl AffinityTerm {
    fn compile(term: &core::PodAffinityTerm, namespace: &str, labels: &Labels) -> Self {
        let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.insert(namespace.to_owned());
        }
        let mut selector = term.label_selector.clone();
        let keys = term.match_label_keys.as_deref().unwrap_or_default();
        require_own_labels(&mut selector, keys, "In", labels);
        let keys = term.mismatch_label_keys.as_deref().unwrap_or_default();
        require_own_labels(&mut selector, keys, "NotIn", labels);
        Self {
            topology_key: term.topology_key.clone(),
            namespaces,
            namespace_selector: LabelSelector::compile(term.namespace_selector.as_ref()),
            selector: LabelSelector::compile(selector.as_ref()),
        }
    }

    /// Whether the term is about `pod`, whose namespace has the labels that `namespace_labels` finds.
    pub fn matches<'a>(
        &self,
        pod: &PodInfo,
        namespace_labels: impl FnOnce(&str) -> Option<&'a Labels>,
    ) -> bool {
        self.selector.matches(&pod.labels) && self.covers(&pod.namespace, namespace_labels)
    }

    fn covers<'a>(&self, namespace: &str, labels: impl FnOnce(&str) -> Option<&'a Labels>) -> bool {
        self.namespaces.contains(namespace)
            || self.namespace_selector.is_everything()
            || match self.namespace_selector {
                LabelSelector::Nothing => false,
                LabelSelector::Requirements(_) => {
                    labels(namespace).is_some_and(|l| self.namespace_selector.matches(l))
                }
            }
    }
}

/// Adds a requirement on the pod's own value of each of `keys` that it has, as `matchLabelKeys` asks.
pub(crate) fn require_own_labels(
    selector: &mut Option<meta::LabelSelector>,
    keys: &[String],
    operator: &str,
    labels: &Labels,
) {
    let Some(selector) = selector else { return };
    for key in keys {
        if let Some(value) = labels.get(key) {
            selector.match_expressions.get_or_insert_default().push(
                meta::LabelSelectorRequirement {
                    key: key.clone(),
                    operator: operator.to_owned(),
                    values: Some(vec![value.clone()]),
                },
            );
        }
    }
}
