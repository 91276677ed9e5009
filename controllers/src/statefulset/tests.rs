//! Steps of the plan in both policies, claims, and updates against a fake cluster.

use super::*;
use crate::{history, object::time, pod::tests::at};
use kube::ResourceExt;
use proptest::prelude::*;
use serde_json::{Value, from_value, json};
use std::collections::{BTreeMap, BTreeSet};

fn set(spec: Value) -> StatefulSet {
    let mut set = json!({
        "metadata": {"name": "db", "namespace": "ns", "uid": "u", "generation": 2},
        "spec": {"replicas": 3, "serviceName": "peers", "selector": {"matchLabels": {"app": "db"}},
            "podManagementPolicy": "OrderedReady",
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "c", "image": "two"}]}}},
    });
    set["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    from_value(set).unwrap()
}

fn revision(set: &StatefulSet, name: &str, image: &str) -> ControllerRevision {
    let mut template = set.spec.template.clone();
    template.spec.as_mut().unwrap().containers[0].image = Some(image.into());
    let data = history::data(&template).unwrap();
    let mut revision = ControllerRevision { data, revision: Some(1), ..Default::default() };
    revision.metadata.name = Some(name.into());
    revision
}

/// `ordinal` and then `*` (of the new revision), `~` (running and ready), `-` (on its way out), `F` (failed).
fn pod(text: &str) -> Arc<Pod> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (ordinal, marks) = text.split_at(digits);
    let has = |mark| marks.contains(mark);
    let phase = if has('F') {
        "Failed"
    } else if has('~') {
        "Running"
    } else {
        "Pending"
    };
    let name = format!("db-{ordinal}");
    let mut pod: Pod = from_value(json!({
        "metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{ordinal}"), "labels": {
            "statefulset.kubernetes.io/pod-name": name, "apps.kubernetes.io/pod-index": ordinal,
            "controller-revision-hash": if has('*') { "db-new" } else { "db-old" }}},
        "status": {"phase": phase, "conditions": [
            {"type": "Ready", "status": if has('~') { "True" } else { "False" }, "lastTransitionTime": at(20).to_string()}]},
    }))
    .unwrap();
    pod.metadata.deletion_timestamp = has('-').then(|| time(at(30)));
    Arc::new(pod)
}

fn with<T>(
    set: &StatefulSet,
    pods: &[Arc<Pod>],
    claims: &[PersistentVolumeClaim],
    look: impl Fn(&Inputs<'_>) -> T,
) -> T {
    let (current, update) = (revision(set, "db-old", "one"), revision(set, "db-new", "two"));
    let claim =
        |name: &str| claims.iter().find(|claim| claim.name_any() == name).cloned().map(Arc::new);
    look(&Inputs { set, pods, current: &current, update: &update, claim: &claim, now: at(100) })
}

fn describe(plan: &Plan) -> String {
    let word = |action: &Action| match action {
        Action::Create { pod, claims } => {
            let claims: Vec<_> = claims.iter().map(|claim| claim.name_any()).collect();
            let claims =
                if claims.is_empty() { String::new() } else { format!("({})", claims.join(",")) };
            let age = if identity::revision_of(pod) == "db-new" { "*" } else { "" };
            format!("+{}{age}{claims}", pod.name_any())
        }
        Action::CreateClaims(pod, claims) => format!("{}({})", pod.name_any(), claims.len()),
        Action::OwnClaim(claim) => format!("own:{}", claim.name_any()),
        Action::Label(pod, _) => format!("label:{}", pod.name_any()),
        Action::Delete(pod) => format!("-{}", pod.name_any()),
    };
    plan.actions.iter().map(word).collect::<Vec<_>>().join(" ").replace("db-", "")
}

fn pods(text: &str) -> Vec<Arc<Pod>> {
    text.split_whitespace().map(pod).collect()
}

/// pods | OrderedReady | Parallel, of three replicas
const STEPS: &str = "
                        | +0*     | +0* +1* +2*
    0*                  |         | +1* +2*
    0*~                 | +1*     | +1* +2*
    0*~ 2*~             | +1*     | +1*
    0*~ 1*              |         | +2*
    0*~ 1*- 2*~         |         |
    0*~ 1*F 2*~         | -1      | -1
    0*~ 1*~ 2*~         |         |
    0*~ 1*~ 2*~ 3*~ 4*~ | -4      | -4 -3
    0*~ 1*~ 2*~ 3* 4*~  | -4      | -4 -3
    0*~ 1*~ 2*~ 3*~ 4*  | -4      | -4 -3
    0*~ 1*~ 2*~ 3* 4*   |         | -4 -3
    0*~ 1*~ 2*~ 3*~ 4*- |         | -3
    0*~ 1*  2*~ 3*~     |         | -3
    0~ 1~ 2~            | -2      | -2
    0~ 1~ 2*~           | -1      | -1
    0~ 1~ 2*            |         |
    0~ 1~ 2-            |         |
    0~ 1~ 2             |         | -2
    0  1~ 2~            |         | -0
";

#[test]
fn one_step_at_a_time_or_all_at_once() {
    for line in STEPS.lines().filter(|line| !line.trim().is_empty()) {
        let [existing, ordered, parallel] = line.split('|').map(str::trim).collect::<Vec<_>>()[..]
        else {
            panic!("{line}")
        };
        for (policy, want) in [("OrderedReady", ordered), ("Parallel", parallel)] {
            let set = set(json!({"podManagementPolicy": policy}));
            let got = with(&set, &pods(existing), &[], |inputs| describe(&plan(inputs)));
            assert_eq!(got, want, "{existing} {policy}");
        }
    }
}

#[test]
fn strategy_and_ordinals_have_their_say() {
    let rolling = |fields: Value| json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": fields}});
    for (spec, existing, want) in [
        (json!({"updateStrategy": {"type": "OnDelete"}}), "0~ 1~ 2~", ""),
        (json!({"updateStrategy": {"type": "OnDelete"}}), "0~ 1~", "+2*"),
        (rolling(json!({"partition": 2})), "0~ 1~ 2~", "-2"),
        (rolling(json!({"partition": 2})), "0~ 1~ 2*~", ""),
        (rolling(json!({"partition": 2})), "0~ 2*~", "+1"),
        (rolling(json!({"partition": 1})), "0~ 2*~", "+1*"),
        (rolling(json!({"partition": 9})), "0~ 1~ 2~", ""),
        (rolling(json!({"maxUnavailable": 2})), "0~ 1~ 2~", "-2 -1"),
        (rolling(json!({"maxUnavailable": "67%"})), "0~ 1~ 2~", "-2 -1"),
        (rolling(json!({"maxUnavailable": "10%"})), "0~ 1~ 2~", "-2"),
        (json!({"ordinals": {"start": 5}, "replicas": 2}), "5*~", "+6*"),
        (json!({"ordinals": {"start": 5}, "replicas": 2}), "0*~ 5*~ 6*~ 7*~", "-7"),
        (json!({"ordinals": {"start": 5}, "replicas": 2}), "0*~ 5*~ 6*~", "-0"),
        (json!({"minReadySeconds": 90}), "0*~", ""),
        (json!({"minReadySeconds": 80}), "0*~", "+1*"),
        (json!({"replicas": 0}), "0*~", "-0"),
    ] {
        let set = set(spec.clone());
        let got = with(&set, &pods(existing), &[], |inputs| describe(&plan(inputs)));
        assert_eq!(got, want, "{spec} {existing}");
    }
}

#[test]
fn set_that_goes_is_left_to_the_garbage_collector() {
    let mut set = set(json!({}));
    set.metadata.deletion_timestamp = Some(time(at(50)));
    assert_eq!(with(&set, &pods("0~"), &[], plan), Plan::default());
}

#[test]
fn pod_has_its_name_everywhere() {
    let spec = json!({"volumeClaimTemplates": [{"metadata": {"name": "data"}}], "template": {
        "metadata": {"labels": {"app": "db"}},
        "spec": {"containers": [{"name": "c"}], "volumes": [{"name": "data"}, {"name": "tmp"}]}}});
    let made = with(&set(spec), &[], &[], |inputs| identity::new(inputs, 2));
    assert_eq!(made.name_any(), "db-2");
    let labels = made.labels();
    assert_eq!(labels["statefulset.kubernetes.io/pod-name"], "db-2");
    assert_eq!(labels["apps.kubernetes.io/pod-index"], "2");
    assert_eq!(labels["controller-revision-hash"], "db-new");
    let spec = made.spec.unwrap();
    assert_eq!(
        (spec.hostname.as_deref(), spec.subdomain.as_deref()),
        (Some("db-2"), Some("peers"))
    );
    let volumes: Vec<_> = spec
        .volumes
        .unwrap()
        .into_iter()
        .map(|volume| (volume.name, volume.persistent_volume_claim.map(|claim| claim.claim_name)))
        .collect();
    assert_eq!(volumes, [("data".into(), Some("data-db-2".into())), ("tmp".into(), None)]);
    for (name, ordinal) in
        [("db-7", Some(7)), ("db-x", None), ("db-", None), ("db2-1", None), ("db--1", None)]
    {
        assert_eq!(identity::ordinal_of("db", name), ordinal, "{name}");
    }
}

fn claim(name: &str, owners: Value) -> PersistentVolumeClaim {
    from_value(json!({"metadata": {"name": name, "namespace": "ns", "uid": name, "ownerReferences": owners}})).unwrap()
}

#[test]
fn claims_come_before_their_pod_and_outlive_it_unless_told_otherwise() {
    let template = json!([{"metadata": {"name": "data", "labels": {"a": "b"}}, "spec": {"accessModes": ["ReadWriteOnce"]}}]);
    let spec = |when_deleted: &str, when_scaled: &str, replicas: i32| {
        json!({"volumeClaimTemplates": template, "replicas": replicas,
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": when_deleted, "whenScaled": when_scaled}})
    };
    let set_owner = json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "u", "controller": true}]);
    let pod_owner = |uid: &str| json!([{"apiVersion": "v1", "kind": "Pod", "name": "db-0", "uid": uid, "controller": true}]);
    let none = || json!([]);
    for (spec, existing, owners, want) in [
        (spec("Retain", "Retain", 1), "", None, "+0*(data-0)"),
        (spec("Retain", "Retain", 1), "", Some(none()), "+0*"),
        (spec("Retain", "Retain", 1), "0*", None, "0(1)"),
        (spec("Retain", "Retain", 1), "0*~", Some(none()), ""),
        (spec("Retain", "Retain", 1), "0*~", Some(set_owner.clone()), "own:data-0"),
        (spec("Delete", "Retain", 1), "0*~", Some(none()), "own:data-0"),
        (spec("Delete", "Retain", 1), "0*~", Some(set_owner.clone()), ""),
        (spec("Delete", "Delete", 0), "0*~", Some(set_owner.clone()), "own:data-0 -0"),
        (spec("Retain", "Delete", 0), "0*~", Some(pod_owner("uid-0")), "-0"),
        (spec("Retain", "Delete", 1), "0*~", Some(pod_owner("uid-0")), "own:data-0"),
        // The claim goes with the former pod: wait.
        (spec("Retain", "Delete", 1), "", Some(pod_owner("former")), ""),
    ] {
        let set = set(spec.clone());
        let claims: Vec<_> =
            owners.iter().map(|owners| claim("data-db-0", owners.clone())).collect();
        let got = with(&set, &pods(existing), &claims, |inputs| describe(&plan(inputs)));
        assert_eq!(got, want, "{spec} {existing} {owners:?}");
    }
    let set = set(spec("Retain", "Retain", 1));
    let missing = with(&set, &[], &[], |inputs| claims::missing(inputs, 0));
    let labels = missing[0].labels();
    assert_eq!((labels["a"].as_str(), labels["app"].as_str()), ("b", "db"));
}

#[test]
fn status_tells_how_far_the_update_is() {
    let status = |spec: Value, existing: &str| {
        with(&set(spec), &pods(existing), &[], |inputs| status::status(inputs, &BTreeSet::new()))
    };
    let midway = status(json!({}), "0~ 1~ 2*");
    assert_eq!(
        (midway.replicas, midway.ready_replicas, midway.available_replicas),
        (3, Some(2), Some(2))
    );
    assert_eq!((midway.current_replicas, midway.updated_replicas), (Some(2), Some(1)));
    assert_eq!(
        (midway.current_revision.as_deref(), midway.update_revision.as_deref()),
        (Some("db-old"), Some("db-new"))
    );
    assert_eq!(midway.observed_generation, Some(2));
    let done = status(json!({}), "0*~ 1*~ 2*~");
    assert_eq!(
        (done.current_replicas, done.current_revision.as_deref()),
        (Some(3), Some("db-new"))
    );
    let unready = status(json!({}), "0*~ 1*~ 2*");
    assert_eq!(unready.current_revision.as_deref(), Some("db-old"));
    let by_hand = status(json!({"updateStrategy": {"type": "OnDelete"}}), "0*~ 1*~ 2*~");
    assert_eq!(by_hand.current_revision.as_deref(), Some("db-old"));
}

#[derive(Clone, Copy, Debug)]
enum Happening {
    BecomesReady(usize),
    Fails(usize),
    Scale(i32),
    Nothing,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        5 => any::<usize>().prop_map(Happening::BecomesReady),
        1 => any::<usize>().prop_map(Happening::Fails),
        1 => (0..5i32).prop_map(Happening::Scale),
        3 => Just(Happening::Nothing),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Ordered: no pod is made before all below it are available, none goes before those above it; and all come in order in the end.
    #[test]
    fn order_holds_and_the_set_converges(ordered in any::<bool>(), story in prop::collection::vec(happening(), 0..60)) {
        let policy = if ordered { "OrderedReady" } else { "Parallel" };
        let mut set = set(json!({"podManagementPolicy": policy}));
        let mut cluster: BTreeMap<i32, String> = (0..3).map(|n| (n, "~".to_owned())).collect();
        for round in 0..600 {
            let keys: Vec<_> = cluster.keys().copied().collect();
            let at = |index: usize| keys.get(index % keys.len().max(1)).copied();
            let quiet = round >= story.len();
            match story.get(round).copied().unwrap_or(Happening::BecomesReady(round)) {
                Happening::BecomesReady(index) => {
                    if let Some(marks) = at(index).and_then(|n| cluster.get_mut(&n)).filter(|m| !m.contains(['F', '~'])) {
                        marks.push('~');
                    }
                }
                Happening::Fails(index) => {
                    if let Some(marks) = at(index).and_then(|n| cluster.get_mut(&n)) {
                        *marks = format!("{}F", marks.replace('~', ""));
                    }
                }
                Happening::Scale(size) => set.spec.replicas = Some(size),
                Happening::Nothing => {}
            }
            let pods: Vec<_> = cluster.iter().map(|(n, marks)| pod(&format!("{n}{marks}"))).collect();
            let size = set.spec.replicas.unwrap();
            let plan = with(&set, &pods, &[], plan);
            let is_available = |n: &i32| cluster.get(n).is_some_and(|marks| marks.contains('~'));
            let mut next = cluster.clone();
            for action in &plan.actions {
                match action {
                    Action::Create { pod, .. } => {
                        let n = identity::ordinal_of("db", &pod.name_any()).unwrap();
                        prop_assert!(!ordered || (0..n).all(|below| is_available(&below)));
                        next.insert(n, "*".to_owned());
                    }
                    Action::Delete(pod) => {
                        let n = identity::ordinal_of("db", &pod.name_any()).unwrap();
                        let is_surplus = n >= size;
                        prop_assert!(!ordered || !is_surplus || (n + 1..9).all(|above| !cluster.contains_key(&above)));
                        next.remove(&n);
                    }
                    _ => {}
                }
            }
            prop_assert!(!ordered || plan.actions.len() <= 1, "{:?}", plan);
            cluster = next;
            let done = cluster.keys().copied().eq(0..size) && cluster.values().all(|m| m.as_str() == "*~");
            if quiet && done {
                return Ok(());
            }
        }
        prop_assert!(false, "does not converge: {:?}", cluster);
    }
}
