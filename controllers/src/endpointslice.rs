//! EndpointSlices: the pods behind a Service, in slices of at most [`ENDPOINTS_MAX`].
//!
//! [`reconcile`] touches as few slices as it can: endpoints stay in the slice they are in, new ones fill gaps. Names of new
//! slices follow from the Service's UID and a number, so a slice cannot be made twice because the cache was behind.

mod sync;

use crate::{
    hash::content_hash,
    object::{controller_reference, is_deleting, uid},
    pod::{is_ready, node_name},
    service::{self, TargetPort},
};
use k8s_openapi::{
    api::{
        core::v1::{Pod, Service},
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

pub use sync::register;

/// Upstream's default for the size of a slice.
pub const ENDPOINTS_MAX: usize = 100;
/// Which Service a slice belongs to.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Who keeps a slice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// We do.
pub const MANAGER: &str = "endpointslice-controller.kubernetes.io";

/// What to write.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// New slices.
    pub create: Vec<EndpointSlice>,
    /// Slices with other contents.
    pub update: Vec<EndpointSlice>,
    /// Slices that hold nothing any more.
    pub delete: Vec<ObjectMeta>,
}

/// Compares the pods that the Service selects with the slices that it has.
pub fn reconcile(
    service: &Service,
    pods: &[Arc<Pod>],
    zone_of: impl Fn(&str) -> Option<String>,
    slices: &[Arc<EndpointSlice>],
) -> Outcome {
    let mut outcome = Outcome::default();
    let mut names: HashSet<_> = slices.iter().map(|slice| slice.name_any()).collect();
    let families = service::families(service);
    for slice in slices.iter().filter(|slice| !families.contains(&slice.address_type)) {
        outcome.delete.push(slice.metadata.clone());
    }
    for family in families {
        let mut wanted = group(service, pods, &family, &zone_of);
        if wanted.is_empty() {
            // An empty slice tells consumers that the Service is known and has nothing behind it.
            wanted.insert(Vec::new(), BTreeMap::new());
        }
        let existing: Vec<_> =
            slices.iter().filter(|slice| slice.address_type == family).cloned().collect();
        let template = template(service, &family);
        distribute(&template, wanted, &existing, &mut names, &mut outcome);
    }
    outcome
}

/// Endpoints by the address that identifies them.
type Endpoints = BTreeMap<String, Endpoint>;

/// Wanted endpoints, grouped by the ports they serve.
fn group(
    service: &Service,
    pods: &[Arc<Pod>],
    family: &str,
    zone_of: &impl Fn(&str) -> Option<String>,
) -> BTreeMap<Vec<TargetPort>, Endpoints> {
    let mut groups: BTreeMap<Vec<TargetPort>, Endpoints> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| service::is_eligible(pod)) {
        let Some(address) = service::address(pod, family) else { continue };
        let ports = service::ports(service, pod).into_iter().collect();
        let endpoint = endpoint(service, pod, address, zone_of(node_name(pod)));
        groups.entry(ports).or_default().insert(address.to_owned(), endpoint);
    }
    groups
}

fn endpoint(service: &Service, pod: &Pod, address: &str, zone: Option<String>) -> Endpoint {
    let serving = is_ready(pod);
    let terminating = is_deleting(&pod.metadata);
    Endpoint {
        addresses: vec![address.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(service::wants_unready(service) || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: service::hostname(pod, service),
        node_name: Some(node_name(pod).to_owned()).filter(|node| !node.is_empty()),
        target_ref: Some(service::target(pod)),
        zone,
        ..Default::default()
    }
}

/// A slice of this Service without name and content.
fn template(service: &Service, family: &str) -> EndpointSlice {
    let mut labels: BTreeMap<_, _> = service.labels().clone();
    labels.retain(|key, _| ![SERVICE_NAME, MANAGED_BY, service::HEADLESS].contains(&key.as_str()));
    if service::is_headless(service) {
        labels.insert(service::HEADLESS.to_owned(), String::new());
    }
    labels.insert(SERVICE_NAME.to_owned(), service.name_any());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", service.name_any())),
            namespace: service.namespace(),
            labels: Some(labels),
            owner_references: Some(vec![controller_reference(service)]),
            ..Default::default()
        },
        address_type: family.to_owned(),
        endpoints: None,
        ports: None,
    }
}

fn distribute(
    template: &EndpointSlice,
    wanted: BTreeMap<Vec<TargetPort>, Endpoints>,
    existing: &[Arc<EndpointSlice>],
    names: &mut HashSet<String>,
    outcome: &mut Outcome,
) {
    let mut used = BTreeSet::new();
    let mut create = Vec::new();
    for (ports, endpoints) in wanted {
        let mut placeholder = endpoints.is_empty();
        let ports = slice_ports(&ports);
        let same_ports =
            |slice: &&Arc<EndpointSlice>| slice.ports.clone().unwrap_or_default() == ports;
        let own: Vec<_> = existing.iter().filter(same_ports).collect();
        let mut fills = fill(&own, endpoints);
        for (slice, endpoints) in own.iter().zip(fills.drain(..own.len())) {
            if endpoints.is_empty() && !std::mem::take(&mut placeholder) {
                continue;
            }
            used.insert(uid(&slice.metadata).to_owned());
            let desired = with_content(slice, template, &ports, endpoints);
            if desired != ***slice {
                outcome.update.push(desired);
            }
        }
        create.extend(fills.into_iter().map(|endpoints| EndpointSlice {
            endpoints: Some(endpoints),
            ports: Some(ports.clone()),
            ..template.clone()
        }));
    }
    let mut unused: Vec<_> =
        existing.iter().filter(|slice| !used.contains(uid(&slice.metadata))).collect();
    for mut slice in create {
        // What would be created can as well be written into a slice that would be deleted.
        if let Some(reused) = unused.pop() {
            slice.metadata = with_metadata(reused, template);
            outcome.update.push(slice);
        } else {
            slice.metadata.name = Some(free_name(template, names));
            outcome.create.push(slice);
        }
    }
    outcome.delete.extend(unused.into_iter().map(|slice| slice.metadata.clone()));
}

/// Contents for the given slices, in their order, and then for new ones.
fn fill(slices: &[&Arc<EndpointSlice>], mut wanted: Endpoints) -> Vec<Vec<Endpoint>> {
    let is_empty_group = wanted.is_empty();
    let mut fills: Vec<Vec<Endpoint>> = slices
        .iter()
        .map(|slice| {
            let known =
                slice.endpoints.iter().flatten().filter_map(|endpoint| endpoint.addresses.first());
            known.filter_map(|address| wanted.remove(address)).collect()
        })
        .collect();
    let mut rest = wanted.into_values().peekable();
    // Fuller slices first, so that slices in decline can empty. Slices without any kept endpoint stay out of it as long as
    // there is room elsewhere.
    let mut order: Vec<_> = (0..fills.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(fills[*index].len()));
    for index in order {
        let room = ENDPOINTS_MAX.saturating_sub(fills[index].len());
        fills[index].extend(rest.by_ref().take(room));
    }
    while rest.peek().is_some() {
        fills.push(rest.by_ref().take(ENDPOINTS_MAX).collect());
    }
    if is_empty_group && fills.is_empty() {
        fills.push(Vec::new());
    }
    fills
}

fn slice_ports(ports: &[TargetPort]) -> Vec<EndpointPort> {
    let port = |port: &TargetPort| EndpointPort {
        name: Some(port.name.clone()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone()),
        app_protocol: port.app_protocol.clone(),
    };
    ports.iter().map(port).collect()
}

fn with_content(
    base: &EndpointSlice,
    template: &EndpointSlice,
    ports: &[EndpointPort],
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    EndpointSlice {
        metadata: with_metadata(base, template),
        address_type: template.address_type.clone(),
        // An empty list may be stored as none; what is not a difference must not become a write.
        endpoints: same_or(&base.endpoints, endpoints),
        ports: same_or(&base.ports, ports.to_vec()),
    }
}

fn same_or<T>(stored: &Option<Vec<T>>, wanted: Vec<T>) -> Option<Vec<T>> {
    if wanted.is_empty() && stored.is_none() { None } else { Some(wanted) }
}

fn with_metadata(base: &EndpointSlice, template: &EndpointSlice) -> ObjectMeta {
    ObjectMeta {
        labels: template.metadata.labels.clone(),
        owner_references: template.metadata.owner_references.clone(),
        ..base.metadata.clone()
    }
}

fn free_name(template: &EndpointSlice, taken: &mut HashSet<String>) -> String {
    let owner = template.metadata.owner_references.as_ref().and_then(|owners| owners.first());
    let uid = owner.map(|owner| owner.uid.clone()).unwrap_or_default();
    let prefix = template.metadata.generate_name.clone().unwrap_or_default();
    for number in 0.. {
        let name =
            format!("{prefix}{}", content_hash(&(&uid, &template.address_type, number), None));
        if taken.insert(name.clone()) {
            return name;
        }
    }
    unreachable!("the numbers do not end")
}

#[cfg(test)]
mod tests;
