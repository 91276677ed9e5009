//! Defaults of the built-in kinds, as upstream's `SetDefaults_…` functions set them.
//!
//! Defaulting is idempotent, runs on every write before validation, and touches only what is absent.
//! What depends on other objects or on the cluster (cluster addresses, tolerations, priorities) is
//! admission's and the registry's business.

use serde_json::{Map, Value, json};

use crate::object;
use crate::resource::Resource;
use crate::schema;

mod access;
mod network;
mod pod;
mod storage;
mod workload;

/// Fills in the defaults of an object of this kind (custom resources: by their schema).
pub fn set_defaults(object: &mut Value, resource: &Resource) {
    if resource.custom {
        schema::apply_defaults(object, resource.schema());
        return;
    }
    let Some(map) = object.as_object_mut() else { return };
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Pod") => pod::pod(map),
        ("", "PodTemplate") => pod::template(map, "template"),
        ("", "ReplicationController") => workload::replication_controller(map),
        ("apps", "Deployment") => workload::deployment(map),
        ("apps", "ReplicaSet") => workload::replica_set(map),
        ("apps", "DaemonSet") => workload::daemon_set(map),
        ("apps", "StatefulSet") => workload::stateful_set(map),
        ("batch", "Job") => workload::job(map),
        ("batch", "CronJob") => workload::cron_job(map),
        ("autoscaling", _) => workload::horizontal_pod_autoscaler(map, &resource.version),
        ("", "Service") => network::service(map),
        ("", "Endpoints") => network::endpoints(map),
        ("discovery.k8s.io", "EndpointSlice") => network::endpoint_slice(map),
        ("networking.k8s.io", "NetworkPolicy") => network::network_policy(map),
        ("networking.k8s.io", "IngressClass") => network::ingress_class(map),
        ("", "PersistentVolumeClaim") => storage::claim(map),
        ("", "PersistentVolume") => storage::volume(map),
        ("storage.k8s.io", "StorageClass") => storage::class(map),
        ("storage.k8s.io", "CSIDriver") => storage::csi_driver(map),
        ("resource.k8s.io", "ResourceClaim") => storage::device_claim(map),
        ("resource.k8s.io", "ResourceClaimTemplate") => {
            each_object(map, "spec", storage::device_claim);
        }
        ("", "Namespace") => access::namespace(map),
        ("", "Secret") => access::secret(map),
        ("", "Node") => node(map),
        ("", "LimitRange") => access::limit_range(map),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            access::role_binding(map);
        }
        ("scheduling.k8s.io", "PriorityClass") => {
            or(map, "preemptionPolicy", "PreemptLowerPriority");
        }
        ("admissionregistration.k8s.io", kind) => access::admission(map, kind),
        ("flowcontrol.apiserver.k8s.io", kind) => access::flow_control(map, kind),
        ("apiextensions.k8s.io", _) => access::custom_resource_definition(map),
        ("apiregistration.k8s.io", _) => access::api_service(map),
        _ => {}
    }
}

/// Defaults of a pod spec inside a template, for callers that hold only the template.
pub fn set_pod_template_defaults(template: &mut Value) {
    if let Some(map) = template.as_object_mut() {
        pod::template_body(map);
    }
}

/// Sets `key` when it is absent or null.
fn or<T: Into<Value>>(map: &mut Map<String, Value>, key: &str, value: T) {
    match map.get_mut(key) {
        Some(Value::Null) => map[key] = value.into(),
        Some(_) => {}
        None => {
            map.insert(key.to_owned(), value.into());
        }
    }
}

/// Sets `key` when it is absent, null or the empty string.
fn or_empty(map: &mut Map<String, Value>, key: &str, value: &str) {
    if map.get(key).and_then(Value::as_str).is_none_or(str::is_empty) {
        map.insert(key.to_owned(), value.into());
    }
}

/// The object under `key`, created empty when absent.
fn entry<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    object::entry_object(map, key)
}

/// The object under `key`, when there is one.
fn child<'a>(map: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Map<String, Value>> {
    map.get_mut(key)?.as_object_mut()
}

/// Runs `f` on the object under `key`, when there is one.
fn each_object(map: &mut Map<String, Value>, key: &str, f: fn(&mut Map<String, Value>)) {
    if let Some(map) = child(map, key) {
        f(map);
    }
}

/// Runs `f` on every object of the list under `key`.
fn each<F: FnMut(&mut Map<String, Value>)>(map: &mut Map<String, Value>, key: &str, f: F) {
    if let Some(items) = map.get_mut(key).and_then(Value::as_array_mut) {
        items.iter_mut().filter_map(Value::as_object_mut).for_each(f);
    }
}

fn has(map: &Map<String, Value>, key: &str) -> bool {
    map.get(key).is_some_and(|v| !v.is_null())
}

fn text<'a>(map: &'a Map<String, Value>, key: &str) -> &'a str {
    map.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A list that came after its single field: the first item and the field always agree.
fn list_of_one(map: &mut Map<String, Value>, single: &str, list: &str) {
    let first = map.get(list).and_then(Value::as_array).and_then(|l| l.first()).cloned();
    match (map.get(single).filter(|v| v.as_str() != Some("")).cloned(), first) {
        (Some(value), None) => {
            map.insert(list.to_owned(), json!([value]));
        }
        (None, Some(first)) => {
            map.insert(single.to_owned(), first);
        }
        _ => {}
    }
}

fn node(map: &mut Map<String, Value>) {
    if let Some(spec) = child(map, "spec") {
        list_of_one(spec, "podCIDR", "podCIDRs");
    }
    let Some(status) = child(map, "status") else { return };
    if let (false, Some(capacity)) = (has(status, "allocatable"), status.get("capacity").cloned()) {
        status.insert("allocatable".to_owned(), capacity);
    }
}

fn empty() -> Value {
    json!({})
}

#[cfg(test)]
mod tests;
