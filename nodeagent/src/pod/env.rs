//! The environment of a container: services, `envFrom`, `env`, in that order, the later one winning;
//! `$(NAME)` refers to what came before, `$$(NAME)` is literal.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVar, Pod, ResourceFieldSelector, Secret, Service,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::PodExt;
use crate::resources;

/// Why an environment cannot be made. The container waits in `CreateContainerConfigError`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The object is not there.
    #[error("{kind} {name:?} not found")]
    NoObject {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The key is not in it.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// The field path means nothing here.
    #[error("unsupported fieldPath: {0}")]
    FieldPath(String),
    /// The resource means nothing here.
    #[error("unsupported container resource: {0}")]
    Resource(String),
    /// The container that a resource field refers to is not in the pod.
    #[error("container {0} not found")]
    NoContainer(String),
    /// The object could not be read.
    #[error("{0}")]
    Read(String),
}

/// What an environment refers to, read before.
#[derive(Debug, Default)]
pub struct Sources {
    /// By name, in the pod's namespace.
    pub config_maps: HashMap<String, Option<ConfigMap>>,
    /// By name, in the pod's namespace.
    pub secrets: HashMap<String, Option<Secret>>,
    /// The services that the pod is told about.
    pub services: Vec<Service>,
}

/// Facts of the node and the running pod.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// `spec.nodeName`
    pub node_name: String,
    /// `status.hostIP`
    pub host_ip: String,
    /// `status.podIPs`
    pub pod_ips: Vec<String>,
    /// What limits that are not given default to.
    pub allocatable: BTreeMap<String, Quantity>,
}

/// Names of the ConfigMaps and Secrets that a container's environment refers to.
pub fn references(container: &Container) -> (Vec<String>, Vec<String>) {
    let mut config_maps = Vec::new();
    let mut secrets = Vec::new();
    for source in container.env_from.iter().flatten() {
        config_maps.extend(source.config_map_ref.iter().map(|r| r.name.clone()));
        secrets.extend(source.secret_ref.iter().map(|r| r.name.clone()));
    }
    for from in container.env.iter().flatten().filter_map(|var| var.value_from.as_ref()) {
        config_maps.extend(from.config_map_key_ref.iter().map(|r| r.name.clone()));
        secrets.extend(from.secret_key_ref.iter().map(|r| r.name.clone()));
    }
    (config_maps, secrets)
}

/// The environment, in the order in which it was defined.
pub fn environment(
    pod: &Pod,
    container: &Container,
    sources: &Sources,
    facts: &Facts,
) -> Result<Vec<(String, String)>, Error> {
    let mut vars = Vars::default();
    for (name, value) in service_variables(pod, &sources.services) {
        vars.set(&name, value);
    }
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &source.config_map_ref {
            let optional = reference.optional.unwrap_or(false);
            match sources.config_maps.get(&reference.name).and_then(Option::as_ref) {
                Some(map) => {
                    vars.set_all(prefix, map.data.iter().flatten().map(|(k, v)| (k, v.clone())))
                }
                None if optional => {}
                None => {
                    return Err(Error::NoObject {
                        kind: "configmap",
                        name: reference.name.clone(),
                    });
                }
            }
        }
        if let Some(reference) = &source.secret_ref {
            let optional = reference.optional.unwrap_or(false);
            match sources.secrets.get(&reference.name).and_then(Option::as_ref) {
                Some(secret) => vars.set_all(
                    prefix,
                    secret
                        .data
                        .iter()
                        .flatten()
                        .map(|(k, v)| (k, String::from_utf8_lossy(&v.0).into_owned())),
                ),
                None if optional => {}
                None => {
                    return Err(Error::NoObject { kind: "secret", name: reference.name.clone() });
                }
            }
        }
    }
    let services = vars.map.clone();
    let mut own = HashMap::new();
    for var in container.env.iter().flatten() {
        let value = match (&var.value, &var.value_from) {
            (Some(text), _) if !text.is_empty() => {
                Some(expand(text, |name| own.get(name).or_else(|| services.get(name)).cloned()))
            }
            (_, Some(_)) => value_from(pod, container, var, sources, facts)?,
            _ => Some(String::new()),
        };
        if let Some(value) = value {
            own.insert(var.name.clone(), value.clone());
            vars.set(&var.name, value);
        }
    }
    Ok(vars.into_list())
}

#[derive(Default)]
struct Vars {
    order: Vec<String>,
    map: HashMap<String, String>,
}

impl Vars {
    fn set(&mut self, name: &str, value: String) {
        if self.map.insert(name.to_owned(), value).is_none() {
            self.order.push(name.to_owned());
        }
    }

    fn set_all<'a>(&mut self, prefix: &str, pairs: impl Iterator<Item = (&'a String, String)>) {
        for (key, value) in pairs {
            self.set(&format!("{prefix}{key}"), value);
        }
    }

    fn into_list(mut self) -> Vec<(String, String)> {
        self.order
            .into_iter()
            .filter_map(|name| self.map.remove(&name).map(|value| (name, value)))
            .collect()
    }
}

/// `None` for an optional reference to nothing.
fn value_from(
    pod: &Pod,
    container: &Container,
    var: &EnvVar,
    sources: &Sources,
    facts: &Facts,
) -> Result<Option<String>, Error> {
    let Some(from) = &var.value_from else { return Ok(None) };
    if let Some(field) = &from.field_ref {
        return field_value(pod, facts, &field.field_path).map(Some);
    }
    if let Some(resource) = &from.resource_field_ref {
        return resource_value(pod, Some(container), facts, resource).map(Some);
    }
    if let Some(r) = &from.config_map_key_ref {
        let object = sources.config_maps.get(&r.name).and_then(Option::as_ref);
        let value = object.and_then(|map| map.data.as_ref()?.get(&r.key).cloned());
        return found(
            pod,
            value,
            object.is_some(),
            r.optional,
            ("configmap", "ConfigMap"),
            &r.name,
            &r.key,
        );
    }
    if let Some(r) = &from.secret_key_ref {
        let object = sources.secrets.get(&r.name).and_then(Option::as_ref);
        let value = object.and_then(|secret| {
            Some(String::from_utf8_lossy(&secret.data.as_ref()?.get(&r.key)?.0).into_owned())
        });
        return found(
            pod,
            value,
            object.is_some(),
            r.optional,
            ("secret", "Secret"),
            &r.name,
            &r.key,
        );
    }
    Ok(Some(String::new()))
}

fn found(
    pod: &Pod,
    value: Option<String>,
    exists: bool,
    optional: Option<bool>,
    (resource, kind): (&'static str, &'static str),
    name: &str,
    key: &str,
) -> Result<Option<String>, Error> {
    match value {
        Some(value) => Ok(Some(value)),
        None if optional.unwrap_or(false) => Ok(None),
        None if !exists => Err(Error::NoObject { kind: resource, name: name.to_owned() }),
        None => Err(Error::NoKey {
            kind,
            namespace: pod.namespace().to_owned(),
            name: name.to_owned(),
            key: key.to_owned(),
        }),
    }
}

/// A field of the pod as text, for the environment and for files.
pub fn field_value(pod: &Pod, facts: &Facts, path: &str) -> Result<String, Error> {
    let metadata = &pod.metadata;
    let entry = |map: &Option<BTreeMap<String, String>>, key: &str| {
        map.as_ref().and_then(|map| map.get(key).cloned()).unwrap_or_default()
    };
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        return match map {
            "metadata.labels" => Ok(entry(&metadata.labels, key)),
            "metadata.annotations" => Ok(entry(&metadata.annotations, key)),
            _ => Err(Error::FieldPath(path.to_owned())),
        };
    }
    let spec = pod.pod_spec();
    Ok(match path {
        "metadata.name" => pod.name().to_owned(),
        "metadata.namespace" => pod.namespace().to_owned(),
        "metadata.uid" => pod.uid().to_owned(),
        "metadata.labels" => format_map(&metadata.labels),
        "metadata.annotations" => format_map(&metadata.annotations),
        "spec.nodeName" => facts.node_name.clone(),
        "spec.serviceAccountName" => spec.service_account_name.clone().unwrap_or_default(),
        "status.hostIP" | "status.hostIPs" => facts.host_ip.clone(),
        "status.podIP" => facts.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => facts.pod_ips.join(","),
        _ => return Err(Error::FieldPath(path.to_owned())),
    })
}

/// One `key="value"` line for each, as in downward API files.
fn format_map(map: &Option<BTreeMap<String, String>>) -> String {
    let lines = map.iter().flatten().map(|(key, value)| format!("{key}={value:?}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// A container's resource in units of the divisor, rounded up.
pub fn resource_value(
    pod: &Pod,
    container: Option<&Container>,
    facts: &Facts,
    field: &ResourceFieldSelector,
) -> Result<String, Error> {
    let container = match field.container_name.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => pod.all_containers().into_iter().map(|(_, c)| c).find(|c| c.name == name),
        None => container.cloned(),
    };
    let container = container
        .ok_or_else(|| Error::NoContainer(field.container_name.clone().unwrap_or_default()))?;
    let unsupported = || Error::Resource(field.resource.clone());
    let (list, name) = field.resource.split_once('.').ok_or_else(unsupported)?;
    let resources = container.resources.as_ref();
    let quantity = match list {
        "limits" => {
            resources::limit(resources, name).or_else(|| facts.allocatable.get(name).cloned())
        }
        "requests" => resources::request(resources, name),
        _ => return Err(unsupported()),
    };
    let quantity = quantity.unwrap_or_else(|| Quantity("0".to_owned()));
    let divisor = field.divisor.as_ref().filter(|d| resources::milli_value(d) > 0);
    let (value, divisor) = if name == "cpu" {
        (resources::milli_value(&quantity), divisor.map_or(1000, resources::milli_value))
    } else {
        (resources::value(&quantity), divisor.map_or(1, |d| resources::value(d).max(1)))
    };
    Ok(((value + divisor - 1) / divisor).to_string())
}

/// Replaces `$(NAME)`; what is not defined stays as it is written.
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) =
            rest.strip_prefix('(').and_then(|inner| inner.split_once(')'))
        {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// Docker-style variables for the services of the namespace, and always for the API's own.
fn service_variables(pod: &Pod, services: &[Service]) -> Vec<(String, String)> {
    let links = pod.pod_spec().enable_service_links.unwrap_or(true);
    let mut variables = Vec::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let api = namespace == "default" && name == "kubernetes";
        if api || links && namespace == pod.namespace() {
            push_service(&mut variables, name, service);
        }
    }
    variables
}

fn push_service(variables: &mut Vec<(String, String)>, name: &str, service: &Service) {
    let Some(spec) = &service.spec else { return };
    let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else {
        return;
    };
    let ports: Vec<_> = spec.ports.iter().flatten().collect();
    let Some(first) = ports.first() else { return };
    let prefix = name.to_uppercase().replace('-', "_");
    let mut push = |name: String, value: String| variables.push((name, value));
    push(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
    push(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
    for port in &ports {
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let name = name.to_uppercase().replace('-', "_");
            push(format!("{prefix}_SERVICE_PORT_{name}"), port.port.to_string());
        }
    }
    let url = |port: &k8s_openapi::api::core::v1::ServicePort| {
        let protocol = port.protocol.as_deref().unwrap_or("TCP").to_lowercase();
        (format!("{protocol}://{ip}:{}", port.port), protocol)
    };
    push(format!("{prefix}_PORT"), url(first).0);
    for port in &ports {
        let (url, protocol) = url(port);
        let prefix = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
        push(prefix.clone(), url);
        push(format!("{prefix}_PROTO"), protocol);
        push(format!("{prefix}_PORT"), port.port.to_string());
        push(format!("{prefix}_ADDR"), ip.to_owned());
    }
}

#[cfg(test)]
mod tests;
