//! Defaults of pods and pod templates.

use serde_json::{Map, Value, json};

use super::{child, each, each_object, empty, entry, has, or, or_empty, text};

const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// What a volume may be made of; a volume of none of these is an `emptyDir`.
const VOLUME_META: &str = "name";

pub(super) fn pod(map: &mut Map<String, Value>) {
    each_object(map, "status", status_addresses);
    let spec = entry(map, "spec");
    pod_spec(spec);
    or(spec, "enableServiceLinks", true);
    for list in CONTAINER_LISTS {
        each(spec, list, requests_from_limits);
    }
    if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        for list in ["initContainers", "containers"] {
            each(spec, list, host_ports);
        }
    }
}

/// `podIP` and `podIPs`, `hostIP` and `hostIPs` say the same.
fn status_addresses(status: &mut Map<String, Value>) {
    for (single, list) in [("podIP", "podIPs"), ("hostIP", "hostIPs")] {
        let first = status.get(list).and_then(Value::as_array).and_then(|l| l.first());
        let first = first.and_then(|item| item.get("ip")).cloned();
        let own = status.get(single).filter(|v| v.as_str() != Some("")).cloned();
        match (own, first) {
            (Some(ip), first) if first.as_ref() != Some(&ip) => {
                status.insert(list.to_owned(), json!([{ "ip": ip }]));
            }
            (None, Some(ip)) => {
                status.insert(single.to_owned(), ip);
            }
            _ => {}
        }
    }
}

/// The template under `key`.
pub(super) fn template(map: &mut Map<String, Value>, key: &str) {
    template_body(entry(map, key));
}

pub(super) fn template_body(template: &mut Map<String, Value>) {
    pod_spec(entry(template, "spec"));
}

fn pod_spec(spec: &mut Map<String, Value>) {
    or_empty(spec, "restartPolicy", "Always");
    or_empty(spec, "dnsPolicy", "ClusterFirst");
    or_empty(spec, "schedulerName", "default-scheduler");
    or(spec, "terminationGracePeriodSeconds", 30);
    or(spec, "securityContext", empty());
    service_account(spec);
    for list in CONTAINER_LISTS {
        each(spec, list, container);
    }
    each(spec, "volumes", volume);
}

/// `serviceAccount` is the deprecated spelling of `serviceAccountName`: both always agree.
fn service_account(spec: &mut Map<String, Value>) {
    let name = match (text(spec, "serviceAccountName"), text(spec, "serviceAccount")) {
        ("", "") => return,
        ("", old) => old.to_owned(),
        (name, _) => name.to_owned(),
    };
    spec.insert("serviceAccountName".to_owned(), name.clone().into());
    spec.insert("serviceAccount".to_owned(), name.into());
}

fn container(container: &mut Map<String, Value>) {
    let policy = pull_policy(text(container, "image"));
    or_empty(container, "imagePullPolicy", policy);
    or_empty(container, "terminationMessagePath", "/dev/termination-log");
    or_empty(container, "terminationMessagePolicy", "File");
    or(container, "resources", empty());
    each(container, "ports", |port| or_empty(port, "protocol", "TCP"));
    each(container, "env", |variable| {
        if let Some(source) = child(variable, "valueFrom") {
            each_object(source, "fieldRef", field_ref);
        }
    });
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        each_object(container, name, probe);
    }
    if let Some(lifecycle) = child(container, "lifecycle") {
        for name in ["postStart", "preStop"] {
            if let Some(handler) = child(lifecycle, name) {
                each_object(handler, "httpGet", http_get);
            }
        }
    }
}

/// `Always` for the tag `latest`, written or implied; a digest is as good as a tag.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = match image.split_once('@') {
        Some((name, _)) => (name, true),
        None => (image, false),
    };
    let last = name.rsplit('/').next().unwrap_or(name);
    match last.split_once(':') {
        Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
        None if digest => "IfNotPresent",
        None => "Always",
    }
}

fn field_ref(reference: &mut Map<String, Value>) {
    or_empty(reference, "apiVersion", "v1");
}

fn probe(probe: &mut Map<String, Value>) {
    for (key, value) in [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ] {
        if probe.get(key).and_then(Value::as_i64).unwrap_or(0) == 0 {
            probe.insert(key.to_owned(), value.into());
        }
    }
    each_object(probe, "httpGet", http_get);
    each_object(probe, "grpc", |grpc| or(grpc, "service", ""));
}

fn http_get(action: &mut Map<String, Value>) {
    or_empty(action, "path", "/");
    or_empty(action, "scheme", "HTTP");
}

fn requests_from_limits(container: &mut Map<String, Value>) {
    let Some(resources) = child(container, "resources") else { return };
    let Some(limits) = resources.get("limits").and_then(Value::as_object) else { return };
    if limits.is_empty() {
        return;
    }
    let limits = limits.clone();
    let requests = entry(resources, "requests");
    for (name, limit) in limits {
        requests.entry(name).or_insert(limit);
    }
}

fn host_ports(container: &mut Map<String, Value>) {
    each(container, "ports", |port| {
        if port.get("hostPort").and_then(Value::as_i64).unwrap_or(0) == 0
            && let Some(number) = port.get("containerPort").cloned()
        {
            port.insert("hostPort".to_owned(), number);
        }
    });
}

fn volume(volume: &mut Map<String, Value>) {
    if volume.keys().all(|key| key == VOLUME_META) {
        volume.insert("emptyDir".to_owned(), empty());
        return;
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        each_object(volume, source, |source| or(source, "defaultMode", 0o644));
    }
    each_object(volume, "downwardAPI", downward_items);
    each_object(volume, "hostPath", |path| or(path, "type", ""));
    if let Some(projected) = child(volume, "projected") {
        each(projected, "sources", |source| {
            each_object(source, "serviceAccountToken", |t| or(t, "expirationSeconds", 3600));
            each_object(source, "downwardAPI", downward_items);
        });
    }
    if let Some(claim) = child(volume, "ephemeral").and_then(|e| child(e, "volumeClaimTemplate")) {
        or_empty(entry(claim, "spec"), "volumeMode", "Filesystem");
    }
    if let Some(iscsi) = child(volume, "iscsi") {
        or_empty(iscsi, "iscsiInterface", "default");
    }
    if has(volume, "csi") {
        return;
    }
    if let Some(image) = child(volume, "image") {
        let policy = pull_policy(text(image, "reference"));
        or_empty(image, "pullPolicy", policy);
    }
}

fn downward_items(source: &mut Map<String, Value>) {
    each(source, "items", |item| each_object(item, "fieldRef", field_ref));
}

#[cfg(test)]
mod tests {
    use super::pull_policy;

    #[test]
    fn pull_policy_follows_the_tag() {
        let cases = [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.2", "IfNotPresent"),
            ("host:5000/nginx", "Always"),
            ("host:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:0", "IfNotPresent"),
            ("nginx:latest@sha256:0", "Always"),
        ];
        for (image, policy) in cases {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }
}
