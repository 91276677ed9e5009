//! Services, endpoints, ingresses and network policies.

use serde_json::Value;

use super::format::{NONE, UNSET, label_selector, labels, limited, or_none};
use super::{Printer, age, name};
use crate::object::{get, get_list, get_str};

/// How many addresses, ports or hosts a cell shows.
const SHOWN_MAX: usize = 3;

pub(super) static SERVICE: Printer = Printer {
    columns: &["Name", "Type", "Cluster-IP", "External-IP", "Port(s)", "Age", "Selector::1"],
    cells: |object, now| {
        let cluster_ip = match get_list(object, &["spec", "clusterIPs"]).first() {
            Some(ip) => ip.as_str().unwrap_or_default(),
            None => get_str(object, &["spec", "clusterIP"]),
        };
        let selector = get(object, &["spec", "selector"]).and_then(Value::as_object);
        vec![
            name(object),
            get_str(object, &["spec", "type"]).into(),
            or_none(cluster_ip),
            external_ip(object).into(),
            service_ports(object).into(),
            age(object, now),
            labels(selector).into(),
        ]
    },
};

fn strings(object: &Value, path: &[&str]) -> Vec<String> {
    get_list(object, path).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn load_balancer(object: &Value) -> Vec<String> {
    get_list(object, &["status", "loadBalancer", "ingress"])
        .iter()
        .map(|ingress| match get_str(ingress, &["ip"]) {
            "" => get_str(ingress, &["hostname"]).to_owned(),
            ip => ip.to_owned(),
        })
        .collect()
}

fn external_ip(service: &Value) -> String {
    let external = strings(service, &["spec", "externalIPs"]);
    match get_str(service, &["spec", "type"]) {
        "ExternalName" => get_str(service, &["spec", "externalName"]).to_owned(),
        "LoadBalancer" => {
            let mut ips = load_balancer(service);
            ips.extend(external);
            if ips.is_empty() { "<pending>".to_owned() } else { ips.join(",") }
        }
        _ if external.is_empty() => NONE.to_owned(),
        _ => external.join(","),
    }
}

fn service_ports(service: &Value) -> String {
    let ports = get_list(service, &["spec", "ports"]);
    if ports.is_empty() {
        return NONE.to_owned();
    }
    let number =
        |port: &Value, field: &str| get(port, &[field]).and_then(Value::as_i64).unwrap_or(0);
    let shown = ports.iter().map(|port| {
        let protocol = get_str(port, &["protocol"]);
        match number(port, "nodePort") {
            0 => format!("{}/{protocol}", number(port, "port")),
            node => format!("{}:{node}/{protocol}", number(port, "port")),
        }
    });
    shown.collect::<Vec<_>>().join(",")
}

pub(super) static ENDPOINTS: Printer = Printer {
    columns: &["Name", "Endpoints", "Age"],
    cells: |object, now| vec![name(object), endpoints(object).into(), age(object, now)],
};

fn endpoints(object: &Value) -> String {
    let mut shown = Vec::new();
    for subset in get_list(object, &["subsets"]) {
        let addresses = get_list(subset, &["addresses"]);
        let ports = get_list(subset, &["ports"]);
        if ports.is_empty() {
            shown.extend(addresses.iter().map(|a| get_str(a, &["ip"]).to_owned()));
        }
        for port in ports {
            let number = get(port, &["port"]).and_then(Value::as_i64).unwrap_or(0);
            for address in addresses {
                let ip = get_str(address, &["ip"]);
                shown.push(if ip.contains(':') {
                    format!("[{ip}]:{number}")
                } else {
                    format!("{ip}:{number}")
                });
            }
        }
    }
    if shown.is_empty() { NONE.to_owned() } else { limited(&shown, SHOWN_MAX) }
}

pub(super) static ENDPOINT_SLICE: Printer = Printer {
    columns: &["Name", "AddressType", "Ports", "Endpoints", "Age"],
    cells: |object, now| {
        let ports: Vec<String> = get_list(object, &["ports"])
            .iter()
            .map(|port| match get(port, &["port"]).and_then(Value::as_i64) {
                Some(number) => number.to_string(),
                None => match get_str(port, &["name"]) {
                    "" => "*".to_owned(),
                    name => name.to_owned(),
                },
            })
            .collect();
        let addresses: Vec<String> = get_list(object, &["endpoints"])
            .iter()
            .flat_map(|endpoint| strings(endpoint, &["addresses"]))
            .collect();
        let shown = |list: Vec<String>| match list.is_empty() {
            true => Value::from(UNSET),
            false => limited(&list, SHOWN_MAX).into(),
        };
        vec![
            name(object),
            get_str(object, &["addressType"]).into(),
            shown(ports),
            shown(addresses),
            age(object, now),
        ]
    },
};

pub(super) static INGRESS: Printer = Printer {
    columns: &["Name", "Class", "Hosts", "Address", "Ports", "Age"],
    cells: |object, now| {
        let hosts: Vec<String> = get_list(object, &["spec", "rules"])
            .iter()
            .map(|rule| get_str(rule, &["host"]))
            .filter(|host| !host.is_empty())
            .map(str::to_owned)
            .collect();
        let hosts = if hosts.is_empty() { "*".to_owned() } else { limited(&hosts, SHOWN_MAX) };
        let tls = !get_list(object, &["spec", "tls"]).is_empty();
        vec![
            name(object),
            or_none(get_str(object, &["spec", "ingressClassName"])),
            hosts.into(),
            load_balancer(object).join(",").into(),
            if tls { "80, 443" } else { "80" }.into(),
            age(object, now),
        ]
    },
};

pub(super) static INGRESS_CLASS: Printer = Printer {
    columns: &["Name", "Controller", "Parameters", "Age"],
    cells: |object, now| {
        let parameters = get(object, &["spec", "parameters"]).map_or(NONE.to_owned(), |p| {
            let kind = match get_str(p, &["apiGroup"]) {
                "" => get_str(p, &["kind"]).to_owned(),
                group => format!("{}.{group}", get_str(p, &["kind"])),
            };
            format!("{kind}/{}", get_str(p, &["name"]))
        });
        let controller = get_str(object, &["spec", "controller"]);
        vec![name(object), controller.into(), parameters.into(), age(object, now)]
    },
};

pub(super) static NETWORK_POLICY: Printer = Printer {
    columns: &["Name", "Pod-Selector", "Age"],
    cells: |object, now| {
        let selector = label_selector(get(object, &["spec", "podSelector"]));
        vec![name(object), selector.into(), age(object, now)]
    },
};

pub(super) static IP_ADDRESS: Printer = Printer {
    columns: &["Name", "ParentRef", "Age"],
    cells: |object, now| {
        let parent = get(object, &["spec", "parentRef"]).map_or(NONE.to_owned(), |p| {
            let resource = match get_str(p, &["group"]) {
                "" => get_str(p, &["resource"]).to_owned(),
                group => format!("{}.{group}", get_str(p, &["resource"])),
            };
            match get_str(p, &["namespace"]) {
                "" => format!("{resource}/{}", get_str(p, &["name"])),
                namespace => format!("{resource}/{namespace}/{}", get_str(p, &["name"])),
            }
        });
        vec![name(object), parent.into(), age(object, now)]
    },
};

pub(super) static SERVICE_CIDR: Printer = Printer {
    columns: &["Name", "CIDRs", "Age"],
    cells: |object, now| {
        let cidrs = strings(object, &["spec", "cidrs"]).join(",");
        vec![name(object), cidrs.into(), age(object, now)]
    },
};
