//! Defaults of services, endpoints and network policies.

use serde_json::{Map, Value, json};

use super::{child, each, entry, has, or, or_empty, text};

pub(super) fn service(map: &mut Map<String, Value>) {
    let spec = entry(map, "spec");
    or_empty(spec, "sessionAffinity", "None");
    or_empty(spec, "type", "ClusterIP");
    if text(spec, "sessionAffinity") == "ClientIP" {
        let client = entry(entry(spec, "sessionAffinityConfig"), "clientIP");
        or(client, "timeoutSeconds", 10_800);
    }
    each(spec, "ports", service_port);
    let kind = text(spec, "type").to_owned();
    let external = matches!(kind.as_str(), "NodePort" | "LoadBalancer");
    let has_external_ips =
        spec.get("externalIPs").and_then(Value::as_array).is_some_and(|ips| !ips.is_empty());
    if external || (kind == "ClusterIP" && has_external_ips) {
        or_empty(spec, "externalTrafficPolicy", "Cluster");
    }
    if external || kind == "ClusterIP" {
        or_empty(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        or(spec, "allocateLoadBalancerNodePorts", true);
    }
    entry(entry(map, "status"), "loadBalancer");
}

fn service_port(port: &mut Map<String, Value>) {
    or_empty(port, "protocol", "TCP");
    let unset = match port.get("targetPort") {
        None | Some(Value::Null) => true,
        Some(Value::Number(number)) => number.as_i64() == Some(0),
        Some(Value::String(name)) => name.is_empty(),
        Some(_) => false,
    };
    if unset && let Some(number) = port.get("port").cloned() {
        port.insert("targetPort".to_owned(), number);
    }
}

pub(super) fn endpoints(map: &mut Map<String, Value>) {
    each(map, "subsets", |subset| {
        each(subset, "ports", |port| or_empty(port, "protocol", "TCP"));
    });
}

pub(super) fn endpoint_slice(map: &mut Map<String, Value>) {
    each(map, "ports", |port| {
        or(port, "name", "");
        or_empty(port, "protocol", "TCP");
    });
}

pub(super) fn network_policy(map: &mut Map<String, Value>) {
    let spec = entry(map, "spec");
    for direction in ["ingress", "egress"] {
        each(spec, direction, |rule| {
            each(rule, "ports", |port| or_empty(port, "protocol", "TCP"));
        });
    }
    if spec.get("policyTypes").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        let types =
            if has(spec, "egress") { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
        spec.insert("policyTypes".to_owned(), types);
    }
}

pub(super) fn ingress_class(map: &mut Map<String, Value>) {
    if let Some(parameters) = child(map, "spec").and_then(|s| child(s, "parameters")) {
        or_empty(parameters, "scope", "Cluster");
    }
}
