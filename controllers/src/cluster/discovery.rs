//! Which resources the apiserver has: what is generic over all kinds (namespaces, garbage) starts from here.

use kube::{
    Client,
    api::{ApiResource, DynamicObject},
    core::PartialObjectMeta,
    discovery::{Discovery, Scope, verbs},
};
use std::collections::BTreeMap;

/// Any object, of which only the metadata is of interest.
pub(super) type AnyMeta = PartialObjectMeta<DynamicObject>;

/// A resource that can be listed and deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Discovered {
    pub(super) resource: ApiResource,
    pub(super) namespaced: bool,
    pub(super) delete_collection: bool,
    pub(super) watchable: bool,
}

impl Discovered {
    /// `pods`, `deployments.apps`.
    pub(super) fn name(&self) -> String {
        let ApiResource { plural, group, .. } = &self.resource;
        if group.is_empty() { plural.clone() } else { format!("{plural}.{group}") }
    }
}

/// Everything that can be listed and deleted, each resource once, in its most stable version, by name.
pub(super) async fn discover(client: &Client) -> Result<Vec<Discovered>, kube::Error> {
    let discovery = match Discovery::new(client.clone()).run_aggregated().await {
        Ok(discovery) => discovery,
        Err(_) => Discovery::new(client.clone()).run().await?,
    };
    let mut all = BTreeMap::new();
    for (resource, capabilities) in
        discovery.groups().flat_map(|group| group.resources_by_stability())
    {
        let can = |verb| capabilities.supports_operation(verb);
        if !can(verbs::LIST) || !can(verbs::DELETE) {
            continue;
        }
        let found = Discovered {
            namespaced: capabilities.scope == Scope::Namespaced,
            delete_collection: can(verbs::DELETE_COLLECTION),
            watchable: can(verbs::WATCH),
            resource,
        };
        all.insert(found.name(), found);
    }
    Ok(all.into_values().collect())
}
