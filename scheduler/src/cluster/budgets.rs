//! PodDisruptionBudgets: which pods had better not be displaced.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::pod::PodInfo;
use crate::selector::LabelSelector;

/// A PodDisruptionBudget.
#[derive(Clone, Debug)]
pub struct Budget {
    selector: LabelSelector,
    /// How many more of its pods may go.
    allowed: i64,
    /// Pods whose going is counted already.
    disrupted: BTreeSet<String>,
}

/// The budgets of the cluster, by namespace and name.
#[derive(Debug, Default)]
pub struct Budgets {
    namespaces: BTreeMap<String, BTreeMap<String, Budget>>,
}

impl Budget {
    /// From the object.
    pub fn new(budget: &PodDisruptionBudget) -> Self {
        let status = budget.status.as_ref();
        let disrupted = status.and_then(|s| s.disrupted_pods.as_ref());
        Self {
            selector: LabelSelector::compile(
                budget.spec.as_ref().and_then(|spec| spec.selector.as_ref()),
            ),
            allowed: status.and_then(|s| s.disruptions_allowed).map_or(0, Into::into),
            disrupted: disrupted.into_iter().flatten().map(|(name, _)| name.clone()).collect(),
        }
    }
}

impl Budgets {
    /// Takes in a budget; `None` when it is gone.
    pub fn set(&mut self, namespace: &str, name: &str, budget: Option<Budget>) {
        let budgets = self.namespaces.entry(namespace.to_owned()).or_default();
        match budget {
            Some(budget) => budgets.insert(name.to_owned(), budget),
            None => budgets.remove(name),
        };
        if budgets.is_empty() {
            self.namespaces.remove(namespace);
        }
    }

    /// Splits pods that are to go, in this order, into those that a budget has no room for and the others.
    pub fn split(&self, pods: Vec<Arc<PodInfo>>) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
        let mut spent = BTreeMap::<(&str, &str), i64>::new();
        pods.into_iter().partition(|pod| {
            let mut violates = false;
            let budgets = self.namespaces.get_key_value(&*pod.namespace);
            for (namespace, (name, budget)) in
                budgets.into_iter().flat_map(|(ns, all)| all.iter().map(move |one| (ns, one)))
            {
                if budget.disrupted.contains(&*pod.name) || !budget.selector.matches(&pod.labels) {
                    continue;
                }
                let spent = spent.entry((namespace.as_str(), name.as_str())).or_default();
                *spent += 1;
                violates |= *spent > budget.allowed;
            }
            violates
        })
    }
}
