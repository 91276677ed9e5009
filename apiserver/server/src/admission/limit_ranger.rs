//! `LimitRanger`: containers without requests and limits get those of the namespace, and nobody
//! goes outside the namespace's bounds.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use pintle_machinery::{Quantity, object};
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::error::{ApiError, ApiResult};
use crate::registry::Context;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

type Amounts = BTreeMap<String, Quantity>;

pub(super) struct LimitRanger;

#[async_trait::async_trait]
impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn handles(&self, cx: &Context, operation: Operation) -> bool {
        match operation {
            Operation::Create => cx.is("", "pods", "") || cx.is("", "persistentvolumeclaims", ""),
            Operation::Update => {
                cx.is("", "pods", "resize") || cx.is("", "persistentvolumeclaims", "")
            }
            Operation::Delete | Operation::Connect => false,
        }
    }

    async fn admit(&self, cx: &Context, attributes: &mut Attributes<'_>) -> ApiResult<()> {
        let creates_pod = attributes.operation == Operation::Create && cx.is("", "pods", "");
        let Some(pod) = attributes.object.as_deref_mut().filter(|_| creates_pod) else {
            return Ok(());
        };
        for range in cx.registry.list::<LimitRange>(&cx.namespace).await? {
            set_defaults(pod, &range);
        }
        Ok(())
    }

    async fn validate(&self, cx: &Context, attributes: &Attributes<'_>) -> ApiResult<()> {
        let Some(object) = attributes.object.as_deref() else { return Ok(()) };
        let mut wrong = Vec::new();
        for range in cx.registry.list::<LimitRange>(&cx.namespace).await? {
            for item in items(&range) {
                if cx.resource.plural == "pods" {
                    check_pod(object, item, &mut wrong);
                } else if item.type_ == "PersistentVolumeClaim" {
                    let amounts = amounts_at(object, &["spec", "resources", "requests"]);
                    check(item, &amounts, &Amounts::new(), false, &mut wrong);
                }
            }
        }
        let why = match wrong.as_slice() {
            [] => return Ok(()),
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        Err(ApiError::forbidden(&cx.group_resource(), &cx.name, why))
    }
}

fn items(range: &LimitRange) -> &[LimitRangeItem] {
    range.spec.as_ref().map(|spec| spec.limits.as_slice()).unwrap_or_default()
}

fn parse(amounts: Option<&BTreeMap<String, Text>>) -> Amounts {
    let parsed =
        |(name, text): (&String, &Text)| Some((name.clone(), Quantity::parse(&text.0).ok()?));
    amounts.into_iter().flatten().filter_map(parsed).collect()
}

fn amounts_at(object: &Value, path: &[&str]) -> Amounts {
    let found = object::get(object, path).and_then(Value::as_object);
    let parsed =
        |(name, value): (&String, &Value)| Some((name.clone(), Quantity::from_value(value).ok()?));
    found.into_iter().flatten().filter_map(parsed).collect()
}

/// What a container gets: the limit defaults to the maximum, the request to the limit, then to the
/// minimum.
fn container_defaults(range: &LimitRange) -> (BTreeMap<String, Text>, BTreeMap<String, Text>) {
    let (mut requests, mut limits) = (BTreeMap::new(), BTreeMap::new());
    for item in items(range).iter().filter(|item| item.type_ == "Container") {
        let mut of_item = item.default.clone().unwrap_or_default();
        for (name, amount) in item.max.iter().flatten() {
            of_item.entry(name.clone()).or_insert_with(|| amount.clone());
        }
        let mut requested = item.default_request.clone().unwrap_or_default();
        for (name, amount) in of_item.iter().chain(item.min.iter().flatten()) {
            requested.entry(name.clone()).or_insert_with(|| amount.clone());
        }
        requests.extend(requested);
        limits.extend(of_item);
    }
    (requests, limits)
}

fn set_defaults(pod: &mut Value, range: &LimitRange) {
    let (requests, limits) = container_defaults(range);
    let mut notes = Vec::new();
    for (list, kind) in [("initContainers", "init container"), ("containers", "container")] {
        let containers = pod.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let name = object::get_str(container, &["name"]).to_owned();
            for (field, word, defaults) in
                [("requests", "request", &requests), ("limits", "limit", &limits)]
            {
                let set = fill(container, field, defaults);
                if !set.is_empty() {
                    notes.push(format!("{} {word} for {kind} {name}", set.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty() {
        let note = format!("LimitRanger plugin set: {}", notes.join("; "));
        object::set_annotation(pod, ANNOTATION, &note);
    }
}

fn fill(container: &mut Value, field: &str, defaults: &BTreeMap<String, Text>) -> Vec<String> {
    let mut set = Vec::new();
    for (name, amount) in defaults {
        let resources = object::entry_object(object::as_object_mut(container), "resources");
        let held = object::entry_object(resources, field);
        if !held.contains_key(name) {
            held.insert(name.clone(), json!(amount.0));
            set.push(name.clone());
        }
    }
    set
}

fn check_pod(pod: &Value, item: &LimitRangeItem, wrong: &mut Vec<String>) {
    let containers = |list: &'static str| object::get_list(pod, &["spec", list]);
    match item.type_.as_str() {
        "Container" => {
            for container in containers("initContainers").iter().chain(containers("containers")) {
                let (requests, limits) = (
                    amounts_at(container, &["resources", "requests"]),
                    amounts_at(container, &["resources", "limits"]),
                );
                check(item, &requests, &limits, true, wrong);
            }
        }
        "Pod" => {
            let total = |field: &str| {
                pod_total(containers("containers"), containers("initContainers"), field)
            };
            check(item, &total("requests"), &total("limits"), true, wrong);
        }
        _ => {}
    }
}

/// What the pod needs at most at any time: its containers together, or its greediest init
/// container; sidecars run beside both.
fn pod_total(containers: &[Value], init: &[Value], field: &str) -> Amounts {
    let of = |container: &Value| amounts_at(container, &["resources", field]);
    let mut total = Amounts::new();
    let mut sidecars = Amounts::new();
    let mut peak = Amounts::new();
    let add = |sum: &mut Amounts, amounts: Amounts| {
        for (name, amount) in amounts {
            let held = sum.get(&name).copied().unwrap_or_default();
            sum.insert(name, amount + held);
        }
    };
    for container in containers {
        add(&mut total, of(container));
    }
    for container in init {
        if container["restartPolicy"] == "Always" {
            add(&mut sidecars, of(container));
            add(&mut total, of(container));
            continue;
        }
        let mut together = of(container);
        add(&mut together, sidecars.clone());
        for (name, amount) in together {
            if peak.get(&name).is_none_or(|held| *held < amount) {
                peak.insert(name, amount);
            }
        }
    }
    for (name, amount) in peak {
        if total.get(&name).is_none_or(|held| *held < amount) {
            total.insert(name, amount);
        }
    }
    total
}

/// Holds requests and limits against one item; `limits` matter to pods and containers only.
fn check(
    item: &LimitRangeItem,
    requests: &Amounts,
    limits: &Amounts,
    has_limits: bool,
    wrong: &mut Vec<String>,
) {
    let kind = &item.type_;
    for (name, min) in parse(item.min.as_ref()) {
        let bound = format!("minimum {name} usage per {kind} is {min}");
        match (requests.get(&name), limits.get(&name)) {
            (None, _) => wrong.push(format!("{bound}.  No request is specified")),
            (Some(request), _) if *request < min => {
                wrong.push(format!("{bound}, but request is {request}"));
            }
            (_, Some(limit)) if *limit < min => {
                wrong.push(format!("{bound}, but limit is {limit}"))
            }
            _ => {}
        }
    }
    for (name, max) in parse(item.max.as_ref()) {
        let bound = format!("maximum {name} usage per {kind} is {max}");
        match (requests.get(&name), limits.get(&name)) {
            (_, None) if has_limits => wrong.push(format!("{bound}.  No limit is specified")),
            (_, Some(limit)) if *limit > max => {
                wrong.push(format!("{bound}, but limit is {limit}"))
            }
            (Some(request), _) if *request > max => {
                wrong.push(format!("{bound}, but request is {request}"));
            }
            _ => {}
        }
    }
    for (name, max) in parse(item.max_limit_request_ratio.as_ref()) {
        let bound = format!("{name} max limit to request ratio per {kind} is {max}");
        match (requests.get(&name), limits.get(&name)) {
            (Some(request), Some(limit)) if !request.is_zero() => {
                let ratio = limit.as_f64() / request.as_f64();
                if ratio > max.as_f64() {
                    wrong.push(format!("{bound}, but provided ratio is {ratio:.6}"));
                }
            }
            (None, _) => {
                wrong.push(format!("{bound}, but no request is specified or request is 0"))
            }
            (_, None) => wrong.push(format!("{bound}, but no limit is specified or limit is 0")),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(item: Value) -> LimitRange {
        serde_json::from_value(json!({"spec": {"limits": [item]}})).unwrap()
    }

    fn pod(resources: Value) -> Value {
        json!({"spec": {"containers": [{"name": "a", "resources": resources}]}})
    }

    fn wrong(range: &LimitRange, pod: &Value) -> Vec<String> {
        let mut wrong = Vec::new();
        items(range).iter().for_each(|item| check_pod(pod, item, &mut wrong));
        wrong
    }

    #[test]
    fn defaults_fill_gaps_and_leave_a_note() {
        let range = range(
            json!({"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}}),
        );
        let mut bare = pod(json!({}));
        set_defaults(&mut bare, &range);
        assert_eq!(
            bare["spec"]["containers"][0]["resources"],
            json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "500m"}})
        );
        assert_eq!(
            object::annotation(&bare, ANNOTATION),
            Some("LimitRanger plugin set: cpu request for container a; cpu limit for container a")
        );
        let mut own = pod(json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}));
        let before = own.clone();
        set_defaults(&mut own, &range);
        assert_eq!(own, before);
    }

    #[test]
    fn bounds_are_held() {
        let bounds = range(
            json!({"type": "Container", "min": {"cpu": "100m"}, "max": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "4"}}),
        );
        let cases = [
            (json!({"requests": {"cpu": "200m"}, "limits": {"cpu": "800m"}}), vec![]),
            (
                json!({"requests": {"cpu": "50m"}, "limits": {"cpu": "200m"}}),
                vec!["minimum cpu usage per Container is 100m, but request is 50m"],
            ),
            (
                json!({"requests": {"cpu": "500m"}, "limits": {"cpu": "2"}}),
                vec!["maximum cpu usage per Container is 1, but limit is 2"],
            ),
            (
                json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "500m"}}),
                vec![
                    "cpu max limit to request ratio per Container is 4, but provided ratio is 5.000000",
                ],
            ),
        ];
        for (resources, expected) in cases {
            assert_eq!(wrong(&bounds, &pod(resources.clone())), expected, "{resources}");
        }
        assert_eq!(wrong(&bounds, &pod(json!({}))).len(), 3);
    }

    #[test]
    fn a_pod_counts_its_containers_together() {
        let bounds = range(json!({"type": "Pod", "max": {"cpu": "1"}}));
        let two = json!({"spec": {
            "containers": [{"resources": {"limits": {"cpu": "600m"}}}, {"resources": {"limits": {"cpu": "500m"}}}],
            "initContainers": [{"resources": {"limits": {"cpu": "800m"}}}],
        }});
        assert_eq!(wrong(&bounds, &two), ["maximum cpu usage per Pod is 1, but limit is 1100m"]);
        let init = json!({"spec": {
            "containers": [{"resources": {"limits": {"cpu": "600m"}}}],
            "initContainers": [{"resources": {"limits": {"cpu": "1200m"}}}],
        }});
        assert_eq!(wrong(&bounds, &init), ["maximum cpu usage per Pod is 1, but limit is 1200m"]);
    }
}
