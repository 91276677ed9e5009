//! What Endpoints and EndpointSlices have in common: which pods are behind a Service, at which addresses and ports.

use crate::{
    object::{ObjectKey, is_deleting, selects},
    pod::{is_finished, is_ready},
    runtime::{Change, Informer, Queue, Store},
};
use k8s_openapi::{
    api::core::v1::{ObjectReference, Pod, Service, ServicePort},
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::{ResourceExt, core::Selector};
use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

/// The label that marks everything about a headless Service.
pub const HEADLESS: &str = "service.kubernetes.io/headless";

/// The selector, if the Service has one that we are to follow.
pub fn selector(service: &Service) -> Option<Selector> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let labels = spec.selector.clone().filter(|labels| !labels.is_empty())?;
    Some(labels.into_iter().collect())
}

/// Whether the Service has no address of its own.
pub fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

/// Whether the Service wants pods that are not ready, too.
pub fn wants_unready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true)
}

/// `IPv4`, `IPv6`, in the Service's order of preference.
pub fn families(service: &Service) -> Vec<String> {
    let families = service.spec.as_ref().and_then(|spec| spec.ip_families.clone());
    families.filter(|families| !families.is_empty()).unwrap_or_else(|| vec!["IPv4".to_owned()])
}

/// The pod's address of this family.
pub fn address<'a>(pod: &'a Pod, family: &str) -> Option<&'a str> {
    let status = pod.status.as_ref()?;
    let all = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let all = all.chain(status.pod_ip.as_deref());
    all.into_iter().find(|ip| match ip.parse::<IpAddr>() {
        Ok(ip) => ip.is_ipv6() == (family == "IPv6"),
        Err(_) => false,
    })
}

/// Whether a pod can be behind a Service at all.
pub fn is_eligible(pod: &Pod) -> bool {
    !is_finished(pod)
}

/// The name of the pod in the headless Service's DNS zone, if it has one there.
pub fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.clone().filter(|hostname| !hostname.is_empty())?;
    (spec.subdomain.as_deref() == Some(&service.name_any())).then_some(hostname)
}

/// A reference to the pod, as endpoints carry it.
pub fn target(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.namespace(),
        name: pod.metadata.name.clone(),
        uid: pod.uid(),
        ..Default::default()
    }
}

/// One port of a Service as one pod serves it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetPort {
    /// The Service's name for it; may be "".
    pub name: String,
    /// The pod's port number.
    pub port: i32,
    /// TCP, UDP or SCTP.
    pub protocol: String,
    /// What is spoken on it, if the Service says.
    pub app_protocol: Option<String>,
}

/// The ports of the Service that this pod serves. A named port that the pod does not have is left out.
pub fn ports(service: &Service, pod: &Pod) -> BTreeSet<TargetPort> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let target = |port: &ServicePort| {
        Some(TargetPort {
            name: port.name.clone().unwrap_or_default(),
            port: port_number(port, pod)?,
            protocol: protocol(port.protocol.as_deref()).to_owned(),
            app_protocol: port.app_protocol.clone(),
        })
    };
    ports.filter_map(target).collect()
}

fn protocol(protocol: Option<&str>) -> &str {
    protocol.filter(|protocol| !protocol.is_empty()).unwrap_or("TCP")
}

fn port_number(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let name = match port.target_port.as_ref() {
        None | Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) if name.is_empty() => return Some(port.port),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars =
        sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let mut ports = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten());
    let wanted = protocol(port.protocol.as_deref());
    let found = ports.find(|own| {
        own.name.as_deref() == Some(name) && protocol(own.protocol.as_deref()) == wanted
    });
    found.map(|own| own.container_port)
}

/// Queues the Services of pods that change in a way that Services care about.
pub fn follow_pods(pods: &Informer<Pod>, services: &Arc<Store<Service>>, queue: &Arc<Queue>) {
    let (services, queue) = (services.clone(), queue.clone());
    pods.on_change(move |change| {
        if let Change::Updated { old, new } = change
            && facts(old) == facts(new)
        {
            return;
        }
        let namespace = change.object().metadata.namespace.as_deref().unwrap_or_default();
        for service in services.in_namespace(namespace) {
            let Some(selector) = selector(&service) else { continue };
            if change.states().any(|pod| selects(&selector, pod.metadata.labels.as_ref())) {
                queue.add(ObjectKey::of(&*service));
            }
        }
    });
}

/// Everything about a pod that shows in endpoints.
fn facts(pod: &Pod) -> impl PartialEq {
    let status = pod.status.as_ref();
    let spec = pod.spec.as_ref();
    (
        pod.metadata.labels.clone(),
        (is_finished(pod), is_ready(pod), is_deleting(&pod.metadata)),
        status.map(|status| (status.pod_ip.clone(), status.pod_ips.clone())),
        spec.map(|spec| (spec.node_name.clone(), spec.hostname.clone(), spec.subdomain.clone())),
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::pod::tests::running;
    use k8s_openapi::{
        api::core::v1::{Container, ContainerPort, PodIP, PodSpec, ServiceSpec},
        apimachinery::pkg::apis::meta::v1::ObjectMeta,
    };
    use std::collections::BTreeMap;

    /// A Service "web" with port 80 named "http" to the given target.
    pub(crate) fn service(target_port: IntOrString) -> Service {
        let port = ServicePort {
            name: Some("http".into()),
            port: 80,
            protocol: Some("TCP".into()),
            target_port: Some(target_port),
            ..Default::default()
        };
        Service {
            metadata: ObjectMeta {
                name: Some("web".into()),
                namespace: Some("ns".into()),
                uid: Some("uid-web".into()),
                ..Default::default()
            },
            spec: Some(ServiceSpec {
                selector: Some(BTreeMap::from([("app".to_owned(), "web".to_owned())])),
                ports: Some(vec![port]),
                cluster_ip: Some("10.96.0.7".into()),
                ip_families: Some(vec!["IPv4".into()]),
                ..Default::default()
            }),
            status: None,
        }
    }

    /// A pod on node n1 with this address and a port of this number named "web".
    pub(crate) fn serving(name: &str, ip: &str, ready: bool, port: i32) -> Pod {
        let mut pod = running(name, ready.then_some(1));
        pod.metadata.labels = Some(BTreeMap::from([("app".to_owned(), "web".to_owned())]));
        let port =
            ContainerPort { name: Some("web".into()), container_port: port, ..Default::default() };
        pod.spec = Some(PodSpec {
            node_name: Some("n1".into()),
            containers: vec![Container {
                name: "c".into(),
                ports: Some(vec![port]),
                ..Default::default()
            }],
            ..Default::default()
        });
        let status = pod.status.as_mut().unwrap();
        status.pod_ip = Some(ip.into()).filter(|ip: &String| !ip.is_empty());
        status.pod_ips = status.pod_ip.clone().map(|ip| vec![PodIP { ip }]);
        pod
    }

    #[test]
    fn target_ports_are_numbers_names_or_the_port_itself() {
        let pod = serving("a", "10.0.0.1", true, 8080);
        let number =
            |target: IntOrString| ports(&service(target), &pod).first().map(|port| port.port);
        assert_eq!(number(IntOrString::Int(9090)), Some(9090));
        assert_eq!(number(IntOrString::Int(0)), Some(80));
        assert_eq!(number(IntOrString::String("web".into())), Some(8080));
        assert_eq!(number(IntOrString::String("other".into())), None);
    }

    #[test]
    fn addresses_are_found_by_family() {
        let mut pod = serving("a", "10.0.0.1", true, 1);
        pod.status.as_mut().unwrap().pod_ips.as_mut().unwrap().push(PodIP { ip: "fd00::1".into() });
        assert_eq!(address(&pod, "IPv4"), Some("10.0.0.1"));
        assert_eq!(address(&pod, "IPv6"), Some("fd00::1"));
    }

    #[test]
    fn services_without_selector_or_by_external_name_are_left_alone() {
        let mut external = service(IntOrString::Int(1));
        assert!(selector(&external).is_some());
        external.spec.as_mut().unwrap().type_ = Some("ExternalName".into());
        assert!(selector(&external).is_none());
        let mut manual = service(IntOrString::Int(1));
        manual.spec.as_mut().unwrap().selector = None;
        assert!(selector(&manual).is_none());
    }
}
