//! The objects that every cluster has beside its policy. Pure.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::Ipv4Net;
use serde_json::{Value, json};

/// Namespaces that always exist.
pub(super) const NAMESPACES: [&str; 4] =
    ["default", "kube-system", "kube-public", "kube-node-lease"];

pub(super) fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// The two classes that only the system may use.
pub(super) fn priority_classes() -> [Value; 2] {
    let class = |name: &str, value: i64, description: &str| {
        json!({
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": name},
            "value": value,
            "preemptionPolicy": "PreemptLowerPriority",
            "description": description,
        })
    };
    [
        class(
            "system-node-critical",
            2_000_001_000,
            "For pods that a node cannot do without; they are never preempted.",
        ),
        class(
            "system-cluster-critical",
            2_000_000_000,
            "For pods that the cluster cannot do without, though they may run elsewhere.",
        ),
    ]
}

/// Address `n` of the service network.
pub(super) fn service_address(network: Ipv4Net, n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(network.network()).saturating_add(n))
}

/// The network that service addresses come from, as the API shows it.
pub(super) fn service_cidr(network: Ipv4Net) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": [network.to_string()]},
    })
}

/// `default/kubernetes`: the API itself.
pub(super) fn kubernetes_service(network: Ipv4Net, port: u16) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "namespace": "default",
            "name": "kubernetes",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": service_address(network, 1).to_string(),
            "sessionAffinity": "None",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": port}],
        },
    })
}

/// `kube-system/kube-dns`: answered by the node agents themselves, so it selects no pods.
pub(super) fn dns_service(network: Ipv4Net) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "namespace": "kube-system",
            "name": "kube-dns",
            "labels": {
                "k8s-app": "kube-dns",
                "kubernetes.io/cluster-service": "true",
                "kubernetes.io/name": "CoreDNS",
            },
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": service_address(network, 10).to_string(),
            "ports": [
                {"name": "dns", "protocol": "UDP", "port": 53, "targetPort": 53},
                {"name": "dns-tcp", "protocol": "TCP", "port": 53, "targetPort": 53},
            ],
        },
    })
}

/// The ports of the members, grouped: members may listen on different ports, and one subset (or
/// slice) has one port.
fn by_port(members: &[SocketAddr]) -> Vec<(u16, Vec<IpAddr>)> {
    let mut groups: Vec<(u16, Vec<IpAddr>)> = Vec::new();
    for member in members {
        match groups.iter_mut().find(|(port, _)| *port == member.port()) {
            Some((_, addresses)) => addresses.push(member.ip()),
            None => groups.push((member.port(), vec![member.ip()])),
        }
    }
    groups.sort();
    for (_, addresses) in &mut groups {
        addresses.sort();
        addresses.dedup();
    }
    groups
}

/// The endpoints of `default/kubernetes`: every member.
pub(super) fn kubernetes_endpoints(members: &[SocketAddr]) -> Value {
    let subsets: Vec<Value> = by_port(members)
        .into_iter()
        .map(|(port, addresses)| {
            let addresses: Vec<Value> =
                addresses.iter().map(|ip| json!({"ip": ip.to_string()})).collect();
            json!({
                "addresses": addresses,
                "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
            })
        })
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "namespace": "default",
            "name": "kubernetes",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": subsets,
    })
}

/// The same as slices, one for each port: `kubernetes`, `kubernetes-6453`, …
pub(super) fn kubernetes_slices(members: &[SocketAddr]) -> Vec<Value> {
    let slice = |(index, (port, addresses)): (usize, (u16, Vec<IpAddr>))| {
        let name = if index == 0 { "kubernetes".to_owned() } else { format!("kubernetes-{port}") };
        let family = if addresses.iter().all(IpAddr::is_ipv4) { "IPv4" } else { "IPv6" };
        let endpoints: Vec<Value> = addresses
            .iter()
            .map(|ip| json!({"addresses": [ip.to_string()], "conditions": {"ready": true}}))
            .collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "namespace": "default",
                "name": name,
                "labels": {"kubernetes.io/service-name": "kubernetes"},
            },
            "addressType": family,
            "endpoints": endpoints,
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        })
    };
    by_port(members).into_iter().enumerate().map(slice).collect()
}

/// What extension API servers need to know to trust requests that come through here.
pub(super) fn extension_authentication(client_ca: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"namespace": "kube-system", "name": "extension-apiserver-authentication"},
        "data": {"client-ca-file": client_ca},
    })
}

/// The CA and the address of the cluster, for whoever wants to join.
pub(super) fn cluster_info(cluster_ca: &str, server: SocketAddr) -> Value {
    use base64::Engine as _;
    let ca = base64::engine::general_purpose::STANDARD.encode(cluster_ca);
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "", "cluster": {"certificate-authority-data": ca, "server": format!("https://{server}")}}],
        "contexts": [],
        "users": [],
    });
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"namespace": "kube-public", "name": "cluster-info"},
        "data": {"kubeconfig": kubeconfig.to_string()},
    })
}

/// Whether `wanted` is all there in `found` (maps may hold more).
pub(super) fn contains(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => wanted
            .iter()
            .all(|(key, value)| found.get(key).is_some_and(|held| contains(held, value))),
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(f, w)| contains(f, w))
        }
        _ => found == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(text: &str) -> Vec<SocketAddr> {
        text.split(' ').map(|member| member.parse().unwrap()).collect()
    }

    #[test]
    fn members_on_one_port_share_a_subset_and_a_slice() {
        let three = members("10.0.0.2:6443 10.0.0.1:6443 10.0.0.3:6443");
        let endpoints = kubernetes_endpoints(&three);
        assert_eq!(endpoints["subsets"].as_array().unwrap().len(), 1);
        assert_eq!(endpoints["subsets"][0]["addresses"][0]["ip"], "10.0.0.1");
        assert_eq!(kubernetes_slices(&three).len(), 1);
    }

    #[test]
    fn members_of_one_machine_have_a_slice_for_each_port() {
        let three = members("127.0.0.1:6453 127.0.0.1:6463 127.0.0.1:6473");
        let names: Vec<String> = kubernetes_slices(&three)
            .iter()
            .map(|slice| slice["metadata"]["name"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["kubernetes", "kubernetes-6463", "kubernetes-6473"]);
        assert_eq!(kubernetes_endpoints(&three)["subsets"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn well_known_addresses_are_counted_from_the_network() {
        let network = "10.96.0.0/16".parse().unwrap();
        assert_eq!(kubernetes_service(network, 6443)["spec"]["clusterIP"], "10.96.0.1");
        assert_eq!(dns_service(network)["spec"]["clusterIP"], "10.96.0.10");
    }

    #[test]
    fn containing_ignores_what_was_added() {
        let found = json!({"a": 1, "b": {"c": [1, {"d": 2, "x": 0}]}});
        assert!(contains(&found, &json!({"b": {"c": [1, {"d": 2}]}})));
        assert!(!contains(&found, &json!({"b": {"c": [1]}})));
        assert!(!contains(&found, &json!({"z": 1})));
    }
}
