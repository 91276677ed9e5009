//! The names of a cluster, from its services and endpoint slices (dns-specification 1.1.0).
//!
//! `NAME.NS.svc.DOMAIN` is the service's address, or all ready endpoints of a headless one;
//! `HOST.NAME.NS.svc.DOMAIN` one endpoint; `_PORT._PROTO.NAME.NS.svc.DOMAIN` where a port is served.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use hickory_proto::op::Query;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// Seconds; endpoints come and go.
const TTL_S: u32 = 5;
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const SPEC_VERSION: &str = "1.1.0";

/// What the zone says to a question.
#[derive(Debug)]
pub(super) enum Answer {
    /// The name is not of this cluster.
    Elsewhere,
    /// The name exists; without records it has none of that type.
    Records { answers: Vec<Record>, additionals: Vec<Record> },
    /// The name does not exist; carries the zone's SOA, boxed because it is rare.
    NoSuchName(Box<Record>),
}

/// Namespace and name of a service.
type Key = (String, String);

#[derive(Clone, Debug, Default)]
struct ServiceNames {
    cluster_ips: Vec<IpAddr>,
    headless: bool,
    external_name: Option<String>,
    publish_not_ready: bool,
    /// Name, protocol in lower case, number.
    ports: Vec<(String, String, u16)>,
}

#[derive(Clone, Debug)]
struct SliceNames {
    service: Key,
    endpoints: Vec<EndpointNames>,
    ports: Vec<(String, String, u16)>,
}

#[derive(Clone, Debug)]
struct EndpointNames {
    address: IpAddr,
    host: String,
    named: bool,
    ready: bool,
}

/// The index.
#[derive(Debug)]
pub(super) struct Zone {
    domain: Vec<String>,
    services: BTreeMap<Key, ServiceNames>,
    slices: BTreeMap<Key, SliceNames>,
    /// Slices by the service they belong to.
    of_service: BTreeMap<Key, BTreeSet<Key>>,
    service_by_ip: BTreeMap<IpAddr, Key>,
}

impl Zone {
    pub(super) fn new(domain: &str) -> Self {
        let labels = domain.trim_matches('.').split('.');
        Self {
            domain: labels.map(str::to_lowercase).collect(),
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            of_service: BTreeMap::new(),
            service_by_ip: BTreeMap::new(),
        }
    }

    pub(super) fn replace_services(&mut self, services: &[Service]) {
        self.services.clear();
        self.service_by_ip.clear();
        services.iter().for_each(|service| self.put_service(service));
    }

    pub(super) fn put_service(&mut self, service: &Service) {
        self.remove_service(service);
        let key = service_key(service);
        let names = service_names(service);
        for ip in &names.cluster_ips {
            self.service_by_ip.insert(*ip, key.clone());
        }
        self.services.insert(key, names);
    }

    pub(super) fn remove_service(&mut self, service: &Service) {
        if let Some(old) = self.services.remove(&service_key(service)) {
            for ip in &old.cluster_ips {
                self.service_by_ip.remove(ip);
            }
        }
    }

    pub(super) fn replace_slices(&mut self, slices: &[EndpointSlice]) {
        self.slices.clear();
        self.of_service.clear();
        slices.iter().for_each(|slice| self.put_slice(slice));
    }

    pub(super) fn put_slice(&mut self, slice: &EndpointSlice) {
        self.remove_slice(slice);
        let Some(names) = slice_names(slice) else { return };
        let key = slice_key(slice);
        self.of_service.entry(names.service.clone()).or_default().insert(key.clone());
        self.slices.insert(key, names);
    }

    pub(super) fn remove_slice(&mut self, slice: &EndpointSlice) {
        let key = slice_key(slice);
        let Some(old) = self.slices.remove(&key) else { return };
        if let Some(slices) = self.of_service.get_mut(&old.service) {
            slices.remove(&key);
            if slices.is_empty() {
                self.of_service.remove(&old.service);
            }
        }
    }

    /// Answers one question.
    pub(super) fn answer(&self, question: &Query) -> Answer {
        let name = question.name();
        let labels: Vec<String> =
            name.iter().map(|label| String::from_utf8_lossy(label).to_lowercase()).collect();
        if let Ok(reverse) = name.parse_arpa_name() {
            return self.reverse(name, reverse.addr(), question.query_type());
        }
        let Some(rest) = labels.strip_suffix(self.domain.as_slice()) else {
            return Answer::Elsewhere;
        };
        let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
        let found = match rest.as_slice() {
            [] => Some(self.apex(name)),
            ["dns-version"] => {
                let text = RData::TXT(TXT::new(vec![SPEC_VERSION.to_owned()]));
                Some(Found::of(vec![record(name, text)]))
            }
            ["svc"] => Some(Found::default()),
            [namespace, "svc"] => {
                let exists = self.services.keys().any(|(of, _)| of == namespace);
                exists.then(Found::default)
            }
            [service, namespace, "svc"] => self.service(name, service, namespace),
            [port, protocol, service, namespace, "svc"] => {
                let stripped = port.strip_prefix('_').zip(protocol.strip_prefix('_'));
                stripped
                    .and_then(|(port, protocol)| self.srv(name, port, protocol, service, namespace))
            }
            [host, service, namespace, "svc"] => self.endpoint(name, host, service, namespace),
            _ => None,
        };
        match found {
            Some(found) => found.of_type(question.query_type()),
            None => Answer::NoSuchName(Box::new(self.soa())),
        }
    }

    fn apex(&self, name: &Name) -> Found {
        let server = self.name(&["ns", "dns"]);
        Found::of(vec![self.soa(), record(name, RData::NS(NS(server)))])
    }

    fn soa(&self) -> Record {
        let (server, person) = (self.name(&["ns", "dns"]), self.name(&["hostmaster"]));
        let soa = SOA::new(server, person, 1, 7200, 1800, 86_400, TTL_S);
        record(&self.name(&[]), RData::SOA(soa))
    }

    fn service(&self, name: &Name, service: &str, namespace: &str) -> Option<Found> {
        let key = (namespace.to_owned(), service.to_owned());
        let names = self.services.get(&key)?;
        if let Some(target) = &names.external_name {
            let target = Name::from_ascii(format!("{}.", target.trim_end_matches('.'))).ok()?;
            return Some(Found {
                alias: Some(record(name, RData::CNAME(CNAME(target)))),
                ..Found::default()
            });
        }
        if !names.headless {
            return Some(Found::of(addresses(name, names.cluster_ips.iter().copied())));
        }
        let ready: BTreeSet<IpAddr> =
            self.endpoints(&key).map(|(_, endpoint)| endpoint.address).collect();
        // NXDOMAIN when nothing is ready, so that a client waits for the name.
        (!ready.is_empty()).then(|| Found::of(addresses(name, ready.into_iter())))
    }

    fn endpoint(&self, name: &Name, host: &str, service: &str, namespace: &str) -> Option<Found> {
        let key = (namespace.to_owned(), service.to_owned());
        let found: BTreeSet<IpAddr> = self
            .endpoints(&key)
            .filter(|(_, endpoint)| endpoint.host == host)
            .map(|(_, endpoint)| endpoint.address)
            .collect();
        (!found.is_empty()).then(|| Found::of(addresses(name, found.into_iter())))
    }

    fn srv(
        &self,
        name: &Name,
        port: &str,
        protocol: &str,
        service: &str,
        namespace: &str,
    ) -> Option<Found> {
        let key = (namespace.to_owned(), service.to_owned());
        let names = self.services.get(&key)?;
        let matches = |(name, proto, _): &&(String, String, u16)| name == port && proto == protocol;
        let mut found = Found::default();
        if !names.headless {
            let (_, _, number) = names.ports.iter().find(matches)?;
            let target = self.name(&[service, namespace, "svc"]);
            found.records.push(srv_record(name, *number, target.clone()));
            found.additionals = addresses(&target, names.cluster_ips.iter().copied());
            return Some(found);
        }
        for (slice, endpoint) in self.endpoints(&key) {
            let Some((_, _, number)) = slice.ports.iter().find(matches) else { continue };
            let target = self.name(&[&endpoint.host, service, namespace, "svc"]);
            found.records.push(srv_record(name, *number, target.clone()));
            found.additionals.extend(addresses(&target, std::iter::once(endpoint.address)));
        }
        (!found.records.is_empty()).then_some(found)
    }

    fn reverse(&self, name: &Name, address: IpAddr, wanted: RecordType) -> Answer {
        let target = match self.service_by_ip.get(&address) {
            Some((namespace, service)) => Some(self.name(&[service, namespace, "svc"])),
            None => self.named_endpoint(address),
        };
        match target {
            Some(target) => Found::of(vec![record(name, RData::PTR(PTR(target)))]).of_type(wanted),
            None => Answer::Elsewhere,
        }
    }

    fn named_endpoint(&self, address: IpAddr) -> Option<Name> {
        self.slices.values().find_map(|slice| {
            let endpoint = slice
                .endpoints
                .iter()
                .find(|endpoint| endpoint.named && endpoint.address == address)?;
            let (namespace, service) = &slice.service;
            Some(self.name(&[&endpoint.host, service, namespace, "svc"]))
        })
    }

    /// The endpoints that a headless service shows.
    fn endpoints(&self, key: &Key) -> impl Iterator<Item = (&SliceNames, &EndpointNames)> {
        let all = self.services.get(key).is_some_and(|service| service.publish_not_ready);
        let slices = self.of_service.get(key).into_iter().flatten();
        slices.filter_map(|slice| self.slices.get(slice)).flat_map(move |slice| {
            let shown = slice.endpoints.iter().filter(move |endpoint| all || endpoint.ready);
            shown.map(move |endpoint| (slice, endpoint))
        })
    }

    /// A name below the cluster's domain. Its labels come from objects that the apiserver
    /// validated; a name that is too long all the same becomes the root, which nobody asks for.
    fn name(&self, labels: &[&str]) -> Name {
        let all = labels.iter().copied().chain(self.domain.iter().map(String::as_str));
        Name::from_labels(all.map(str::as_bytes)).unwrap_or_else(|_| Name::root())
    }
}

/// What there is of a name, whatever type was asked for.
#[derive(Debug, Default)]
struct Found {
    records: Vec<Record>,
    additionals: Vec<Record>,
    alias: Option<Record>,
}

impl Found {
    fn of(records: Vec<Record>) -> Self {
        Self { records, ..Self::default() }
    }

    fn of_type(self, wanted: RecordType) -> Answer {
        let fits = |record: &Record| wanted == RecordType::ANY || record.record_type() == wanted;
        let mut answers: Vec<Record> = self.records.into_iter().filter(fits).collect();
        answers.extend(self.alias);
        let additionals = if answers.is_empty() { Vec::new() } else { self.additionals };
        Answer::Records { answers, additionals }
    }
}

fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), TTL_S, data)
}

fn srv_record(name: &Name, port: u16, target: Name) -> Record {
    record(name, RData::SRV(SRV::new(0, 100, port, target)))
}

fn addresses(name: &Name, addresses: impl Iterator<Item = IpAddr>) -> Vec<Record> {
    let data = |address| match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    };
    addresses.map(|address| record(name, data(address))).collect()
}

fn service_key(service: &Service) -> Key {
    let metadata = &service.metadata;
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

fn slice_key(slice: &EndpointSlice) -> Key {
    let metadata = &slice.metadata;
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

fn service_names(service: &Service) -> ServiceNames {
    let Some(spec) = &service.spec else { return ServiceNames::default() };
    let external = spec.type_.as_deref() == Some("ExternalName");
    let listed = spec.cluster_ips.clone().filter(|ips| !ips.is_empty());
    let ips = listed.unwrap_or_else(|| spec.cluster_ip.clone().into_iter().collect());
    ServiceNames {
        cluster_ips: ips.iter().filter_map(|ip| ip.parse().ok()).collect(),
        headless: spec.cluster_ip.as_deref() == Some("None"),
        external_name: spec.external_name.clone().filter(|_| external),
        publish_not_ready: spec.publish_not_ready_addresses == Some(true),
        ports: spec
            .ports
            .iter()
            .flatten()
            .map(|port| port_names(port.name.as_deref(), port.protocol.as_deref(), port.port))
            .collect(),
    }
}

fn slice_names(slice: &EndpointSlice) -> Option<SliceNames> {
    let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?.clone();
    let endpoints = slice.endpoints.iter().flatten().flat_map(|endpoint| {
        let ready =
            endpoint.conditions.as_ref().is_none_or(|conditions| conditions.ready.unwrap_or(true));
        let hostname = endpoint.hostname.clone();
        endpoint.addresses.iter().filter_map(move |address| {
            let address: IpAddr = address.parse().ok()?;
            let host = hostname.clone().unwrap_or_else(|| dashed(address));
            Some(EndpointNames { address, host, named: hostname.is_some(), ready })
        })
    });
    let ports = slice.ports.iter().flatten().filter_map(|port| {
        Some(port_names(port.name.as_deref(), port.protocol.as_deref(), port.port?))
    });
    Some(SliceNames {
        service: (slice.metadata.namespace.clone()?, service),
        endpoints: endpoints.collect(),
        ports: ports.collect(),
    })
}

fn port_names(name: Option<&str>, protocol: Option<&str>, port: i32) -> (String, String, u16) {
    (
        name.unwrap_or_default().to_owned(),
        protocol.unwrap_or("TCP").to_lowercase(),
        u16::try_from(port).unwrap_or(0),
    )
}

/// 10-244-0-1 for 10.244.0.1.
fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn zone() -> Zone {
        let mut zone = Zone::new("cluster.local");
        let services = json!([
            {"metadata": {"namespace": "a", "name": "web"},
             "spec": {"clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"],
                      "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}},
            {"metadata": {"namespace": "a", "name": "db"},
             "spec": {"clusterIP": "None", "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}]}},
            {"metadata": {"namespace": "a", "name": "out"},
             "spec": {"type": "ExternalName", "externalName": "example.org"}},
        ]);
        let services: Vec<Service> = serde_json::from_value(services).expect("services");
        zone.replace_services(&services);
        zone.put_slice(&slice(true));
        zone
    }

    fn slice(ready: bool) -> EndpointSlice {
        serde_json::from_value(json!({
            "metadata": {"namespace": "a", "name": "db-1", "labels": {SERVICE_NAME: "db"}},
            "addressType": "IPv4",
            "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}],
            "endpoints": [
                {"addresses": ["10.244.0.1"], "hostname": "db-0", "conditions": {"ready": true}},
                {"addresses": ["10.244.0.2"], "conditions": {"ready": ready}},
            ],
        }))
        .expect("slice")
    }

    /// The answer as text: "elsewhere", "no such name", or the records' data.
    fn ask(zone: &Zone, name: &str, kind: RecordType) -> String {
        let name = Name::from_ascii(name).expect("name");
        match zone.answer(&Query::query(name, kind)) {
            Answer::Elsewhere => "elsewhere".to_owned(),
            Answer::NoSuchName(_) => "no such name".to_owned(),
            Answer::Records { answers, .. } => {
                let data: Vec<_> = answers.iter().map(|record| record.data.to_string()).collect();
                data.join(" | ")
            }
        }
    }

    #[test]
    fn questions_and_answers() {
        let zone = zone();
        let cases = [
            ("web.a.svc.cluster.local.", RecordType::A, "10.96.0.5"),
            ("WEB.a.svc.Cluster.Local.", RecordType::A, "10.96.0.5"),
            ("web.a.svc.cluster.local.", RecordType::AAAA, ""),
            ("db.a.svc.cluster.local.", RecordType::A, "10.244.0.1 | 10.244.0.2"),
            ("db-0.db.a.svc.cluster.local.", RecordType::A, "10.244.0.1"),
            ("10-244-0-2.db.a.svc.cluster.local.", RecordType::A, "10.244.0.2"),
            ("db-9.db.a.svc.cluster.local.", RecordType::A, "no such name"),
            ("nope.a.svc.cluster.local.", RecordType::A, "no such name"),
            ("a.svc.cluster.local.", RecordType::A, ""),
            ("b.svc.cluster.local.", RecordType::A, "no such name"),
            ("out.a.svc.cluster.local.", RecordType::A, "example.org."),
            (
                "_http._tcp.web.a.svc.cluster.local.",
                RecordType::SRV,
                "0 100 80 web.a.svc.cluster.local.",
            ),
            ("_sql._udp.db.a.svc.cluster.local.", RecordType::SRV, "no such name"),
            ("dns-version.cluster.local.", RecordType::TXT, "1.1.0"),
            ("5.0.96.10.in-addr.arpa.", RecordType::PTR, "web.a.svc.cluster.local."),
            ("1.0.244.10.in-addr.arpa.", RecordType::PTR, "db-0.db.a.svc.cluster.local."),
            ("example.org.", RecordType::A, "elsewhere"),
        ];
        for (name, kind, expected) in cases {
            assert_eq!(ask(&zone, name, kind), expected, "{name} {kind}");
        }
    }

    #[test]
    fn endpoints_that_are_not_ready_are_hidden() {
        let mut zone = zone();
        zone.put_slice(&slice(false));
        assert_eq!(ask(&zone, "db.a.svc.cluster.local.", RecordType::A), "10.244.0.1");
        zone.remove_slice(&slice(false));
        assert_eq!(ask(&zone, "db.a.svc.cluster.local.", RecordType::A), "no such name");
    }

    #[test]
    fn a_headless_port_is_served_by_every_endpoint() {
        let answer = ask(&zone(), "_sql._tcp.db.a.svc.cluster.local.", RecordType::SRV);
        assert_eq!(
            answer,
            "0 100 5432 db-0.db.a.svc.cluster.local. | 0 100 5432 10-244-0-2.db.a.svc.cluster.local."
        );
    }
}
