//! Defaults of workloads and autoscalers.

use serde_json::{Map, Value, json};

use super::{child, each, entry, has, or, or_empty, pod, storage, text};

pub(super) fn replication_controller(map: &mut Map<String, Value>) {
    let labels = {
        let spec = entry(map, "spec");
        or(spec, "replicas", 1);
        let Some(template) = child(spec, "template") else { return };
        pod::template_body(template);
        let labels = template_labels(template);
        if let Some(labels) = &labels
            && spec.get("selector").and_then(Value::as_object).is_none_or(Map::is_empty)
        {
            spec.insert("selector".to_owned(), labels.clone());
        }
        labels
    };
    inherit_labels(map, labels);
}

fn template_labels(template: &Map<String, Value>) -> Option<Value> {
    let labels = template.get("metadata")?.get("labels")?;
    labels.as_object().is_some_and(|m| !m.is_empty()).then(|| labels.clone())
}

fn inherit_labels(map: &mut Map<String, Value>, labels: Option<Value>) {
    let Some(labels) = labels else { return };
    let metadata = entry(map, "metadata");
    if metadata.get("labels").and_then(Value::as_object).is_none_or(Map::is_empty) {
        metadata.insert("labels".to_owned(), labels);
    }
}

pub(super) fn deployment(map: &mut Map<String, Value>) {
    let spec = entry(map, "spec");
    or(spec, "replicas", 1);
    or(spec, "revisionHistoryLimit", 10);
    or(spec, "progressDeadlineSeconds", 600);
    let strategy = entry(spec, "strategy");
    or_empty(strategy, "type", "RollingUpdate");
    if text(strategy, "type") == "RollingUpdate" {
        let rolling = entry(strategy, "rollingUpdate");
        or(rolling, "maxUnavailable", "25%");
        or(rolling, "maxSurge", "25%");
    }
    pod::template(spec, "template");
}

pub(super) fn replica_set(map: &mut Map<String, Value>) {
    let spec = entry(map, "spec");
    or(spec, "replicas", 1);
    pod::template(spec, "template");
}

pub(super) fn daemon_set(map: &mut Map<String, Value>) {
    let spec = entry(map, "spec");
    or(spec, "revisionHistoryLimit", 10);
    let strategy = entry(spec, "updateStrategy");
    or_empty(strategy, "type", "RollingUpdate");
    if text(strategy, "type") == "RollingUpdate" {
        let rolling = entry(strategy, "rollingUpdate");
        or(rolling, "maxUnavailable", 1);
        or(rolling, "maxSurge", 0);
    }
    pod::template(spec, "template");
}

pub(super) fn stateful_set(map: &mut Map<String, Value>) {
    let spec = entry(map, "spec");
    or(spec, "replicas", 1);
    or(spec, "revisionHistoryLimit", 10);
    or_empty(spec, "podManagementPolicy", "OrderedReady");
    let strategy = entry(spec, "updateStrategy");
    or_empty(strategy, "type", "RollingUpdate");
    if text(strategy, "type") == "RollingUpdate" {
        or(entry(strategy, "rollingUpdate"), "partition", 0);
    }
    let retention = entry(spec, "persistentVolumeClaimRetentionPolicy");
    or_empty(retention, "whenDeleted", "Retain");
    or_empty(retention, "whenScaled", "Retain");
    each(spec, "volumeClaimTemplates", |claim| {
        or_empty(claim, "apiVersion", "v1");
        or_empty(claim, "kind", "PersistentVolumeClaim");
        storage::claim(claim);
    });
    pod::template(spec, "template");
}

pub(super) fn job(map: &mut Map<String, Value>) {
    let spec = entry(map, "spec");
    if !has(spec, "completions") && !has(spec, "parallelism") {
        or(spec, "completions", 1);
    }
    or(spec, "parallelism", 1);
    or_empty(spec, "completionMode", "NonIndexed");
    or(spec, "suspend", false);
    let backoff = if has(spec, "backoffLimitPerIndex") { i64::from(i32::MAX) } else { 6 };
    or(spec, "backoffLimit", backoff);
    let has_policy = has(spec, "podFailurePolicy");
    or_empty(
        spec,
        "podReplacementPolicy",
        if has_policy { "Failed" } else { "TerminatingOrFailed" },
    );
    if let Some(policy) = child(spec, "podFailurePolicy") {
        each(policy, "rules", |rule| {
            each(rule, "onPodConditions", |pattern| or_empty(pattern, "status", "True"));
        });
    }
    pod::template(spec, "template");
    let labels = child(spec, "template").and_then(|t| template_labels(t));
    inherit_labels(map, labels);
}

pub(super) fn cron_job(map: &mut Map<String, Value>) {
    let spec = entry(map, "spec");
    or_empty(spec, "concurrencyPolicy", "Allow");
    or(spec, "suspend", false);
    or(spec, "successfulJobsHistoryLimit", 3);
    or(spec, "failedJobsHistoryLimit", 1);
    let job = entry(entry(spec, "jobTemplate"), "spec");
    pod::template(job, "template");
}

pub(super) fn horizontal_pod_autoscaler(map: &mut Map<String, Value>, version: &str) {
    let annotated = map
        .get("metadata")
        .and_then(|m| m.get("annotations"))
        .and_then(|a| a.get("autoscaling.alpha.kubernetes.io/metrics"))
        .is_some();
    let spec = entry(map, "spec");
    or(spec, "minReplicas", 1);
    if version == "v1" {
        if !annotated {
            or(spec, "targetCPUUtilizationPercentage", 80);
        }
        return;
    }
    if spec.get("metrics").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        let target = json!({"type": "Utilization", "averageUtilization": 80});
        let metric = json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
        spec.insert("metrics".to_owned(), json!([metric]));
    }
    if let Some(behavior) = child(spec, "behavior") {
        scaling_rules(behavior, "scaleUp", || {
            json!([
                {"type": "Pods", "value": 4, "periodSeconds": 15},
                {"type": "Percent", "value": 100, "periodSeconds": 15},
            ])
        });
        scaling_rules(
            behavior,
            "scaleDown",
            || json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]),
        );
        or(entry(behavior, "scaleUp"), "stabilizationWindowSeconds", 0);
    }
}

fn scaling_rules(behavior: &mut Map<String, Value>, direction: &str, policies: fn() -> Value) {
    let rules = entry(behavior, direction);
    or_empty(rules, "selectPolicy", "Max");
    if !has(rules, "policies") {
        rules.insert("policies".to_owned(), policies());
    }
}
