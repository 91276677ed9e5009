//! Namespace: empties a namespace that is being deleted, and lets it go when nothing is left.
//!
//! Pods go first; everything else waits until the last of them has ended, so that no workload loses its configuration,
//! network rules or permissions while it still runs. What is found on the way is told in the namespace's conditions.

use super::discovery::{AnyMeta, Discovered, discover};
use crate::{
    object::{ObjectKey, is_deleting, time},
    runtime::{Controller, Setup, Store, SyncError, Verdict},
};
use async_trait::async_trait;
use futures::{StreamExt, stream};
use k8s_openapi::{
    api::core::v1::{Namespace, NamespaceCondition},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// The finalizer in `spec.finalizers` that stands for the contents.
const FINALIZER: &str = "kubernetes";
/// How often a namespace is looked at while something is left in it.
const POLL: Duration = Duration::from_millis(500);
/// Resources that are worked on at a time.
const CONCURRENCY: usize = 16;

/// What is left in a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Progress {
    /// Why the resources could not be discovered.
    discovery_failure: Option<String>,
    /// What could not be deleted, and why.
    content_failures: Vec<String>,
    /// Objects that are left, by resource.
    remaining: BTreeMap<String, usize>,
    /// Finalizers that hold them, and how many.
    finalizers: BTreeMap<String, usize>,
}

impl Progress {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn add(&mut self, other: Self) {
        self.content_failures.extend(other.content_failures);
        for (mine, theirs) in
            [(&mut self.remaining, other.remaining), (&mut self.finalizers, other.finalizers)]
        {
            for (name, count) in theirs {
                *mine.entry(name).or_default() += count;
            }
        }
    }
}

/// The conditions that tell of the progress; those that were there keep the time of their last transition.
fn conditions(
    progress: &Progress,
    old: &[NamespaceCondition],
    now: Timestamp,
) -> Vec<NamespaceCondition> {
    let counted = |counts: &BTreeMap<String, usize>, link: &str| {
        let parts: Vec<String> = counts
            .iter()
            .map(|(name, count)| format!("{name}{link}{count} resource instances"))
            .collect();
        parts.join(", ")
    };
    let failures = progress.content_failures.join("; ");
    let told = [
        (
            "NamespaceDeletionDiscoveryFailure",
            progress.discovery_failure.clone().map(|failure| ("DiscoveryFailed", failure)),
            ("ResourcesDiscovered", "All resources successfully discovered"),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        ),
        (
            "NamespaceDeletionContentFailure",
            (!failures.is_empty()).then(|| {
                (
                    "ContentDeletionFailed",
                    format!("Failed to delete all resource types: {failures}"),
                )
            }),
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        ),
        (
            "NamespaceContentRemaining",
            (!progress.remaining.is_empty()).then(|| {
                let counts = counted(&progress.remaining, " has ");
                ("SomeResourcesRemain", format!("Some resources are remaining: {counts}"))
            }),
            ("ContentRemoved", "All content successfully removed"),
        ),
        (
            "NamespaceFinalizersRemaining",
            (!progress.finalizers.is_empty()).then(|| {
                let counts = counted(&progress.finalizers, " in ");
                let message =
                    format!("Some content in the namespace has finalizers remaining: {counts}");
                ("SomeFinalizersRemain", message)
            }),
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        ),
    ];
    let make = |(type_, bad, good): (&str, Option<(&str, String)>, (&str, &str))| {
        let (status, (reason, message)) = match bad {
            Some((reason, message)) => ("True", (reason, message)),
            None => ("False", (good.0, good.1.to_owned())),
        };
        let before =
            old.iter().find(|condition| condition.type_ == type_ && condition.status == status);
        NamespaceCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: before
                .and_then(|condition| condition.last_transition_time.clone())
                .or_else(|| Some(time(now))),
        }
    };
    told.map(make).into()
}

/// Registers the controller.
pub(super) fn register(setup: &mut Setup) {
    let queue = setup.queue();
    let namespaces = setup.informer::<Namespace>();
    namespaces.enqueue(&queue);
    let controller = NamespaceController { client: setup.client(), store: namespaces.store() };
    setup.controller("namespace", queue, controller);
}

struct NamespaceController {
    client: Client,
    store: Arc<Store<Namespace>>,
}

#[async_trait]
impl Controller for NamespaceController {
    fn workers(&self) -> usize {
        8
    }

    fn keys(&self) -> Vec<ObjectKey> {
        self.store.keys()
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Verdict, SyncError> {
        let Some(namespace) = self.store.get(key) else { return Ok(Verdict::Done) };
        if !is_deleting(&namespace.metadata) || !has_finalizer(&namespace) {
            return Ok(Verdict::Done);
        }
        let progress = self.empty(&key.name).await;
        // Deleting took its time: what is written next has to be based on the newest version.
        let api = Api::<Namespace>::all(self.client.clone());
        let Some(newest) = api.get_opt(&key.name).await? else { return Ok(Verdict::Done) };
        if newest.metadata.uid != namespace.metadata.uid {
            return Ok(Verdict::Done);
        }
        let newest = self.report(&api, newest, &progress).await?;
        if progress.is_empty() {
            self.finalize(&api, newest).await?;
            return Ok(Verdict::Done);
        }
        Ok(Verdict::After(POLL))
    }
}

fn has_finalizer(namespace: &Namespace) -> bool {
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref());
    finalizers.is_some_and(|finalizers| finalizers.iter().any(|name| name == FINALIZER))
}

impl NamespaceController {
    async fn empty(&self, namespace: &str) -> Progress {
        let resources = match discover(&self.client).await {
            Ok(resources) => resources,
            Err(error) => {
                return Progress {
                    discovery_failure: Some(error.to_string()),
                    ..Progress::default()
                };
            }
        };
        let namespaced = resources.into_iter().filter(|found| found.namespaced);
        let (pods, others): (Vec<_>, Vec<_>) = namespaced.partition(|found| found.name() == "pods");
        let progress = self.empty_of(namespace, pods).await;
        if !progress.is_empty() {
            return progress;
        }
        self.empty_of(namespace, others).await
    }

    async fn empty_of(&self, namespace: &str, resources: Vec<Discovered>) -> Progress {
        let each = stream::iter(resources).map(|found| self.empty_of_one(namespace, found));
        let mut outcomes = each.buffer_unordered(CONCURRENCY);
        let mut progress = Progress::default();
        while let Some(outcome) = outcomes.next().await {
            progress.add(outcome);
        }
        progress.content_failures.sort();
        progress
    }

    async fn empty_of_one(&self, namespace: &str, found: Discovered) -> Progress {
        let api: Api<AnyMeta> =
            Api::namespaced_with(self.client.clone(), namespace, &found.resource);
        match delete_all(&api, &found).await {
            Ok(progress) => progress,
            // The resource went away, or cannot be deleted after all.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 405) => {
                Progress::default()
            }
            Err(error) => Progress {
                content_failures: vec![format!("{}: {error}", found.name())],
                ..Progress::default()
            },
        }
    }

    async fn report(
        &self,
        api: &Api<Namespace>,
        mut namespace: Namespace,
        progress: &Progress,
    ) -> Result<Namespace, kube::Error> {
        let status = namespace.status.get_or_insert_default();
        let old = status.conditions.take().unwrap_or_default();
        let new = conditions(progress, &old, Timestamp::now());
        if new == old {
            status.conditions = Some(old);
            return Ok(namespace);
        }
        status.conditions = Some(new);
        let name = namespace.metadata.name.clone().unwrap_or_default();
        api.replace_status(&name, &PostParams::default(), &namespace).await
    }

    async fn finalize(
        &self,
        api: &Api<Namespace>,
        mut namespace: Namespace,
    ) -> Result<(), kube::Error> {
        let finalizers = namespace.spec.get_or_insert_default().finalizers.get_or_insert_default();
        finalizers.retain(|name| name != FINALIZER);
        let name = namespace.metadata.name.clone().unwrap_or_default();
        let params = PostParams::default();
        match api.replace_subresource("finalize", &name, &params, &namespace).await {
            // It is gone with its last finalizer.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            outcome => outcome.map(drop),
        }
    }
}

/// Deletes all objects of one resource, and tells what is left.
async fn delete_all(api: &Api<AnyMeta>, found: &Discovered) -> Result<Progress, kube::Error> {
    let before = api.list(&ListParams::default()).await?.items;
    if before.is_empty() {
        return Ok(Progress::default());
    }
    let params = DeleteParams::background();
    if found.delete_collection {
        api.delete_collection(&params, &ListParams::default()).await?;
    } else {
        for object in before {
            let name = object.metadata.name.unwrap_or_default();
            match api.delete(&name, &params).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                outcome => drop(outcome?),
            }
        }
    }
    let left = api.list(&ListParams::default()).await?.items;
    let mut progress = Progress::default();
    for object in left {
        *progress.remaining.entry(format!("{}.", found.name())).or_default() += 1;
        for finalizer in object.metadata.finalizers.unwrap_or_default() {
            *progress.finalizers.entry(finalizer).or_default() += 1;
        }
    }
    Ok(progress)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(progress: &Progress) -> Vec<(String, String)> {
        let conditions = conditions(progress, &[], Timestamp::UNIX_EPOCH);
        conditions.into_iter().map(|c| (c.status, c.message.unwrap_or_default())).collect()
    }

    #[test]
    fn empty_namespace_has_nothing_to_complain_of() {
        let statuses: Vec<_> =
            told(&Progress::default()).into_iter().map(|(status, _)| status).collect();
        assert_eq!(statuses, ["False"; 5]);
    }

    #[test]
    fn what_remains_is_counted_and_named() {
        let progress = Progress {
            remaining: [("pods.".to_owned(), 2), ("widgets.example.com.".to_owned(), 1)].into(),
            finalizers: [("example.com/hold".to_owned(), 1)].into(),
            ..Progress::default()
        };
        let told = told(&progress);
        assert_eq!(
            told[3].1,
            "Some resources are remaining: pods. has 2 resource instances, widgets.example.com. has 1 resource instances"
        );
        assert_eq!(
            told[4].1,
            "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
        );
    }

    #[test]
    fn transition_time_moves_with_the_status_only() {
        let first = Timestamp::from_second(100).unwrap();
        let later = Timestamp::from_second(200).unwrap();
        let two = Progress { remaining: [("pods.".to_owned(), 2)].into(), ..Progress::default() };
        let one = Progress { remaining: [("pods.".to_owned(), 1)].into(), ..Progress::default() };
        let old = conditions(&two, &[], first);
        let new = conditions(&one, &old, later);
        assert_eq!(new[3].last_transition_time, Some(time(first)));
        assert_ne!(new[3].message, old[3].message);
        let done = conditions(&Progress::default(), &new, later);
        assert_eq!(done[3].last_transition_time, Some(time(later)));
    }
}
