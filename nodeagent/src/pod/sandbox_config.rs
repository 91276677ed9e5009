//! A pod as CRI's sandbox configuration: names, DNS, namespaces, cgroup parent, host ports.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::Path;

use k8s_openapi::api::core::v1::{Pod, PodSecurityContext};
use pintle_proto::cri::security_profile::ProfileType;
use pintle_proto::cri::{
    DnsConfig, Int64Value, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode,
    NamespaceOption, PodSandboxConfig, PodSandboxMetadata, PortMapping, Protocol, SecurityProfile,
};

use super::PodExt;
use crate::cgroup;
use crate::config::Paths;
use crate::runtime::{LABEL_POD_NAME, LABEL_POD_NAMESPACE, LABEL_POD_UID};

/// Linux host names hold 63 bytes.
const HOSTNAME_BYTES_MAX: usize = 63;

/// Where names are looked up.
#[derive(Debug, Clone)]
pub struct ClusterDns {
    /// The DNS service.
    pub server: Ipv4Addr,
    /// Such as `cluster.local`.
    pub domain: String,
}

/// The sandbox of `pod`. `host_resolv_conf` is the text of the node's own `/etc/resolv.conf`.
pub fn sandbox_config(
    pod: &Pod,
    attempt: u32,
    dns: &ClusterDns,
    host_resolv_conf: &str,
    paths: &Paths,
) -> PodSandboxConfig {
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: pod.name().to_owned(),
            uid: pod.uid().to_owned(),
            namespace: pod.namespace().to_owned(),
            attempt,
        }),
        hostname: if pod.host_network() { String::new() } else { hostname(pod) },
        log_directory: log_directory(paths, pod).to_string_lossy().into_owned(),
        dns_config: Some(dns_config(pod, dns, host_resolv_conf)),
        port_mappings: port_mappings(pod),
        labels: labels(pod),
        annotations: pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect(),
        linux: Some(linux(pod)),
        windows: None,
    }
}

/// `NAMESPACE_NAME_UID`, as under `/var/log/pods`.
pub fn log_directory(paths: &Paths, pod: &Pod) -> std::path::PathBuf {
    paths.pod_logs().join(format!("{}_{}_{}", pod.namespace(), pod.name(), pod.uid()))
}

/// The pod's labels and those by which it is adopted.
fn labels(pod: &Pod) -> HashMap<String, String> {
    let mut labels: HashMap<_, _> =
        pod.metadata.labels.clone().unwrap_or_default().into_iter().collect();
    labels.insert(LABEL_POD_NAME.to_owned(), pod.name().to_owned());
    labels.insert(LABEL_POD_NAMESPACE.to_owned(), pod.namespace().to_owned());
    labels.insert(LABEL_POD_UID.to_owned(), pod.uid().to_owned());
    labels
}

/// What `hostname` prints in the pod.
pub fn hostname(pod: &Pod) -> String {
    let spec = pod.pod_spec();
    if let Some(name) = spec.hostname_override.as_ref().filter(|name| !name.is_empty()) {
        return name.clone();
    }
    let name = spec.hostname.as_deref().filter(|name| !name.is_empty()).unwrap_or(pod.name());
    name.get(..HOSTNAME_BYTES_MAX).unwrap_or(name).trim_end_matches(['-', '.']).to_owned()
}

/// The name under a headless service, if the pod has one.
pub fn fqdn(pod: &Pod, domain: &str) -> Option<String> {
    let subdomain = pod.pod_spec().subdomain.as_deref().filter(|name| !name.is_empty())?;
    Some(format!("{}.{subdomain}.{}.svc.{domain}", hostname(pod), pod.namespace()))
}

/// `/etc/resolv.conf` of the pod.
pub fn dns_config(pod: &Pod, dns: &ClusterDns, host_resolv_conf: &str) -> DnsConfig {
    let spec = pod.pod_spec();
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let host = parse_resolv_conf(host_resolv_conf);
    let mut config = match policy {
        "None" => DnsConfig::default(),
        "Default" => host,
        "ClusterFirst" if pod.host_network() => host,
        _ => cluster_first(pod.namespace(), dns, host),
    };
    if let Some(custom) = &spec.dns_config {
        extend(&mut config.servers, custom.nameservers.iter().flatten().cloned());
        extend(&mut config.searches, custom.searches.iter().flatten().cloned());
        for option in custom.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            config.options.retain(|kept| kept.split(':').next() != Some(name.as_str()));
            config.options.push(match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name.clone(),
            });
        }
    }
    config
}

fn cluster_first(namespace: &str, dns: &ClusterDns, host: DnsConfig) -> DnsConfig {
    let domain = &dns.domain;
    let mut searches =
        vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
    extend(&mut searches, host.searches);
    DnsConfig {
        servers: vec![dns.server.to_string()],
        searches,
        options: vec!["ndots:5".to_owned()],
    }
}

fn extend(list: &mut Vec<String>, more: impl IntoIterator<Item = String>) {
    for item in more {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

fn parse_resolv_conf(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().map(str::to_owned)),
            Some("search") => {
                config.searches = words.map(str::to_owned).filter(|w| w != ".").collect()
            }
            Some("options") => config.options.extend(words.map(str::to_owned)),
            _ => {}
        }
    }
    config
}

fn port_mappings(pod: &Pod) -> Vec<PortMapping> {
    if pod.host_network() {
        return Vec::new();
    }
    let (_, containers): (Vec<_>, Vec<_>) = pod.all_containers().into_iter().unzip();
    let ports = containers.iter().flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let host_port = port.host_port.filter(|port| *port > 0)?;
            Some(PortMapping {
                protocol: match port.protocol.as_deref() {
                    Some("UDP") => Protocol::Udp as i32,
                    Some("SCTP") => Protocol::Sctp as i32,
                    _ => Protocol::Tcp as i32,
                },
                container_port: port.container_port,
                host_port,
                host_ip: port.host_ip.clone().unwrap_or_default(),
            })
        })
        .collect()
}

/// Which namespaces are shared with the node or within the pod.
pub fn namespace_options(pod: &Pod) -> NamespaceOption {
    let spec = pod.pod_spec();
    let node_or_pod = |host: Option<bool>| match host {
        Some(true) => NamespaceMode::Node,
        _ => NamespaceMode::Pod,
    };
    let pid = match (spec.host_pid, spec.share_process_namespace) {
        (Some(true), _) => NamespaceMode::Node,
        (_, Some(true)) => NamespaceMode::Pod,
        _ => NamespaceMode::Container,
    };
    NamespaceOption {
        network: node_or_pod(spec.host_network) as i32,
        ipc: node_or_pod(spec.host_ipc) as i32,
        pid: pid as i32,
        ..Default::default()
    }
}

fn linux(pod: &Pod) -> LinuxPodSandboxConfig {
    let empty = PodSecurityContext::default();
    let context = pod.pod_spec().security_context.as_ref().unwrap_or(&empty);
    let sysctls =
        context.sysctls.iter().flatten().map(|s| (s.name.clone(), s.value.clone())).collect();
    let privileged = pod.all_containers().iter().any(|(_, container)| {
        container.security_context.as_ref().and_then(|c| c.privileged).unwrap_or(false)
    });
    LinuxPodSandboxConfig {
        cgroup_parent: cgroup::pod_parent(pod),
        security_context: Some(LinuxSandboxSecurityContext {
            namespace_options: Some(namespace_options(pod)),
            run_as_user: context.run_as_user.map(|value| Int64Value { value }),
            run_as_group: context
                .run_as_user
                .and(context.run_as_group)
                .map(|value| Int64Value { value }),
            supplemental_groups: supplemental_groups(pod),
            privileged,
            seccomp: Some(SecurityProfile {
                profile_type: ProfileType::RuntimeDefault as i32,
                localhost_ref: String::new(),
            }),
            ..Default::default()
        }),
        sysctls,
        ..Default::default()
    }
}

/// `supplementalGroups` and `fsGroup`.
pub fn supplemental_groups(pod: &Pod) -> Vec<i64> {
    let Some(context) = &pod.pod_spec().security_context else { return Vec::new() };
    context.supplemental_groups.iter().flatten().copied().chain(context.fs_group).collect()
}

/// The node's resolver configuration; empty when it has none.
pub fn read_host_resolv_conf() -> String {
    std::fs::read_to_string(Path::new("/etc/resolv.conf")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const HOST: &str = "nameserver 192.0.2.53\nsearch example.org\noptions timeout:1\n";

    fn dns_of(spec: serde_json::Value) -> (Vec<String>, Vec<String>, Vec<String>) {
        let pod: Pod = serde_json::from_value(
            json!({ "metadata": { "name": "p", "namespace": "ns" }, "spec": spec }),
        )
        .unwrap();
        let dns =
            ClusterDns { server: Ipv4Addr::new(10, 96, 0, 10), domain: "cluster.local".to_owned() };
        let config = dns_config(&pod, &dns, HOST);
        (config.servers, config.searches, config.options)
    }

    #[test]
    fn the_dns_policy_decides_whose_resolver_a_pod_has() {
        let (servers, searches, options) = dns_of(json!({ "containers": [] }));
        assert_eq!(servers, ["10.96.0.10"]);
        assert_eq!(
            searches,
            ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.org"]
        );
        assert_eq!(options, ["ndots:5"]);
        for spec in [
            json!({ "containers": [], "dnsPolicy": "Default" }),
            json!({ "containers": [], "hostNetwork": true }),
        ] {
            assert_eq!(dns_of(spec).0, ["192.0.2.53"]);
        }
        let host_net = json!({ "containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet" });
        assert_eq!(dns_of(host_net).0, ["10.96.0.10"]);
        let none = json!({ "containers": [], "dnsPolicy": "None",
            "dnsConfig": { "nameservers": ["1.1.1.1"], "options": [{ "name": "ndots", "value": "2" }] } });
        assert_eq!(dns_of(none), (vec!["1.1.1.1".to_owned()], vec![], vec!["ndots:2".to_owned()]));
        let override_ndots = json!({ "containers": [], "dnsConfig": { "options": [{ "name": "ndots", "value": "1" }] } });
        assert_eq!(dns_of(override_ndots).2, ["ndots:1"]);
    }

    #[test]
    fn a_pod_of_a_headless_service_has_a_full_name() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "web-0", "namespace": "ns" },
            "spec": { "containers": [], "hostname": "web-0", "subdomain": "web" },
        }))
        .unwrap();
        assert_eq!(fqdn(&pod, "cluster.local").unwrap(), "web-0.web.ns.svc.cluster.local");
    }
}
