//! Carries out what is decided about objects.

use super::{
    decide::{Decision, Existence, decide},
    graph::{Object, Uid},
    monitors::{Monitors, Shared, key},
};
use crate::{
    cluster::discovery::AnyMeta,
    object::ObjectKey,
    runtime::{Controller, Queue, Setup, SyncError, Verdict},
};
use async_trait::async_trait;
use k8s_openapi::{
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy},
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// How often is asked whether the graph is filled. It takes a moment, and whoever waits for it must not wait longer and longer.
const GRAPH_POLL: Duration = Duration::from_millis(500);

/// Registers the collector: the monitors that fill the graph, and the workers that act on it.
pub(in crate::cluster) fn register(setup: &mut Setup) {
    let queue = setup.queue();
    let shared = Arc::new(Shared::default());
    let rescan = shared.clone();
    setup.informer::<CustomResourceDefinition>().on_change(move |_| rescan.rescan.notify_one());
    let monitors =
        Monitors { client: setup.client(), shared: shared.clone(), queue: queue.clone() };
    setup.task("garbage-monitors", monitors);
    let collector = Collector { client: setup.client(), shared, queue: queue.clone() };
    setup.controller("garbage-collector", queue, collector);
}

struct Collector {
    client: Client,
    shared: Arc<Shared>,
    queue: Arc<Queue>,
}

#[async_trait]
impl Controller for Collector {
    fn workers(&self) -> usize {
        20
    }

    fn keys(&self) -> Vec<ObjectKey> {
        self.shared.graph.read().of_interest().iter().map(|uid| key(uid)).collect()
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Verdict, SyncError> {
        if !self.shared.is_complete() {
            return Ok(Verdict::After(GRAPH_POLL));
        }
        let uid = &*key.name;
        let mut existence = Existence::default();
        loop {
            // The lock is let go before anything is asked or written.
            let (decision, object) = {
                let graph = self.shared.graph.read();
                (decide(&graph, uid, &existence), graph.get(uid).cloned())
            };
            let Some(object) = object else { return Ok(Verdict::Done) };
            match decision {
                Decision::LookUp(owners) => {
                    for owner in owners {
                        let gone = self.shared.is_gone(&owner.uid);
                        let exists = !gone && self.exists(&object, &owner).await?;
                        existence.insert(owner.uid, exists);
                    }
                }
                decision => {
                    self.carry_out(&object, decision).await?;
                    return Ok(Verdict::Done);
                }
            }
        }
    }
}

impl Collector {
    fn api(&self, resource: &str, namespace: &str) -> Result<Api<AnyMeta>, SyncError> {
        let found = self.shared.resource(resource);
        let found =
            found.ok_or_else(|| SyncError::NotYet(format!("resource {resource} is not served")))?;
        Ok(match found.namespaced {
            true => Api::namespaced_with(self.client.clone(), namespace, &found.resource),
            false => Api::all_with(self.client.clone(), &found.resource),
        })
    }

    /// Whether there is an object that the reference means. Errors are not a no.
    async fn exists(&self, object: &Object, owner: &OwnerReference) -> Result<bool, SyncError> {
        let found = self.shared.resource_of_kind(&owner.api_version, &owner.kind);
        let Some(found) = found else {
            self.shared.rescan.notify_one();
            let OwnerReference { api_version, kind, .. } = owner;
            return Err(SyncError::NotYet(format!("owner kind {api_version} {kind} is not known")));
        };
        if found.namespaced && object.namespace.is_empty() {
            // A cluster-scoped object cannot have a namespaced owner: there is nowhere to look.
            return Ok(false);
        }
        let api = self.api(&found.name(), &object.namespace)?;
        let live = api.get_opt(&owner.name).await?;
        Ok(live.is_some_and(|live| live.metadata.uid.as_deref() == Some(&*owner.uid)))
    }

    async fn carry_out(&self, object: &Object, decision: Decision) -> Result<(), SyncError> {
        match decision {
            Decision::Keep | Decision::LookUp(_) => Ok(()),
            Decision::Wait(dependents) => {
                dependents.iter().for_each(|uid| self.queue.add(key(uid)));
                Ok(())
            }
            Decision::Delete(policy) => self.delete(object, policy).await,
            Decision::DropOwners(uids) => self.drop_owners(object, &uids).await,
            Decision::Unblock => {
                let owners = object.owners.iter().cloned();
                let owners: Vec<_> = owners
                    .map(|owner| OwnerReference { block_owner_deletion: Some(false), ..owner })
                    .collect();
                self.patch(object, "ownerReferences", json!(owners)).await
            }
            Decision::RemoveFinalizer(name) => {
                let rest: Vec<_> = object.finalizers.iter().filter(|f| *f != name).collect();
                self.patch(object, "finalizers", json!(rest)).await
            }
            Decision::Orphan(dependents) => self.orphan(object, &dependents).await,
        }
    }

    async fn delete(&self, object: &Object, policy: PropagationPolicy) -> Result<(), SyncError> {
        let params = DeleteParams {
            propagation_policy: Some(policy),
            preconditions: Some(Preconditions {
                uid: Some(object.uid.clone()),
                // It may have been adopted meanwhile.
                resource_version: Some(object.resource_version.clone()),
            }),
            ..DeleteParams::default()
        };
        let api = self.api(&object.resource, &object.namespace)?;
        ignore_gone(api.delete(&object.name, &params).await.map(drop))
    }

    async fn drop_owners(&self, object: &Object, uids: &[Uid]) -> Result<(), SyncError> {
        let rest: Vec<_> =
            object.owners.iter().filter(|owner| !uids.contains(&owner.uid)).collect();
        self.patch(object, "ownerReferences", json!(rest)).await
    }

    /// Lets the dependents go. The finalizer goes in the next round, when the graph shows that nobody is left.
    async fn orphan(&self, object: &Object, dependents: &[Uid]) -> Result<(), SyncError> {
        for uid in dependents {
            let dependent = self.shared.graph.read().get(uid).cloned();
            if let Some(dependent) = dependent {
                self.drop_owners(&dependent, std::slice::from_ref(&object.uid)).await?;
            }
        }
        Err(SyncError::NotYet("the graph does not show the orphans yet".to_owned()))
    }

    /// Replaces a list in the metadata, unless the object has changed since.
    async fn patch(&self, object: &Object, field: &str, list: Value) -> Result<(), SyncError> {
        let mut metadata = json!({"uid": object.uid, "resourceVersion": object.resource_version});
        // An empty list is not stored.
        metadata[field] = if list == json!([]) { Value::Null } else { list };
        let patch = Patch::Merge(json!({"metadata": metadata}));
        let api = self.api(&object.resource, &object.namespace)?;
        ignore_gone(api.patch(&object.name, &PatchParams::default(), &patch).await.map(drop))
    }
}

fn ignore_gone(outcome: Result<(), kube::Error>) -> Result<(), SyncError> {
    match outcome {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        outcome => Ok(outcome?),
    }
}
