//! Services, endpoints, ingresses and network policies.

use std::net::IpAddr;

use serde_json::Value;

use super::{label_selector, list, map, named, names, number, one_of, part, port_number, text};
use crate::object::get;
use crate::{ErrorList, Path};

const SERVICE_TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

pub(super) fn validate_service(service: &Value, errors: &mut ErrorList) {
    let path = Path::new("spec");
    let spec = part(service, "spec");
    let kind = text(spec, "type");
    one_of(kind, &SERVICE_TYPES, path.child("type"), errors);
    let affinity = text(spec, "sessionAffinity");
    one_of(affinity, &["ClientIP", "None"], path.child("sessionAffinity"), errors);
    super::validate_labels(map(spec, "selector"), &path.child("selector"), errors);
    let headless = text(spec, "clusterIP") == "None";
    let ports = list(spec, "ports");
    if kind == "ExternalName" {
        match text(spec, "externalName") {
            "" => errors.required(path.child("externalName"), ""),
            name => {
                let name = name.strip_suffix('.').unwrap_or(name);
                named(name, names::dns1123_subdomain, &path.child("externalName"), errors);
            }
        }
        if headless {
            errors.invalid(
                path.child("clusterIP"),
                "None",
                "may not be set for ExternalName services",
            );
        }
    } else if ports.is_empty() && !headless {
        errors.required(path.child("ports"), "");
    }
    if headless && matches!(kind, "NodePort" | "LoadBalancer") {
        errors.invalid(
            path.child("clusterIP"),
            "None",
            format!("may not be set to 'None' for {kind} services"),
        );
    }
    for (index, ip) in list(spec, "externalIPs").iter().enumerate() {
        valid_ip(ip.as_str().unwrap_or_default(), path.child("externalIPs").index(index), errors);
    }
    validate_service_ports(ports, kind, &path, errors);
}

fn validate_service_ports(ports: &[Value], kind: &str, path: &Path, errors: &mut ErrorList) {
    for (index, port) in ports.iter().enumerate() {
        let path = || path.child("ports").index(index);
        let name = text(port, "name");
        if name.is_empty() {
            if ports.len() > 1 {
                errors.required(path().child("name"), "");
            }
        } else {
            named(name, names::dns1123_label, &path().child("name"), errors);
            if ports[..index].iter().any(|other| text(other, "name") == name) {
                errors.duplicate(path().child("name"), name);
            }
        }
        port_number(number(port, "port").unwrap_or(0), path().child("port"), errors);
        one_of(text(port, "protocol"), &PROTOCOLS, path().child("protocol"), errors);
        match port.get("targetPort") {
            Some(Value::Number(target)) => {
                port_number(target.as_i64().unwrap_or(0), path().child("targetPort"), errors);
            }
            Some(Value::String(target)) => {
                named(target, names::port_name, &path().child("targetPort"), errors);
            }
            _ => {}
        }
        if kind == "ClusterIP" && number(port, "nodePort").is_some_and(|p| p != 0) {
            errors
                .forbidden(path().child("nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
        let key = |port: &Value| (number(port, "port"), text(port, "protocol").to_owned());
        if ports[..index].iter().any(|other| key(other) == key(port)) {
            let shown =
                serde_json::json!({"port": port.get("port"), "protocol": port.get("protocol")});
            errors.duplicate(path(), shown);
        }
    }
}

fn valid_ip(ip: &str, path: Path, errors: &mut ErrorList) {
    if ip.parse::<IpAddr>().is_err() {
        errors.invalid(path, ip, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
    }
}

pub(super) fn validate_endpoints(endpoints: &Value, errors: &mut ErrorList) {
    for (index, subset) in list(endpoints, "subsets").iter().enumerate() {
        let path = Path::new("subsets").index(index);
        if list(subset, "addresses").is_empty() && list(subset, "notReadyAddresses").is_empty() {
            errors.required(path.clone(), "must specify `addresses` or `notReadyAddresses`");
        }
        for field in ["addresses", "notReadyAddresses"] {
            for (at, address) in list(subset, field).iter().enumerate() {
                valid_ip(text(address, "ip"), path.child(field).index(at).child("ip"), errors);
            }
        }
        let ports = list(subset, "ports");
        for (at, port) in ports.iter().enumerate() {
            let path = path.child("ports").index(at);
            port_number(number(port, "port").unwrap_or(0), path.child("port"), errors);
            if ports.len() > 1 && text(port, "name").is_empty() {
                errors.required(path.child("name"), "");
            }
        }
    }
}

pub(super) fn validate_endpoint_slice(slice: &Value, errors: &mut ErrorList) {
    let kind = text(slice, "addressType");
    one_of(kind, &["FQDN", "IPv4", "IPv6"], Path::new("addressType"), errors);
    let endpoints = list(slice, "endpoints");
    if endpoints.len() > 1000 {
        errors.too_many(Path::new("endpoints"), endpoints.len(), 1000);
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        let path = || Path::new("endpoints").index(index).child("addresses");
        let addresses = list(endpoint, "addresses");
        if addresses.is_empty() {
            errors.required(path(), "must contain at least 1 address");
        }
        for (at, address) in addresses.iter().enumerate() {
            let text = address.as_str().unwrap_or_default();
            match (kind, text.parse::<IpAddr>()) {
                ("IPv4", Ok(IpAddr::V4(_))) | ("IPv6", Ok(IpAddr::V6(_))) => {}
                ("IPv4" | "IPv6", _) => {
                    errors.invalid(path().index(at), text, format!("must be an {kind} address"));
                }
                _ => {}
            }
        }
    }
}

pub(super) fn validate_ingress(ingress: &Value, errors: &mut ErrorList) {
    let path = Path::new("spec");
    let spec = part(ingress, "spec");
    let backend = spec.get("defaultBackend").filter(|b| !b.is_null());
    let rules = list(spec, "rules");
    if rules.is_empty() && backend.is_none() {
        errors.invalid(
            path.clone(),
            spec.clone(),
            "either `defaultBackend` or `rules` must be specified",
        );
    }
    if let Some(backend) = backend {
        validate_backend(backend, &path.child("defaultBackend"), errors);
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = path.child("rules").index(index);
        let host = text(rule, "host");
        if !host.is_empty() {
            let name = host.strip_prefix("*.").unwrap_or(host);
            named(name, names::dns1123_subdomain, &path.child("host"), errors);
        }
        let Some(http) = rule.get("http") else { continue };
        let paths = list(http, "paths");
        if paths.is_empty() {
            errors.required(path.child("http").child("paths"), "");
        }
        for (at, entry) in paths.iter().enumerate() {
            let path = path.child("http").child("paths").index(at);
            let kind = text(entry, "pathType");
            let kinds = ["Exact", "ImplementationSpecific", "Prefix"];
            if kind.is_empty() {
                errors.required(path.child("pathType"), "pathType must be specified");
            } else if !kinds.contains(&kind) {
                errors.not_supported(path.child("pathType"), kind, &kinds);
            }
            let value = text(entry, "path");
            if matches!(kind, "Exact" | "Prefix") && !value.starts_with('/') {
                errors.invalid(path.child("path"), value, "must be an absolute path");
            }
            validate_backend(part(entry, "backend"), &path.child("backend"), errors);
        }
    }
}

fn validate_backend(backend: &Value, path: &Path, errors: &mut ErrorList) {
    match (backend.get("service"), backend.get("resource")) {
        (None, None) => errors.required(path.clone(), "resource or service backend is required"),
        (Some(_), Some(_)) => {
            errors.invalid(path.clone(), "", "cannot set both resource and service backends");
        }
        (Some(service), None) => {
            let path = path.child("service");
            match text(service, "name") {
                "" => errors.required(path.child("name"), ""),
                name => named(name, names::dns1035_label, &path.child("name"), errors),
            }
            let port = part(service, "port");
            if text(port, "name").is_empty() && number(port, "number").unwrap_or(0) == 0 {
                errors.required(path, "port name or number is required");
            }
        }
        (None, Some(_)) => {}
    }
}

pub(super) fn validate_policy(policy: &Value, errors: &mut ErrorList) {
    let path = Path::new("spec");
    let spec = part(policy, "spec");
    label_selector(spec.get("podSelector"), &path.child("podSelector"), None, errors);
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (index, rule) in list(spec, direction).iter().enumerate() {
            let path = path.child(direction).index(index);
            for (at, peer) in list(rule, peers).iter().enumerate() {
                validate_peer(peer, &path.child(peers).index(at), errors);
            }
            for (at, port) in list(rule, "ports").iter().enumerate() {
                let path = path.child("ports").index(at);
                one_of(text(port, "protocol"), &PROTOCOLS, path.child("protocol"), errors);
                if let Some(number) = get(port, &["port"]).and_then(Value::as_i64) {
                    port_number(number, path.child("port"), errors);
                }
            }
        }
    }
}

fn validate_peer(peer: &Value, path: &Path, errors: &mut ErrorList) {
    let is_set = |field: &str| peer.get(field).is_some_and(|v| !v.is_null());
    for field in ["podSelector", "namespaceSelector"] {
        label_selector(peer.get(field), &path.child(field), None, errors);
    }
    if is_set("ipBlock") {
        if is_set("podSelector") || is_set("namespaceSelector") {
            errors.forbidden(path.clone(), "may not specify both ipBlock and another peer");
        }
        let cidr = text(part(peer, "ipBlock"), "cidr");
        if cidr.parse::<ipnet::IpNet>().is_err() {
            errors.invalid(
                path.child("ipBlock").child("cidr"),
                cidr,
                "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            );
        }
    } else if !is_set("podSelector") && !is_set("namespaceSelector") {
        errors.required(path.clone(), "must specify a peer");
    }
}
