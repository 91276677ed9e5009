//! Decisions as data: every file in `tests/cases` holds small clusters, a pod, and what comes of it.
//!
//! A case has `nodes` (name → shorthand), `pods` (`on`: node; the rest shorthand), other objects, the `pod`, and any of
//! `fits` (the nodes that pass all filters), `message` (what the pod is told), `scores` (plugin → node → normalised score)
//! and `evicts` (victims of preemption).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use pintle_scheduler::cluster::{Budget, ClaimInfo, OwnerKey};
use pintle_scheduler::engine::{Action, Engine, Update};
use pintle_scheduler::framework::Plugin;
use pintle_scheduler::node::NodeFacts;
use pintle_scheduler::pod::PodInfo;
use pintle_scheduler::schedule::{plugin_scores, verdicts};
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    nodes: BTreeMap<String, Value>,
    #[serde(default)]
    pods: Vec<Value>,
    #[serde(default)]
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    #[serde(default)]
    claims: BTreeMap<String, Value>,
    #[serde(default)]
    volumes: BTreeMap<String, Value>,
    #[serde(default)]
    budgets: BTreeMap<String, Value>,
    /// Storage classes that wait for the first consumer.
    #[serde(default)]
    waiting_classes: Vec<String>,
    #[serde(default)]
    services: BTreeMap<String, BTreeMap<String, String>>,
    /// ReplicaSets and their labels.
    #[serde(default)]
    replicasets: BTreeMap<String, BTreeMap<String, String>>,
    pod: Value,
    fits: Option<Vec<String>>,
    message: Option<String>,
    #[serde(default)]
    scores: BTreeMap<String, BTreeMap<String, i64>>,
    evicts: Option<Vec<String>>,
}

/// Moves a shorthand key into the object at a pointer.
fn take(shorthand: &mut Map<String, Value>, key: &str) -> Option<Value> {
    shorthand.remove(key)
}

fn node(name: &str, shorthand: &Value) -> NodeFacts {
    let mut short = shorthand.as_object().cloned().unwrap_or_default();
    let mut allocatable = json!({"cpu": "4", "memory": "8Gi", "pods": 110});
    for key in ["cpu", "memory", "pods", "ephemeral-storage", "example.com/gpu"] {
        if let Some(amount) = take(&mut short, key) {
            allocatable[key] = text(&amount);
        }
    }
    allocatable["pods"] = text(&allocatable["pods"]);
    let mut labels = take(&mut short, "labels").unwrap_or_else(|| json!({}));
    labels["kubernetes.io/hostname"] = json!(name);
    if let Some(zone) = take(&mut short, "zone") {
        labels["topology.kubernetes.io/zone"] = zone;
    }
    let object = json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": take(&mut short, "taints"), "unschedulable": take(&mut short, "unschedulable")},
        "status": {"allocatable": allocatable, "images": take(&mut short, "images")},
    });
    assert!(short.is_empty(), "unknown in node {name}: {short:?}");
    NodeFacts::new(&serde_json::from_value(object).unwrap())
}

fn pod(index: usize, shorthand: &Value) -> Arc<PodInfo> {
    let mut short = shorthand.as_object().cloned().unwrap_or_default();
    let name = take(&mut short, "name").unwrap_or_else(|| json!(format!("pod-{index}")));
    let mut requests = json!({});
    for key in ["cpu", "memory", "ephemeral-storage", "example.com/gpu"] {
        if let Some(amount) = take(&mut short, key) {
            requests[key] = text(&amount);
        }
    }
    let mut container = json!({"name": "c", "image": take(&mut short, "image"), "resources": {"requests": requests}});
    if let Some(port) = take(&mut short, "hostPort") {
        container["ports"] = json!([{"containerPort": port, "hostPort": port}]);
    }
    let owner = take(&mut short, "replicaset").map(|name| {
        json!([{"kind": "ReplicaSet", "apiVersion": "apps/v1", "name": name, "uid": "o", "controller": true}])
    });
    let deleted = take(&mut short, "terminating").map(|_| json!("2030-01-01T00:00:00Z"));
    let mut spec = take(&mut short, "spec").unwrap_or_else(|| json!({}));
    spec["containers"] = json!([container]);
    spec["priority"] = take(&mut short, "priority").unwrap_or_else(|| json!(0));
    spec["nodeName"] = take(&mut short, "on").unwrap_or_default();
    spec["schedulerName"] = json!("default-scheduler");
    let object = json!({
        "metadata": {
            "name": name, "uid": name, "namespace": take(&mut short, "namespace").unwrap_or_else(|| json!("default")),
            "labels": take(&mut short, "labels"), "ownerReferences": owner, "deletionTimestamp": deleted,
        },
        "spec": spec,
        "status": {"startTime": take(&mut short, "started")},
    });
    assert!(short.is_empty(), "unknown in pod {name}: {short:?}");
    let pod: Pod = serde_json::from_value(object).unwrap();
    Arc::new(PodInfo::new(&pod))
}

fn text(amount: &Value) -> Value {
    match amount {
        Value::String(_) => amount.clone(),
        other => json!(other.to_string()),
    }
}

fn engine(case: &Case) -> Engine {
    let mut engine = Engine::new("default-scheduler".into(), 7);
    let mut apply = |update| engine.apply(update, Duration::ZERO);
    for (name, shorthand) in &case.nodes {
        apply(Update::Node(Box::new(node(name, shorthand))));
    }
    for (name, labels) in &case.namespaces {
        apply(Update::Namespace(name.clone(), Some(labels.clone())));
    }
    for (name, claim) in &case.claims {
        let claim: PersistentVolumeClaim = serde_json::from_value(claim.clone()).unwrap();
        apply(Update::Claim("default".into(), name.clone(), Some(ClaimInfo::new(&claim))));
    }
    for (name, volume) in &case.volumes {
        let volume: PersistentVolume = serde_json::from_value(volume.clone()).unwrap();
        apply(Update::Volume(name.clone(), Some(Box::new(volume))));
    }
    for (name, budget) in &case.budgets {
        let budget = Budget::new(&serde_json::from_value(budget.clone()).unwrap());
        apply(Update::Budget("default".into(), name.clone(), Some(budget)));
    }
    for name in &case.waiting_classes {
        apply(Update::Class(name.clone(), true));
    }
    for (name, selector) in &case.services {
        apply(Update::Service("default".into(), name.clone(), Some(selector.clone())));
    }
    for (name, labels) in &case.replicasets {
        let key = OwnerKey { kind: "ReplicaSet", namespace: "default".into(), name: name.clone() };
        let selector = serde_json::from_value(json!({"matchLabels": labels})).unwrap();
        apply(Update::Owner(key, Some(selector)));
    }
    for (index, shorthand) in case.pods.iter().enumerate() {
        apply(Update::Pod(pod(index, shorthand)));
    }
    engine
}

fn plugin(name: &str) -> Plugin {
    match name {
        "TaintToleration" => Plugin::TaintToleration,
        "NodeAffinity" => Plugin::NodeAffinity,
        "NodeResourcesFit" => Plugin::NodeResourcesFit,
        "PodTopologySpread" => Plugin::PodTopologySpread,
        "InterPodAffinity" => Plugin::InterPodAffinity,
        "NodeResourcesBalancedAllocation" => Plugin::NodeResourcesBalancedAllocation,
        "ImageLocality" => Plugin::ImageLocality,
        other => panic!("no scorer {other}"),
    }
}

fn check(case: &Case) {
    let name = &case.name;
    let mut engine = engine(case);
    let pod = pod(1000, &case.pod);
    engine.apply(Update::Pod(pod.clone()), Duration::ZERO);
    let action = engine.next(Duration::ZERO).unwrap_or_else(|| panic!("{name}: not queued"));

    // The engine has assumed the pod; the questions below are about the cluster without it.
    let mut asked = self::engine(case);
    asked.apply(Update::Pod(Arc::new((*pod).clone())), Duration::ZERO);
    asked.refresh();
    let cluster = asked.cluster();
    let node_name = |slot| cluster.node(slot).facts.name.to_string();
    let fits: Vec<_> = verdicts(cluster, &pod)
        .map(|verdicts| verdicts.into_iter().filter(|(_, v)| v.is_ok()).map(|(s, _)| s).collect())
        .unwrap_or_else(|_| Vec::new());
    if let Some(expected) = &case.fits {
        let mut names: Vec<_> = fits.iter().map(|slot| node_name(*slot)).collect();
        names.sort();
        assert_eq!(&names, expected, "{name}: fits");
    }
    for (scorer, expected) in &case.scores {
        let column = plugin_scores(cluster, &pod, &fits, plugin(scorer)).unwrap_or_default();
        let scores: BTreeMap<_, _> =
            fits.iter().zip(column).map(|(slot, score)| (node_name(*slot), score)).collect();
        assert_eq!(&scores, expected, "{name}: {scorer}");
    }
    match action {
        Action::Bind { node, .. } => {
            assert_eq!(case.message, None, "{name}: bound to {node}");
            assert!(fits.iter().any(|slot| node_name(*slot) == *node), "{name}: bound to {node}");
        }
        Action::Unschedulable { message, mut victims, .. } => {
            assert!(fits.is_empty(), "{name}: {message}");
            if let Some(expected) = &case.message {
                assert_eq!(&message, expected, "{name}");
            }
            victims.sort_by(|a, b| a.name.cmp(&b.name));
            let victims: Vec<_> = victims.iter().map(|victim| victim.name.to_string()).collect();
            assert_eq!(victims, case.evicts.clone().unwrap_or_default(), "{name}: victims");
        }
    }
}

#[test]
fn decisions_are_those_written_down() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut cases = 0;
    let mut failed = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let list: Vec<Case> = serde_saphyr::from_str(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        cases += list.len();
        // All of them are run, so that one run tells everything that is wrong.
        let fails = |case: &&Case| std::panic::catch_unwind(|| check(case)).is_err();
        failed += list.iter().filter(fails).count();
    }
    assert_eq!(failed, 0, "of {cases} cases");
    assert!(cases >= 50, "{cases} cases");
}
