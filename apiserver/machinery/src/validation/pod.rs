//! Pods and pod templates.

use serde_json::{Map, Value};

use super::container::{self, Containers};
use super::{
    label_selector, list, map, named, names, not_negative, number, one_of, part, text,
    validate_labels,
};
use crate::object::get;
use crate::{ErrorList, Path};

const RESTART_POLICIES: [&str; 3] = ["Always", "OnFailure", "Never"];
const DNS_POLICIES: [&str; 4] = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
const TOLERATION_EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub(super) fn validate(pod: &Value, errors: &mut ErrorList) {
    validate_spec(part(pod, "spec"), &Path::new("spec"), errors);
}

pub(super) fn validate_create(pod: &Value, errors: &mut ErrorList) {
    if !list(part(pod, "spec"), "ephemeralContainers").is_empty() {
        let path = Path::new("spec").child("ephemeralContainers");
        errors.forbidden(path, "cannot be set on create");
    }
}

/// Validates a pod template at `path`.
pub fn validate_pod_template(template: Option<&Value>, path: &Path, errors: &mut ErrorList) {
    let Some(template) = template else {
        errors.required(path.clone(), "");
        return;
    };
    let metadata = part(template, "metadata");
    validate_labels(map(metadata, "labels"), &path.child("labels"), errors);
    validate_spec(part(template, "spec"), &path.child("spec"), errors);
}

fn validate_spec(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let volumes = validate_volumes(spec, path, errors);
    let context = Containers {
        volumes: &volumes,
        host_network: spec.get("hostNetwork") == Some(&Value::Bool(true)),
    };
    container::validate_all(spec, &context, path, errors);
    one_of(text(spec, "restartPolicy"), &RESTART_POLICIES, path.child("restartPolicy"), errors);
    one_of(text(spec, "dnsPolicy"), &DNS_POLICIES, path.child("dnsPolicy"), errors);
    not_negative(spec, "terminationGracePeriodSeconds", path, errors);
    if let Some(seconds) = number(spec, "activeDeadlineSeconds").filter(|s| *s < 1) {
        let detail = format!("must be between 1 and {}, inclusive", i32::MAX);
        errors.invalid(path.child("activeDeadlineSeconds"), seconds, detail);
    }
    for (field, rule) in [
        ("serviceAccountName", names::dns1123_subdomain as names::NameRule),
        ("nodeName", names::dns1123_subdomain),
        ("hostname", names::dns1123_label),
        ("subdomain", names::dns1123_label),
        ("priorityClassName", names::dns1123_subdomain),
        ("runtimeClassName", names::dns1123_subdomain),
        ("schedulerName", names::qualified_name),
    ] {
        let name = text(spec, field);
        if !name.is_empty() {
            named(name, rule, &path.child(field), errors);
        }
    }
    validate_labels(map(spec, "nodeSelector"), &path.child("nodeSelector"), errors);
    for (index, secret) in list(spec, "imagePullSecrets").iter().enumerate() {
        if text(secret, "name").is_empty() {
            errors.required(path.child("imagePullSecrets").index(index).child("name"), "");
        }
    }
    validate_tolerations(spec, path, errors);
    validate_affinity(part(spec, "affinity"), &path.child("affinity"), errors);
    validate_spread(spec, path, errors);
    validate_gates(spec, path, errors);
}

/// Answers the volumes that containers may mount.
fn validate_volumes<'a>(spec: &'a Value, path: &Path, errors: &mut ErrorList) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for (index, volume) in list(spec, "volumes").iter().enumerate() {
        let path = || path.child("volumes").index(index);
        match text(volume, "name") {
            "" => errors.required(path().child("name"), ""),
            name if names.contains(&name) => errors.duplicate(path().child("name"), name),
            name => {
                named(name, names::dns1123_label, &path().child("name"), errors);
                names.push(name);
            }
        }
        validate_volume_source(volume, path, errors);
    }
    names
}

fn validate_volume_source(volume: &Value, path: impl Fn() -> Path, errors: &mut ErrorList) {
    let sources: Vec<&String> = volume
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, value)| *key != "name" && !value.is_null())
        .map(|(key, _)| key)
        .collect();
    match sources.as_slice() {
        [] => errors.required(path(), "must specify a volume type"),
        [_] => {}
        [_, more @ ..] => {
            for source in more {
                errors.forbidden(path().child(source), "may not specify more than 1 volume type");
            }
        }
    }
    let required = [
        ("secret", "secretName"),
        ("configMap", "name"),
        ("hostPath", "path"),
        ("persistentVolumeClaim", "claimName"),
        ("nfs", "server"),
        ("csi", "driver"),
    ];
    for (source, field) in required {
        if volume.get(source).is_some_and(|v| text(v, field).is_empty()) {
            errors.required(path().child(source).child(field), "");
        }
    }
}

fn validate_tolerations(spec: &Value, path: &Path, errors: &mut ErrorList) {
    for (index, toleration) in list(spec, "tolerations").iter().enumerate() {
        let path = || path.child("tolerations").index(index);
        let (key, operator, value) =
            (text(toleration, "key"), text(toleration, "operator"), text(toleration, "value"));
        if !key.is_empty() {
            named(key, names::qualified_name, &path().child("key"), errors);
        }
        match operator {
            "" | "Equal" if key.is_empty() => errors.invalid(
                path().child("operator"),
                operator,
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            ),
            "" | "Equal" => named(value, names::label_value, &path().child("value"), errors),
            "Exists" if !value.is_empty() => {
                errors.invalid(path().child("operator"), value, "value must be empty when `operator` is 'Exists'");
            }
            "Exists" | "Lt" | "Gt" => {}
            other => errors.not_supported(path().child("operator"), other, &["Equal", "Exists"]),
        }
        let effect = text(toleration, "effect");
        if !effect.is_empty() && !TOLERATION_EFFECTS.contains(&effect) {
            errors.not_supported(path().child("effect"), effect, &TOLERATION_EFFECTS);
        }
        if toleration.get("tolerationSeconds").is_some() && effect != "NoExecute" {
            errors.invalid(
                path().child("effect"),
                effect,
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            );
        }
    }
}

fn validate_affinity(affinity: &Value, path: &Path, errors: &mut ErrorList) {
    if affinity.is_null() {
        return;
    }
    let node = part(affinity, "nodeAffinity");
    if let Some(required) = node.get("requiredDuringSchedulingIgnoredDuringExecution") {
        let path = || {
            path.child("nodeAffinity")
                .child("requiredDuringSchedulingIgnoredDuringExecution")
                .child("nodeSelectorTerms")
        };
        let terms = list(required, "nodeSelectorTerms");
        if terms.is_empty() {
            errors.required(path(), "must have at least one node selector term");
        }
        for (index, term) in terms.iter().enumerate() {
            validate_node_term(term, &path().index(index), errors);
        }
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let group = part(affinity, kind);
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        for (index, term) in list(group, required).iter().enumerate() {
            validate_pod_term(term, &path.child(kind).child(required).index(index), errors);
        }
        let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
        for (index, weighted) in list(group, preferred).iter().enumerate() {
            let path = path.child(kind).child(preferred).index(index);
            let weight = number(weighted, "weight").unwrap_or(0);
            if !(1..=100).contains(&weight) {
                errors.invalid(path.child("weight"), weight, "must be in the range 1-100");
            }
            validate_pod_term(
                part(weighted, "podAffinityTerm"),
                &path.child("podAffinityTerm"),
                errors,
            );
        }
    }
}

fn validate_node_term(term: &Value, path: &Path, errors: &mut ErrorList) {
    for (index, expression) in list(term, "matchExpressions").iter().enumerate() {
        let path = || path.child("matchExpressions").index(index);
        let values = list(expression, "values").len();
        match text(expression, "operator") {
            "In" | "NotIn" if values == 0 => {
                errors.required(
                    path().child("values"),
                    "must be specified when `operator` is 'In' or 'NotIn'",
                );
            }
            "Exists" | "DoesNotExist" if values > 0 => {
                errors.forbidden(
                    path().child("values"),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                );
            }
            "Gt" | "Lt" if values != 1 => {
                errors.required(
                    path().child("values"),
                    "must be specified single value when `operator` is 'Lt' or 'Gt'",
                );
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => {
                errors.invalid(path().child("operator"), other, "not a valid selector operator")
            }
        }
        named(text(expression, "key"), names::qualified_name, &path().child("key"), errors);
    }
}

fn validate_pod_term(term: &Value, path: &Path, errors: &mut ErrorList) {
    label_selector(term.get("labelSelector"), &path.child("labelSelector"), None, errors);
    match text(term, "topologyKey") {
        "" => errors.required(path.child("topologyKey"), "can not be empty"),
        key => named(key, names::qualified_name, &path.child("topologyKey"), errors),
    }
}

fn validate_spread(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let constraints = list(spec, "topologySpreadConstraints");
    for (index, constraint) in constraints.iter().enumerate() {
        let path = || path.child("topologySpreadConstraints").index(index);
        let skew = number(constraint, "maxSkew").unwrap_or(0);
        if skew <= 0 {
            errors.invalid(path().child("maxSkew"), skew, "must be greater than zero");
        }
        let key = text(constraint, "topologyKey");
        if key.is_empty() {
            errors.required(path().child("topologyKey"), "can not be empty");
        }
        let action = text(constraint, "whenUnsatisfiable");
        if !["DoNotSchedule", "ScheduleAnyway"].contains(&action) {
            errors.not_supported(
                path().child("whenUnsatisfiable"),
                action,
                &["DoNotSchedule", "ScheduleAnyway"],
            );
        }
        let is_same = |other: &&Value| {
            text(other, "topologyKey") == key && text(other, "whenUnsatisfiable") == action
        };
        if constraints[..index].iter().any(|other| is_same(&other)) {
            errors.duplicate(
                path().child("{topologyKey, whenUnsatisfiable}"),
                format!("{{{key}, {action}}}"),
            );
        }
        label_selector(
            constraint.get("labelSelector"),
            &path().child("labelSelector"),
            None,
            errors,
        );
    }
}

fn validate_gates(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let gates = list(spec, "schedulingGates");
    for (index, gate) in gates.iter().enumerate() {
        let path = || path.child("schedulingGates").index(index);
        named(text(gate, "name"), names::qualified_name, &path().child("name"), errors);
        if gates[..index].iter().any(|other| text(other, "name") == text(gate, "name")) {
            errors.duplicate(path(), text(gate, "name"));
        }
    }
}

/// Whether a selector given as a plain map or a `LabelSelector` matches the template's labels.
pub(super) fn template_labels(spec: &Value) -> Option<&Map<String, Value>> {
    get(spec, &["template", "metadata", "labels"]).and_then(Value::as_object)
}
