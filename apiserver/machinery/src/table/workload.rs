//! Workloads, autoscalers and disruption budgets.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::format::{
    NONE, UNSET, age_of, containers, int, is_true, label_selector, labels, or_none,
};
use super::{Printer, age, name};
use crate::object::{self, get, get_list, get_str};
use crate::time;

pub(super) static DEPLOYMENT: Printer = Printer {
    columns: &[
        "Name",
        "Ready",
        "Up-to-date:integer",
        "Available:integer",
        "Age",
        "Containers::1",
        "Images::1",
        "Selector::1",
    ],
    cells: |object, now| {
        let (names, images) = template(object);
        vec![
            name(object),
            ready_of(object).into(),
            int(object, &["status", "updatedReplicas"]).into(),
            int(object, &["status", "availableReplicas"]).into(),
            age(object, now),
            names.into(),
            images.into(),
            label_selector(get(object, &["spec", "selector"])).into(),
        ]
    },
};

pub(super) static REPLICA_SET: Printer = Printer {
    columns: REPLICA_COLUMNS,
    cells: |object, now| replicas(object, label_selector(get(object, &["spec", "selector"])), now),
};

pub(super) static REPLICATION_CONTROLLER: Printer = Printer {
    columns: REPLICA_COLUMNS,
    cells: |object, now| {
        let selector = get(object, &["spec", "selector"]).and_then(Value::as_object);
        replicas(object, labels(selector), now)
    },
};

const REPLICA_COLUMNS: &[&str] = &[
    "Name",
    "Desired:integer",
    "Current:integer",
    "Ready:integer",
    "Age",
    "Containers::1",
    "Images::1",
    "Selector::1",
];

fn replicas(object: &Value, selector: String, now: Timestamp) -> Vec<Value> {
    let (names, images) = template(object);
    vec![
        name(object),
        int(object, &["spec", "replicas"]).into(),
        int(object, &["status", "replicas"]).into(),
        int(object, &["status", "readyReplicas"]).into(),
        age(object, now),
        names.into(),
        images.into(),
        selector.into(),
    ]
}

fn template(object: &Value) -> (String, String) {
    containers(get(object, &["spec", "template", "spec"]))
}

fn ready_of(object: &Value) -> String {
    let ready = int(object, &["status", "readyReplicas"]);
    format!("{ready}/{}", int(object, &["spec", "replicas"]))
}

pub(super) static DAEMON_SET: Printer = Printer {
    columns: &[
        "Name",
        "Desired:integer",
        "Current:integer",
        "Ready:integer",
        "Up-to-date:integer",
        "Available:integer",
        "Node Selector",
        "Age",
        "Containers::1",
        "Images::1",
        "Selector::1",
    ],
    cells: |object, now| {
        let (names, images) = template(object);
        let count = |field: &str| Value::from(int(object, &["status", field]));
        let nodes = get(object, &["spec", "template", "spec", "nodeSelector"]);
        vec![
            name(object),
            count("desiredNumberScheduled"),
            count("currentNumberScheduled"),
            count("numberReady"),
            count("updatedNumberScheduled"),
            count("numberAvailable"),
            labels(nodes.and_then(Value::as_object)).into(),
            age(object, now),
            names.into(),
            images.into(),
            label_selector(get(object, &["spec", "selector"])).into(),
        ]
    },
};

pub(super) static STATEFUL_SET: Printer = Printer {
    columns: &["Name", "Ready", "Age", "Containers::1", "Images::1"],
    cells: |object, now| {
        let (names, images) = template(object);
        vec![name(object), ready_of(object).into(), age(object, now), names.into(), images.into()]
    },
};

pub(super) static CONTROLLER_REVISION: Printer = Printer {
    columns: &["Name", "Controller", "Revision:integer", "Age"],
    cells: |object, now| {
        let controller = object::controller_of(object).map_or(NONE.to_owned(), |owner| {
            let api_version = get_str(owner, &["apiVersion"]);
            let kind = get_str(owner, &["kind"]).to_lowercase();
            let kind = match api_version.split_once('/') {
                Some((group, _)) => format!("{kind}.{group}"),
                None => kind,
            };
            format!("{kind}/{}", get_str(owner, &["name"]))
        });
        vec![name(object), controller.into(), int(object, &["revision"]).into(), age(object, now)]
    },
};

pub(super) static JOB: Printer = Printer {
    columns: &[
        "Name",
        "Status",
        "Completions",
        "Duration",
        "Age",
        "Containers::1",
        "Images::1",
        "Selector::1",
    ],
    cells: |object, now| {
        let (names, images) = template(object);
        vec![
            name(object),
            job_status(object).into(),
            completions(object).into(),
            duration(object, now).into(),
            age(object, now),
            names.into(),
            images.into(),
            label_selector(get(object, &["spec", "selector"])).into(),
        ]
    },
};

fn job_status(job: &Value) -> &'static str {
    if is_true(job, "Complete") {
        "Complete"
    } else if is_true(job, "Failed") {
        "Failed"
    } else if object::is_terminating(job) {
        "Terminating"
    } else if is_true(job, "Suspended") {
        "Suspended"
    } else if is_true(job, "FailureTarget") {
        "FailureTarget"
    } else if is_true(job, "SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn completions(job: &Value) -> String {
    let succeeded = int(job, &["status", "succeeded"]);
    match get(job, &["spec", "completions"]).and_then(Value::as_i64) {
        Some(wanted) => format!("{succeeded}/{wanted}"),
        None => match int(job, &["spec", "parallelism"]) {
            parallel if parallel > 1 => format!("{succeeded}/1 of {parallel}"),
            _ => format!("{succeeded}/1"),
        },
    }
}

fn duration(job: &Value, now: Timestamp) -> String {
    let at = |field: &str| time::parse(get_str(job, &["status", field]));
    match at("startTime") {
        None => String::new(),
        Some(start) => {
            let end = at("completionTime").unwrap_or(now);
            time::human_duration(end.duration_since(start).as_secs())
        }
    }
}

pub(super) static CRON_JOB: Printer = Printer {
    columns: &[
        "Name",
        "Schedule",
        "Timezone",
        "Suspend:boolean",
        "Active:integer",
        "Last Schedule",
        "Age",
        "Containers::1",
        "Images::1",
        "Selector::1",
    ],
    cells: |object, now| {
        let job = get(object, &["spec", "jobTemplate", "spec"]);
        let (names, images) = containers(job.and_then(|j| get(j, &["template", "spec"])));
        let last = match get(object, &["status", "lastScheduleTime"]) {
            Some(_) => age_of(object, &["status", "lastScheduleTime"], now),
            None => NONE.to_owned(),
        };
        let suspend = match get(object, &["spec", "suspend"]).and_then(Value::as_bool) {
            Some(true) => "True",
            Some(false) => "False",
            None => UNSET,
        };
        vec![
            name(object),
            get_str(object, &["spec", "schedule"]).into(),
            or_none(get_str(object, &["spec", "timeZone"])),
            suspend.into(),
            get_list(object, &["status", "active"]).len().into(),
            last.into(),
            age(object, now),
            names.into(),
            images.into(),
            label_selector(job.and_then(|j| j.get("selector"))).into(),
        ]
    },
};

pub(super) static DISRUPTION_BUDGET: Printer = Printer {
    columns: &["Name", "Min Available", "Max Unavailable", "Allowed Disruptions:integer", "Age"],
    cells: |object, now| {
        let limit = |field: &str| match get(object, &["spec", field]) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => "N/A".to_owned(),
        };
        vec![
            name(object),
            limit("minAvailable").into(),
            limit("maxUnavailable").into(),
            int(object, &["status", "disruptionsAllowed"]).into(),
            age(object, now),
        ]
    },
};

pub(super) static AUTOSCALER: Printer = Printer {
    columns: &[
        "Name",
        "Reference",
        "Targets",
        "MinPods",
        "MaxPods:integer",
        "Replicas:integer",
        "Age",
    ],
    cells: autoscaler,
};

fn autoscaler(object: &Value, now: Timestamp) -> Vec<Value> {
    let reference = get(object, &["spec", "scaleTargetRef"]).cloned().unwrap_or_default();
    let reference =
        format!("{}/{}", get_str(&reference, &["kind"]), get_str(&reference, &["name"]));
    let min = match get(object, &["spec", "minReplicas"]).and_then(Value::as_i64) {
        Some(min) => min.to_string(),
        None => UNSET.to_owned(),
    };
    vec![
        name(object),
        reference.into(),
        targets(object).into(),
        min.into(),
        int(object, &["spec", "maxReplicas"]).into(),
        int(object, &["status", "currentReplicas"]).into(),
        age(object, now),
    ]
}

/// At most this many metrics are shown.
const TARGETS_MAX: usize = 2;

fn targets(object: &Value) -> String {
    if let Some(target) = get(object, &["spec", "targetCPUUtilizationPercentage"]) {
        let current = get(object, &["status", "currentCPUUtilizationPercentage"]);
        let current = current.map_or("<unknown>".to_owned(), |c| format!("{c}%"));
        return format!("cpu: {current}/{target}%");
    }
    let specs = get_list(object, &["spec", "metrics"]);
    if specs.is_empty() {
        return NONE.to_owned();
    }
    let current = get_list(object, &["status", "currentMetrics"]);
    let shown: Vec<String> = specs
        .iter()
        .enumerate()
        .take(TARGETS_MAX)
        .map(|(index, spec)| target(spec, current.get(index)))
        .collect();
    let text = shown.join(", ");
    match specs.len().saturating_sub(TARGETS_MAX) {
        0 => text,
        more => format!("{text} + {more} more..."),
    }
}

fn target(spec: &Value, current: Option<&Value>) -> String {
    let source = match get_str(spec, &["type"]) {
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "Pods" => "pods",
        "Object" => "object",
        "External" => "external",
        _ => return "<unknown type>".to_owned(),
    };
    let nothing = json!({});
    let wanted = get(spec, &[source, "target"]).unwrap_or(&nothing);
    let current = current.and_then(|c| get(c, &[source, "current"])).unwrap_or(&nothing);
    let (field, unit) = ["averageUtilization", "averageValue", "value"]
        .into_iter()
        .map(|field| (field, if field == "averageUtilization" { "%" } else { "" }))
        .find(|(field, _)| wanted.get(field).is_some())
        .unwrap_or(("value", ""));
    let text = |value: Option<&Value>| match value {
        Some(Value::String(text)) => text.clone(),
        Some(other) => format!("{other}{unit}"),
        None => "<unknown>".to_owned(),
    };
    let pair = format!("{}/{}", text(current.get(field)), text(wanted.get(field)));
    match source {
        "resource" | "containerResource" => format!("{}: {pair}", get_str(spec, &[source, "name"])),
        _ if field == "averageValue" && source != "pods" => format!("{pair} (avg)"),
        _ => pair,
    }
}
