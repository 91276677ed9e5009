//! Validation of objects: metadata, the common kinds, and what may not change.
//!
//! Runs on defaulted objects whose types [`crate::field_validation`] has checked. Errors are in
//! upstream's words. What needs the cluster (allocated addresses, escalation) is the registry's.

use serde_json::{Map, Value};

use crate::object::get;
use crate::resource::Resource;
use crate::schema;
use crate::{ErrorList, Path};

mod config;
mod container;
mod metadata;
pub mod names;
mod network;
mod pod;
mod pod_update;
mod volume;
mod workload;

pub use metadata::{name_rule, validate_labels, validate_metadata, validate_metadata_update};
pub use pod::validate_pod_template;
pub use pod_update::validate_pod_object_update;

/// Validates an object to be created.
pub fn validate_create(object: &Value, resource: &Resource) -> ErrorList {
    let mut errors = validate_metadata(object, resource);
    validate_kind(object, resource, &mut errors);
    if (resource.group.as_str(), resource.kind.as_str()) == ("", "Pod") {
        pod::validate_create(object, &mut errors);
    }
    errors
}

/// Validates an update of `old` to `new`, by the object itself or through a subresource: what only
/// some subresources may change is allowed here. [`validate_pod_object_update`] is the narrower rule
/// for an update of a pod itself.
pub fn validate_update(new: &Value, old: &Value, resource: &Resource) -> ErrorList {
    let mut errors = validate_metadata(new, resource);
    validate_metadata_update(new, old, &mut errors);
    validate_kind(new, resource, &mut errors);
    if resource.custom {
        return errors;
    }
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Pod") => pod_update::validate_update(new, old, &mut errors),
        ("apps", kind) => workload::validate_update(kind, new, old, &mut errors),
        ("batch", "Job") => workload::validate_job_update(new, old, &mut errors),
        ("", "PersistentVolumeClaim") => volume::validate_claim_update(new, old, &mut errors),
        ("", "Secret") => immutable(&["type"], new, old, &mut errors),
        ("storage.k8s.io", "StorageClass") => volume::validate_class_update(new, old, &mut errors),
        ("scheduling.k8s.io", "PriorityClass") => {
            immutable(&["value"], new, old, &mut errors);
            immutable(&["preemptionPolicy"], new, old, &mut errors);
        }
        ("node.k8s.io", "RuntimeClass") => immutable(&["handler"], new, old, &mut errors),
        ("networking.k8s.io", "IngressClass") => {
            immutable(&["spec", "controller"], new, old, &mut errors);
        }
        ("discovery.k8s.io", "EndpointSlice") => {
            immutable(&["addressType"], new, old, &mut errors);
        }
        ("apiextensions.k8s.io", _) => config::validate_definition_update(new, old, &mut errors),
        _ => {}
    }
    errors
}

fn validate_kind(object: &Value, resource: &Resource, errors: &mut ErrorList) {
    if resource.custom {
        schema::validate_value(object, resource.schema(), &Path::default(), errors);
        return;
    }
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Pod") => pod::validate(object, errors),
        ("", "PodTemplate") => {
            pod::validate_pod_template(object.get("template"), &Path::new("template"), errors);
        }
        ("", "ReplicationController") => workload::validate_replication_controller(object, errors),
        ("apps", kind) => workload::validate(kind, object, errors),
        ("batch", "Job") => workload::validate_job(object, errors),
        ("batch", "CronJob") => workload::validate_cron_job(object, errors),
        ("autoscaling", _) => workload::validate_autoscaler(object, errors),
        ("policy", _) => workload::validate_disruption_budget(object, errors),
        ("", "Service") => network::validate_service(object, errors),
        ("", "Endpoints") => network::validate_endpoints(object, errors),
        ("discovery.k8s.io", _) => network::validate_endpoint_slice(object, errors),
        ("networking.k8s.io", "Ingress") => network::validate_ingress(object, errors),
        ("networking.k8s.io", "NetworkPolicy") => network::validate_policy(object, errors),
        ("", "ConfigMap") => config::validate_config_map(object, errors),
        ("", "Secret") => config::validate_secret(object, errors),
        ("", "ResourceQuota") => config::validate_quota(object, errors),
        ("", "LimitRange") => config::validate_limit_range(object, errors),
        ("", "Node") => config::validate_node(object, errors),
        ("", "PersistentVolumeClaim") => volume::validate_claim(object, errors),
        ("", "PersistentVolume") => volume::validate_volume(object, errors),
        ("storage.k8s.io", "StorageClass") => volume::validate_class(object, errors),
        ("rbac.authorization.k8s.io", kind) => config::validate_rbac(kind, object, errors),
        ("scheduling.k8s.io", "PriorityClass") => config::validate_priority_class(object, errors),
        ("coordination.k8s.io", "Lease") => config::validate_lease(object, errors),
        ("apiextensions.k8s.io", _) => config::validate_definition(object, errors),
        _ => {}
    }
}

const IMMUTABLE: &str = "field is immutable";

/// The value at the path may not change.
fn immutable(path: &[&str], new: &Value, old: &Value, errors: &mut ErrorList) {
    let (new, old) = (get(new, path), get(old, path));
    if new != old {
        errors.invalid(Path::new(&path.join(".")), new.cloned().unwrap_or_default(), IMMUTABLE);
    }
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn number(object: &Value, field: &str) -> Option<i64> {
    object.get(field).and_then(Value::as_i64)
}

fn list<'a>(object: &'a Value, field: &str) -> &'a [Value] {
    object.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn map<'a>(object: &'a Value, field: &str) -> Option<&'a Map<String, Value>> {
    object.get(field).and_then(Value::as_object)
}

/// The values of the field, or of nothing when it is absent.
fn part<'a>(object: &'a Value, field: &str) -> &'a Value {
    object.get(field).unwrap_or(&Value::Null)
}

/// All messages of a name rule as `Invalid value`.
fn named(value: &str, rule: names::NameRule, path: &Path, errors: &mut ErrorList) {
    for message in rule(value) {
        errors.invalid(path.clone(), value, message);
    }
}

/// A field that must be one of a few strings; an empty one is required.
fn one_of(value: &str, supported: &[&str], path: Path, errors: &mut ErrorList) {
    if value.is_empty() {
        errors.required(path, "");
    } else if !supported.contains(&value) {
        errors.not_supported(path, value, supported);
    }
}

/// A number that may not be negative.
fn not_negative(object: &Value, field: &str, path: &Path, errors: &mut ErrorList) {
    if let Some(value) = number(object, field).filter(|n| *n < 0) {
        errors.invalid(path.child(field), value, "must be greater than or equal to 0");
    }
}

fn port_number(port: i64, path: Path, errors: &mut ErrorList) {
    if !(1..=65_535).contains(&port) {
        errors.invalid(path, port, "must be between 1 and 65535, inclusive");
    }
}

/// A selector object: it must be readable and, where workloads need one, not empty.
fn label_selector(
    selector: Option<&Value>,
    path: &Path,
    required_by: Option<&str>,
    errors: &mut ErrorList,
) {
    let Some(value) = selector.filter(|v| !v.is_null()) else {
        if required_by.is_some() {
            errors.required(path.clone(), "");
        }
        return;
    };
    match crate::LabelSelector::from_value(value) {
        Err(error) => errors.invalid(path.clone(), value.clone(), error.message),
        Ok(selector) => {
            if let Some(kind) = required_by.filter(|_| selector.is_empty()) {
                let detail = format!("empty selector is invalid for {}", kind.to_lowercase());
                errors.invalid(path.clone(), value.clone(), detail);
            }
        }
    }
}

/// Whether two values are the same when absent, null and empty count as one.
fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    fn blank(value: Option<&Value>) -> bool {
        match value {
            None | Some(Value::Null) => true,
            Some(Value::Object(map)) => map.is_empty(),
            Some(Value::Array(list)) => list.is_empty(),
            Some(_) => false,
        }
    }
    a == b || (blank(a) && blank(b))
}

/// Group and kind, to match on.
fn kind_of(resource: &Resource) -> (&str, &str) {
    (&resource.group, &resource.kind)
}

#[cfg(test)]
mod tests;
