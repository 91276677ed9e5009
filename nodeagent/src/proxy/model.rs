//! What services and endpoint slices mean for traffic, without a word of nftables.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Service, ServicePort as PortSpec, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint as SliceEndpoint, EndpointSlice};

use super::conntrack::Flow;
use super::ipv4;

/// Where a slice says which service it belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ServiceKey {
    pub(super) namespace: String,
    pub(super) name: String,
}

/// Transport protocols that services know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    fn parse(text: Option<&str>) -> Self {
        match text {
            Some("UDP") => Self::Udp,
            Some("SCTP") => Self::Sctp,
            _ => Self::Tcp,
        }
    }

    /// As nftables spells it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// Where traffic of a service port may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Endpoint {
    pub(super) address: Ipv4Addr,
    pub(super) port: u16,
    pub(super) local: bool,
}

/// One port of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) service: ServiceKey,
    pub(super) name: String,
    pub(super) protocol: Protocol,
    pub(super) port: u16,
    pub(super) cluster_ip: Ipv4Addr,
    /// External and load-balancer addresses.
    pub(super) external_ips: BTreeSet<Ipv4Addr>,
    pub(super) node_port: Option<u16>,
    /// Seconds that a client sticks to an endpoint.
    pub(super) affinity_s: Option<u32>,
    /// Traffic from inside goes to these.
    pub(super) internal: BTreeSet<Endpoint>,
    /// Traffic from outside goes to these.
    pub(super) external: BTreeSet<Endpoint>,
    /// Outside traffic keeps its source, because it only goes to local endpoints.
    pub(super) external_keeps_source: bool,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) ports: Vec<Port>,
    pub(super) pod_cidrs: BTreeSet<Ipv4Net>,
}

impl Model {
    /// `local` replaces the endpoints of services that this node answers itself.
    pub(super) fn build(
        services: &[Arc<Service>],
        slices: &[Arc<EndpointSlice>],
        node_name: &str,
        local: &BTreeMap<ServiceKey, SocketAddr>,
        pod_cidrs: BTreeSet<Ipv4Net>,
    ) -> Self {
        let mut by_service: BTreeMap<ServiceKey, Vec<&EndpointSlice>> = BTreeMap::new();
        for slice in slices.iter().filter(|slice| slice.address_type == "IPv4") {
            let labels = slice.metadata.labels.as_ref();
            if let Some(name) = labels.and_then(|labels| labels.get(SERVICE_NAME)) {
                let namespace = slice.metadata.namespace.clone().unwrap_or_default();
                by_service
                    .entry(ServiceKey { namespace, name: name.clone() })
                    .or_default()
                    .push(slice);
            }
        }
        let mut ports: Vec<Port> = Vec::new();
        for service in services {
            let key = ServiceKey {
                namespace: service.metadata.namespace.clone().unwrap_or_default(),
                name: service.metadata.name.clone().unwrap_or_default(),
            };
            let slices = by_service.get(&key).map_or(&[][..], Vec::as_slice);
            ports.extend(service_ports(service, &key, slices, node_name, local.get(&key)));
        }
        ports.sort_by(|a, b| {
            (&a.service, &a.name, a.protocol, a.port)
                .cmp(&(&b.service, &b.name, b.protocol, b.port))
        });
        Self { ports, pod_cidrs }
    }

    /// UDP flows of `before` that lead nowhere now, or were refused and need not be any more.
    pub(super) fn stale_udp(&self, before: &Self) -> BTreeSet<Flow> {
        let now: BTreeMap<_, _> = self.udp().map(|port| (port_id(port), port)).collect();
        let mut stale = BTreeSet::new();
        for old in before.udp() {
            let (service, port) = (old.cluster_ip, old.port);
            let current = now.get(&port_id(old));
            for endpoint in &old.internal {
                if !current.is_some_and(|current| current.internal.contains(endpoint)) {
                    let endpoint = endpoint.address;
                    stale.insert(Flow::Endpoint { service, port, endpoint });
                }
            }
            if old.internal.is_empty() && current.is_some_and(|port| !port.internal.is_empty()) {
                stale.insert(Flow::Service { service, port });
            }
        }
        stale
    }

    fn udp(&self) -> impl Iterator<Item = &Port> {
        self.ports.iter().filter(|port| port.protocol == Protocol::Udp)
    }
}

fn port_id(port: &Port) -> (&ServiceKey, &str, u16) {
    (&port.service, &port.name, port.port)
}

fn service_ports(
    service: &Service,
    key: &ServiceKey,
    slices: &[&EndpointSlice],
    node_name: &str,
    local: Option<&SocketAddr>,
) -> Vec<Port> {
    let Some(spec) = &service.spec else { return Vec::new() };
    // Headless and ExternalName services have no address to catch.
    let Some(cluster_ip) = spec.cluster_ip.as_deref().and_then(ipv4) else { return Vec::new() };
    let external_ips = external_ips(service, spec);
    let local_only = |policy: Option<&String>| policy.is_some_and(|policy| policy == "Local");
    let internal_local = local_only(spec.internal_traffic_policy.as_ref());
    let external_local = local_only(spec.external_traffic_policy.as_ref());
    let mut ports = Vec::new();
    for port in spec.ports.iter().flatten() {
        let endpoints = match local {
            Some(SocketAddr::V4(address)) => {
                [Endpoint { address: *address.ip(), port: address.port(), local: true }].into()
            }
            _ => usable(slices, port, node_name),
        };
        let near = |only_local: bool| {
            endpoints.iter().filter(|endpoint| !only_local || endpoint.local).copied().collect()
        };
        ports.push(Port {
            service: key.clone(),
            name: port.name.clone().unwrap_or_default(),
            protocol: Protocol::parse(port.protocol.as_deref()),
            port: number(port.port),
            cluster_ip,
            external_ips: external_ips.clone(),
            node_port: port.node_port.map(number).filter(|port| *port != 0),
            affinity_s: affinity(spec),
            internal: near(internal_local),
            external: near(external_local),
            external_keeps_source: external_local,
        });
    }
    ports
}

/// Port numbers were validated by the apiserver.
fn number(port: i32) -> u16 {
    u16::try_from(port).unwrap_or(0)
}

fn external_ips(service: &Service, spec: &ServiceSpec) -> BTreeSet<Ipv4Addr> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref());
    let ingress = ingress.into_iter().flatten().filter_map(|ingress| ingress.ip.as_deref());
    let external = spec.external_ips.iter().flatten().map(String::as_str);
    ingress.chain(external).filter_map(ipv4).collect()
}

fn affinity(spec: &ServiceSpec) -> Option<u32> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let config = spec.session_affinity_config.as_ref();
    let seconds = config.and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
    Some(u32::try_from(seconds.unwrap_or(10_800)).unwrap_or(10_800))
}

/// The ready endpoints of a port; when there is none, those that still serve while they
/// terminate (KEP-1669).
fn usable(slices: &[&EndpointSlice], port: &PortSpec, node_name: &str) -> BTreeSet<Endpoint> {
    let mut ready = BTreeSet::new();
    let mut draining = BTreeSet::new();
    for slice in slices {
        let wanted = port.name.as_deref().unwrap_or_default();
        let protocol = Protocol::parse(port.protocol.as_deref());
        let number = slice.ports.iter().flatten().find(|candidate| {
            candidate.name.as_deref().unwrap_or_default() == wanted
                && Protocol::parse(candidate.protocol.as_deref()) == protocol
        });
        let Some(port) = number.and_then(|port| port.port).map(self::number) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            let target = match state(endpoint) {
                State::Ready => &mut ready,
                State::Draining => &mut draining,
                State::Gone => continue,
            };
            let local = endpoint.node_name.as_deref() == Some(node_name);
            let address = endpoint.addresses.first().and_then(|address| ipv4(address));
            target.extend(address.map(|address| Endpoint { address, port, local }));
        }
    }
    if ready.is_empty() { draining } else { ready }
}

enum State {
    Ready,
    Draining,
    Gone,
}

fn state(endpoint: &SliceEndpoint) -> State {
    let Some(conditions) = &endpoint.conditions else { return State::Ready };
    let terminating = conditions.terminating == Some(true);
    match (conditions.ready.unwrap_or(!terminating), conditions.serving.unwrap_or(false)) {
        (true, _) => State::Ready,
        (false, true) if terminating => State::Draining,
        _ => State::Gone,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub(crate) fn service(spec: serde_json::Value) -> Arc<Service> {
        let object = json!({"metadata": {"namespace": "default", "name": "web"}, "spec": spec});
        Arc::new(serde_json::from_value(object).expect("service"))
    }

    pub(crate) fn slice(endpoints: serde_json::Value) -> Arc<EndpointSlice> {
        let object = json!({
            "metadata": {"namespace": "default", "labels": {SERVICE_NAME: "web"}},
            "addressType": "IPv4",
            "ports": [{"name": "", "port": 8080, "protocol": "TCP"},
                      {"name": "dns", "port": 53, "protocol": "UDP"}],
            "endpoints": endpoints,
        });
        Arc::new(serde_json::from_value(object).expect("slice"))
    }

    pub(crate) fn build(services: &[Arc<Service>], slices: &[Arc<EndpointSlice>]) -> Model {
        let cidrs = BTreeSet::from(["10.244.0.0/24".parse().expect("cidr")]);
        Model::build(services, slices, "n1", &BTreeMap::new(), cidrs)
    }

    fn addresses(endpoints: &BTreeSet<Endpoint>) -> Vec<String> {
        endpoints.iter().map(|endpoint| format!("{}:{}", endpoint.address, endpoint.port)).collect()
    }

    #[test]
    fn only_ready_endpoints_get_traffic() {
        let web = service(json!({"clusterIP": "10.96.0.5", "ports": [{"port": 80}]}));
        let slice = slice(json!([
            {"addresses": ["10.244.0.1"], "conditions": {"ready": true}},
            {"addresses": ["10.244.0.2"], "conditions": {"ready": false, "serving": true, "terminating": true}},
            {"addresses": ["10.244.0.3"], "conditions": {"ready": false}},
        ]));
        assert_eq!(addresses(&build(&[web], &[slice]).ports[0].internal), ["10.244.0.1:8080"]);
    }

    #[test]
    fn terminating_endpoints_serve_when_nothing_else_does() {
        let web = service(json!({"clusterIP": "10.96.0.5", "ports": [{"port": 80}]}));
        let slice = slice(json!([
            {"addresses": ["10.244.0.2"], "conditions": {"ready": false, "serving": true, "terminating": true}},
            {"addresses": ["10.244.0.3"], "conditions": {"ready": false}},
        ]));
        assert_eq!(addresses(&build(&[web], &[slice]).ports[0].internal), ["10.244.0.2:8080"]);
    }

    #[test]
    fn headless_services_have_no_rules() {
        let web = service(json!({"clusterIP": "None", "ports": [{"port": 80}]}));
        assert_eq!(build(&[web], &[]).ports, []);
    }

    #[test]
    fn local_policy_keeps_other_nodes_out() {
        let web = service(json!({
            "clusterIP": "10.96.0.5", "internalTrafficPolicy": "Local", "ports": [{"port": 80}],
        }));
        let slice = slice(json!([
            {"addresses": ["10.244.0.1"], "nodeName": "n1"},
            {"addresses": ["10.244.1.1"], "nodeName": "n2"},
        ]));
        let port = &build(&[web], &[slice]).ports[0];
        assert_eq!(addresses(&port.internal), ["10.244.0.1:8080"]);
        assert_eq!(addresses(&port.external), ["10.244.0.1:8080", "10.244.1.1:8080"]);
    }

    #[test]
    fn a_vanished_udp_endpoint_leaves_a_stale_flow() {
        let dns = service(json!({
            "clusterIP": "10.96.0.5", "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}],
        }));
        let before =
            build(std::slice::from_ref(&dns), &[slice(json!([{"addresses": ["10.244.0.1"]}]))]);
        let after =
            build(std::slice::from_ref(&dns), &[slice(json!([{"addresses": ["10.244.0.2"]}]))]);
        let stale: Vec<_> = after.stale_udp(&before).into_iter().collect();
        let service = Ipv4Addr::new(10, 96, 0, 5);
        let endpoint = Ipv4Addr::new(10, 244, 0, 1);
        assert_eq!(stale, [Flow::Endpoint { service, port: 53, endpoint }]);
        let none = build(&[dns], &[]);
        assert_eq!(
            after.stale_udp(&none).into_iter().collect::<Vec<_>>(),
            [Flow::Service { service, port: 53 }]
        );
    }
}
