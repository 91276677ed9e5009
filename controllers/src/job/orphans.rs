//! Pods that wait to be counted by a job that is gone, or over, or no longer theirs: nobody counts them, so they are let go.

use super::{finalizers, has_finalizer, is_finished, is_managed_elsewhere};
use crate::{
    object::{ObjectKey, controller_of, controller_of_kind, uid},
    runtime::{Change, Controller, Informer, Queue, Setup, Store, SyncError, Verdict},
};
use async_trait::async_trait;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{Api, Client};
use std::sync::Arc;

/// Whether nobody will count this pod.
pub(super) fn is_orphan(pod: &Pod, job_of: impl Fn(&ObjectKey) -> Option<Arc<Job>>) -> bool {
    if !has_finalizer(pod) {
        return false;
    }
    if controller_of(&pod.metadata).is_none() {
        return true;
    }
    let Some(owner) = controller_of_kind::<Job>(&pod.metadata) else { return false };
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let job = job_of(&ObjectKey::new(namespace, &owner.name));
    match job.filter(|job| uid(&job.metadata) == owner.uid) {
        Some(job) => is_finished(&job) && !is_managed_elsewhere(&job),
        None => true,
    }
}

pub(super) fn register(setup: &mut Setup, jobs: &Informer<Job>, pods: &Informer<Pod>) {
    let queue = setup.queue();
    let controller = Orphans { client: setup.client(), jobs: jobs.store(), pods: pods.store() };
    follow(&queue, jobs, pods);
    setup.controller("job-orphan-pods", queue, controller);
}

fn follow(queue: &Arc<Queue>, jobs: &Informer<Job>, pods: &Informer<Pod>) {
    let (orphans, cached_jobs) = (queue.clone(), jobs.store());
    pods.on_change(move |change| {
        let pod = change.object();
        if !matches!(change, Change::Deleted(_)) && is_orphan(pod, |key| cached_jobs.get(key)) {
            orphans.add(ObjectKey::of(&**pod));
        }
    });
    let (orphans, cached_pods) = (queue.clone(), pods.store());
    jobs.on_change(move |change| {
        let job = change.object();
        if matches!(change, Change::Deleted(_)) || is_finished(job) {
            let pods = cached_pods.owned_by(uid(&job.metadata));
            let held = pods.iter().filter(|pod| has_finalizer(pod));
            held.for_each(|pod| orphans.add(ObjectKey::of(&**pod)));
        }
    });
}

struct Orphans {
    client: Client,
    jobs: Arc<Store<Job>>,
    pods: Arc<Store<Pod>>,
}

#[async_trait]
impl Controller for Orphans {
    fn keys(&self) -> Vec<ObjectKey> {
        let held = self.pods.list().into_iter().filter(|pod| has_finalizer(pod));
        held.map(|pod| ObjectKey::of(&*pod)).collect()
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Verdict, SyncError> {
        let Some(pod) = self.pods.get(key) else { return Ok(Verdict::Done) };
        if is_orphan(&pod, |key| self.jobs.get(key)) && self.is_really_gone(&pod).await? {
            let api = Api::<Pod>::namespaced(self.client.clone(), &key.namespace);
            finalizers::remove(&api, &pod).await?;
        }
        Ok(Verdict::Done)
    }
}

impl Orphans {
    /// The cache of jobs may not show yet the job of a pod that it shows already; a pod let go in error is never counted.
    async fn is_really_gone(&self, pod: &Pod) -> Result<bool, SyncError> {
        let Some(owner) = controller_of(&pod.metadata) else { return Ok(true) };
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let api = Api::<Job>::namespaced(self.client.clone(), namespace);
        let live = api.get_opt(&owner.name).await?;
        Ok(live.is_none_or(|job| uid(&job.metadata) != owner.uid || is_finished(&job)))
    }
}
