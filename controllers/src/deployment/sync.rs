//! The I/O of the deployment controller.

use super::{
    Inputs, Write, condition, is_recreate, reconcile, replicas,
    revision::{REVISION, same_template},
};
use crate::{
    children::{claim_children, delete_exactly, is_namespace_going, message, orphan_parents},
    object::{ObjectKey, controller_of, controller_of_kind, selector, uid},
    pod,
    runtime::{Change, Controller, Informer, Queue, Recorder, Setup, Store, SyncError, Verdict},
};
use async_trait::async_trait;
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentStatus, ReplicaSet},
        core::v1::Pod,
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use std::sync::Arc;

/// Registers the controller.
pub fn register(setup: &mut Setup) {
    let queue = setup.queue();
    let deployments = setup.informer::<Deployment>();
    let replica_sets = setup.informer::<ReplicaSet>();
    let pods = setup.informer::<Pod>();
    deployments.enqueue(&queue);
    follow_replica_sets(&replica_sets, &deployments.store(), &queue);
    follow_last_pods(&pods, &deployments.store(), &replica_sets.store(), &queue);
    let controller = DeploymentController {
        client: setup.client(),
        recorder: setup.recorder("deployment-controller"),
        deployments: deployments.store(),
        replica_sets: replica_sets.store(),
        pods: pods.store(),
    };
    setup.controller("deployment", queue, controller);
}

fn follow_replica_sets(
    sets: &Informer<ReplicaSet>,
    deployments: &Arc<Store<Deployment>>,
    queue: &Arc<Queue>,
) {
    sets.enqueue_controller::<Deployment>(queue);
    let (deployments, queue) = (deployments.clone(), queue.clone());
    sets.on_change(move |change| {
        if matches!(change, Change::Deleted(_)) {
            return;
        }
        let selector =
            |deployment: &Deployment| selector(Some(&deployment.spec.selector)).ok().flatten();
        let adopters = orphan_parents(&deployments, &change.object().metadata, selector);
        adopters.into_iter().for_each(|key| queue.add(key));
    });
}

/// `Recreate` waits for the last old pod to go, which no ReplicaSet tells.
fn follow_last_pods(
    pods: &Informer<Pod>,
    deployments: &Arc<Store<Deployment>>,
    sets: &Arc<Store<ReplicaSet>>,
    queue: &Arc<Queue>,
) {
    let (deployments, sets, queue) = (deployments.clone(), sets.clone(), queue.clone());
    pods.on_change(move |change| {
        let pod = change.object();
        if !matches!(change, Change::Deleted(_)) && !pod::is_finished(pod) {
            return;
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let set = controller_of_kind::<ReplicaSet>(&pod.metadata)
            .and_then(|owner| sets.get(&ObjectKey::new(namespace, &owner.name)));
        let Some(set) = set else { return };
        let Some(owner) = controller_of_kind::<Deployment>(&set.metadata) else { return };
        let key = ObjectKey::new(namespace, &owner.name);
        if deployments.get(&key).is_some_and(|deployment| is_recreate(&deployment)) {
            queue.add(key);
        }
    });
}

struct DeploymentController {
    client: Client,
    recorder: Recorder,
    deployments: Arc<Store<Deployment>>,
    replica_sets: Arc<Store<ReplicaSet>>,
    pods: Arc<Store<Pod>>,
}

#[async_trait]
impl Controller for DeploymentController {
    fn workers(&self) -> usize {
        8
    }

    fn keys(&self) -> Vec<ObjectKey> {
        self.deployments.keys()
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Verdict, SyncError> {
        let Some(deployment) = self.deployments.get(key) else { return Ok(Verdict::Done) };
        let Some(selector) = selector(Some(&deployment.spec.selector))? else {
            return Ok(Verdict::Done);
        };
        if selector.selects_all() {
            let text = "This deployment is selecting all pods. A non-empty selector is required.";
            self.recorder.warning(&*deployment, "SelectingAll", text);
            return Ok(Verdict::Done);
        }
        let replica_sets =
            claim_children(&self.client, &*deployment, &selector, &self.replica_sets).await?;
        let inputs = Inputs {
            deployment: &deployment,
            replica_sets: &replica_sets,
            old_pods_run: is_recreate(&deployment) && self.old_pods_run(&deployment, &replica_sets),
            now: Timestamp::now(),
        };
        let outcome = reconcile(&inputs);
        for write in &outcome.writes {
            self.write(&deployment, write).await?;
        }
        self.report(&deployment, outcome.revision.as_deref(), &outcome.status).await?;
        Ok(Verdict::after(outcome.again))
    }
}

impl DeploymentController {
    fn old_pods_run(&self, deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> bool {
        let template = Some(&deployment.spec.template);
        let is_old = |set: &&Arc<ReplicaSet>| {
            let own = set.spec.template.as_ref();
            !own.zip(template).is_some_and(|(own, template)| same_template(own, template))
        };
        let mut pods =
            sets.iter().filter(is_old).flat_map(|set| self.pods.owned_by(uid(&set.metadata)));
        pods.any(|pod| !pod::is_finished(&pod))
    }

    async fn write(&self, deployment: &Deployment, write: &Write) -> Result<(), SyncError> {
        let api = Api::<ReplicaSet>::namespaced(
            self.client.clone(),
            &deployment.namespace().unwrap_or_default(),
        );
        match write {
            Write::Create(set) => self.create(deployment, &api, set).await,
            Write::Update { from, to } => {
                api.replace(&to.name_any(), &PostParams::default(), to).await?;
                self.record_scaling(deployment, to, *from);
                Ok(())
            }
            Write::Delete(meta) => Ok(delete_exactly(&api, meta).await.map(|_| ())?),
        }
    }

    fn record_scaling(&self, deployment: &Deployment, set: &ReplicaSet, from: i32) {
        let (name, to) = (set.name_any(), replicas(set));
        if from != to {
            let direction = if to > from { "up" } else { "down" };
            let text = format!("Scaled {direction} replica set {name} from {from} to {to}");
            self.recorder.normal(deployment, "ScalingReplicaSet", text);
        }
    }

    async fn create(
        &self,
        deployment: &Deployment,
        api: &Api<ReplicaSet>,
        set: &ReplicaSet,
    ) -> Result<(), SyncError> {
        let error = match api.create(&PostParams::default(), set).await {
            Ok(set) => {
                self.record_scaling(deployment, &set, 0);
                return Ok(());
            }
            Err(error) => error,
        };
        match &error {
            kube::Error::Api(status) if status.is_already_exists() => {
                return self.collide(deployment, api, set).await;
            }
            error if is_namespace_going(error) => {}
            error => {
                let (name, why) = (set.name_any(), message(error));
                let text = format!("Failed to create new replica set \"{name}\": {why}");
                self.recorder.warning(deployment, "ReplicaSetCreateError", text);
                let mut status = deployment.status.clone().unwrap_or_default();
                condition::creation_failed(deployment, &mut status, &name, &why, Timestamp::now());
                self.report(deployment, None, &status).await?;
            }
        }
        Err(error.into())
    }

    /// The name is taken: by our own earlier self, whose work the cache does not show yet; or by somebody else, and then
    /// the next hash differs.
    async fn collide(
        &self,
        deployment: &Deployment,
        api: &Api<ReplicaSet>,
        set: &ReplicaSet,
    ) -> Result<(), SyncError> {
        let taken = api.get(&set.name_any()).await?;
        let template = |set: &ReplicaSet| set.spec.template.clone().unwrap_or_default();
        let ours = controller_of(&taken.metadata)
            .is_some_and(|owner| owner.uid == uid(&deployment.metadata));
        if ours && same_template(&template(&taken), &template(set)) {
            return Err(SyncError::NotYet(format!(
                "{} exists, but not in the cache yet",
                set.name_any()
            )));
        }
        let mut status = deployment.status.clone().unwrap_or_default();
        status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        self.report(deployment, None, &status).await?;
        Err(SyncError::NotYet(format!("the name {} is taken", set.name_any())))
    }

    async fn report(
        &self,
        deployment: &Deployment,
        revision: Option<&str>,
        status: &DeploymentStatus,
    ) -> Result<(), SyncError> {
        let (name, namespace) = (deployment.name_any(), deployment.namespace().unwrap_or_default());
        let api = Api::<Deployment>::namespaced(self.client.clone(), &namespace);
        let mut version = deployment.resource_version();
        if let Some(revision) = revision {
            let change = json!({ "metadata": {
                "resourceVersion": version,
                "annotations": { REVISION: revision },
            }});
            let noted = api.patch(&name, &PatchParams::default(), &Patch::Merge(change)).await?;
            version = noted.resource_version();
        }
        if deployment.status.as_ref() != Some(status) {
            let mut changed = deployment.clone();
            changed.metadata.resource_version = version;
            if let Some(revision) = revision {
                changed.annotations_mut().insert(REVISION.to_owned(), revision.to_owned());
            }
            changed.status = Some(status.clone());
            api.replace_status(&name, &PostParams::default(), &changed).await?;
        }
        Ok(())
    }
}
