//! Nodes and runtime classes.

use serde_json::Value;

use super::format::{NONE, condition_status};
use super::{Printer, age, name};
use crate::object::{self, get, get_list, get_str};

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";

pub(super) static NODE: Printer = Printer {
    columns: &[
        "Name",
        "Status",
        "Roles",
        "Age",
        "Version",
        "Internal-IP::1",
        "External-IP::1",
        "OS-Image::1",
        "Kernel-Version::1",
        "Container-Runtime::1",
    ],
    cells: |object, now| {
        let info = |field: &str| match get_str(object, &["status", "nodeInfo", field]) {
            "" => Value::from("<unknown>"),
            text => text.into(),
        };
        vec![
            name(object),
            status(object).into(),
            roles(object).into(),
            age(object, now),
            get_str(object, &["status", "nodeInfo", "kubeletVersion"]).into(),
            address(object, "InternalIP").into(),
            address(object, "ExternalIP").into(),
            info("osImage"),
            info("kernelVersion"),
            info("containerRuntimeVersion"),
        ]
    },
};

fn status(node: &Value) -> String {
    let mut status = match condition_status(node, "Ready") {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if get(node, &["spec", "unschedulable"]) == Some(&Value::Bool(true)) {
        status.push_str(",SchedulingDisabled");
    }
    status
}

fn roles(node: &Value) -> String {
    let mut roles: Vec<&str> = Vec::new();
    for (key, value) in object::labels(node).into_iter().flatten() {
        let role = match key.strip_prefix(ROLE_PREFIX) {
            Some(role) => role,
            None if key == ROLE_LABEL => value.as_str().unwrap_or_default(),
            None => continue,
        };
        if !role.is_empty() && !roles.contains(&role) {
            roles.push(role);
        }
    }
    roles.sort_unstable();
    if roles.is_empty() { NONE.to_owned() } else { roles.join(",") }
}

fn address<'a>(node: &'a Value, kind: &str) -> &'a str {
    get_list(node, &["status", "addresses"])
        .iter()
        .find(|a| get_str(a, &["type"]) == kind)
        .map_or(NONE, |a| get_str(a, &["address"]))
}

pub(super) static RUNTIME_CLASS: Printer = Printer {
    columns: &["Name", "Handler", "Age"],
    cells: |object, now| vec![name(object), get_str(object, &["handler"]).into(), age(object, now)],
};
