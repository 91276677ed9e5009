//! How many pods the controllers of some pods ask for.

use crate::{
    object::{ObjectKey, controller_of, controller_of_kind, uid},
    runtime::{Setup, Store, SyncError},
};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet, StatefulSet},
        core::v1::{Pod, ReplicationController},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Client,
    api::DynamicObject,
    core::{GroupVersion, GroupVersionKind},
    discovery,
};
use std::{collections::BTreeMap, sync::Arc};

/// The kinds whose size is known without asking.
pub(super) struct Scales {
    client: Client,
    replica_sets: Arc<Store<ReplicaSet>>,
    deployments: Arc<Store<Deployment>>,
    stateful_sets: Arc<Store<StatefulSet>>,
    replication_controllers: Arc<Store<ReplicationController>>,
}

impl Scales {
    pub(super) fn new(setup: &mut Setup) -> Self {
        Self {
            client: setup.client(),
            replica_sets: setup.informer().store(),
            deployments: setup.informer().store(),
            stateful_sets: setup.informer().store(),
            replication_controllers: setup.informer().store(),
        }
    }

    /// The sum over all controllers of these pods; pods without one do not count. The inner error is one of the objects', not
    /// of the requests.
    pub(super) async fn of_pods(
        &self,
        pods: &[Arc<Pod>],
    ) -> Result<Result<i32, String>, SyncError> {
        let mut sizes = BTreeMap::new();
        for pod in pods {
            let Some(owner) = controller_of(&pod.metadata) else { continue };
            if sizes.contains_key(&owner.uid) {
                continue;
            }
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            match self.known(pod, namespace) {
                Some((uid, size)) => drop(sizes.insert(uid, size)),
                None => match self.asked(namespace, owner).await? {
                    Ok(size) => drop(sizes.insert(owner.uid.clone(), size)),
                    Err(why) => return Ok(Err(why)),
                },
            }
        }
        Ok(Ok(sizes.into_values().sum()))
    }

    /// The UID that counts and its size.
    fn known(&self, pod: &Pod, namespace: &str) -> Option<(String, i32)> {
        let key = |owner: &OwnerReference| ObjectKey::new(namespace, &owner.name);
        if let Some(owner) = controller_of_kind::<ReplicaSet>(&pod.metadata) {
            let set = self.replica_sets.get(&key(owner))?;
            return match controller_of_kind::<Deployment>(&set.metadata) {
                Some(owner) => {
                    let deployment = self.deployments.get(&key(owner))?;
                    let size = deployment.spec.replicas.unwrap_or(1);
                    (uid(&deployment.metadata) == owner.uid).then(|| (owner.uid.clone(), size))
                }
                None => (uid(&set.metadata) == owner.uid)
                    .then(|| (owner.uid.clone(), set.spec.replicas.unwrap_or(1))),
            };
        }
        if let Some(owner) = controller_of_kind::<StatefulSet>(&pod.metadata) {
            let set = self.stateful_sets.get(&key(owner))?;
            return (uid(&set.metadata) == owner.uid)
                .then(|| (owner.uid.clone(), set.spec.replicas.unwrap_or(1)));
        }
        let owner = controller_of_kind::<ReplicationController>(&pod.metadata)?;
        let controller = self.replication_controllers.get(&key(owner))?;
        let size = controller.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        (uid(&controller.metadata) == owner.uid).then(|| (owner.uid.clone(), size))
    }

    /// Any other kind says it in its `scale` subresource, if it has one.
    async fn asked(
        &self,
        namespace: &str,
        owner: &OwnerReference,
    ) -> Result<Result<i32, String>, SyncError> {
        let why = |text: &str| Ok(Err(text.to_owned()));
        let Ok(version) = owner.api_version.parse::<GroupVersion>() else {
            return why("found no controllers for pod");
        };
        let kind = GroupVersionKind::gvk(&version.group, &version.version, &owner.kind);
        let resource = match discovery::pinned_kind(&self.client, &kind).await {
            Ok((resource, _)) => resource,
            Err(kube::Error::Discovery(_)) => return why("found no controllers for pod"),
            Err(kube::Error::Api(status)) if status.is_not_found() => {
                return why("found no controllers for pod");
            }
            Err(error) => return Err(error.into()),
        };
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, &resource);
        match api.get_scale(&owner.name).await {
            Ok(scale) => Ok(Ok(scale.spec.and_then(|spec| spec.replicas).unwrap_or(0))),
            Err(kube::Error::Api(status)) if status.is_not_found() => {
                let group = if resource.group.is_empty() { "" } else { "." };
                let name = format!("{}{group}{}", resource.plural, resource.group);
                Ok(Err(format!("{name} does not implement the scale subresource")))
            }
            Err(error) => Err(error.into()),
        }
    }
}
