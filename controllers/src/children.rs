//! Children of an object: which of them are its own, adopting and releasing them, creating and deleting them.
//!
//! A child belongs to the parent that its controller reference names. A parent adopts orphans that its selector selects
//! and releases children that it no longer selects; both carry the child's UID and resourceVersion, so that nothing is
//! taken or let go on old news.

use crate::{
    object::{self, ObjectKey, controller_of, controller_reference, is_deleting, uid},
    runtime::{Expectations, Kind, Recorder, Store, SyncError, Term},
};
use futures::future::join_all;
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::Pod,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
    core::{PartialObjectMeta, Selector},
};
use serde_json::json;
use std::{collections::BTreeMap, collections::BTreeSet, future::Future, sync::Arc};

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

/// Decides about one possible child.
pub fn claim(parent: &ObjectMeta, selector: &Selector, child: &ObjectMeta) -> Claim {
    let selected = object::selects(selector, child.labels.as_ref());
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
        match claim(parent.meta(), selector, child.meta()) {
            Claim::Mine => mine.push(child),
            Claim::Ignore => {}
            Claim::Release => release(&api, parent, &child).await?,
            Claim::Adopt => {
                if !may_adopt {
                    check_adopter(client, parent).await?;
                    may_adopt = true;
                }
                mine.extend(adopt(&api, parent, &child).await?);
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
) -> Result<Option<Arc<C>>, SyncError> {
    let mut owners = child.owner_references().to_vec();
    owners.push(controller_reference(parent));
    set_owners(api, child, &owners).await
}

async fn release<P: Namespaced, C: Namespaced>(
    api: &Api<C>,
    parent: &P,
    child: &C,
) -> Result<(), SyncError> {
    let others = child.owner_references().iter().filter(|owner| owner.uid != uid(parent.meta()));
    set_owners(api, child, &others.cloned().collect::<Vec<_>>()).await.map(|_| ())
}

/// The child afterwards; `None` if it is gone.
async fn set_owners<C: Namespaced>(
    api: &Api<C>,
    child: &C,
    owners: &[OwnerReference],
) -> Result<Option<Arc<C>>, SyncError> {
    let change = json!({ "metadata": {
        "uid": child.uid(),
        "resourceVersion": child.resource_version(),
        "ownerReferences": owners,
    }});
    match api.patch(&child.name_any(), &PatchParams::default(), &Patch::Merge(change)).await {
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

/// Creates and deletes pods for a controller, with events and expectations.
pub struct PodControl {
    client: Client,
    recorder: Recorder,
    /// What the controller waits for; the informer's handler settles it.
    pub expectations: Arc<Expectations>,
}

impl PodControl {
    /// A control that signs its events as `recorder` does.
    pub fn new(client: Client, recorder: Recorder) -> Self {
        Self { client, recorder, expectations: Arc::default() }
    }

    /// Creates a pod of `parent`.
    pub async fn create<P: Namespaced>(&self, parent: &P, pod: &Pod) -> Result<(), kube::Error> {
        let owner = ObjectKey::of(parent);
        let name = pod.name_any();
        self.expectations.expect_creation(&owner, &name);
        match self.api(parent).create(&PostParams::default(), pod).await {
            Ok(_) => {
                self.recorder.normal(parent, "SuccessfulCreate", format!("Created pod: {name}"));
                Ok(())
            }
            Err(error) => {
                if is_certain(&error) {
                    self.expectations.creation_observed(&owner, &name);
                }
                if !is_namespace_going(&error) {
                    self.recorder.warning(
                        parent,
                        "FailedCreate",
                        format!("Error creating: {}", message(&error)),
                    );
                }
                Err(error)
            }
        }
    }

    /// Deletes a pod of `parent`; one that is gone already is fine.
    pub async fn delete<P: Namespaced>(&self, parent: &P, pod: &Pod) -> Result<(), kube::Error> {
        let owner = ObjectKey::of(parent);
        let (name, pod_uid) = (pod.name_any(), uid(&pod.metadata));
        self.expectations.expect_deletion(&owner, pod_uid);
        match delete_exactly(&self.api(parent), &pod.metadata).await {
            Ok(true) => {
                self.recorder.normal(parent, "SuccessfulDelete", format!("Deleted pod: {name}"));
                Ok(())
            }
            Ok(false) => {
                self.expectations.deletion_observed(&owner, pod_uid);
                Ok(())
            }
            Err(error) => {
                if is_certain(&error) {
                    self.expectations.deletion_observed(&owner, pod_uid);
                }
                let text = format!("Error deleting: {}", message(&error));
                self.recorder.warning(parent, "FailedDelete", text);
                Err(error)
            }
        }
    }

    fn api<P: Namespaced>(&self, parent: &P) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &parent.namespace().unwrap_or_default())
    }
}

/// Deletes the object with exactly this UID; `false` if it was gone already.
pub async fn delete_exactly<C: Namespaced>(
    api: &Api<C>,
    meta: &ObjectMeta,
) -> Result<bool, kube::Error> {
    let exactly = Preconditions { uid: meta.uid.clone(), resource_version: None };
    let params = DeleteParams::background().preconditions(exactly);
    match api.delete(meta.name.as_deref().unwrap_or_default(), &params).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the request certainly changed nothing.
pub fn is_certain(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code < 500)
}

/// Whether creation failed because the namespace is being deleted.
pub fn is_namespace_going(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.is_forbidden() && causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}

/// What the server said, without our client's decoration.
pub fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Runs `work` in batches of 1, 2, 4, … and stops after the first batch with a failure, so that a mistake in a template
/// costs one refused request and not hundreds.
pub async fn slow_start<T, Fut>(items: Vec<T>, work: impl Fn(T) -> Fut) -> Result<(), kube::Error>
where
    Fut: Future<Output = Result<(), kube::Error>>,
{
    let mut items = items.into_iter();
    let mut batch = 1;
    loop {
        let now: Vec<_> = items.by_ref().take(batch).map(&work).collect();
        if now.is_empty() {
            return Ok(());
        }
        join_all(now).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        batch *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Expression;
    use std::sync::atomic::{AtomicUsize, Ordering};

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
            let got = claim(&parent, &selector, &meta(app, owner, child_deleting));
            assert_eq!(got, want, "{parent_deleting} {app} {owner:?} {child_deleting}");
        }
    }

    #[tokio::test]
    async fn slow_start_doubles_and_stops_at_the_first_failure() {
        let tried = AtomicUsize::new(0);
        let outcome = slow_start((0..100).collect(), |item: i32| {
            tried.fetch_add(1, Ordering::Relaxed);
            async move {
                if item == 2 { Err(kube::Error::LinesCodecMaxLineLengthExceeded) } else { Ok(()) }
            }
        })
        .await;
        assert!(outcome.is_err());
        assert_eq!(tried.load(Ordering::Relaxed), 3, "batches of one and two");
    }
}
