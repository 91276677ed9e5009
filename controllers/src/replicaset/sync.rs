//! The I/O of the two controllers.

use super::{BURST, Failure, Plan, Replicated, active, plan, status};
use crate::{
    children::{
        PodControl, check_cache, claim_children, follow_pods, forget_deleted, is_namespace_going,
        message, slow_start,
    },
    object::{ObjectKey, controller_of, controller_reference, is_deleting, uid},
    pod,
    runtime::{Controller, Setup, Store, SyncError, Term, Verdict},
};
use async_trait::async_trait;
use k8s_openapi::{
    api::{
        apps::v1::ReplicaSet,
        core::v1::{Pod, ReplicationController},
    },
    jiff::Timestamp,
};
use kube::{Api, Client, ResourceExt, api::PostParams, core::Selector};
use std::sync::Arc;

/// Registers both controllers.
pub fn register(setup: &mut Setup) {
    register_kind::<ReplicaSet>(setup, "replicaset");
    register_kind::<ReplicationController>(setup, "replicationcontroller");
}

fn register_kind<K: Replicated>(setup: &mut Setup, name: &'static str) {
    let queue = setup.queue();
    let pods = setup.informer::<Pod>();
    let objects = setup.informer::<K>();
    let control = PodControl::new(setup.client(), setup.recorder(K::COMPONENT));
    objects.enqueue(&queue);
    forget_deleted(&objects, control.expectations.clone());
    let selector = |object: &K| object.selector().ok().flatten();
    follow_pods(&pods, &objects.store(), &queue, control.expectations.clone(), selector);
    let controller = ReplicaController {
        client: setup.client(),
        term: setup.term(),
        objects: objects.store(),
        pods: pods.store(),
        control,
    };
    setup.controller(name, queue, controller);
}

struct ReplicaController<K> {
    client: Client,
    term: Term,
    objects: Arc<Store<K>>,
    pods: Arc<Store<Pod>>,
    control: PodControl,
}

#[async_trait]
impl<K: Replicated> Controller for ReplicaController<K> {
    fn workers(&self) -> usize {
        8
    }

    fn keys(&self) -> Vec<ObjectKey> {
        self.objects.keys()
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Verdict, SyncError> {
        let Some(object) = self.objects.get(key) else { return Ok(Verdict::Done) };
        let Some(selector) = object.selector()? else { return Ok(Verdict::Done) };
        // Asked before the pods are read: what is seen afterwards is at least as new.
        let settled = self.control.expectations.satisfied(key);
        let pods = claim_children(&self.client, &*object, &selector, &self.pods).await?;
        let outcome = match settled && !is_deleting(object.meta()) {
            true => self.manage(&object, &selector, &pods).await?,
            false => Managed::default(),
        };
        self.report(&object, &pods, outcome.failure.as_ref()).await?;
        if let Some(error) = outcome.error {
            return Err(error.into());
        }
        let min_ready = object.min_ready_seconds();
        let ready = pods.iter().map(|pod| &**pod).filter(|pod| pod::is_active(pod));
        Ok(Verdict::after(pod::next_available(ready, min_ready, Timestamp::now())))
    }
}

#[derive(Default)]
struct Managed {
    failure: Option<Failure>,
    error: Option<kube::Error>,
}

impl<K: Replicated> ReplicaController<K> {
    async fn manage(
        &self,
        object: &K,
        selector: &Selector,
        pods: &[Arc<Pod>],
    ) -> Result<Managed, SyncError> {
        let active = active(pods);
        let surplus = active.len() > usize::try_from(object.replicas()).unwrap_or(0);
        let related = if surplus { self.related(object, &active) } else { Vec::new() };
        let (reason, outcome) = match plan(object.replicas(), &active, &related, Timestamp::now()) {
            Plan::Keep => return Ok(Managed::default()),
            Plan::Create(count) => {
                check_cache(&self.client, &self.term, object.meta(), selector, pods).await?;
                ("FailedCreate", self.create(object, count).await)
            }
            Plan::Delete(surplus) => {
                check_cache(&self.client, &self.term, object.meta(), selector, pods).await?;
                let deletions = surplus.iter().map(|pod| self.control.delete(object, pod));
                let outcomes = futures::future::join_all(deletions).await;
                ("FailedDelete", outcomes.into_iter().collect())
            }
        };
        match outcome {
            Ok(()) => Ok(Managed::default()),
            Err(error) if is_namespace_going(&error) => Ok(Managed::default()),
            Err(error) => Ok(Managed {
                failure: Some(Failure { reason, message: message(&error) }),
                error: Some(error),
            }),
        }
    }

    async fn create(&self, object: &K, count: usize) -> Result<(), kube::Error> {
        let Some(template) = object.template() else { return Ok(()) };
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let owner = controller_reference(object);
        let pods = (0..count.min(BURST))
            .map(|_| pod::generate(template, &namespace, &name, owner.clone()));
        slow_start(pods.collect(), |pod| async move { self.control.create(object, &pod).await })
            .await
    }

    /// Active pods that do the same work: those of all objects with the same controller, or else the object's own.
    fn related(&self, object: &K, own: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
        let Some(owner) = controller_of(object.meta()) else { return own.to_vec() };
        let siblings = self.objects.owned_by(&owner.uid);
        let pods = siblings.iter().flat_map(|sibling| self.pods.owned_by(uid(sibling.meta())));
        pods.filter(|pod| pod::is_active(pod)).collect()
    }

    async fn report(
        &self,
        object: &K,
        pods: &[Arc<Pod>],
        failure: Option<&Failure>,
    ) -> Result<(), SyncError> {
        let labels = object.template().map(pod::template_labels).unwrap_or_default();
        let last = object.counts();
        let generation = object.meta().generation;
        let min_ready = object.min_ready_seconds();
        let counts = status(&last, generation, &labels, min_ready, pods, failure, Timestamp::now());
        let object = object.with_counts(&counts);
        if object.counts() != last {
            let api =
                Api::<K>::namespaced(self.client.clone(), &object.namespace().unwrap_or_default());
            api.replace_status(&object.name_any(), &PostParams::default(), &object).await?;
        }
        Ok(())
    }
}
