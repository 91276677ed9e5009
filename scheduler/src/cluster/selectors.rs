//! Selectors of services and of owners of pods: what the default spreading of pods goes by.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;

use crate::pod::PodInfo;
use crate::selector::{LabelSelector, Labels};

/// The owner of pods: kind, namespace, name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OwnerKey {
    /// `ReplicaSet`, `ReplicationController` or `StatefulSet`.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Selectors {
    services: HashMap<String, BTreeMap<String, Labels>>,
    owners: HashMap<OwnerKey, meta::LabelSelector>,
}

/// The kinds of owners whose selectors count.
const OWNER_KINDS: [&str; 3] = ["ReplicaSet", "ReplicationController", "StatefulSet"];

impl Selectors {
    /// Takes in the selector of a service; `None` when the service is gone.
    pub fn set_service(&mut self, namespace: &str, name: &str, selector: Option<Labels>) {
        let services = self.services.entry(namespace.to_owned()).or_default();
        match selector.filter(|selector| !selector.is_empty()) {
            Some(selector) => services.insert(name.to_owned(), selector),
            None => services.remove(name),
        };
        if services.is_empty() {
            self.services.remove(namespace);
        }
    }

    /// Takes in the selector of an owner; `None` when the owner is gone.
    pub fn set_owner(&mut self, key: OwnerKey, selector: Option<meta::LabelSelector>) {
        match selector {
            Some(selector) => self.owners.insert(key, selector),
            None => self.owners.remove(&key),
        };
    }

    /// The pods that belong together with `pod`: those of its services and of its controller. `None` if it has neither.
    pub fn of_pod(&self, pod: &PodInfo) -> Option<LabelSelector> {
        let mut merged = self.owner_selector(pod).cloned().unwrap_or_default();
        let services = self.services.get(&*pod.namespace);
        for selector in services.into_iter().flat_map(BTreeMap::values) {
            if selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value)) {
                merged.match_labels.get_or_insert_default().extend(selector.clone());
            }
        }
        let selector = LabelSelector::compile(Some(&merged));
        (!selector.is_everything()).then_some(selector)
    }

    fn owner_selector(&self, pod: &PodInfo) -> Option<&meta::LabelSelector> {
        let owner = pod.controller.as_ref()?;
        let kind = OWNER_KINDS.into_iter().find(|kind| *kind == owner.kind)?;
        let key = OwnerKey { kind, namespace: pod.namespace.to_string(), name: owner.name.clone() };
        self.owners.get(&key)
    }
}
