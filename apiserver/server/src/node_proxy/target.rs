//! Whom a request is for: the container of a pod, the address of a node agent, the endpoint behind
//! a service. Pure.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::error::{ApiError, ApiResult};

/// Where node agents listen when their node does not say.
const AGENT_PORT: u16 = 10250;

/// An address to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: bool,
}

/// The agent of a node, by its internal address.
pub(super) fn agent_of(node: &Node) -> ApiResult<Target> {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let status = node.status.as_ref();
    let addresses = status.and_then(|status| status.addresses.as_deref()).unwrap_or_default();
    let preferred = ["InternalIP", "ExternalIP", "Hostname", "InternalDNS", "ExternalDNS"];
    let host = preferred
        .iter()
        .find_map(|kind| addresses.iter().find(|address| address.type_ == *kind))
        .map(|address| address.address.clone())
        .ok_or_else(|| {
            ApiError::internal_error(format!(
                "no preferred addresses found; known addresses: [] of node {name}"
            ))
        })?;
    let port = status
        .and_then(|status| status.daemon_endpoints.as_ref())
        .and_then(|endpoints| endpoints.kubelet_endpoint.as_ref())
        .and_then(|endpoint| u16::try_from(endpoint.port).ok())
        .filter(|port| *port != 0)
        .unwrap_or(AGENT_PORT);
    Ok(Target { host, port, tls: true })
}

/// The container that a request means: the one it names, or the only one.
pub(super) fn container_of(pod: &Pod, wanted: &str) -> ApiResult<String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let Some(spec) = pod.spec.as_ref() else {
        return Err(ApiError::bad_request(format!("pod {name} has no containers")));
    };
    let names = |list: &Option<Vec<_>>| -> Vec<String> {
        let list: &[k8s_openapi::api::core::v1::Container] = list.as_deref().unwrap_or_default();
        list.iter().map(|container| container.name.clone()).collect()
    };
    let containers: Vec<String> = spec.containers.iter().map(|c| c.name.clone()).collect();
    let init = names(&spec.init_containers);
    let ephemeral: Vec<String> =
        spec.ephemeral_containers.iter().flatten().map(|c| c.name.clone()).collect();
    if !wanted.is_empty() {
        let known =
            [&containers, &init, &ephemeral].into_iter().any(|l| l.iter().any(|c| c == wanted));
        return if known {
            Ok(wanted.to_owned())
        } else {
            Err(ApiError::bad_request(format!("container {wanted} is not valid for pod {name}")))
        };
    }
    if let ([only], true) = (containers.as_slice(), init.is_empty() && ephemeral.is_empty()) {
        return Ok(only.clone());
    }
    if let Some(default) = default_container(pod).filter(|default| containers.contains(default)) {
        return Ok(default);
    }
    if let [only] = containers.as_slice() {
        return Ok(only.clone());
    }
    let mut message = format!(
        "a container name must be specified for pod {name}, choose one of: [{}]",
        containers.join(" ")
    );
    for (kind, list) in [("init", init), ("ephemeral", ephemeral)] {
        if !list.is_empty() {
            message.push_str(&format!(" or one of the {kind} containers: [{}]", list.join(" ")));
        }
    }
    Err(ApiError::bad_request(message))
}

fn default_container(pod: &Pod) -> Option<String> {
    let annotations = pod.metadata.annotations.as_ref()?;
    annotations.get("kubectl.kubernetes.io/default-container").cloned()
}

/// `[scheme:]name[:port]`, as names of proxied pods and services are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProxyName<'a> {
    pub(super) tls: bool,
    pub(super) name: &'a str,
    pub(super) port: &'a str,
}

pub(super) fn proxy_name(text: &str) -> ApiResult<ProxyName<'_>> {
    let parts: Vec<&str> = text.split(':').collect();
    let (scheme, name, port) = match parts.as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme, name, port] => (*scheme, *name, *port),
        _ => return Err(ApiError::bad_request(format!("invalid name {text:?}"))),
    };
    if name.is_empty() || !matches!(scheme, "" | "http" | "https") {
        return Err(ApiError::bad_request(format!("invalid name {text:?}")));
    }
    Ok(ProxyName { tls: scheme == "https", name, port })
}

/// The address of a pod: the named or numbered port, or the first one it declares.
pub(super) fn pod_target(pod: &Pod, wanted: &ProxyName<'_>) -> ApiResult<Target> {
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).unwrap_or_default();
    if ip.parse::<IpAddr>().is_err() {
        return Err(ApiError::bad_request("address not allowed"));
    }
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let mut ports = containers.iter().flat_map(|c| c.ports.iter().flatten());
    let port = match wanted.port.parse::<u16>() {
        Ok(port) => Some(port),
        Err(_) if wanted.port.is_empty() => {
            ports.next().and_then(|port| u16::try_from(port.container_port).ok()).or(Some(80))
        }
        Err(_) => ports
            .find(|port| port.name.as_deref() == Some(wanted.port))
            .and_then(|port| u16::try_from(port.container_port).ok()),
    };
    let port = port.ok_or_else(|| {
        ApiError::bad_request(format!("no port {:?} in pod {}", wanted.port, wanted.name))
    })?;
    Ok(Target { host: ip, port, tls: wanted.tls })
}

/// A ready endpoint of a service, `turn` choosing among several. `port_name` is the service port's
/// name.
pub(super) fn endpoint(
    slices: &[EndpointSlice],
    port_name: &str,
    tls: bool,
    turn: usize,
) -> Option<Target> {
    let mut found = Vec::new();
    for slice in slices {
        let port = slice
            .ports
            .iter()
            .flatten()
            .find(|port| port.name.as_deref().unwrap_or_default() == port_name)
            .and_then(|port| port.port)
            .and_then(|port| u16::try_from(port).ok());
        let Some(port) = port else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            let ready = endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
            if let (true, Some(host)) = (ready, endpoint.addresses.first()) {
                found.push(Target { host: host.clone(), port, tls });
            }
        }
    }
    (!found.is_empty()).then(|| found.swap_remove(turn % found.len()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(
            json!({"metadata": {"name": "web"}, "spec": spec, "status": {"podIP": "10.244.0.5"}}),
        )
        .unwrap()
    }

    #[test]
    fn the_only_container_needs_no_name() {
        let one = pod(json!({"containers": [{"name": "a"}]}));
        assert_eq!(container_of(&one, "").unwrap(), "a");
        assert_eq!(container_of(&one, "a").unwrap(), "a");
        assert_eq!(
            container_of(&one, "x").unwrap_err().message,
            "container x is not valid for pod web"
        );
    }

    #[test]
    fn several_containers_are_listed() {
        let two = pod(
            json!({"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}),
        );
        let error = container_of(&two, "").unwrap_err();
        assert_eq!(error.code, 400);
        assert_eq!(
            error.message,
            "a container name must be specified for pod web, choose one of: [a b] or one of the init containers: [i]"
        );
        assert_eq!(container_of(&two, "i").unwrap(), "i");
        let mut annotated = two;
        annotated.metadata.annotations =
            Some([("kubectl.kubernetes.io/default-container".to_owned(), "b".to_owned())].into());
        assert_eq!(container_of(&annotated, "").unwrap(), "b");
    }

    #[test]
    fn an_agent_is_found_by_internal_address_and_port() {
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "n"}, "status": {
            "addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10251}},
        }}))
        .unwrap();
        assert_eq!(
            agent_of(&node).unwrap(),
            Target { host: "127.0.0.1".into(), port: 10251, tls: true }
        );
        assert_eq!(agent_of(&Node::default()).unwrap_err().code, 500);
    }

    #[test]
    fn proxied_names_carry_scheme_and_port() {
        let cases = [
            ("web", Some((false, "web", ""))),
            ("web:http", Some((false, "web", "http"))),
            ("https:web:443", Some((true, "web", "443"))),
            ("https:web:", Some((true, "web", ""))),
            ("ftp:web:21", None),
            (":80", None),
        ];
        for (text, expected) in cases {
            let got = proxy_name(text).ok().map(|p| (p.tls, p.name, p.port));
            assert_eq!(got, expected, "{text}");
        }
    }

    #[test]
    fn a_pods_port_is_found_by_number_name_or_order() {
        let web = pod(
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 8080, "name": "http"}, {"containerPort": 9090, "name": "metrics"}]}]}),
        );
        for (wanted, port) in [("web", 8080), ("web:metrics", 9090), ("web:1234", 1234)] {
            assert_eq!(
                pod_target(&web, &proxy_name(wanted).unwrap()).unwrap().port,
                port,
                "{wanted}"
            );
        }
        assert!(pod_target(&web, &proxy_name("web:none").unwrap()).is_err());
    }

    #[test]
    fn endpoints_take_turns_and_must_be_ready() {
        let slices: Vec<EndpointSlice> = vec![serde_json::from_value(json!({"addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"], "conditions": {"ready": false}}, {"addresses": ["10.0.0.3"]}],
        }))
        .unwrap()];
        let host = |turn: usize| endpoint(&slices, "http", false, turn).unwrap().host;
        assert_eq!([host(0), host(1), host(2)], ["10.0.0.1", "10.0.0.3", "10.0.0.1"]);
        assert_eq!(endpoint(&slices, "other", false, 0), None);
    }
}
