//! The I/O of the endpointslice controller.

use super::{MANAGED_BY, MANAGER, SERVICE_NAME, reconcile};
use crate::{
    children::delete_exactly,
    object::{ObjectKey, is_deleting},
    runtime::{Change, Controller, IndexKey, Informer, Queue, Setup, Store, SyncError, Verdict},
    service,
};
use async_trait::async_trait;
use k8s_openapi::api::{
    core::v1::{Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{Api, Client, ResourceExt, api::PostParams};
use std::{collections::BTreeSet, sync::Arc};

const ZONE: &str = "topology.kubernetes.io/zone";

/// Registers the controller.
pub fn register(setup: &mut Setup) {
    let queue = setup.queue();
    let services = setup.informer::<Service>();
    let pods = setup.informer::<Pod>();
    let nodes = setup.informer::<Node>();
    let slices = setup.informer::<EndpointSlice>();
    services.enqueue(&queue);
    service::follow_pods(&pods, &services.store(), &queue);
    follow_slices(&slices, &queue);
    follow_zones(&nodes, &services.store(), &queue);
    let controller = EndpointSliceController {
        client: setup.client(),
        services: services.store(),
        pods: pods.store(),
        nodes: nodes.store(),
        slices: slices.store(),
    };
    setup.controller("endpointslice", queue, controller);
}

fn follow_slices(slices: &Informer<EndpointSlice>, queue: &Arc<Queue>) {
    let queue = queue.clone();
    slices.on_change(move |change| {
        let slice = change.object();
        if is_ours(slice)
            && let Some(service) = service_of(slice)
        {
            queue.add(service);
        }
    });
}

fn follow_zones(nodes: &Informer<Node>, services: &Arc<Store<Service>>, queue: &Arc<Queue>) {
    let (services, queue) = (services.clone(), queue.clone());
    nodes.on_change(move |change| {
        if let Change::Updated { old, new } = change
            && old.labels().get(ZONE) != new.labels().get(ZONE)
        {
            services.keys().into_iter().for_each(|key| queue.add(key));
        }
    });
}

fn is_ours(slice: &EndpointSlice) -> bool {
    slice.labels().get(MANAGED_BY).map(String::as_str) == Some(MANAGER)
}

fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let service = slice.labels().get(SERVICE_NAME)?;
    Some(ObjectKey::new(slice.metadata.namespace.as_deref()?, service))
}

struct EndpointSliceController {
    client: Client,
    services: Arc<Store<Service>>,
    pods: Arc<Store<Pod>>,
    nodes: Arc<Store<Node>>,
    slices: Arc<Store<EndpointSlice>>,
}

#[async_trait]
impl Controller for EndpointSliceController {
    fn workers(&self) -> usize {
        8
    }

    fn keys(&self) -> Vec<ObjectKey> {
        let slices = self.slices.list();
        let of_slices =
            slices.iter().filter(|slice| is_ours(slice)).filter_map(|slice| service_of(slice));
        let keys: BTreeSet<_> = self.services.keys().into_iter().chain(of_slices).collect();
        keys.into_iter().collect()
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Verdict, SyncError> {
        let api = Api::<EndpointSlice>::namespaced(self.client.clone(), &key.namespace);
        let slices = self.slices_of(key);
        let Some(service) = self.services.get(key) else {
            for slice in slices {
                delete_exactly(&api, &slice.metadata).await?;
            }
            return Ok(Verdict::Done);
        };
        let Some(selector) =
            service::selector(&service).filter(|_| !is_deleting(&service.metadata))
        else {
            return Ok(Verdict::Done);
        };
        let pods = self.pods.select(&key.namespace, &selector);
        let outcome = reconcile(&service, &pods, |node| self.zone_of(node), &slices);
        for slice in &outcome.update {
            api.replace(&slice.name_any(), &PostParams::default(), slice).await?;
        }
        for slice in &outcome.create {
            api.create(&PostParams::default(), slice).await?;
        }
        for meta in &outcome.delete {
            delete_exactly(&api, meta).await?;
        }
        Ok(Verdict::Done)
    }
}

impl EndpointSliceController {
    fn slices_of(&self, key: &ObjectKey) -> Vec<Arc<EndpointSlice>> {
        let index =
            IndexKey::Label(key.namespace.clone(), SERVICE_NAME.to_owned(), key.name.to_string());
        let slices = self.slices.by_index(&index).into_iter();
        slices.filter(|slice| is_ours(slice) && !is_deleting(&slice.metadata)).collect()
    }

    fn zone_of(&self, node: &str) -> Option<String> {
        let node = self.nodes.get(&ObjectKey::new("", node))?;
        node.labels().get(ZONE).cloned()
    }
}
