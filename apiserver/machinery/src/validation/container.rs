//! Containers: names, images, ports, environment, mounts, resources, probes.

use serde_json::Value;

use super::{list, map, named, names, number, one_of, part, port_number, text};
use crate::quantity::Quantity;
use crate::{ErrorList, Path};

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const MESSAGE_POLICIES: [&str; 2] = ["FallbackToLogsOnError", "File"];

/// What containers of one pod share.
pub(super) struct Containers<'a> {
    pub(super) volumes: &'a [&'a str],
    pub(super) host_network: bool,
}

pub(super) fn validate_all(
    spec: &Value,
    pod: &Containers<'_>,
    path: &Path,
    errors: &mut ErrorList,
) {
    if list(spec, "containers").is_empty() {
        errors.required(path.child("containers"), "");
    }
    let mut seen: Vec<&str> = Vec::new();
    for field in ["containers", "initContainers", "ephemeralContainers"] {
        for (index, container) in list(spec, field).iter().enumerate() {
            let path = path.child(field).index(index);
            let name = text(container, "name");
            if name.is_empty() {
                errors.required(path.child("name"), "");
            } else if seen.contains(&name) {
                errors.duplicate(path.child("name"), name);
            } else {
                named(name, names::dns1123_label, &path.child("name"), errors);
                seen.push(name);
            }
            validate(container, field, pod, &path, errors);
        }
    }
    validate_host_ports(spec, path, errors);
}

fn validate(
    container: &Value,
    field: &str,
    pod: &Containers<'_>,
    path: &Path,
    errors: &mut ErrorList,
) {
    let image = text(container, "image");
    if image.is_empty() {
        // Templates may leave the image to a controller only for init and ephemeral containers.
        errors.required(path.child("image"), "");
    } else if image.trim() != image {
        errors.invalid(path.child("image"), image, "must not have leading or trailing whitespace");
    }
    one_of(
        text(container, "imagePullPolicy"),
        &PULL_POLICIES,
        path.child("imagePullPolicy"),
        errors,
    );
    let policy = path.child("terminationMessagePolicy");
    one_of(text(container, "terminationMessagePolicy"), &MESSAGE_POLICIES, policy, errors);
    validate_ports(container, pod, path, errors);
    validate_environment(container, path, errors);
    validate_mounts(container, pod, path, errors);
    validate_resources(part(container, "resources"), &path.child("resources"), errors);
    validate_handlers(container, field, path, errors);
}

fn validate_ports(container: &Value, pod: &Containers<'_>, path: &Path, errors: &mut ErrorList) {
    let mut seen: Vec<&str> = Vec::new();
    for (index, port) in list(container, "ports").iter().enumerate() {
        let path = || path.child("ports").index(index);
        let name = text(port, "name");
        if !name.is_empty() {
            named(name, names::port_name, &path().child("name"), errors);
            if seen.contains(&name) {
                errors.duplicate(path().child("name"), name);
            }
            seen.push(name);
        }
        let container_port = number(port, "containerPort").unwrap_or(0);
        if container_port == 0 {
            errors.required(path().child("containerPort"), "");
        } else {
            port_number(container_port, path().child("containerPort"), errors);
        }
        if let Some(host) = number(port, "hostPort").filter(|port| *port != 0) {
            port_number(host, path().child("hostPort"), errors);
            if pod.host_network && host != container_port {
                errors.invalid(
                    path().child("hostPort"),
                    host,
                    "must match `containerPort` when `hostNetwork` is true",
                );
            }
        }
        one_of(text(port, "protocol"), &PROTOCOLS, path().child("protocol"), errors);
    }
}

/// Two containers of a pod cannot have the same port of the host.
fn validate_host_ports(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let mut seen: Vec<(i64, &str, &str)> = Vec::new();
    for (index, container) in list(spec, "containers").iter().enumerate() {
        for (at, port) in list(container, "ports").iter().enumerate() {
            let Some(number) = number(port, "hostPort").filter(|port| *port != 0) else { continue };
            let key = (number, text(port, "protocol"), text(port, "hostIP"));
            if seen.contains(&key) {
                let path = path.child("containers").index(index).child("ports").index(at);
                errors.duplicate(path.child("hostPort"), format!("{}/{}", key.2, key.0));
            }
            seen.push(key);
        }
    }
}

fn validate_environment(container: &Value, path: &Path, errors: &mut ErrorList) {
    for (index, variable) in list(container, "env").iter().enumerate() {
        let path = || path.child("env").index(index);
        match text(variable, "name") {
            "" => errors.required(path().child("name"), ""),
            name => named(name, names::env_var_name, &path().child("name"), errors),
        }
        let Some(source) = map(variable, "valueFrom") else { continue };
        if !text(variable, "value").is_empty() {
            errors.invalid(
                path().child("valueFrom"),
                "",
                "may not be specified when `value` is not empty",
            );
        }
        match source.values().filter(|v| !v.is_null()).count() {
            0 => errors.invalid(
                path().child("valueFrom"),
                "",
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
            ),
            1 => {}
            _ => errors.invalid(path().child("valueFrom"), "", "may not have more than one field specified at a time"),
        }
        for reference in ["configMapKeyRef", "secretKeyRef"] {
            if let Some(value) = source.get(reference)
                && text(value, "key").is_empty()
            {
                errors.required(path().child("valueFrom").child(reference).child("key"), "");
            }
        }
    }
}

fn validate_mounts(container: &Value, pod: &Containers<'_>, path: &Path, errors: &mut ErrorList) {
    let mut seen: Vec<&str> = Vec::new();
    for (index, mount) in list(container, "volumeMounts").iter().enumerate() {
        let path = || path.child("volumeMounts").index(index);
        match text(mount, "name") {
            "" => errors.required(path().child("name"), ""),
            name if !pod.volumes.contains(&name) => errors.not_found(path().child("name"), name),
            _ => {}
        }
        match text(mount, "mountPath") {
            "" => errors.required(path().child("mountPath"), ""),
            at if seen.contains(&at) => {
                errors.invalid(path().child("mountPath"), at, "must be unique")
            }
            at => seen.push(at),
        }
        for field in ["subPath", "subPathExpr"] {
            let sub = text(mount, field);
            if sub.starts_with('/') {
                errors.invalid(path().child(field), sub, "must be a relative path");
            } else if sub.split('/').any(|part| part == "..") {
                errors.invalid(path().child(field), sub, "must not contain '..'");
            }
        }
    }
}

/// Quantities are not negative, and no request is above its limit.
pub(super) fn validate_resources(resources: &Value, path: &Path, errors: &mut ErrorList) {
    let limits = map(resources, "limits");
    let requests = map(resources, "requests");
    for (field, quantities) in [("limits", limits), ("requests", requests)] {
        for (name, value) in quantities.into_iter().flatten() {
            named(name, names::qualified_name, &path.child(field).key(name), errors);
            if Quantity::from_value(value).is_ok_and(|q| q.signum() < 0) {
                let path = path.child(field).key(name);
                errors.invalid(path, value.clone(), "must be greater than or equal to 0");
            }
        }
    }
    for (name, request) in requests.into_iter().flatten() {
        let Some(limit) = limits.and_then(|limits| limits.get(name)) else { continue };
        let (Ok(asked), Ok(allowed)) = (Quantity::from_value(request), Quantity::from_value(limit))
        else {
            continue;
        };
        if asked > allowed {
            errors.invalid(
                path.child("requests"),
                request.clone(),
                format!("must be less than or equal to {name} limit of {allowed}"),
            );
        }
    }
}

fn validate_handlers(container: &Value, field: &str, path: &Path, errors: &mut ErrorList) {
    let is_sidecar = text(container, "restartPolicy") == "Always";
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.get(name).filter(|p| p.is_object()) else { continue };
        let path = path.child(name);
        if field == "ephemeralContainers" || (field == "initContainers" && !is_sidecar) {
            let detail = if field == "ephemeralContainers" {
                "cannot be set for an Ephemeral Container"
            } else {
                "may not be set for init containers without restartPolicy=Always"
            };
            errors.forbidden(path, detail);
            continue;
        }
        validate_handler(probe, &["exec", "httpGet", "tcpSocket", "grpc"], &path, errors);
        for field in [
            "initialDelaySeconds",
            "timeoutSeconds",
            "periodSeconds",
            "successThreshold",
            "failureThreshold",
        ] {
            super::not_negative(probe, field, &path, errors);
        }
        if name != "readinessProbe"
            && let Some(threshold) = number(probe, "successThreshold").filter(|n| *n > 1)
        {
            errors.invalid(path.child("successThreshold"), threshold, "must be 1");
        }
    }
    let lifecycle = part(container, "lifecycle");
    for name in ["postStart", "preStop"] {
        if let Some(handler) = lifecycle.get(name).filter(|h| h.is_object()) {
            let path = path.child("lifecycle").child(name);
            validate_handler(handler, &["exec", "httpGet", "tcpSocket", "sleep"], &path, errors);
        }
    }
}

fn validate_handler(handler: &Value, kinds: &[&str], path: &Path, errors: &mut ErrorList) {
    let given: Vec<&&str> =
        kinds.iter().filter(|k| handler.get(**k).is_some_and(|h| !h.is_null())).collect();
    match given.as_slice() {
        [] => errors.required(path.clone(), "must specify a handler type"),
        [_] => {}
        [_, more @ ..] => {
            for kind in more {
                errors.forbidden(path.child(kind), "may not specify more than 1 handler type");
            }
        }
    }
    for kind in ["httpGet", "tcpSocket"] {
        let Some(action) = handler.get(kind) else { continue };
        match action.get("port") {
            Some(Value::Number(port)) => {
                port_number(port.as_i64().unwrap_or(0), path.child(kind).child("port"), errors);
            }
            Some(Value::String(name)) => {
                named(name, names::port_name, &path.child(kind).child("port"), errors);
            }
            _ => errors.required(path.child(kind).child("port"), ""),
        }
    }
    if let Some(command) = handler.get("exec").map(|exec| list(exec, "command"))
        && command.is_empty()
    {
        errors.required(path.child("exec").child("command"), "");
    }
}
