//! Conversion between the versions of a built-in kind: `autoscaling/v1` ↔ `v2` and the two event
//! APIs. Kinds whose versions have the same shape only change their `apiVersion`.

use serde_json::{Map, Value, json};

use crate::object;
use crate::resource::GroupVersion;
use crate::status::{Result, Status};

/// Where `autoscaling/v1` keeps the parts of v2 that it has no fields for.
const METRICS_ANNOTATION: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR_ANNOTATION: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CONDITIONS_ANNOTATION: &str = "autoscaling.alpha.kubernetes.io/conditions";
const CURRENT_METRICS_ANNOTATION: &str = "autoscaling.alpha.kubernetes.io/current-metrics";

/// Converts an object in place to `target` and rewrites its `apiVersion`.
pub fn convert(object: &mut Value, target: &GroupVersion) -> Result<()> {
    let source = object::api_version(object).to_owned();
    let target = target.to_string();
    if source == target {
        return Ok(());
    }
    match (object::kind(object), source.as_str(), target.as_str()) {
        ("Event", "v1", "events.k8s.io/v1") => event_to_events(object),
        ("Event", "events.k8s.io/v1", "v1") => event_to_core(object),
        ("HorizontalPodAutoscaler", "autoscaling/v1", "autoscaling/v2") => hpa_to_v2(object)?,
        ("HorizontalPodAutoscaler", "autoscaling/v2", "autoscaling/v1") => hpa_to_v1(object)?,
        _ => {}
    }
    object::as_object_mut(object).insert("apiVersion".to_owned(), target.into());
    Ok(())
}

fn rename(map: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = map.remove(from) {
        map.insert(to.to_owned(), value);
    }
}

/// Field names of `v1` and `events.k8s.io/v1` events, where they differ.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

fn event_to_events(event: &mut Value) {
    let map = object::as_object_mut(event);
    for (core, events) in EVENT_FIELDS {
        rename(map, core, events);
    }
    if let Some(series) = map.get_mut("series").and_then(Value::as_object_mut) {
        series.remove("state");
    }
}

fn event_to_core(event: &mut Value) {
    let map = object::as_object_mut(event);
    for (core, events) in EVENT_FIELDS {
        rename(map, events, core);
    }
}

fn hpa_to_v2(hpa: &mut Value) -> Result<()> {
    let mut metrics = take_annotation(hpa, METRICS_ANNOTATION)?.unwrap_or_default();
    let behavior = take_annotation(hpa, BEHAVIOR_ANNOTATION)?;
    let conditions = take_annotation(hpa, CONDITIONS_ANNOTATION)?;
    let mut current = take_annotation(hpa, CURRENT_METRICS_ANNOTATION)?.unwrap_or_default();
    let root = object::as_object_mut(hpa);
    if let Some(spec) = root.get_mut("spec").and_then(Value::as_object_mut) {
        if let Some(target) = spec.remove("targetCPUUtilizationPercentage") {
            let target = json!({"type": "Utilization", "averageUtilization": target});
            push_front(&mut metrics, cpu_metric("target", target));
        }
        insert_list(spec, "metrics", metrics);
        if let Some(behavior) = behavior {
            spec.insert("behavior".to_owned(), behavior);
        }
    }
    if let Some(status) = root.get_mut("status").and_then(Value::as_object_mut) {
        if let Some(percent) = status.remove("currentCPUUtilizationPercentage") {
            push_front(&mut current, cpu_metric("current", json!({"averageUtilization": percent})));
        }
        insert_list(status, "currentMetrics", current);
        if let Some(conditions) = conditions {
            status.insert("conditions".to_owned(), conditions);
        }
    }
    Ok(())
}

fn hpa_to_v1(hpa: &mut Value) -> Result<()> {
    let mut annotations = Vec::new();
    let root = object::as_object_mut(hpa);
    if let Some(spec) = root.get_mut("spec").and_then(Value::as_object_mut) {
        let mut metrics = take_list(spec, "metrics");
        if let Some(at) =
            metrics.iter().position(|m| is_cpu(m, "/resource/target/averageUtilization"))
        {
            let metric = metrics.remove(at);
            let target = metric["resource"]["target"]["averageUtilization"].clone();
            spec.insert("targetCPUUtilizationPercentage".to_owned(), target);
        }
        annotate(&mut annotations, METRICS_ANNOTATION, metrics.into());
        annotate(
            &mut annotations,
            BEHAVIOR_ANNOTATION,
            spec.remove("behavior").unwrap_or_default(),
        );
    }
    if let Some(status) = root.get_mut("status").and_then(Value::as_object_mut) {
        let mut current = take_list(status, "currentMetrics");
        if let Some(at) =
            current.iter().position(|m| is_cpu(m, "/resource/current/averageUtilization"))
        {
            let metric = current.remove(at);
            let percent = metric["resource"]["current"]["averageUtilization"].clone();
            status.insert("currentCPUUtilizationPercentage".to_owned(), percent);
        }
        annotate(&mut annotations, CURRENT_METRICS_ANNOTATION, current.into());
        let conditions = take_list(status, "conditions");
        annotate(&mut annotations, CONDITIONS_ANNOTATION, conditions.into());
    }
    for (key, value) in annotations {
        object::set_annotation(hpa, key, &value);
    }
    Ok(())
}

fn cpu_metric(field: &str, value: Value) -> Value {
    let mut resource = json!({"name": "cpu"});
    resource[field] = value;
    json!({"type": "Resource", "resource": resource})
}

fn is_cpu(metric: &Value, pointer: &str) -> bool {
    metric["type"] == "Resource"
        && metric["resource"]["name"] == "cpu"
        && metric.pointer(pointer).is_some_and(|v| !v.is_null())
}

fn push_front(list: &mut Value, item: Value) {
    match list {
        Value::Array(items) => items.insert(0, item),
        other => *other = Value::Array(vec![item]),
    }
}

fn insert_list(map: &mut Map<String, Value>, key: &str, list: Value) {
    if list.as_array().is_some_and(|items| !items.is_empty()) {
        map.insert(key.to_owned(), list);
    }
}

fn take_list(map: &mut Map<String, Value>, key: &str) -> Vec<Value> {
    match map.remove(key) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

fn annotate(annotations: &mut Vec<(&'static str, String)>, key: &'static str, value: Value) {
    let is_set = match &value {
        Value::Array(items) => !items.is_empty(),
        value => !value.is_null(),
    };
    if is_set {
        annotations.push((key, value.to_string()));
    }
}

fn take_annotation(hpa: &mut Value, key: &str) -> Result<Option<Value>> {
    let metadata = object::metadata_mut(hpa);
    let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) else {
        return Ok(None);
    };
    let Some(text) = annotations.remove(key) else { return Ok(None) };
    if annotations.is_empty() {
        metadata.remove("annotations");
    }
    let value = serde_json::from_str(text.as_str().unwrap_or_default())
        .map_err(|e| Status::bad_request(format!("annotation {key}: {e}")))?;
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(mut object: Value, group: &str, version: &str) -> Value {
        convert(&mut object, &GroupVersion::new(group, version)).unwrap();
        object
    }

    #[test]
    fn autoscalers_survive_the_round_trip_through_v1() {
        let v2 = json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "a"},
            "spec": {
                "maxReplicas": 3,
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 5}},
                "metrics": [
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}},
                    {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
                ],
            },
            "status": {"conditions": [{"type": "AbleToScale", "status": "True"}]},
        });
        let v1 = to(v2.clone(), "autoscaling", "v1");
        assert_eq!(v1["spec"], json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 80}));
        assert_eq!(to(v1, "autoscaling", "v2"), v2);
    }

    #[test]
    fn the_two_event_apis_show_the_same_event() {
        let core = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "a"},
            "involvedObject": {"kind": "Pod", "name": "p"}, "message": "m", "reason": "R", "count": 2,
            "source": {"component": "c"}, "type": "Normal",
        });
        let events = to(core.clone(), "events.k8s.io", "v1");
        assert_eq!(events["regarding"]["name"], "p");
        assert_eq!(events["note"], "m");
        assert_eq!(events["deprecatedCount"], 2);
        assert_eq!(to(events, "", "v1"), core);
    }
}
