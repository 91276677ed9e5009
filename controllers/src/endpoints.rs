//! Endpoints: the older form of what is behind a Service, one object for each, kept for clients that still read it.

use crate::{
    children::delete_exactly,
    object::{ObjectKey, is_deleting},
    pod::{is_ready, node_name},
    runtime::{Controller, Setup, Store, SyncError, Verdict},
    service::{self, TargetPort},
};
use async_trait::async_trait;
use k8s_openapi::{
    api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Client, ResourceExt, api::PostParams};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Upstream's limit of addresses in one object.
pub const ADDRESSES_MAX: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";

/// What the Service's Endpoints should be, starting from what they are.
pub fn reconcile(service: &Service, pods: &[Arc<Pod>], current: Option<&Endpoints>) -> Endpoints {
    let (subsets, over_capacity) = subsets(service, pods);
    let mut meta = current.map(|current| current.metadata.clone()).unwrap_or_else(|| ObjectMeta {
        name: Some(service.name_any()),
        namespace: service.namespace(),
        ..Default::default()
    });
    let mut labels = service.labels().clone();
    labels.remove(service::HEADLESS);
    if service::is_headless(service) {
        labels.insert(service::HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    meta.labels = Some(labels);
    if over_capacity {
        meta.annotations
            .get_or_insert_default()
            .insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    } else if let Some(annotations) = &mut meta.annotations {
        annotations.remove(OVER_CAPACITY);
    }
    meta.annotations = meta.annotations.filter(|annotations| !annotations.is_empty());
    Endpoints { metadata: meta, subsets: Some(subsets).filter(|subsets| !subsets.is_empty()) }
}

/// One subset for each set of ports, and whether some addresses had to be left out.
fn subsets(service: &Service, pods: &[Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let unready_too = service::wants_unready(service);
    let family = service::families(service).swap_remove(0);
    let mut listed: Vec<_> = pods
        .iter()
        .filter(|pod| service::is_eligible(pod) && (unready_too || !is_deleting(&pod.metadata)))
        .filter_map(|pod| {
            Some((!(unready_too || is_ready(pod)), service::address(pod, &family)?.to_owned(), pod))
        })
        .collect();
    // Ready ones first: they are the last to be left out.
    listed.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    let over_capacity = listed.len() > ADDRESSES_MAX;
    listed.truncate(ADDRESSES_MAX);

    let mut groups: BTreeMap<BTreeSet<TargetPort>, EndpointSubset> = BTreeMap::new();
    for (unready, ip, pod) in listed {
        let ports = service::ports(service, pod);
        if ports.is_empty() && !service::is_headless(service) {
            continue;
        }
        let subset = groups.entry(ports).or_default();
        let addresses =
            if unready { &mut subset.not_ready_addresses } else { &mut subset.addresses };
        addresses.get_or_insert_default().push(address(service, pod, ip));
    }
    let subsets = groups.into_iter().map(|(ports, subset)| EndpointSubset {
        ports: Some(ports.into_iter().map(port).collect::<Vec<_>>())
            .filter(|ports| !ports.is_empty()),
        ..subset
    });
    (subsets.collect(), over_capacity)
}

fn address(service: &Service, pod: &Pod, ip: String) -> EndpointAddress {
    EndpointAddress {
        ip,
        hostname: service::hostname(pod, service),
        node_name: Some(node_name(pod).to_owned()).filter(|node| !node.is_empty()),
        target_ref: Some(service::target(pod)),
    }
}

fn port(port: TargetPort) -> EndpointPort {
    EndpointPort {
        name: Some(port.name).filter(|name| !name.is_empty()),
        port: port.port,
        protocol: Some(port.protocol),
        app_protocol: port.app_protocol,
    }
}

/// Registers the controller.
pub fn register(setup: &mut Setup) {
    let queue = setup.queue();
    let services = setup.informer::<Service>();
    let pods = setup.informer::<Pod>();
    let endpoints = setup.informer::<Endpoints>();
    services.enqueue(&queue);
    endpoints.enqueue(&queue);
    service::follow_pods(&pods, &services.store(), &queue);
    let controller = EndpointsController {
        client: setup.client(),
        services: services.store(),
        pods: pods.store(),
        endpoints: endpoints.store(),
    };
    setup.controller("endpoints", queue, controller);
}

struct EndpointsController {
    client: Client,
    services: Arc<Store<Service>>,
    pods: Arc<Store<Pod>>,
    endpoints: Arc<Store<Endpoints>>,
}

#[async_trait]
impl Controller for EndpointsController {
    fn keys(&self) -> Vec<ObjectKey> {
        let keys: BTreeSet<_> =
            self.services.keys().into_iter().chain(self.endpoints.keys()).collect();
        keys.into_iter().collect()
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Verdict, SyncError> {
        let api = Api::<Endpoints>::namespaced(self.client.clone(), &key.namespace);
        let current = self.endpoints.get(key);
        let Some(service) = self.services.get(key) else {
            // Endpoints that somebody made by hand are theirs.
            let ours = current.filter(|current| {
                current.labels().get(MANAGED_BY).map(String::as_str) == Some(MANAGER)
            });
            if let Some(ours) = ours {
                delete_exactly(&api, &ours.metadata).await?;
            }
            return Ok(Verdict::Done);
        };
        let Some(selector) =
            service::selector(&service).filter(|_| !is_deleting(&service.metadata))
        else {
            return Ok(Verdict::Done);
        };
        let pods = self.pods.select(&key.namespace, &selector);
        let wanted = reconcile(&service, &pods, current.as_deref());
        match current {
            None => drop(api.create(&PostParams::default(), &wanted).await?),
            Some(current) if *current != wanted => {
                api.replace(&key.name, &PostParams::default(), &wanted).await?;
            }
            Some(_) => {}
        }
        Ok(Verdict::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::tests::{service, serving};
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

    fn shared(pods: Vec<Pod>) -> Vec<Arc<Pod>> {
        pods.into_iter().map(Arc::new).collect()
    }

    fn ips(addresses: &Option<Vec<EndpointAddress>>) -> Vec<&str> {
        addresses.iter().flatten().map(|address| address.ip.as_str()).collect()
    }

    #[test]
    fn ready_and_unready_pods_are_listed_apart() {
        let pods = shared(vec![
            serving("b", "10.0.0.2", true, 80),
            serving("a", "10.0.0.1", true, 80),
            serving("c", "10.0.0.3", false, 80),
            serving("no-address", "", true, 80),
        ]);
        let mut service = service(IntOrString::Int(8080));
        let wanted = reconcile(&service, &pods, None);
        let [subset] = &wanted.subsets.as_ref().unwrap()[..] else { panic!() };
        assert_eq!(ips(&subset.addresses), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(ips(&subset.not_ready_addresses), ["10.0.0.3"]);
        assert_eq!(subset.ports.as_ref().unwrap()[0].port, 8080);
        assert_eq!(reconcile(&service, &pods, Some(&wanted)), wanted, "stable");

        service.spec.as_mut().unwrap().publish_not_ready_addresses = Some(true);
        let subsets = reconcile(&service, &pods, None).subsets.unwrap();
        assert_eq!(ips(&subsets[0].addresses), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    }

    #[test]
    fn too_many_addresses_are_cut_and_said_so() {
        let pods: Vec<_> = (0..1001)
            .map(|i| {
                Arc::new(serving(
                    &format!("p{i}"),
                    &format!("10.0.{}.{}", i / 250, i % 250),
                    i > 0,
                    80,
                ))
            })
            .collect();
        let service = service(IntOrString::Int(80));
        let cut = reconcile(&service, &pods, None);
        let subset = &cut.subsets.as_ref().unwrap()[0];
        assert_eq!(
            (ips(&subset.addresses).len(), subset.not_ready_addresses.is_none()),
            (1000, true)
        );
        assert_eq!(cut.annotations()[OVER_CAPACITY], "truncated");
        let whole = reconcile(&service, &pods[..10], Some(&cut));
        assert!(!whole.annotations().contains_key(OVER_CAPACITY));
    }
}
