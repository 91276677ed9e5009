//! Chains, maps and sets of the table `ip pintle`, and the shortest transaction from one state
//! of it to another.
//!
//! A verdict map leads from (address, protocol, port) to a service's chain, which picks an
//! endpoint's chain at random; that one rewrites the destination. So the cost of a packet does
//! not grow with the number of services, nor the cost of a change with what did not change.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::model::{Endpoint, Model, Port};

const TABLE: &str = "ip pintle";
/// Marks traffic whose source must be rewritten (the bit that kube-proxy uses, too).
#[cfg(test)]
const MASQUERADE: &str = "0x4000";
/// nftables' limit is 128 bytes.
const NAME_MAX: usize = 120;

/// The content of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ruleset {
    /// Chains that come and go, with their rules.
    chains: BTreeMap<String, Vec<String>>,
    /// Sets for session affinity, by name, with their timeout in seconds.
    affinity: BTreeMap<String, u32>,
    /// Elements of the fixed maps and sets; a set's element has no value.
    elements: BTreeMap<&'static str, BTreeMap<String, String>>,
}

impl Ruleset {
    /// The table for a model.
    pub(super) fn of(model: &Model) -> Self {
        let mut ruleset = Self::default();
        for port in &model.ports {
            ruleset.add_port(port);
        }
        for cidr in &model.pod_cidrs {
            ruleset.element("pod-cidrs", cidr.to_string(), String::new());
        }
        ruleset
    }

    fn element(&mut self, map: &'static str, key: String, value: String) {
        self.elements.entry(map).or_default().insert(key, value);
    }

    fn add_port(&mut self, port: &Port) {
        let id = port_id(port);
        let address = |ip| format!("{ip} . {} . {}", port.protocol.name(), port.port);
        if port.internal.is_empty() {
            self.element("refused", address(port.cluster_ip), "goto refuse".to_owned());
        } else {
            let chain = chain_name("service", &id);
            let rules = self.balance(port, &port.internal, &id, "endpoint");
            self.chains.insert(chain.clone(), rules);
            self.element("services", address(port.cluster_ip), format!("goto {chain}"));
        }
        if port.external_ips.is_empty() && port.node_port.is_none() {
            return;
        }
        let node_port = port.node_port.map(|port_| format!("{} . {port_}", port.protocol.name()));
        if port.external.is_empty() {
            for ip in &port.external_ips {
                self.element("refused", address(*ip), "goto refuse".to_owned());
            }
            if let Some(key) = node_port {
                self.element("refused-node-ports", key, "goto refuse".to_owned());
            }
            return;
        }
        let chain = chain_name("external", &id);
        let mut rules = Vec::new();
        if !port.external_keeps_source {
            rules.push("jump mark-for-masquerade".to_owned());
        }
        rules.extend(self.balance(port, &port.external, &id, "endpoint"));
        self.chains.insert(chain.clone(), rules);
        for ip in &port.external_ips {
            self.element("services", address(*ip), format!("goto {chain}"));
        }
        if let Some(key) = node_port {
            self.element("node-ports", key, format!("goto {chain}"));
        }
    }

    /// Rules that pick one endpoint; makes the endpoints' chains on the way.
    fn balance(
        &mut self,
        port: &Port,
        endpoints: &BTreeSet<Endpoint>,
        id: &str,
        kind: &str,
    ) -> Vec<String> {
        let mut rules = Vec::new();
        let mut choices = Vec::new();
        for (index, endpoint) in endpoints.iter().enumerate() {
            let target = format!("{}:{}", endpoint.address, endpoint.port);
            let chain = chain_name(kind, &format!("{id}/{}_{}", endpoint.address, endpoint.port));
            let mut to_endpoint =
                vec![format!("ip saddr {} jump mark-for-masquerade", endpoint.address)];
            if let Some(seconds) = port.affinity_s {
                let set = chain_name("affinity", &format!("{id}/{target}").replace(':', "_"));
                rules.push(format!("ip saddr @{set} goto {chain}"));
                to_endpoint.push(format!("update @{set} {{ ip saddr }}"));
                self.affinity.insert(set, seconds);
            }
            to_endpoint.push(format!("meta l4proto {} dnat to {target}", port.protocol.name()));
            choices.push(format!("{index} : goto {chain}"));
            self.chains.insert(chain, to_endpoint);
        }
        let count = choices.len();
        rules.push(format!("numgen random mod {count} vmap {{ {} }}", choices.join(", ")));
        rules
    }

    /// A script that makes the table anew, whatever was there.
    pub(super) fn replacement(&self) -> Option<String> {
        let mut script = format!("add table {TABLE}\ndelete table {TABLE}\n{BASE}");
        script += &self.transaction_from(&Self::default()).unwrap_or_default();
        Some(script)
    }

    /// The difference to `before`; `None` when there is none.
    pub(super) fn transaction_from(&self, before: &Self) -> Option<String> {
        let mut script = String::new();
        self.add_new(before, &mut script);
        self.change_elements(before, &mut script);
        self.remove_old(before, &mut script);
        (!script.is_empty()).then_some(script)
    }

    fn add_new(&self, before: &Self, script: &mut String) {
        for (set, seconds) in &self.affinity {
            if before.affinity.get(set) != Some(seconds) {
                line(
                    script,
                    format_args!(
                        "add set {TABLE} {set} {{ type ipv4_addr; flags dynamic, timeout; timeout {seconds}s; }}"
                    ),
                );
            }
        }
        let changed =
            self.chains.iter().filter(|(name, rules)| before.chains.get(*name) != Some(rules));
        let changed: Vec<_> = changed.collect();
        // A chain is there before a rule leads to it.
        for (name, _) in &changed {
            line(script, format_args!("add chain {TABLE} {name}"));
            if before.chains.contains_key(*name) {
                line(script, format_args!("flush chain {TABLE} {name}"));
            }
        }
        for (name, rules) in changed {
            for rule in rules {
                line(script, format_args!("add rule {TABLE} {name} {rule}"));
            }
        }
    }

    fn change_elements(&self, before: &Self, script: &mut String) {
        let none = BTreeMap::new();
        let names: BTreeSet<_> = self.elements.keys().chain(before.elements.keys()).collect();
        for name in names {
            let new = self.elements.get(*name).unwrap_or(&none);
            let old = before.elements.get(*name).unwrap_or(&none);
            let differs = |key: &str, value: &str, other: &BTreeMap<String, String>| {
                other.get(key).is_none_or(|known| known != value)
            };
            let gone: Vec<_> = old.iter().filter(|(key, value)| differs(key, value, new)).collect();
            let come: Vec<_> = new.iter().filter(|(key, value)| differs(key, value, old)).collect();
            if !gone.is_empty() {
                let keys: Vec<_> = gone.iter().map(|(key, _)| key.as_str()).collect();
                line(
                    script,
                    format_args!("delete element {TABLE} {name} {{ {} }}", keys.join(", ")),
                );
            }
            if !come.is_empty() {
                let pairs: Vec<_> =
                    come.iter()
                        .map(|(key, value)| {
                            if value.is_empty() {
                                (*key).clone()
                            } else {
                                format!("{key} : {value}")
                            }
                        })
                        .collect();
                line(script, format_args!("add element {TABLE} {name} {{ {} }}", pairs.join(", ")));
            }
        }
    }

    fn remove_old(&self, before: &Self, script: &mut String) {
        let gone = before.chains.keys().filter(|name| !self.chains.contains_key(*name));
        let gone: Vec<_> = gone.collect();
        // All are emptied before the first is deleted, because they lead to each other.
        for name in &gone {
            line(script, format_args!("flush chain {TABLE} {name}"));
        }
        for name in &gone {
            line(script, format_args!("delete chain {TABLE} {name}"));
        }
        for set in before.affinity.keys().filter(|set| !self.affinity.contains_key(*set)) {
            line(script, format_args!("delete set {TABLE} {set}"));
        }
    }
}

/// What is always there. Refusals stand in the filter hooks, because a translation cannot refuse.
const BASE: &str = "\
table ip pintle {
  set pod-cidrs { type ipv4_addr; flags interval; }
  map services { type ipv4_addr . inet_proto . inet_service : verdict; }
  map node-ports { type inet_proto . inet_service : verdict; }
  map refused { type ipv4_addr . inet_proto . inet_service : verdict; }
  map refused-node-ports { type inet_proto . inet_service : verdict; }
  chain mark-for-masquerade { meta mark set meta mark or 0x4000; }
  chain refuse { reject; }
  chain translate {
    ip daddr . meta l4proto . th dport vmap @services
    fib daddr type local meta l4proto . th dport vmap @node-ports
  }
  chain nat-prerouting { type nat hook prerouting priority -100; policy accept; jump translate; }
  chain nat-output { type nat hook output priority -100; policy accept; jump translate; }
  chain nat-postrouting {
    type nat hook postrouting priority 100; policy accept;
    meta mark & 0x4000 == 0x4000 meta mark set meta mark xor 0x4000 masquerade
    ip saddr @pod-cidrs ip daddr != @pod-cidrs fib daddr type != local oifname != \"lo\" masquerade
  }
  chain filter-forward {
    type filter hook forward priority -110; policy accept;
    ct state new ip daddr . meta l4proto . th dport vmap @refused
  }
  chain filter-input {
    type filter hook input priority -110; policy accept;
    iif != \"lo\" ip daddr 127.0.0.0/8 ct status & dnat == 0 drop
    ct state new ip daddr . meta l4proto . th dport vmap @refused
    ct state new fib daddr type local meta l4proto . th dport vmap @refused-node-ports
  }
  chain filter-output {
    type filter hook output priority -110; policy accept;
    ct state new ip daddr . meta l4proto . th dport vmap @refused
    ct state new fib daddr type local meta l4proto . th dport vmap @refused-node-ports
  }
}
";

fn line(script: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(script, "{text}").expect("a String takes every write");
}

fn port_id(port: &Port) -> String {
    let key = &port.service;
    let name = if port.name.is_empty() { "-" } else { &port.name };
    format!("{}/{}/{}/{}/{name}", key.namespace, key.name, port.protocol.name(), port.port)
}

/// Readable, and unique through a hash of all of it.
fn chain_name(kind: &str, id: &str) -> String {
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut name = format!("{kind}-{:08x}-{id}", hash as u32);
    name.truncate(NAME_MAX);
    name
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::model::tests::{build, service, slice};
    use super::*;

    fn web(spec: serde_json::Value, endpoints: serde_json::Value) -> Ruleset {
        Ruleset::of(&build(&[service(spec)], &[slice(endpoints)]))
    }

    fn cluster_ip() -> serde_json::Value {
        json!({"clusterIP": "10.96.0.5", "ports": [{"port": 80}]})
    }

    fn two() -> serde_json::Value {
        json!([{"addresses": ["10.244.0.1"]}, {"addresses": ["10.244.0.2"]}])
    }

    #[test]
    fn the_mask_in_the_base_is_the_constant() {
        assert!(BASE.contains(&format!("meta mark or {MASQUERADE};")));
        assert!(BASE.starts_with(&format!("table {TABLE} {{")));
    }

    #[test]
    fn nothing_changed_makes_no_transaction() {
        let ruleset = web(cluster_ip(), two());
        assert_eq!(ruleset.transaction_from(&ruleset.clone()), None);
    }

    #[test]
    fn one_endpoint_less_touches_only_its_service() {
        let before = web(cluster_ip(), two());
        let after = web(cluster_ip(), json!([{"addresses": ["10.244.0.1"]}]));
        let script = after.transaction_from(&before).expect("a change");
        let verbs: Vec<String> = script
            .lines()
            .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(verbs, ["add chain", "flush chain", "add rule", "flush chain", "delete chain",]);
        assert!(!script.contains("element"), "{script}");
    }

    #[test]
    fn a_service_without_endpoints_is_refused() {
        let before = web(cluster_ip(), two());
        let after = web(cluster_ip(), json!([]));
        let script = after.transaction_from(&before).expect("a change");
        assert!(script.contains("delete element ip pintle services { 10.96.0.5 . tcp . 80 }"));
        assert!(
            script.contains("add element ip pintle refused { 10.96.0.5 . tcp . 80 : goto refuse }")
        );
    }

    #[test]
    fn node_ports_are_masqueraded_unless_local() {
        let spec = |policy| {
            json!({
                "clusterIP": "10.96.0.5", "type": "NodePort", "externalTrafficPolicy": policy,
                "ports": [{"port": 80, "nodePort": 30080}],
            })
        };
        let endpoints = json!([{"addresses": ["10.244.0.1"], "nodeName": "n1"}]);
        let rules = |policy| {
            let ruleset = web(spec(policy), endpoints.clone());
            let chain = ruleset.chains.iter().find(|(name, _)| name.starts_with("external-"));
            chain.expect("chain").1.clone()
        };
        assert_eq!(rules("Cluster")[0], "jump mark-for-masquerade");
        assert!(rules("Local")[0].starts_with("numgen"));
    }

    #[test]
    fn the_kernel_takes_every_script() {
        if !nix::unistd::geteuid().is_root()
            || std::process::Command::new("nft").arg("-v").output().is_err()
        {
            eprintln!("skipped: needs root and nft");
            return;
        }
        let sticky = json!({
            "clusterIP": "10.96.0.5", "type": "NodePort", "sessionAffinity": "ClientIP",
            "ports": [{"port": 80, "nodePort": 30080}, {"name": "dns", "port": 53, "protocol": "UDP"}],
        });
        let states = [
            web(cluster_ip(), two()),
            web(sticky.clone(), two()),
            web(sticky, json!([])),
            Ruleset::default(),
        ];
        // A network namespace of its own, so that the host's rules stay untouched.
        let mut script = states[0].replacement().expect("script");
        for pair in states.windows(2) {
            script += &pair[1].transaction_from(&pair[0]).unwrap_or_default();
        }
        let mut child = std::process::Command::new("unshare")
            .args(["--net", "nft", "-f", "-"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("unshare");
        std::io::Write::write_all(child.stdin.as_mut().expect("stdin"), script.as_bytes())
            .expect("write");
        assert!(child.wait().expect("wait").success(), "{script}");
    }
}
