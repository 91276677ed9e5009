//! Events, namespaces, configuration, quotas, leases and priorities.

use jiff::Timestamp;
use serde_json::Value;

use super::format::{age_of, int};
use super::{Printer, age, name};
use crate::object::{get, get_list, get_str};

pub(super) static EVENT: Printer = Printer {
    columns: &[
        "Last Seen",
        "Type",
        "Reason",
        "Object",
        "Subobject::1",
        "Source::1",
        "Message",
        "First Seen::1",
        "Count:integer:1",
        "Name::1",
    ],
    cells: event,
};

/// The value of the first of these fields that is there: the two event APIs name them differently.
fn either<'a>(event: &'a Value, core: &[&str], events: &[&str]) -> Option<&'a Value> {
    get(event, core).or_else(|| get(event, events)).filter(|v| !v.is_null())
}

fn event(event: &Value, now: Timestamp) -> Vec<Value> {
    let since = |core: &str, events: &str| {
        either(event, &[core], &[events])
            .and_then(Value::as_str)
            .map(|text| crate::time::age(Some(text), now))
    };
    let first = since("firstTimestamp", "deprecatedFirstTimestamp")
        .unwrap_or_else(|| age_of(event, &["eventTime"], now));
    let mut last =
        since("lastTimestamp", "deprecatedLastTimestamp").unwrap_or_else(|| first.clone());
    let mut count = either(event, &["count"], &["deprecatedCount"]).and_then(Value::as_i64);
    if let Some(series) = get(event, &["series"]) {
        last = age_of(series, &["lastObservedTime"], now);
        count = Some(int(series, &["count"]));
    }
    let target = either(event, &["involvedObject"], &["regarding"]);
    let part = |field: &str| target.map_or("", |t| get_str(t, &[field]));
    let object = match (part("kind").to_lowercase(), part("name")) {
        (kind, "") => kind,
        (kind, name) => format!("{kind}/{name}"),
    };
    let message = either(event, &["message"], &["note"]).and_then(Value::as_str).unwrap_or("");
    vec![
        last.into(),
        get_str(event, &["type"]).into(),
        get_str(event, &["reason"]).into(),
        object.into(),
        part("fieldPath").into(),
        source(event).into(),
        message.trim().into(),
        first.into(),
        count.filter(|c| *c != 0).unwrap_or(1).into(),
        name(event),
    ]
}

fn source(event: &Value) -> String {
    let source = either(event, &["source"], &["deprecatedSource"]);
    let part = |field: &str| source.map_or("", |s| get_str(s, &[field]));
    let controller = either(event, &["reportingComponent"], &["reportingController"]);
    let (component, host) = match part("component") {
        "" => (
            controller.and_then(Value::as_str).unwrap_or(""),
            get_str(event, &["reportingInstance"]),
        ),
        component => (component, part("host")),
    };
    if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") }
}

pub(super) static NAMESPACE: Printer = Printer {
    columns: &["Name", "Status", "Age"],
    cells: |object, now| {
        vec![name(object), get_str(object, &["status", "phase"]).into(), age(object, now)]
    },
};

fn count(object: &Value, field: &str) -> Value {
    match object.get(field) {
        Some(Value::Object(map)) => map.len().into(),
        Some(Value::Array(list)) => list.len().into(),
        _ => 0.into(),
    }
}

pub(super) static SECRET: Printer = Printer {
    columns: &["Name", "Type", "Data:integer", "Age"],
    cells: |object, now| {
        let kind = get_str(object, &["type"]);
        vec![name(object), kind.into(), count(object, "data"), age(object, now)]
    },
};

pub(super) static CONFIG_MAP: Printer = Printer {
    columns: &["Name", "Data:integer", "Age"],
    cells: |object, now| {
        let total = ["data", "binaryData"].map(|f| count(object, f).as_u64().unwrap_or(0));
        vec![name(object), total.iter().sum::<u64>().into(), age(object, now)]
    },
};

pub(super) static SERVICE_ACCOUNT: Printer = Printer {
    columns: &["Name", "Secrets:integer", "Age"],
    cells: |object, now| vec![name(object), count(object, "secrets"), age(object, now)],
};

pub(super) static RESOURCE_QUOTA: Printer = Printer {
    columns: &["Name", "Request", "Limit", "Age"],
    cells: |object, now| {
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        let hard = get(object, &["status", "hard"]).and_then(Value::as_object);
        for (resource, hard) in hard.into_iter().flatten() {
            let used = match get_str(object, &["status", "used", resource]) {
                "" => "0",
                used => used,
            };
            let text = format!("{resource}: {used}/{}", hard.as_str().unwrap_or_default());
            if resource.starts_with("limits.") { limits.push(text) } else { requests.push(text) }
        }
        vec![name(object), requests.join(", ").into(), limits.join(", ").into(), age(object, now)]
    },
};

pub(super) static COMPONENT_STATUS: Printer = Printer {
    columns: &["Name", "Status", "Message", "Error"],
    cells: |object, _| {
        let healthy =
            get_list(object, &["conditions"]).iter().find(|c| get_str(c, &["type"]) == "Healthy");
        let part = |field: &str| healthy.map_or("", |c| get_str(c, &[field]));
        let status = match part("status") {
            "True" => "Healthy",
            "False" => "Unhealthy",
            _ => "Unknown",
        };
        vec![name(object), status.into(), part("message").into(), part("error").into()]
    },
};

pub(super) static LEASE: Printer = Printer {
    columns: &["Name", "Holder", "Age"],
    cells: |object, now| {
        vec![name(object), get_str(object, &["spec", "holderIdentity"]).into(), age(object, now)]
    },
};

pub(super) static PRIORITY_CLASS: Printer = Printer {
    columns: &["Name", "Value:integer", "Global-Default:boolean", "Age", "PreemptionPolicy"],
    cells: |object, now| {
        let global = object.get("globalDefault") == Some(&Value::Bool(true));
        vec![
            name(object),
            int(object, &["value"]).into(),
            global.into(),
            age(object, now),
            get_str(object, &["preemptionPolicy"]).into(),
        ]
    },
};
