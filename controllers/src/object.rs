//! What every object has: a key, an owner, a place in time.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference, Time},
    jiff::Timestamp,
};
use kube::{
    Resource, ResourceExt,
    core::{ParseExpressionError, Selector, SelectorExt},
};
use std::{collections::BTreeMap, fmt, sync::Arc};

/// Namespace and name of an object; the namespace of a cluster-scoped one is empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// The namespace, or "".
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// The key of `name` in `namespace`.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key of `object`.
    pub fn of<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self::new(
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        )
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.namespace {
            "" => f.write_str(&self.name),
            namespace => write!(f, "{namespace}/{}", self.name),
        }
    }
}

/// The owner reference that makes `owner` the managing controller of a child.
pub fn controller_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.name_any(),
        uid: owner.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The reference to the controller that manages the object, if there is one.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// The controller reference, if it is one to kind `P` (the group counts, its version does not).
pub fn controller_of_kind<P: Resource<DynamicType = ()>>(
    meta: &ObjectMeta,
) -> Option<&OwnerReference> {
    controller_of(meta)
        .filter(|owner| owner.kind == P::kind(&()) && group_of(&owner.api_version) == P::group(&()))
}

fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// Whether deletion of the object has begun.
pub fn is_deleting(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some()
}

/// The UID, or "" for an object that was never stored.
pub fn uid(meta: &ObjectMeta) -> &str {
    meta.uid.as_deref().unwrap_or_default()
}

/// When the object was created.
pub fn created_at(meta: &ObjectMeta) -> Option<Timestamp> {
    meta.creation_timestamp.as_ref().map(|time| time.0)
}

/// Compiles a label selector. Like upstream, a missing selector selects nothing.
pub fn selector(
    selector: Option<&LabelSelector>,
) -> Result<Option<Selector>, ParseExpressionError> {
    selector.cloned().map(Selector::try_from).transpose()
}

/// Whether `selector` selects `labels`.
pub fn selects(selector: &Selector, labels: Option<&BTreeMap<String, String>>) -> bool {
    match labels {
        Some(labels) => selector.matches(labels),
        None => selector.matches(&BTreeMap::new()),
    }
}

/// A Kubernetes time: whole seconds, as they are stored.
pub fn time(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::ReplicationController};

    fn owned_by(api_version: &str, kind: &str) -> ObjectMeta {
        ObjectMeta {
            owner_references: Some(vec![OwnerReference {
                api_version: api_version.into(),
                kind: kind.into(),
                controller: Some(true),
                ..Default::default()
            }]),
            ..Default::default()
        }
    }

    #[test]
    fn controller_is_recognised_by_group_and_kind() {
        assert!(controller_of_kind::<ReplicaSet>(&owned_by("apps/v1", "ReplicaSet")).is_some());
        assert!(
            controller_of_kind::<ReplicaSet>(&owned_by("apps/v1beta2", "ReplicaSet")).is_some()
        );
        assert!(
            controller_of_kind::<ReplicaSet>(&owned_by("example.com/v1", "ReplicaSet")).is_none()
        );
        assert!(
            controller_of_kind::<ReplicationController>(&owned_by("v1", "ReplicationController"))
                .is_some()
        );
    }

    #[test]
    fn missing_selector_is_not_an_empty_one() {
        assert_eq!(selector(None).unwrap(), None);
        let everything = selector(Some(&LabelSelector::default())).unwrap().unwrap();
        assert!(selects(&everything, None));
    }
}
