//! Defaults of namespaces, limits, role bindings, admission, flow control and API extension.

use serde_json::{Map, Value, json};

use super::{child, each, each_object, empty, entry, has, or, or_empty, text};

use base64::Engine as _;

const RBAC_GROUP: &str = "rbac.authorization.k8s.io";
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub(super) fn namespace(map: &mut Map<String, Value>) {
    let metadata = entry(map, "metadata");
    if let Some(name) = metadata.get("name").filter(|n| n.as_str() != Some("")).cloned() {
        entry(metadata, "labels").insert(NAME_LABEL.to_owned(), name);
    }
    let is_terminating = has(metadata, "deletionTimestamp");
    if !is_terminating {
        or(entry(map, "spec"), "finalizers", json!(["kubernetes"]));
    }
    or_empty(entry(map, "status"), "phase", "Active");
}

/// `stringData` is for writing only: its values are stored in `data`.
pub(super) fn secret(map: &mut Map<String, Value>) {
    or_empty(map, "type", "Opaque");
    let Some(Value::Object(texts)) = map.remove("stringData") else { return };
    let data = entry(map, "data");
    for (key, text) in texts {
        let bytes = text.as_str().unwrap_or_default();
        let encoded = base64::engine::general_purpose::STANDARD.encode(bytes);
        data.insert(key, encoded.into());
    }
}

/// A container limit fills the default, and the default (or the minimum) fills the default request.
pub(super) fn limit_range(map: &mut Map<String, Value>) {
    let Some(spec) = child(map, "spec") else { return };
    each(spec, "limits", |limit| {
        if text(limit, "type") == "Container" {
            inherit(limit, "default", "max");
            inherit(limit, "defaultRequest", "default");
            inherit(limit, "defaultRequest", "min");
        }
    });
}

fn inherit(map: &mut Map<String, Value>, to: &str, from: &str) {
    let Some(source) = map.get(from).and_then(Value::as_object).cloned() else { return };
    let target = entry(map, to);
    for (name, quantity) in source {
        target.entry(name).or_insert(quantity);
    }
}

pub(super) fn role_binding(map: &mut Map<String, Value>) {
    each_object(map, "roleRef", |role| or_empty(role, "apiGroup", RBAC_GROUP));
    each(map, "subjects", |subject| match text(subject, "kind") {
        "User" | "Group" => or_empty(subject, "apiGroup", RBAC_GROUP),
        _ => {}
    });
}

pub(super) fn admission(map: &mut Map<String, Value>, kind: &str) {
    match kind {
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => {
            let mutating = kind.starts_with("Mutating");
            each(map, "webhooks", |hook| webhook(hook, mutating));
        }
        "ValidatingAdmissionPolicy" | "MutatingAdmissionPolicy" => {
            let spec = entry(map, "spec");
            or_empty(spec, "failurePolicy", "Fail");
            if let Some(constraints) = child(spec, "matchConstraints") {
                match_resources(constraints);
            }
        }
        _ => {
            if let Some(resources) = child(map, "spec").and_then(|s| child(s, "matchResources")) {
                match_resources(resources);
            }
        }
    }
}

fn webhook(hook: &mut Map<String, Value>, mutating: bool) {
    or_empty(hook, "failurePolicy", "Fail");
    or_empty(hook, "matchPolicy", "Equivalent");
    or(hook, "namespaceSelector", empty());
    or(hook, "objectSelector", empty());
    or(hook, "timeoutSeconds", 10);
    if mutating {
        or_empty(hook, "reinvocationPolicy", "Never");
    }
    each(hook, "rules", |rule| or_empty(rule, "scope", "*"));
    if let Some(service) = child(hook, "clientConfig").and_then(|c| child(c, "service")) {
        or(service, "port", 443);
    }
}

fn match_resources(resources: &mut Map<String, Value>) {
    or_empty(resources, "matchPolicy", "Equivalent");
    or(resources, "namespaceSelector", empty());
    or(resources, "objectSelector", empty());
    for rules in ["resourceRules", "excludeResourceRules"] {
        each(resources, rules, |rule| or_empty(rule, "scope", "*"));
    }
}

pub(super) fn flow_control(map: &mut Map<String, Value>, kind: &str) {
    let spec = entry(map, "spec");
    if kind == "FlowSchema" {
        if spec.get("matchingPrecedence").and_then(Value::as_i64).unwrap_or(0) == 0 {
            spec.insert("matchingPrecedence".to_owned(), 1000.into());
        }
        return;
    }
    if text(spec, "type") == "Exempt" {
        let exempt = entry(spec, "exempt");
        or(exempt, "nominalConcurrencyShares", 0);
        or(exempt, "lendablePercent", 0);
    } else if let Some(limited) = child(spec, "limited") {
        or(limited, "nominalConcurrencyShares", 30);
        or(limited, "lendablePercent", 0);
        let response = entry(limited, "limitResponse");
        if text(response, "type") == "Queue" {
            let queuing = entry(response, "queuing");
            or(queuing, "queues", 64);
            or(queuing, "handSize", 8);
            or(queuing, "queueLengthLimit", 50);
        }
    }
}

pub(super) fn custom_resource_definition(map: &mut Map<String, Value>) {
    let spec = entry(map, "spec");
    let names = entry(spec, "names");
    let kind = text(names, "kind").to_owned();
    if !kind.is_empty() {
        or_empty(names, "singular", &kind.to_lowercase());
        or_empty(names, "listKind", &format!("{kind}List"));
    }
    let conversion = entry(spec, "conversion");
    or_empty(conversion, "strategy", "None");
    if let Some(service) = child(conversion, "webhook")
        .and_then(|w| child(w, "clientConfig"))
        .and_then(|c| child(c, "service"))
    {
        or(service, "port", 443);
    }
}

pub(super) fn api_service(map: &mut Map<String, Value>) {
    if let Some(service) = child(map, "spec").and_then(|s| child(s, "service")) {
        or(service, "port", 443);
    }
}
