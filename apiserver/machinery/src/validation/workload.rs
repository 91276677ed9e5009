//! Workloads: selectors that match their templates, strategies, and what may not change.

use serde_json::Value;

use super::{
    IMMUTABLE, immutable, label_selector, map, not_negative, one_of, part, pod, same, text,
    validate_pod_template,
};
use crate::object::{self, get};
use crate::schedule::Schedule;
use crate::selector::LabelSelector;
use crate::{ErrorList, Path, int_or_string};

const CRON_JOB_NAME_MAX: usize = 52;

pub(super) fn validate(kind: &str, workload: &Value, errors: &mut ErrorList) {
    let path = Path::new("spec");
    let spec = part(workload, "spec");
    match kind {
        "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet" => {}
        _ => return,
    }
    not_negative(spec, "replicas", &path, errors);
    not_negative(spec, "minReadySeconds", &path, errors);
    not_negative(spec, "revisionHistoryLimit", &path, errors);
    validate_selector(kind, spec, &path, errors);
    validate_pod_template(spec.get("template"), &path.child("template"), errors);
    always_restarts(spec, &path, errors);
    match kind {
        "Deployment" => validate_deployment(spec, &path, errors),
        "DaemonSet" | "StatefulSet" => {
            let strategy = text(part(spec, "updateStrategy"), "type");
            let field = path.child("updateStrategy").child("type");
            one_of(strategy, &["OnDelete", "RollingUpdate"], field, errors);
        }
        _ => {}
    }
    if kind == "StatefulSet" {
        let policy = text(spec, "podManagementPolicy");
        one_of(policy, &["OrderedReady", "Parallel"], path.child("podManagementPolicy"), errors);
    }
}

/// The selector is there, not empty, and selects the pods of the template.
fn validate_selector(kind: &str, spec: &Value, path: &Path, errors: &mut ErrorList) {
    let before = errors.len();
    label_selector(spec.get("selector"), &path.child("selector"), Some(kind), errors);
    if errors.len() > before {
        return;
    }
    let Ok(selector) = LabelSelector::from_value(part(spec, "selector")) else { return };
    let labels = pod::template_labels(spec);
    if !selector.matches(labels) {
        does_not_match(labels, path, errors);
    }
}

fn does_not_match(
    labels: Option<&serde_json::Map<String, Value>>,
    path: &Path,
    errors: &mut ErrorList,
) {
    let path = path.child("template").child("metadata").child("labels");
    let labels = labels.cloned().map_or(Value::Null, Value::Object);
    errors.invalid(path, labels, "`selector` does not match template `labels`");
}

fn always_restarts(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let policy = object::get_str(spec, &["template", "spec", "restartPolicy"]);
    if !matches!(policy, "" | "Always") {
        let path = path.child("template").child("spec").child("restartPolicy");
        errors.not_supported(path, policy, &["Always"]);
    }
}

fn validate_deployment(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let strategy = part(spec, "strategy");
    let path = path.child("strategy");
    match text(strategy, "type") {
        "Recreate" if strategy.get("rollingUpdate").is_some_and(|r| !r.is_null()) => {
            errors.forbidden(
                path.child("rollingUpdate"),
                "may not be specified when strategy `type` is 'Recreate'",
            );
        }
        "RollingUpdate" => {
            let rolling = part(strategy, "rollingUpdate");
            let path = path.child("rollingUpdate");
            let mut zero = true;
            for field in ["maxUnavailable", "maxSurge"] {
                zero &= validate_int_or_percent(part(rolling, field), &path.child(field), errors);
            }
            if zero {
                errors.invalid(
                    path.child("maxUnavailable"),
                    part(rolling, "maxUnavailable").clone(),
                    "may not be 0 when `maxSurge` is 0",
                );
            }
        }
        kind => one_of(kind, &["Recreate", "RollingUpdate"], path.child("type"), errors),
    }
    let (deadline, ready) =
        (get(spec, &["progressDeadlineSeconds"]), get(spec, &["minReadySeconds"]));
    if let Some(deadline) = deadline.and_then(Value::as_i64)
        && deadline <= ready.and_then(Value::as_i64).unwrap_or(0)
    {
        errors.invalid(
            Path::new("spec.progressDeadlineSeconds"),
            deadline,
            "must be greater than minReadySeconds",
        );
    }
}

/// Answers whether the value is zero.
fn validate_int_or_percent(value: &Value, path: &Path, errors: &mut ErrorList) -> bool {
    match value {
        Value::Number(number) => {
            let number = number.as_i64().unwrap_or(0);
            if number < 0 {
                errors.invalid(path.clone(), number, "must be greater than or equal to 0");
            }
            number == 0
        }
        Value::String(text) => match int_or_string::parse_percent(text) {
            Some(percent) => percent == 0,
            None => {
                errors.invalid(path.clone(), text.as_str(), "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')");
                false
            }
        },
        _ => true,
    }
}

pub(super) fn validate_replication_controller(rc: &Value, errors: &mut ErrorList) {
    let path = Path::new("spec");
    let spec = part(rc, "spec");
    not_negative(spec, "replicas", &path, errors);
    validate_pod_template(spec.get("template"), &path.child("template"), errors);
    always_restarts(spec, &path, errors);
    match map(spec, "selector").filter(|m| !m.is_empty()) {
        None => errors.required(path.child("selector"), ""),
        Some(selector) => {
            let labels = pod::template_labels(spec);
            if !LabelSelector::from_map(selector).matches(labels) {
                does_not_match(labels, &path, errors);
            }
        }
    }
}

pub(super) fn validate_update(kind: &str, new: &Value, old: &Value, errors: &mut ErrorList) {
    match kind {
        "Deployment" | "ReplicaSet" | "DaemonSet" => {
            immutable(&["spec", "selector"], new, old, errors);
        }
        "StatefulSet" => {
            const MUTABLE: [&str; 8] = [
                "replicas",
                "ordinals",
                "template",
                "updateStrategy",
                "revisionHistoryLimit",
                "persistentVolumeClaimRetentionPolicy",
                "minReadySeconds",
                "paused",
            ];
            let (new, old) = (map(new, "spec"), map(old, "spec"));
            let keys = new.into_iter().chain(old).flat_map(|m| m.keys());
            let value = |m: Option<&serde_json::Map<String, Value>>, key: &str| {
                m.and_then(|m| m.get(key)).map(without_status)
            };
            let changed = keys
                .filter(|key| !MUTABLE.contains(&key.as_str()))
                .any(|key| !same(value(new, key).as_ref(), value(old, key).as_ref()));
            if changed {
                errors.forbidden(Path::new("spec"), "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden");
            }
        }
        "ControllerRevision" => immutable(&["data"], new, old, errors),
        _ => {}
    }
}

/// Claim templates carry a status that says nothing.
fn without_status(value: &Value) -> Value {
    let mut value = value.clone();
    for item in value.as_array_mut().into_iter().flatten() {
        if let Some(map) = item.as_object_mut() {
            map.remove("status");
        }
    }
    value
}

pub(super) fn validate_job(job: &Value, errors: &mut ErrorList) {
    validate_job_spec(part(job, "spec"), &Path::new("spec"), true, errors);
}

fn validate_job_spec(spec: &Value, path: &Path, selected: bool, errors: &mut ErrorList) {
    for field in [
        "parallelism",
        "completions",
        "backoffLimit",
        "activeDeadlineSeconds",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
    ] {
        not_negative(spec, field, path, errors);
    }
    validate_pod_template(spec.get("template"), &path.child("template"), errors);
    let policy = object::get_str(spec, &["template", "spec", "restartPolicy"]);
    if !matches!(policy, "OnFailure" | "Never") {
        let path = path.child("template").child("spec").child("restartPolicy");
        match policy {
            "" | "Always" => errors.required(path, "valid values: \"OnFailure\", \"Never\""),
            other => errors.not_supported(path, other, &["OnFailure", "Never"]),
        }
    }
    let indexed = text(spec, "completionMode") == "Indexed";
    if indexed && spec.get("completions").is_none_or(Value::is_null) {
        errors.required(path.child("completions"), "when completion mode is Indexed");
    }
    let mode = text(spec, "completionMode");
    if !matches!(mode, "" | "NonIndexed" | "Indexed") {
        errors.not_supported(path.child("completionMode"), mode, &["Indexed", "NonIndexed"]);
    }
    if selected && let Some(value) = spec.get("selector").filter(|v| !v.is_null()) {
        match LabelSelector::from_value(value) {
            Err(error) => errors.invalid(path.child("selector"), value.clone(), error.message),
            Ok(selector) if !selector.matches(pod::template_labels(spec)) => {
                does_not_match(pod::template_labels(spec), path, errors);
            }
            Ok(_) => {}
        }
    }
}

pub(super) fn validate_job_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    for field in ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex"] {
        immutable(&["spec", field], new, old, errors);
    }
    let spec = |job: &'_ Value, field: &str| get(job, &["spec", field]).cloned();
    if spec(new, "completionMode") != Some("Indexed".into()) {
        immutable(&["spec", "completions"], new, old, errors);
    }
    // A job that never started may still be told where its pods go.
    let started = get(old, &["status", "startTime"]).is_some_and(|t| !t.is_null());
    let suspended = get(old, &["spec", "suspend"]) == Some(&Value::Bool(true));
    if started || !suspended {
        let (new, old) = (spec(new, "template"), spec(old, "template"));
        if new != old {
            errors.invalid(Path::new("spec.template"), new.unwrap_or_default(), IMMUTABLE);
        }
    }
}

pub(super) fn validate_cron_job(cron: &Value, errors: &mut ErrorList) {
    let path = Path::new("spec");
    let spec = part(cron, "spec");
    let schedule = text(spec, "schedule");
    if schedule.is_empty() {
        errors.required(path.child("schedule"), "");
    } else if let Some(why) = schedule_error(schedule) {
        errors.invalid(path.child("schedule"), schedule, why);
    }
    validate_time_zone(spec, &path, errors);
    for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"]
    {
        not_negative(spec, field, &path, errors);
    }
    let policies = ["Allow", "Forbid", "Replace"];
    one_of(text(spec, "concurrencyPolicy"), &policies, path.child("concurrencyPolicy"), errors);
    let job = get(spec, &["jobTemplate", "spec"]).unwrap_or(&Value::Null);
    if job.get("manualSelector") == Some(&Value::Bool(true)) {
        errors.not_supported(
            path.child("jobTemplate.spec.manualSelector"),
            true,
            &["nil", "false"],
        );
    }
    validate_job_spec(job, &path.child("jobTemplate").child("spec"), false, errors);
    if object::name(cron).len() > CRON_JOB_NAME_MAX {
        let path = Path::new("metadata").child("name");
        errors.invalid(path, object::name(cron), "must be no more than 52 characters");
    }
}

/// What the controller cannot read, it cannot run.
fn schedule_error(schedule: &str) -> Option<String> {
    if schedule.contains("TZ=") {
        return Some("cannot use TZ or CRON_TZ in schedule, use timeZone field instead".to_owned());
    }
    Schedule::parse(schedule).err()
}

fn validate_time_zone(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(zone) = spec.get("timeZone").filter(|zone| !zone.is_null()) else { return };
    let (path, name) = (path.child("timeZone"), zone.as_str().unwrap_or_default());
    if name.is_empty() {
        errors.invalid(path, name, "must be nil or non-empty string");
    } else if name.eq_ignore_ascii_case("local") {
        let why =
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.invalid(path, name, why);
    } else if jiff::tz::TimeZone::get(name).is_err() {
        errors.invalid(path, name, format!("unknown time zone {name}"));
    }
}

pub(super) fn validate_autoscaler(hpa: &Value, errors: &mut ErrorList) {
    let path = Path::new("spec");
    let spec = part(hpa, "spec");
    let number = |field: &str| spec.get(field).and_then(Value::as_i64);
    let (min, max) = (number("minReplicas"), number("maxReplicas").unwrap_or(0));
    if let Some(min) = min.filter(|min| *min < 1) {
        errors.invalid(path.child("minReplicas"), min, "must be greater than or equal to 1");
    }
    if max < 1 {
        errors.invalid(path.child("maxReplicas"), max, "must be greater than 0");
    } else if min.is_some_and(|min| max < min) {
        errors.invalid(
            path.child("maxReplicas"),
            max,
            "must be greater than or equal to `minReplicas`",
        );
    }
    for field in ["kind", "name"] {
        if text(part(spec, "scaleTargetRef"), field).is_empty() {
            errors.required(path.child("scaleTargetRef").child(field), "");
        }
    }
}

pub(super) fn validate_disruption_budget(budget: &Value, errors: &mut ErrorList) {
    let path = Path::new("spec");
    let spec = part(budget, "spec");
    let is_set = |field: &str| spec.get(field).is_some_and(|v| !v.is_null());
    if is_set("minAvailable") && is_set("maxUnavailable") {
        errors.invalid(
            path.clone(),
            spec.clone(),
            "minAvailable and maxUnavailable cannot be both set",
        );
    }
    for field in ["minAvailable", "maxUnavailable"] {
        if is_set(field) {
            validate_int_or_percent(part(spec, field), &path.child(field), errors);
        }
    }
    label_selector(spec.get("selector"), &path.child("selector"), None, errors);
}
