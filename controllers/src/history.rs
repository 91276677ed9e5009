//! ControllerRevisions: the versions of a template that a DaemonSet or StatefulSet has had.
//!
//! The content of a revision is a patch that puts the template back, as `kubectl rollout undo` applies it. A template that
//! comes back gets its old revision with a new number; the numbers order the history.

use crate::{
    children::is_certain,
    hash::content_hash,
    object::{controller_of, controller_reference, created_at, uid},
    runtime::{Kind, SyncError},
};
use k8s_openapi::{
    api::{apps::v1::ControllerRevision, core::v1::PodTemplateSpec},
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, runtime::RawExtension},
};
use kube::{Api, Client, ResourceExt, api::PostParams};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Tells pods of different revisions apart.
pub const HASH_LABEL: &str = "controller-revision-hash";

/// What has to be done to have a revision of the current template.
#[derive(Clone, Debug, PartialEq)]
pub enum Current {
    /// It is there, and the newest one.
    Is(Arc<ControllerRevision>),
    /// It is there, but has to become the newest one again.
    Raise(ControllerRevision),
    /// There is none yet.
    Create(ControllerRevision),
}

/// The patch that puts a template back.
pub fn data(template: &PodTemplateSpec) -> Result<RawExtension, serde_json::Error> {
    let mut template = serde_json::to_value(template)?;
    template["$patch"] = "replace".into();
    Ok(RawExtension(json!({ "spec": { "template": template } })))
}

/// The template that a revision puts back.
pub fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// Oldest first.
pub fn sort(revisions: &mut [Arc<ControllerRevision>]) {
    revisions.sort_by_key(|one| (number(one), created_at(&one.metadata), one.name_any()));
}

fn number(revision: &ControllerRevision) -> i64 {
    revision.revision.unwrap_or(0)
}

/// Finds the revision of the current template among `revisions`, or makes it, with its hash in a label.
pub fn current<K: Kind>(
    owner: &K,
    template: &PodTemplateSpec,
    collisions: Option<i32>,
    revisions: &[Arc<ControllerRevision>],
    label: &str,
) -> Result<Current, serde_json::Error> {
    let data = data(template)?;
    let mut sorted = revisions.to_vec();
    sort(&mut sorted);
    let newest = sorted.last().map_or(0, |one| number(one));
    let Some(position) = sorted.iter().rposition(|one| is_same(&one.data.0, &data.0)) else {
        let hash = content_hash(template, collisions);
        let mut revision = new(owner, template, data, &hash, newest + 1);
        revision.labels_mut().insert(label.to_owned(), hash);
        return Ok(Current::Create(revision));
    };
    let found = &sorted[position];
    if position + 1 == sorted.len() {
        return Ok(Current::Is(found.clone()));
    }
    Ok(Current::Raise(ControllerRevision { revision: Some(newest + 1), ..(**found).clone() }))
}

/// Content is compared, not bytes: the order of fields does not count.
fn is_same(a: &Value, b: &Value) -> bool {
    a == b
}

fn new<K: Kind>(
    owner: &K,
    template: &PodTemplateSpec,
    data: RawExtension,
    hash: &str,
    number: i64,
) -> ControllerRevision {
    let annotations: BTreeMap<_, _> = owner.annotations().clone();
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", owner.name_any())),
            namespace: owner.namespace(),
            labels: Some(crate::pod::template_labels(template)),
            annotations: Some(annotations).filter(|annotations| !annotations.is_empty()),
            owner_references: Some(vec![controller_reference(owner)]),
            ..Default::default()
        },
        data,
        revision: Some(number),
    }
}

/// The revisions beyond the limit, oldest first; those that are in use stay.
pub fn surplus(
    revisions: &[Arc<ControllerRevision>],
    in_use: impl Fn(&ControllerRevision) -> bool,
    limit: i32,
) -> Vec<Arc<ControllerRevision>> {
    let mut unused: Vec<_> = revisions.iter().filter(|one| !in_use(one)).cloned().collect();
    sort(&mut unused);
    let surplus = unused.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    unused.truncate(surplus);
    unused
}

/// The values of [`HASH_LABEL`] on these objects.
pub fn hashes<'a, K: Kind>(objects: impl IntoIterator<Item = &'a Arc<K>>) -> BTreeSet<String> {
    let label = |object: &Arc<K>| object.labels().get(HASH_LABEL).cloned();
    objects.into_iter().filter_map(label).collect()
}

/// Stores what [`current`] asks for. `None`: the name is taken by another content, and the count of collisions has to grow.
pub async fn establish(
    client: &Client,
    wanted: Current,
) -> Result<Option<Arc<ControllerRevision>>, SyncError> {
    match wanted {
        Current::Is(revision) => Ok(Some(revision)),
        Current::Raise(revision) => {
            let stored = api(client, &revision)
                .replace(&revision.name_any(), &PostParams::default(), &revision)
                .await?;
            Ok(Some(Arc::new(stored)))
        }
        Current::Create(revision) => create(client, &revision).await,
    }
}

async fn create(
    client: &Client,
    revision: &ControllerRevision,
) -> Result<Option<Arc<ControllerRevision>>, SyncError> {
    let api = api(client, revision);
    let error = match api.create(&PostParams::default(), revision).await {
        Ok(stored) => return Ok(Some(Arc::new(stored))),
        Err(error) => error,
    };
    let is_taken = matches!(&error, kube::Error::Api(status) if status.is_already_exists())
        && is_certain(&error);
    if !is_taken {
        return Err(error.into());
    }
    let taken = api.get(&revision.name_any()).await?;
    let owner = |meta: &ObjectMeta| controller_of(meta).map(|owner| owner.uid.clone());
    let ours = owner(&taken.metadata) == owner(&revision.metadata)
        && is_same(&taken.data.0, &revision.data.0);
    Ok(ours.then(|| Arc::new(taken)))
}

fn api(client: &Client, revision: &ControllerRevision) -> Api<ControllerRevision> {
    Api::namespaced(client.clone(), &revision.namespace().unwrap_or_default())
}

/// Whether a revision belongs to this owner.
pub fn belongs_to(revision: &ControllerRevision, owner: &ObjectMeta) -> bool {
    controller_of(&revision.metadata).is_some_and(|reference| reference.uid == uid(owner))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::{
        apps::v1::DaemonSet,
        core::v1::{Container, PodSpec},
    };

    fn spec(image: &str) -> PodTemplateSpec {
        let container =
            Container { name: "c".into(), image: Some(image.into()), ..Default::default() };
        PodTemplateSpec {
            spec: Some(PodSpec { containers: vec![container], ..Default::default() }),
            ..Default::default()
        }
    }

    fn owner() -> DaemonSet {
        DaemonSet {
            metadata: ObjectMeta {
                name: Some("agent".into()),
                namespace: Some("ns".into()),
                uid: Some("u".into()),
                ..Default::default()
            },
            ..Default::default()
        }
    }

    fn make(image: &str, known: &[Arc<ControllerRevision>]) -> Current {
        current(&owner(), &spec(image), None, known, HASH_LABEL).unwrap()
    }

    #[test]
    fn template_is_found_again_and_raised_over_the_others() {
        let Current::Create(first) = make("one", &[]) else { panic!() };
        assert_eq!(first.revision, Some(1));
        let hash = &first.labels()[HASH_LABEL];
        assert_eq!(first.name_any(), format!("agent-{hash}"));
        assert_eq!(first.data.0["spec"]["template"]["$patch"], "replace");
        assert_eq!(template(&first), Some(spec("one")));

        let first = Arc::new(first);
        assert_eq!(make("one", std::slice::from_ref(&first)), Current::Is(first.clone()));
        let Current::Create(second) = make("two", std::slice::from_ref(&first)) else { panic!() };
        assert_eq!(second.revision, Some(2));

        let known = [Arc::new(second), first.clone()];
        let Current::Raise(raised) = make("one", &known) else { panic!() };
        assert_eq!((raised.name_any(), raised.revision), (first.name_any(), Some(3)));
    }

    #[test]
    fn oldest_unused_revisions_go() {
        let revision = |name: &str, number| {
            let mut one = ControllerRevision { revision: Some(number), ..Default::default() };
            one.metadata.name = Some(name.into());
            Arc::new(one)
        };
        let all = [revision("d", 4), revision("a", 1), revision("c", 3), revision("b", 2)];
        let gone = |limit| -> Vec<_> {
            let surplus = surplus(&all, |one| one.name_any() == "a", limit);
            surplus.iter().map(|one| one.name_any()).collect()
        };
        assert_eq!(gone(1), ["b", "c"]);
        assert_eq!(gone(3), Vec::<String>::new());
        assert_eq!(gone(0), ["b", "c", "d"]);
    }
}
