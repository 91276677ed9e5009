//! Which ReplicaSet belongs to the current template, which revision it is, and how a new one is made.

use super::{Sets, bounds, condition, desired, rolling};
use crate::{
    hash::content_hash,
    object::{controller_reference, created_at},
};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentStatus, ReplicaSet, ReplicaSetSpec},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    jiff::Timestamp,
};
use kube::{Resource, ResourceExt};
use std::{collections::BTreeMap, sync::Arc};

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub(super) const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// The label that keeps the pods of different versions apart.
pub(super) const HASH_LABEL: &str = "pod-template-hash";
/// Annotations of a Deployment that are not handed on to its ReplicaSets.
const NOT_COPIED: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

pub(super) trait Annotation: Resource {
    fn annotation(&self, name: &str) -> Option<&str> {
        self.meta().annotations.as_ref()?.get(name).map(String::as_str)
    }
}

impl<K: Resource> Annotation for K {}

/// The revision of a ReplicaSet; 0 if it has none.
pub(super) fn revision(set: &ReplicaSet) -> i64 {
    set.annotation(REVISION).and_then(|revision| revision.parse().ok()).unwrap_or(0)
}

/// Finds the ReplicaSet of the current template (of several, the oldest) and sorts the others by age.
pub(super) fn sort_out(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> Sets {
    let mut all: Vec<_> = sets.iter().map(|set| (**set).clone()).collect();
    all.sort_by_key(|set| (created_at(&set.metadata), set.name_any()));
    let template = Some(without_hash(&deployment.spec.template));
    let is_new = |set: &ReplicaSet| {
        let own = set.spec.template.as_ref();
        own.map(without_hash) == template
    };
    let new = all.iter().position(is_new).map(|position| all.remove(position));
    Sets { new, old: all, deleted: Vec::new() }
}

/// Whether two templates make the same pods.
pub(super) fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    without_hash(a) == without_hash(b)
}

fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    let mut meta = template.metadata.take().unwrap_or_default();
    let labels = meta.labels.take().unwrap_or_default();
    let labels: BTreeMap<_, _> = labels.into_iter().filter(|(key, _)| key != HASH_LABEL).collect();
    meta.labels = Some(labels);
    meta.annotations = meta.annotations.filter(|annotations| !annotations.is_empty());
    template.metadata = Some(meta);
    template
}

/// Brings revision and annotations of the current ReplicaSet up to date, if there is one.
pub(super) fn annotate_existing(
    deployment: &Deployment,
    sets: &mut Sets,
    base: &mut DeploymentStatus,
    now: Timestamp,
) {
    let next = sets.old.iter().map(revision).max().unwrap_or(0) + 1;
    let Some(new) = &mut sets.new else { return };
    copy_annotations(deployment, new);
    raise_revision(new, next);
    let min_ready = deployment.spec.min_ready_seconds;
    if new.spec.min_ready_seconds.unwrap_or(0) != min_ready.unwrap_or(0) {
        new.spec.min_ready_seconds = min_ready;
    }
    condition::found(deployment, base, &new.name_any(), now);
}

/// The same; makes the ReplicaSet if there is none.
pub(super) fn ensure_new(
    deployment: &Deployment,
    sets: &mut Sets,
    base: &mut DeploymentStatus,
    now: Timestamp,
) {
    if sets.new.is_some() {
        return annotate_existing(deployment, sets, base, now);
    }
    let Some(mut new) = new_replica_set(deployment) else { return };
    copy_annotations(deployment, &mut new);
    raise_revision(&mut new, sets.old.iter().map(revision).max().unwrap_or(0) + 1);
    let size = rolling::new_size(deployment, sets.asked(), 0);
    new.spec.replicas = Some(size);
    note_size(deployment, &mut new);
    condition::created(deployment, base, &new.name_any(), now);
    sets.new = Some(new);
}

fn new_replica_set(deployment: &Deployment) -> Option<ReplicaSet> {
    let spec = &deployment.spec;
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
    let hash = content_hash(&spec.template, collisions);
    let label = |labels: &mut Option<BTreeMap<String, String>>| {
        labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.clone());
    };
    let mut template = spec.template.clone();
    label(&mut template.metadata.get_or_insert_default().labels);
    let mut selector = spec.selector.clone();
    label(&mut selector.match_labels);
    Some(ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.name_any())),
            namespace: deployment.namespace(),
            labels: template.metadata.as_ref().and_then(|meta| meta.labels.clone()),
            owner_references: Some(vec![controller_reference(deployment)]),
            ..Default::default()
        },
        spec: ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        },
        status: None,
    })
}

fn copy_annotations(deployment: &Deployment, set: &mut ReplicaSet) {
    let copied =
        deployment.annotations().iter().filter(|(key, _)| !NOT_COPIED.contains(&key.as_str()));
    for (key, value) in copied {
        if set.annotation(key) != Some(value) {
            set.annotations_mut().insert(key.clone(), value.clone());
        }
    }
}

/// A version that is rolled out again becomes the newest revision; the former numbers are remembered.
fn raise_revision(set: &mut ReplicaSet, next: i64) {
    let current = revision(set);
    if current >= next {
        return;
    }
    if current > 0 {
        let history = match set.annotation(REVISION_HISTORY).filter(|history| !history.is_empty()) {
            Some(history) => format!("{history},{current}"),
            None => current.to_string(),
        };
        set.annotations_mut().insert(REVISION_HISTORY.to_owned(), history);
    }
    set.annotations_mut().insert(REVISION.to_owned(), next.to_string());
}

/// Notes on a ReplicaSet which size of the Deployment its own size was derived from.
pub(super) fn note_size(deployment: &Deployment, set: &mut ReplicaSet) {
    let annotations = set.annotations_mut();
    annotations.insert(DESIRED.to_owned(), desired(deployment).to_string());
    annotations.insert(MAX.to_owned(), (desired(deployment) + bounds(deployment).0).to_string());
}
