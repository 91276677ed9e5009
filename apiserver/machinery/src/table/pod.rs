//! Pods and pod templates.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::format::{NONE, containers, int, is_true, labels, or_none};
use super::{Printer, age, name};
use crate::object::{self, get, get_list, get_str};
use crate::time;

pub(super) static POD: Printer = Printer {
    columns: &[
        "Name",
        "Ready",
        "Status",
        "Restarts",
        "Age",
        "IP::1",
        "Node::1",
        "Nominated Node::1",
        "Readiness Gates::1",
    ],
    cells: pod,
};

pub(super) static POD_TEMPLATE: Printer = Printer {
    columns: &["Name", "Containers", "Images", "Pod Labels"],
    cells: |object, _| {
        let (names, images) = containers(get(object, &["template", "spec"]));
        let labels =
            labels(get(object, &["template", "metadata", "labels"]).and_then(Value::as_object));
        vec![name(object), names.into(), images.into(), labels.into()]
    },
};

/// The row conditions by which clients tell pods that are done.
pub(super) fn row_conditions(pod: &Value) -> Option<Value> {
    let (reason, message) = match get_str(pod, &["status", "phase"]) {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]))
}

/// What the containers say about the pod.
struct Summary {
    reason: String,
    ready: i64,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

impl Summary {
    fn count_restarts(&mut self, status: &Value) {
        self.restarts += int(status, &["restartCount"]);
        let finished = get_str(status, &["lastState", "terminated", "finishedAt"]);
        self.last_restart = self.last_restart.max(time::parse(finished));
    }
}

fn pod(pod: &Value, now: Timestamp) -> Vec<Value> {
    let sidecars = get_list(pod, &["spec", "initContainers"]).iter().filter(|c| is_sidecar(c));
    let total = get_list(pod, &["spec", "containers"]).len() + sidecars.count();
    let summary = summarize(pod);
    let restarts = match summary.last_restart.filter(|_| summary.restarts != 0) {
        Some(last) => {
            let ago = time::human_duration(now.duration_since(last).as_secs());
            format!("{} ({ago} ago)", summary.restarts)
        }
        None => summary.restarts.to_string(),
    };
    vec![
        name(pod),
        format!("{}/{total}", summary.ready).into(),
        status(pod, summary.reason).into(),
        restarts.into(),
        age(pod, now),
        or_none(pod_ip(pod)),
        or_none(get_str(pod, &["spec", "nodeName"])),
        or_none(get_str(pod, &["status", "nominatedNodeName"])),
        readiness_gates(pod).into(),
    ]
}

fn pod_ip(pod: &Value) -> &str {
    match get_list(pod, &["status", "podIPs"]).first() {
        Some(ip) => get_str(ip, &["ip"]),
        None => get_str(pod, &["status", "podIP"]),
    }
}

/// A pod that is being deleted says so, unless it is done already.
fn status(pod: &Value, reason: String) -> String {
    if !object::is_terminating(pod) {
        return reason;
    }
    if get_str(pod, &["status", "reason"]) == "NodeLost" {
        return "Unknown".to_owned();
    }
    match get_str(pod, &["status", "phase"]) {
        "Succeeded" | "Failed" => reason,
        _ => "Terminating".to_owned(),
    }
}

fn is_sidecar(container: &Value) -> bool {
    get_str(container, &["restartPolicy"]) == "Always"
}

fn summarize(pod: &Value) -> Summary {
    let phase = get_str(pod, &["status", "phase"]);
    let own_reason = get_str(pod, &["status", "reason"]);
    let gated = get_list(pod, &["status", "conditions"]).iter().any(|c| {
        get_str(c, &["type"]) == "PodScheduled" && get_str(c, &["reason"]) == "SchedulingGated"
    });
    let reason = match (gated, own_reason) {
        (true, _) => "SchedulingGated",
        (false, "") => phase,
        (false, own) => own,
    };
    let mut summary =
        Summary { reason: reason.to_owned(), ready: 0, restarts: 0, last_restart: None };
    let mut sidecars = Summary { reason: String::new(), ready: 0, restarts: 0, last_restart: None };
    let initializing = summarize_init(pod, &mut summary, &mut sidecars);
    if !initializing || is_true(pod, "Initialized") {
        summary.restarts = sidecars.restarts;
        summary.last_restart = sidecars.last_restart;
        summarize_containers(pod, &mut summary);
    }
    summary
}

/// Answers whether an init container still runs or has failed; its state is then the pod's.
fn summarize_init(pod: &Value, summary: &mut Summary, sidecars: &mut Summary) -> bool {
    let specs = get_list(pod, &["spec", "initContainers"]);
    for (index, status) in get_list(pod, &["status", "initContainerStatuses"]).iter().enumerate() {
        let container = get_str(status, &["name"]);
        let sidecar = specs.iter().any(|c| get_str(c, &["name"]) == container && is_sidecar(c));
        summary.count_restarts(status);
        if sidecar {
            sidecars.count_restarts(status);
        }
        let terminated = get(status, &["state", "terminated"]);
        let waiting = get_str(status, &["state", "waiting", "reason"]);
        match terminated {
            Some(end) if int(end, &["exitCode"]) == 0 => continue,
            _ if sidecar && status.get("started") == Some(&Value::Bool(true)) => {
                summary.ready += i64::from(status.get("ready") == Some(&Value::Bool(true)));
                continue;
            }
            Some(end) => summary.reason = format!("Init:{}", end_reason(end)),
            None if !waiting.is_empty() && waiting != "PodInitializing" => {
                summary.reason = format!("Init:{waiting}");
            }
            None => summary.reason = format!("Init:{index}/{}", specs.len()),
        }
        return true;
    }
    false
}

fn end_reason(terminated: &Value) -> String {
    match (get_str(terminated, &["reason"]), int(terminated, &["signal"])) {
        ("", 0) => format!("ExitCode:{}", int(terminated, &["exitCode"])),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn summarize_containers(pod: &Value, summary: &mut Summary) {
    let mut has_running = false;
    for status in get_list(pod, &["status", "containerStatuses"]).iter().rev() {
        summary.count_restarts(status);
        let waiting = get_str(status, &["state", "waiting", "reason"]);
        if !waiting.is_empty() {
            summary.reason = waiting.to_owned();
        } else if let Some(end) = get(status, &["state", "terminated"]) {
            summary.reason = end_reason(end);
        } else if status.get("ready") == Some(&Value::Bool(true))
            && get(status, &["state", "running"]).is_some()
        {
            has_running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" && has_running {
        let ready = is_true(pod, "Ready");
        summary.reason = if ready { "Running" } else { "NotReady" }.to_owned();
    }
}

fn readiness_gates(pod: &Value) -> String {
    let gates = get_list(pod, &["spec", "readinessGates"]);
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let open = gates.iter().filter(|g| is_true(pod, get_str(g, &["conditionType"]))).count();
    format!("{open}/{}", gates.len())
}
