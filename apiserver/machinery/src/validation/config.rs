//! Configuration, quotas, nodes, roles, priorities, leases and definitions of custom resources.

use base64::Engine as _;
use serde_json::Value;

use super::{immutable, list, map, named, names, number, one_of, part, text};
use crate::object;
use crate::quantity::Quantity;
use crate::{ErrorList, Path, schema};

/// The size of all data of one ConfigMap or Secret.
const DATA_BYTES_MAX: usize = 1024 * 1024;

pub(super) fn validate_config_map(config: &Value, errors: &mut ErrorList) {
    let mut size = 0;
    for field in ["data", "binaryData"] {
        for (key, value) in map(config, field).into_iter().flatten() {
            named(key, names::config_map_key, &Path::new(field).key(key), errors);
            if field == "binaryData" && map(config, "data").is_some_and(|m| m.contains_key(key)) {
                errors.invalid(
                    Path::new("data").key(key),
                    key.as_str(),
                    "duplicate of key present in binaryData",
                );
            }
            size += value.as_str().map_or(0, str::len);
        }
    }
    if size > DATA_BYTES_MAX {
        errors.too_long(Path::default(), DATA_BYTES_MAX);
    }
}

pub(super) fn validate_secret(secret: &Value, errors: &mut ErrorList) {
    let data = map(secret, "data");
    let mut size = 0;
    for (key, value) in data.into_iter().flatten() {
        named(key, names::config_map_key, &Path::new("data").key(key), errors);
        size += value.as_str().map_or(0, |text| text.len() / 4 * 3);
    }
    if size > DATA_BYTES_MAX {
        errors.too_long(Path::new("data"), DATA_BYTES_MAX);
    }
    let required: &[&str] = match text(secret, "type") {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        _ => &[],
    };
    for key in required {
        match data.and_then(|data| data.get(*key)).and_then(Value::as_str) {
            None => errors.required(Path::new("data").key(key), ""),
            Some(value) if key.starts_with(".docker") => {
                let decoded = base64::engine::general_purpose::STANDARD.decode(value);
                let json = decoded.ok().and_then(|d| serde_json::from_slice::<Value>(&d).ok());
                if json.is_none() {
                    errors.invalid(
                        Path::new("data").key(key),
                        "<secret contents redacted>",
                        "invalid character",
                    );
                }
            }
            Some(_) => {}
        }
    }
    if text(secret, "type") == "kubernetes.io/service-account-token"
        && object::annotation(secret, "kubernetes.io/service-account.name")
            .is_none_or(str::is_empty)
    {
        let path =
            Path::new("metadata").child("annotations").key("kubernetes.io/service-account.name");
        errors.required(path, "");
    }
}

fn quantities(object: &Value, field: &str, path: &Path, errors: &mut ErrorList) {
    for (name, value) in map(object, field).into_iter().flatten() {
        if Quantity::from_value(value).is_ok_and(|q| q.signum() < 0) {
            let path = path.child(field).key(name);
            errors.invalid(path, value.clone(), "must be greater than or equal to 0");
        }
    }
}

pub(super) fn validate_quota(quota: &Value, errors: &mut ErrorList) {
    quantities(part(quota, "spec"), "hard", &Path::new("spec"), errors);
}

pub(super) fn validate_limit_range(range: &Value, errors: &mut ErrorList) {
    let limits = list(part(range, "spec"), "limits");
    for (index, limit) in limits.iter().enumerate() {
        let path = Path::new("spec").child("limits").index(index);
        if text(limit, "type").is_empty() {
            errors.required(path.child("type"), "");
        }
        let quantity = |field: &str, name: &str| {
            map(limit, field).and_then(|m| m.get(name)).and_then(|v| Quantity::from_value(v).ok())
        };
        for name in map(limit, "min").into_iter().flatten().map(|(name, _)| name) {
            if let (Some(min), Some(max)) = (quantity("min", name), quantity("max", name))
                && min > max
            {
                let detail = format!("min value {min} is greater than max value {max}");
                errors.invalid(path.child("min").key(name), min.to_string(), detail);
            }
        }
    }
}

pub(super) fn validate_node(node: &Value, errors: &mut ErrorList) {
    let effects = ["NoExecute", "NoSchedule", "PreferNoSchedule"];
    let taints = list(part(node, "spec"), "taints");
    for (index, taint) in taints.iter().enumerate() {
        let path = || Path::new("spec").child("taints").index(index);
        named(text(taint, "key"), names::qualified_name, &path().child("key"), errors);
        named(text(taint, "value"), names::label_value, &path().child("value"), errors);
        one_of(text(taint, "effect"), &effects, path().child("effect"), errors);
        let same = |other: &Value| {
            text(other, "key") == text(taint, "key")
                && text(other, "effect") == text(taint, "effect")
        };
        if taints[..index].iter().any(same) {
            errors.duplicate(path(), taint.clone());
        }
    }
}

pub(super) fn validate_rbac(kind: &str, object: &Value, errors: &mut ErrorList) {
    match kind {
        "Role" | "ClusterRole" => {
            for (index, rule) in list(object, "rules").iter().enumerate() {
                validate_rule(kind, rule, &Path::new("rules").index(index), errors);
            }
        }
        _ => validate_binding(kind, object, errors),
    }
}

fn validate_rule(kind: &str, rule: &Value, path: &Path, errors: &mut ErrorList) {
    if list(rule, "verbs").is_empty() {
        errors.required(path.child("verbs"), "verbs must contain at least one value");
    }
    if !list(rule, "nonResourceURLs").is_empty() {
        if kind == "Role" {
            errors.invalid(
                path.child("nonResourceURLs"),
                rule["nonResourceURLs"].clone(),
                "namespaced rules cannot apply to non-resource URLs",
            );
        }
        if !list(rule, "resources").is_empty() || !list(rule, "apiGroups").is_empty() {
            errors.invalid(
                path.child("nonResourceURLs"),
                rule["nonResourceURLs"].clone(),
                "rules cannot apply to both regular resources and non-resource URLs",
            );
        }
        return;
    }
    if list(rule, "apiGroups").is_empty() {
        errors
            .required(path.child("apiGroups"), "resource rules must supply at least one api group");
    }
    if list(rule, "resources").is_empty() {
        errors
            .required(path.child("resources"), "resource rules must supply at least one resource");
    }
}

fn validate_binding(kind: &str, binding: &Value, errors: &mut ErrorList) {
    let role = part(binding, "roleRef");
    let path = Path::new("roleRef");
    let group = text(role, "apiGroup");
    if group != "rbac.authorization.k8s.io" {
        errors.not_supported(path.child("apiGroup"), group, &["rbac.authorization.k8s.io"]);
    }
    let kinds: &[&str] =
        if kind == "RoleBinding" { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&text(role, "kind")) {
        errors.not_supported(path.child("kind"), text(role, "kind"), kinds);
    }
    match text(role, "name") {
        "" => errors.required(path.child("name"), ""),
        name => named(name, names::path_segment, &path.child("name"), errors),
    }
    for (index, subject) in list(binding, "subjects").iter().enumerate() {
        let path = Path::new("subjects").index(index);
        if text(subject, "name").is_empty() {
            errors.required(path.child("name"), "");
        }
        let kind_of = text(subject, "kind");
        match kind_of {
            "ServiceAccount" => {
                if kind == "ClusterRoleBinding" && text(subject, "namespace").is_empty() {
                    errors.required(path.child("namespace"), "");
                }
            }
            "User" | "Group" => {}
            other => {
                errors.not_supported(
                    path.child("kind"),
                    other,
                    &["ServiceAccount", "User", "Group"],
                );
            }
        }
    }
}

pub(super) fn validate_priority_class(class: &Value, errors: &mut ErrorList) {
    const HIGHEST_USER_PRIORITY: i64 = 1_000_000_000;
    let value = number(class, "value").unwrap_or(0);
    if value > HIGHEST_USER_PRIORITY && !object::name(class).starts_with("system-") {
        errors.forbidden(
            Path::new("value"),
            format!("maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}"),
        );
    }
    let policies = ["Never", "PreemptLowerPriority"];
    one_of(text(class, "preemptionPolicy"), &policies, Path::new("preemptionPolicy"), errors);
}

pub(super) fn validate_lease(lease: &Value, errors: &mut ErrorList) {
    let spec = part(lease, "spec");
    if let Some(seconds) = number(spec, "leaseDurationSeconds").filter(|s| *s <= 0) {
        errors.invalid(Path::new("spec.leaseDurationSeconds"), seconds, "must be greater than 0");
    }
    if let Some(count) = number(spec, "leaseTransitions").filter(|n| *n < 0) {
        errors.invalid(
            Path::new("spec.leaseTransitions"),
            count,
            "must be greater than or equal to 0",
        );
    }
}

pub(super) fn validate_definition(definition: &Value, errors: &mut ErrorList) {
    let path = Path::new("spec");
    let spec = part(definition, "spec");
    let names_path = path.child("names");
    let given = part(spec, "names");
    let group = text(spec, "group");
    if group.is_empty() {
        errors.required(path.child("group"), "");
    } else {
        named(group, names::dns1123_subdomain, &path.child("group"), errors);
        if !group.contains('.') {
            errors.invalid(path.child("group"), group, "should be a domain with at least one dot");
        }
    }
    for field in ["plural", "kind"] {
        if text(given, field).is_empty() {
            errors.required(names_path.child(field), "");
        }
    }
    let expected = format!("{}.{group}", text(given, "plural"));
    if object::name(definition) != expected {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        errors.invalid(Path::new("metadata").child("name"), object::name(definition), detail);
    }
    one_of(text(spec, "scope"), &["Cluster", "Namespaced"], path.child("scope"), errors);
    validate_versions(spec, &path, errors);
}

fn validate_versions(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let versions = list(spec, "versions");
    let stored = versions.iter().filter(|v| v.get("storage") == Some(&Value::Bool(true))).count();
    if stored != 1 {
        let versions = Value::Array(versions.to_vec());
        errors.invalid(
            path.child("versions"),
            versions,
            "must have exactly one version marked as storage version",
        );
    }
    for (index, version) in versions.iter().enumerate() {
        let path = path.child("versions").index(index);
        named(text(version, "name"), names::dns1035_label, &path.child("name"), errors);
        if versions[..index].iter().any(|v| text(v, "name") == text(version, "name")) {
            errors.duplicate(path.child("name"), text(version, "name"));
        }
        let schema_path = path.child("schema").child("openAPIV3Schema");
        match version.get("schema").and_then(|s| s.get("openAPIV3Schema")) {
            None => errors.required(schema_path, "schemas are required"),
            Some(schema) => {
                if let Err(found) = schema::parse_structural(schema, &schema_path) {
                    errors.extend(found);
                }
            }
        }
        for (at, column) in list(version, "additionalPrinterColumns").iter().enumerate() {
            let json_path = text(column, "jsonPath");
            if let Err(why) = crate::json_path::JsonPath::parse(json_path) {
                let path = path.child("additionalPrinterColumns").index(at).child("jsonPath");
                errors.invalid(path, json_path, why);
            }
        }
    }
}

pub(super) fn validate_definition_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    immutable(&["spec", "group"], new, old, errors);
    immutable(&["spec", "scope"], new, old, errors);
    for field in ["plural", "kind"] {
        immutable(&["spec", "names", field], new, old, errors);
    }
}
