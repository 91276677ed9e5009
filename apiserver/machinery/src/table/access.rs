//! Role bindings, certificates, admission, flow control and API services.

use serde_json::Value;

use super::format::{NONE, UNSET, int};
use super::{Printer, age, name};
use crate::object::{get, get_list, get_str};
use crate::time;

pub(super) static ROLE_BINDING: Printer = Printer {
    columns: &["Name", "Role", "Age", "Users::1", "Groups::1", "ServiceAccounts::1"],
    cells: |object, now| {
        let role = format!(
            "{}/{}",
            get_str(object, &["roleRef", "kind"]),
            get_str(object, &["roleRef", "name"])
        );
        let subjects = |kind: &str| -> Value {
            let list = get_list(object, &["subjects"]).iter();
            let list = list.filter(|s| get_str(s, &["kind"]) == kind).map(|s| {
                let name = get_str(s, &["name"]);
                match kind {
                    "ServiceAccount" => format!("{}/{name}", get_str(s, &["namespace"])),
                    _ => name.to_owned(),
                }
            });
            list.collect::<Vec<_>>().join(", ").into()
        };
        vec![
            name(object),
            role.into(),
            age(object, now),
            subjects("User"),
            subjects("Group"),
            subjects("ServiceAccount"),
        ]
    },
};

pub(super) static SIGNING_REQUEST: Printer = Printer {
    columns: &["Name", "Age", "SignerName", "Requestor", "RequestedDuration", "Condition"],
    cells: |object, now| {
        let duration = get(object, &["spec", "expirationSeconds"]).and_then(Value::as_i64);
        vec![
            name(object),
            age(object, now),
            get_str(object, &["spec", "signerName"]).into(),
            get_str(object, &["spec", "username"]).into(),
            duration.map_or(NONE.to_owned(), time::human_duration).into(),
            signing_status(object).into(),
        ]
    },
};

fn signing_status(request: &Value) -> String {
    let has = |kind: &str| {
        get_list(request, &["status", "conditions"]).iter().any(|c| get_str(c, &["type"]) == kind)
    };
    let mut status = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    }
    .to_owned();
    if has("Failed") {
        status.push_str(",Failed");
    }
    if !get_str(request, &["status", "certificate"]).is_empty() {
        status.push_str(",Issued");
    }
    status
}

pub(super) static WEBHOOKS: Printer = Printer {
    columns: &["Name", "Webhooks:integer", "Age"],
    cells: |object, now| {
        vec![name(object), get_list(object, &["webhooks"]).len().into(), age(object, now)]
    },
};

pub(super) static VALIDATING_POLICY: Printer = Printer {
    columns: &["Name", "Validations:integer", "ParamKind", "Age"],
    cells: |object, now| {
        let kind = get(object, &["spec", "paramKind"]).map_or(UNSET.to_owned(), |kind| {
            format!("{}/{}", get_str(kind, &["apiVersion"]), get_str(kind, &["kind"]))
        });
        let validations = get_list(object, &["spec", "validations"]).len();
        vec![name(object), validations.into(), kind.into(), age(object, now)]
    },
};

pub(super) static POLICY_BINDING: Printer = Printer {
    columns: &["Name", "PolicyName", "ParamRef", "Age"],
    cells: |object, now| {
        let parameter = get(object, &["spec", "paramRef"]).map_or(UNSET.to_owned(), |reference| {
            match (get_str(reference, &["namespace"]), get_str(reference, &["name"])) {
                ("", name) => name.to_owned(),
                (namespace, name) => format!("{namespace}/{name}"),
            }
        });
        let policy = get_str(object, &["spec", "policyName"]);
        vec![name(object), policy.into(), parameter.into(), age(object, now)]
    },
};

pub(super) static FLOW_SCHEMA: Printer = Printer {
    columns: &[
        "Name",
        "PriorityLevel",
        "MatchingPrecedence:integer",
        "DistinguisherMethod",
        "Age",
        "MissingPL",
    ],
    cells: |object, now| {
        let method = get_str(object, &["spec", "distinguisherMethod", "type"]);
        let dangling = get_list(object, &["status", "conditions"])
            .iter()
            .find(|c| get_str(c, &["type"]) == "Dangling")
            .map_or("?", |c| get_str(c, &["status"]));
        vec![
            name(object),
            get_str(object, &["spec", "priorityLevelConfiguration", "name"]).into(),
            int(object, &["spec", "matchingPrecedence"]).into(),
            if method.is_empty() { NONE } else { method }.into(),
            age(object, now),
            dangling.into(),
        ]
    },
};

pub(super) static PRIORITY_LEVEL: Printer = Printer {
    columns: &[
        "Name",
        "Type",
        "NominalConcurrencyShares:integer",
        "Queues:integer",
        "HandSize:integer",
        "QueueLengthLimit:integer",
        "Age",
    ],
    cells: |object, now| {
        let kind = get_str(object, &["spec", "type"]);
        let number = |path: &[&str]| match get(object, path).and_then(Value::as_i64) {
            Some(number) => number.into(),
            None => Value::from(NONE),
        };
        let queuing = |field: &str| number(&["spec", "limited", "limitResponse", "queuing", field]);
        let section = if kind == "Exempt" { "exempt" } else { "limited" };
        vec![
            name(object),
            kind.into(),
            number(&["spec", section, "nominalConcurrencyShares"]),
            queuing("queues"),
            queuing("handSize"),
            queuing("queueLengthLimit"),
            age(object, now),
        ]
    },
};

pub(super) static API_SERVICE: Printer = Printer {
    columns: &["Name", "Service", "Available", "Age"],
    cells: |object, now| {
        let service = get(object, &["spec", "service"]).map_or("Local".to_owned(), |service| {
            format!("{}/{}", get_str(service, &["namespace"]), get_str(service, &["name"]))
        });
        let available = get_list(object, &["status", "conditions"])
            .iter()
            .find(|c| get_str(c, &["type"]) == "Available")
            .map_or("Unknown".to_owned(), |c| match get_str(c, &["status"]) {
                "True" => "True".to_owned(),
                status => format!("{status} ({})", get_str(c, &["reason"])),
            });
        vec![name(object), service.into(), available.into(), age(object, now)]
    },
};
