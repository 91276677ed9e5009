//! What a write of a service needs from the allocators, and what it gives back. Pure.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use pintle_machinery::object;
use serde_json::{Map, Value, json};

/// The value of `clusterIP` that says "no address".
pub(crate) const HEADLESS: &str = "None";

pub(crate) fn service_type(service: &Value) -> &str {
    match object::get_str(service, &["spec", "type"]) {
        "" => "ClusterIP",
        other => other,
    }
}

/// Whether such a service has an address of the cluster (headless ones have `None`).
pub(crate) fn needs_cluster_ip(service: &Value) -> bool {
    matches!(service_type(service), "ClusterIP" | "NodePort" | "LoadBalancer")
}

/// Whether the ports of the service are open on every node.
pub(crate) fn needs_node_ports(service: &Value) -> bool {
    match service_type(service) {
        "NodePort" => true,
        "LoadBalancer" => {
            object::get(service, &["spec", "allocateLoadBalancerNodePorts"])
                != Some(&Value::Bool(false))
        }
        _ => false,
    }
}

/// Whether load balancers probe the nodes of the service on a port of their own.
pub(crate) fn needs_health_check_port(service: &Value) -> bool {
    service_type(service) == "LoadBalancer"
        && object::get_str(service, &["spec", "externalTrafficPolicy"]) == "Local"
}

pub(crate) fn cluster_ip(service: &Value) -> &str {
    object::get_str(service, &["spec", "clusterIP"])
}

/// The address that the service holds, if any.
pub(crate) fn address(service: &Value) -> Option<Ipv4Addr> {
    needs_cluster_ip(service).then(|| cluster_ip(service).parse().ok()).flatten()
}

/// All node ports that the service holds.
pub(crate) fn node_ports(service: &Value) -> Vec<u16> {
    let ports = object::get_list(service, &["spec", "ports"]);
    let of_ports = ports.iter().filter_map(|port| object::get_i64(port, &["nodePort"]));
    let health = object::get_i64(service, &["spec", "healthCheckNodePort"]);
    let mut all: Vec<u16> =
        of_ports.chain(health).filter(|p| *p != 0).filter_map(|p| u16::try_from(p).ok()).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn spec_mut(service: &mut Value) -> &mut Map<String, Value> {
    object::entry_object(object::as_object_mut(service), "spec")
}

/// Brings `clusterIP`, `clusterIPs` and the address family into agreement; clears what the type
/// does not have.
pub(crate) fn normalize(service: &mut Value) {
    let needs_ip = needs_cluster_ip(service);
    let (node_ports, health_port) = (needs_node_ports(service), needs_health_check_port(service));
    let external = service_type(service) != "ClusterIP";
    let spec = spec_mut(service);
    if !needs_ip {
        for field in
            ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"]
        {
            spec.remove(field);
        }
    } else {
        let first = spec.get("clusterIPs").and_then(|ips| ips.get(0)).and_then(Value::as_str);
        let single = spec.get("clusterIP").and_then(Value::as_str).filter(|ip| !ip.is_empty());
        if let Some(ip) = single.or(first).map(str::to_owned) {
            set_cluster_ip(spec, &ip);
        } else {
            spec.remove("clusterIPs");
        }
        let families = spec.get("ipFamilies").and_then(Value::as_array);
        if families.is_none_or(Vec::is_empty) {
            spec.insert("ipFamilies".into(), json!(["IPv4"]));
        }
        spec.entry("ipFamilyPolicy").or_insert_with(|| "SingleStack".into());
        spec.entry("internalTrafficPolicy").or_insert_with(|| "Cluster".into());
    }
    match (needs_ip, external) {
        (true, true) => {
            spec.entry("externalTrafficPolicy").or_insert_with(|| "Cluster".into());
        }
        _ => {
            spec.remove("externalTrafficPolicy");
        }
    }
    if !health_port {
        spec.remove("healthCheckNodePort");
    }
    if !node_ports {
        // A port that the client names without a type that has it is left for validation to refuse.
        for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            if port["nodePort"] == 0 {
                object::as_object_mut(port).remove("nodePort");
            }
        }
    }
}

fn set_cluster_ip(spec: &mut Map<String, Value>, ip: &str) {
    spec.insert("clusterIP".into(), ip.into());
    spec.insert("clusterIPs".into(), json!([ip]));
}

/// Stores a freshly allocated address.
pub(crate) fn assign_address(service: &mut Value, address: Ipv4Addr) {
    set_cluster_ip(spec_mut(service), &address.to_string());
}

/// An update that leaves out what was allocated keeps it; one that changes the type drops what the
/// new type does not have, unless the client put something else there.
pub(crate) fn carry_over(service: &mut Value, old: &Value) {
    keep_address(service, old);
    let old_ports: BTreeMap<(i64, String), i64> = ports_of(old).collect();
    let wants_ports = needs_node_ports(service);
    let had_ports = needs_node_ports(old);
    let spec = spec_mut(service);
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        let held = old_ports.get(&port_key(port)).copied();
        let given = object::get_i64(port, &["nodePort"]).unwrap_or(0);
        if wants_ports && had_ports && given == 0 {
            if let Some(held) = held {
                object::as_object_mut(port).insert("nodePort".into(), held.into());
            }
        } else if !wants_ports && had_ports && Some(given) == held {
            object::as_object_mut(port).remove("nodePort");
        }
    }
    let health = object::get_i64(old, &["spec", "healthCheckNodePort"]);
    if let (true, true, Some(health)) =
        (needs_health_check_port(service), needs_health_check_port(old), health)
    {
        spec_mut(service).entry("healthCheckNodePort").or_insert_with(|| health.into());
    }
}

fn keep_address(service: &mut Value, old: &Value) {
    let held = cluster_ip(old).to_owned();
    match (needs_cluster_ip(old), needs_cluster_ip(service)) {
        (true, true) if cluster_ip(service).is_empty() && !held.is_empty() => {
            let first = object::get(service, &["spec", "clusterIPs"]).and_then(|ips| ips.get(0));
            if first.is_none() {
                set_cluster_ip(spec_mut(service), &held);
            }
        }
        (true, false) if cluster_ip(service) == held => {
            let spec = spec_mut(service);
            spec.remove("clusterIP");
            spec.remove("clusterIPs");
        }
        _ => {}
    }
}

fn port_key(port: &Value) -> (i64, String) {
    let protocol = object::get_str(port, &["protocol"]);
    let protocol = if protocol.is_empty() { "TCP" } else { protocol };
    (object::get_i64(port, &["port"]).unwrap_or(0), protocol.to_owned())
}

fn ports_of(service: &Value) -> impl Iterator<Item = ((i64, String), i64)> + '_ {
    let ports = object::get_list(service, &["spec", "ports"]).iter();
    ports.filter_map(|port| {
        let node_port = object::get_i64(port, &["nodePort"]).filter(|port| *port != 0)?;
        Some((port_key(port), node_port))
    })
}

/// The ports that still want a node port: their index, and that of a port of the same number but
/// another protocol, whose node port they share.
pub(crate) fn open_ports(service: &Value) -> Vec<usize> {
    if !needs_node_ports(service) {
        return Vec::new();
    }
    let ports = object::get_list(service, &["spec", "ports"]).iter().enumerate();
    ports
        .filter(|(_, port)| object::get_i64(port, &["nodePort"]).unwrap_or(0) == 0)
        .map(|(index, _)| index)
        .collect()
}

/// The node port that a sibling of port `index` (same number, other protocol) already has.
pub(crate) fn sibling_node_port(service: &Value, index: usize) -> Option<u16> {
    let ports = object::get_list(service, &["spec", "ports"]);
    let (number, protocol) = port_key(ports.get(index)?);
    let taken = |node_port: i64| {
        ports.iter().any(|port| {
            port_key(port).1 == protocol && object::get_i64(port, &["nodePort"]) == Some(node_port)
        })
    };
    ports
        .iter()
        .filter(|port| port_key(port).0 == number && port_key(port).1 != protocol)
        .filter_map(|port| object::get_i64(port, &["nodePort"]))
        .find(|node_port| *node_port != 0 && !taken(*node_port))
        .and_then(|node_port| u16::try_from(node_port).ok())
}

/// Stores a freshly allocated node port.
pub(crate) fn assign_node_port(service: &mut Value, index: usize, node_port: u16) {
    let ports = spec_mut(service).get_mut("ports");
    if let Some(port) = ports.and_then(|ports| ports.get_mut(index)) {
        object::as_object_mut(port).insert("nodePort".into(), node_port.into());
    }
}

/// Stores a freshly allocated health-check port.
pub(crate) fn assign_health_check_port(service: &mut Value, node_port: u16) {
    spec_mut(service).insert("healthCheckNodePort".into(), node_port.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: Value) -> Value {
        json!({"metadata": {"namespace": "shop", "name": "web"}, "spec": spec})
    }

    #[test]
    fn normalizing_fills_in_the_family_and_mirrors_the_address() {
        let mut plain = service(json!({"clusterIPs": ["10.96.0.9"], "ports": [{"port": 80}]}));
        normalize(&mut plain);
        assert_eq!(plain["spec"]["clusterIP"], "10.96.0.9");
        assert_eq!(plain["spec"]["ipFamilies"], json!(["IPv4"]));
        assert_eq!(plain["spec"]["ipFamilyPolicy"], "SingleStack");
        let mut headless = service(json!({"clusterIP": "None"}));
        normalize(&mut headless);
        assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
        assert_eq!(address(&headless), None);
        let mut external =
            service(json!({"type": "ExternalName", "externalName": "x", "clusterIP": ""}));
        normalize(&mut external);
        assert_eq!(external["spec"], json!({"type": "ExternalName", "externalName": "x"}));
    }

    #[test]
    fn an_update_keeps_what_it_leaves_out() {
        let old = service(
            json!({"type": "NodePort", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"],
            "ports": [{"port": 80, "nodePort": 30080}, {"port": 53, "protocol": "UDP", "nodePort": 30053}]}),
        );
        let mut new = service(json!({"type": "NodePort",
            "ports": [{"port": 53, "protocol": "UDP"}, {"port": 80}, {"port": 443}]}));
        carry_over(&mut new, &old);
        assert_eq!(cluster_ip(&new), "10.96.0.9");
        assert_eq!(node_ports(&new), [30053, 30080]);
        assert_eq!(open_ports(&new), [2]);
    }

    #[test]
    fn a_change_of_type_drops_what_is_not_needed() {
        let old = service(
            json!({"type": "NodePort", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"],
            "ports": [{"port": 80, "nodePort": 30080}]}),
        );
        let mut new = old.clone();
        new["spec"]["type"] = "ClusterIP".into();
        carry_over(&mut new, &old);
        assert!(node_ports(&new).is_empty());
        assert_eq!(cluster_ip(&new), "10.96.0.9");
        new["spec"]["type"] = "ExternalName".into();
        carry_over(&mut new, &old);
        assert_eq!(cluster_ip(&new), "");
    }

    #[test]
    fn tcp_and_udp_of_one_port_share_the_node_port() {
        let svc = service(json!({"type": "NodePort", "ports": [
            {"port": 53, "protocol": "TCP", "nodePort": 30053}, {"port": 53, "protocol": "UDP"}, {"port": 80}]}));
        assert_eq!(sibling_node_port(&svc, 1), Some(30053));
        assert_eq!(sibling_node_port(&svc, 2), None);
    }

    #[test]
    fn load_balancers_may_decline_node_ports() {
        let balancer = |extra: Value| {
            let mut svc = service(json!({"type": "LoadBalancer", "ports": [{"port": 80}]}));
            svc["spec"].as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            svc
        };
        assert!(needs_node_ports(&balancer(json!({}))));
        assert!(!needs_node_ports(&balancer(json!({"allocateLoadBalancerNodePorts": false}))));
        assert!(needs_health_check_port(&balancer(json!({"externalTrafficPolicy": "Local"}))));
        assert!(!needs_health_check_port(&balancer(json!({"externalTrafficPolicy": "Cluster"}))));
    }
}
