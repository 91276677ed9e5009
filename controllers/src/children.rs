//! Children of an object: which of them are its own, adopting and releasing them, creating and deleting them.
//!
//! A child belongs to the parent that its controller reference names. A parent adopts orphans that its selector selects
//! and releases children that it no longer selects; both carry the child's UID and resourceVersion, so that nothing is
//! taken or let go on old news.

mod control;
mod follow;

use crate::{
    object::{self, ObjectKey, controller_of, controller_reference, is_deleting, uid},
    runtime::{Kind, Store, SyncError, Term},
};
use k8s_openapi::{
    NamespaceResourceScope,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, Patch, PatchParams},
    core::{PartialObjectMeta, Selector},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, collections::BTreeSet, sync::Arc};

pub use control::{
    Deed, PodControl, delete_exactly, is_certain, is_namespace_going, message, slow_start,
};
pub(crate) use follow::{follow_pods, forget_deleted};

/// A namespaced kind that can be a parent or a child.
pub trait Namespaced: Kind + Resource<Scope = NamespaceResourceScope> {}
impl<K> Namespaced for K where K: Kind + Resource<Scope = NamespaceResourceScope> {}

/// What a parent does about a possible child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is the parent's already.
    Mine,
    /// It is nobody's and the parent wants it.
    Adopt,
    /// It is the parent's, which no longer wants it.
    Release,
    /// It is none of the parent's business.
    Ignore,
}

/// Decides about one possible child, which the parent selects or not.
pub fn claim(parent: &ObjectMeta, selected: bool, child: &ObjectMeta) -> Claim {
    match controller_of(child) {
        Some(owner) if owner.uid != uid(parent) => Claim::Ignore,
        Some(_) if selected => Claim::Mine,
        Some(_) if is_deleting(parent) => Claim::Ignore,
        Some(_) => Claim::Release,
        None if !selected || is_deleting(parent) || is_deleting(child) => Claim::Ignore,
        None => Claim::Adopt,
    }
}

/// The parent's children among what the cache holds, after adopting and releasing.
pub async fn claim_children<P: Namespaced, C: Namespaced>(
    client: &Client,
    parent: &P,
    selector: &Selector,
    store: &Store<C>,
) -> Result<Vec<Arc<C>>, SyncError> {
    claim_children_with(client, parent, selector, store, &Terms::default()).await
}

/// What beside the selector matters about children.
pub struct Terms<'a, C> {
    /// A child that is adopted gets this finalizer, and one that is released loses it.
    pub finalizer: Option<&'a str>,
    /// What must hold of a child in addition.
    pub fits: fn(parent: &ObjectMeta, child: &C) -> bool,
}

impl<C> Default for Terms<'_, C> {
    fn default() -> Self {
        Self { finalizer: None, fits: |_, _| true }
    }
}

/// [`claim_children`] on these terms.
pub async fn claim_children_with<P: Namespaced, C: Namespaced>(
    client: &Client,
    parent: &P,
    selector: &Selector,
    store: &Store<C>,
    terms: &Terms<'_, C>,
) -> Result<Vec<Arc<C>>, SyncError> {
    let namespace = parent.namespace().unwrap_or_default();
    let api = Api::<C>::namespaced(client.clone(), &namespace);
    let mut candidates = BTreeMap::new();
    for child in
        store.owned_by(uid(parent.meta())).into_iter().chain(store.select(&namespace, selector))
    {
        candidates.insert(ObjectKey::of(&*child), child);
    }
    let mut mine = Vec::new();
    let mut may_adopt = false;
    for child in candidates.into_values() {
        let selected = object::selects(selector, child.meta().labels.as_ref());
        let selected = selected && (terms.fits)(parent.meta(), &child);
        match claim(parent.meta(), selected, child.meta()) {
            Claim::Mine => mine.push(child),
            Claim::Ignore => {}
            Claim::Release => release(&api, parent, &child, terms.finalizer).await?,
            Claim::Adopt => {
                if !may_adopt {
                    check_adopter(client, parent).await?;
                    may_adopt = true;
                }
                mine.extend(adopt(&api, parent, &child, terms.finalizer).await?);
            }
        }
    }
    Ok(mine)
}

/// Asks the server whether the parent is still the one that the cache shows: a deleted one must adopt nothing.
async fn check_adopter<P: Namespaced>(client: &Client, parent: &P) -> Result<(), SyncError> {
    let api = Api::<P>::namespaced(client.clone(), &parent.namespace().unwrap_or_default());
    let fresh = api.get_metadata(&parent.name_any()).await?;
    if uid(&fresh.metadata) != uid(parent.meta()) || is_deleting(&fresh.metadata) {
        return Err(SyncError::NotYet(format!("{} is gone or going", parent.name_any())));
    }
    Ok(())
}

async fn adopt<P: Namespaced, C: Namespaced>(
    api: &Api<C>,
    parent: &P,
    child: &C,
    finalizer: Option<&str>,
) -> Result<Option<Arc<C>>, SyncError> {
    let mut owners = child.owner_references().to_vec();
    owners.push(controller_reference(parent));
    let mut change = json!({ "ownerReferences": owners });
    if let Some(finalizer) = finalizer {
        let mut finalizers = child.finalizers().to_vec();
        if !finalizers.iter().any(|known| known == finalizer) {
            finalizers.push(finalizer.to_owned());
        }
        change["finalizers"] = json!(finalizers);
    }
    change_meta(api, child, change).await
}

async fn release<P: Namespaced, C: Namespaced>(
    api: &Api<C>,
    parent: &P,
    child: &C,
    finalizer: Option<&str>,
) -> Result<(), SyncError> {
    let others = child.owner_references().iter().filter(|owner| owner.uid != uid(parent.meta()));
    let mut change = json!({ "ownerReferences": others.collect::<Vec<&OwnerReference>>() });
    if finalizer.is_some() {
        let others = child.finalizers().iter().filter(|known| Some(known.as_str()) != finalizer);
        change["finalizers"] = json!(others.collect::<Vec<_>>());
    }
    change_meta(api, child, change).await.map(|_| ())
}

/// The child afterwards; `None` if it is gone.
async fn change_meta<C: Namespaced>(
    api: &Api<C>,
    child: &C,
    mut change: Value,
) -> Result<Option<Arc<C>>, SyncError> {
    change["uid"] = json!(child.uid());
    change["resourceVersion"] = json!(child.resource_version());
    let change = Patch::Merge(json!({ "metadata": change }));
    match api.patch(&child.name_any(), &PatchParams::default(), &change).await {
        Ok(child) => Ok(Some(Arc::new(child))),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Queues the parents whose selector selects an orphan that appears or changes its labels.
pub fn orphan_parents<P: Namespaced>(
    parents: &Store<P>,
    child: &ObjectMeta,
    selector_of: impl Fn(&P) -> Option<Selector>,
) -> Vec<ObjectKey> {
    if controller_of(child).is_some() || is_deleting(child) {
        return Vec::new();
    }
    let namespace = child.namespace.as_deref().unwrap_or_default();
    let parents = parents.in_namespace(namespace);
    let selecting = parents.iter().filter(|parent| {
        selector_of(parent)
            .is_some_and(|selector| object::selects(&selector, child.labels.as_ref()))
    });
    selecting.map(|parent| ObjectKey::of(&**parent)).collect()
}

/// In a young term, checks that the cache shows what the leader before us did: the same children, the same of them
/// leaving. An error means: look again in a moment.
pub async fn check_cache<C: Namespaced>(
    client: &Client,
    term: &Term,
    parent: &ObjectMeta,
    selector: &Selector,
    cached: &[Arc<C>],
) -> Result<(), SyncError> {
    if !term.is_young() {
        return Ok(());
    }
    let namespace = parent.namespace.as_deref().unwrap_or_default();
    let api = Api::<PartialObjectMeta<C>>::namespaced(client.clone(), namespace);
    let live = api.list(&ListParams::default().labels_from(selector)).await?;
    let ours =
        |meta: &ObjectMeta| controller_of(meta).is_some_and(|owner| owner.uid == uid(parent));
    let live: BTreeSet<_> =
        live.iter().map(|child| &child.metadata).filter(|meta| ours(meta)).map(identity).collect();
    let cached: BTreeSet<_> =
        cached.iter().map(|child| child.meta()).filter(|meta| ours(meta)).map(identity).collect();
    if live == cached { Ok(()) } else { Err(SyncError::NotYet("the cache is behind".to_owned())) }
}

fn identity(meta: &ObjectMeta) -> (String, bool) {
    (uid(meta).to_owned(), is_deleting(meta))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Expression;

    fn meta(app: &str, owner: Option<&str>, deleting: bool) -> ObjectMeta {
        let reference = |uid: &str| OwnerReference {
            uid: uid.to_owned(),
            controller: Some(true),
            ..Default::default()
        };
        ObjectMeta {
            uid: Some("parent".into()),
            labels: Some(BTreeMap::from([("app".to_owned(), app.to_owned())])),
            owner_references: owner.map(|uid| vec![reference(uid)]),
            deletion_timestamp: deleting.then(|| object::time(Default::default())),
            ..Default::default()
        }
    }

    #[test]
    fn claims_follow_reference_selector_and_deletion() {
        let selector: Selector = Expression::Equal("app".into(), "web".into()).into();
        for (parent_deleting, app, owner, child_deleting, want) in [
            (false, "web", Some("parent"), false, Claim::Mine),
            (false, "web", Some("parent"), true, Claim::Mine),
            (true, "web", Some("parent"), false, Claim::Mine),
            (false, "db", Some("parent"), false, Claim::Release),
            (true, "db", Some("parent"), false, Claim::Ignore),
            (false, "web", Some("other"), false, Claim::Ignore),
            (false, "web", None, false, Claim::Adopt),
            (false, "web", None, true, Claim::Ignore),
            (true, "web", None, false, Claim::Ignore),
            (false, "db", None, false, Claim::Ignore),
        ] {
            let parent = meta("", None, parent_deleting);
            let child = meta(app, owner, child_deleting);
            let got = claim(&parent, object::selects(&selector, child.labels.as_ref()), &child);
            assert_eq!(got, want, "{parent_deleting} {app} {owner:?} {child_deleting}");
        }
    }
}
