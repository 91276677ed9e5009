//! Tiny scenarios: a Deployment and its ReplicaSets in, writes and conditions out.

use super::*;
use crate::pod::tests::at;
use k8s_openapi::{
    api::{
        apps::v1::{DeploymentSpec, DeploymentStrategy, ReplicaSetStatus, RollingUpdateDeployment},
        core::v1::{Container, PodSpec, PodTemplateSpec},
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use kube::ResourceExt;
use std::{collections::BTreeMap, fmt::Write as _};

pub(super) fn template(version: u32) -> PodTemplateSpec {
    let container =
        Container { name: "c".into(), image: Some(format!("app:{version}")), ..Default::default() };
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(BTreeMap::from([("app".to_owned(), "web".to_owned())])),
            ..Default::default()
        }),
        spec: Some(PodSpec { containers: vec![container], ..Default::default() }),
    }
}

pub(super) fn deployment(
    replicas: i32,
    surge: IntOrString,
    unavailable: IntOrString,
    version: u32,
) -> Deployment {
    Deployment {
        metadata: ObjectMeta {
            name: Some("web".into()),
            namespace: Some("ns".into()),
            uid: Some("uid-web".into()),
            generation: Some(1),
            ..Default::default()
        },
        spec: DeploymentSpec {
            replicas: Some(replicas),
            progress_deadline_seconds: Some(600),
            revision_history_limit: Some(2),
            selector: LabelSelector {
                match_labels: Some(BTreeMap::from([("app".to_owned(), "web".to_owned())])),
                ..Default::default()
            },
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".into()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(surge),
                    max_unavailable: Some(unavailable),
                }),
            }),
            template: template(version),
            ..Default::default()
        },
        status: None,
    }
}

/// A stored ReplicaSet of this version, as the controller itself makes it for `owner`.
pub(super) fn stored(owner: &Deployment, version: u32, size: i32, available: i32) -> ReplicaSet {
    let mut of_version = owner.clone();
    of_version.spec.template = template(version);
    let mut sets = Sets::default();
    revision::ensure_new(&of_version, &mut sets, &mut DeploymentStatus::default(), at(0));
    let mut set = sets.new.unwrap();
    set.metadata.name = Some(format!("web-v{version}"));
    set.metadata.uid = Some(format!("uid-v{version}"));
    set.metadata.creation_timestamp = Some(crate::object::time(at(version.into())));
    set.annotations_mut().insert(revision::REVISION.into(), version.to_string());
    set.spec.replicas = Some(size);
    set.status = Some(ReplicaSetStatus {
        replicas: size,
        ready_replicas: Some(available),
        available_replicas: Some(available),
        ..Default::default()
    });
    set
}

fn parse(text: &str) -> IntOrString {
    text.parse().map_or_else(|_| IntOrString::String(text.into()), IntOrString::Int)
}

fn run(deployment: &Deployment, sets: &[ReplicaSet], now: i64) -> Outcome {
    let replica_sets: Vec<_> = sets.iter().cloned().map(Arc::new).collect();
    reconcile(&Inputs {
        deployment,
        replica_sets: &replica_sets,
        old_pods_run: false,
        now: at(now),
    })
}

fn describe(outcome: &Outcome) -> String {
    let mut text = String::new();
    for write in &outcome.writes {
        let space = if text.is_empty() { "" } else { " " };
        match write {
            Write::Create(set) => write!(text, "{space}+{}", replicas(set)),
            Write::Update { from, to } if *from == replicas(to) => {
                write!(text, "{space}{}=", to.name_any())
            }
            Write::Update { from, to } => {
                write!(text, "{space}{}:{from}->{}", to.name_any(), replicas(to))
            }
            Write::Delete(meta) => write!(text, "{space}-{}", meta.name.as_deref().unwrap()),
        }
        .unwrap();
    }
    text
}

/// replicas surge unavailable | version:size/available … | wanted writes. The template is version 9.
const ROLLING: &str = "
    3 25% 25%  |                    | +3
    0 25% 25%  |                    | +0
    3 25% 25%  | 9:3/3              |
    3 25% 25%  | 9:3/1              |
    3 25% 25%  | 1:3/3              | +1
    10 25% 25% | 1:10/10            | +3
    3 0   1    | 1:3/3              | +0 web-v1:3->2
    3 0   1    | 1:2/2 9:0/0        | web-v9:0->1
    3 0   1    | 1:2/2 9:1/0        |
    3 0   1    | 1:2/2 9:1/1        | web-v1:2->1
    3 1   0    | 1:3/3 9:1/0        |
    3 1   0    | 1:3/3 9:1/1        | web-v1:3->2
    3 1   0    | 1:2/2 9:1/1        | web-v9:1->2
    3 1   0    | 1:2/3 9:1/1        | web-v9:1->2
    3 1   0    | 1:1/1 9:3/3        | web-v1:1->0
    3 1   0    | 1:3/2 9:1/1        | web-v1:3->2
    3 1   0    | 1:3/2 9:1/0        |
    10 3  2    | 1:10/10 9:3/0      | web-v1:10->8
    10 3  2    | 1:8/8 9:3/0        | web-v9:3->5
    10 3  2    | 1:8/8 9:5/0        |
    10 3  2    | 1:8/8 9:5/5        | web-v1:8->3
    10 3  2    | 1:4/0 2:6/6 9:3/3  | web-v1:4->0 web-v2:6->5
    10 3  2    | 1:5/5 2:3/0 9:5/5  | web-v1:5->3 web-v2:3->0
    3 1   0    | 1:3/0 9:1/0        |
    3 1   1    | 1:3/0 9:1/0        | web-v1:3->2
    4 25% 25%  | 1:4/4 9:1/1        | web-v1:4->2
    3 25% 25%  | 9:5/5              | web-v9:5->3
";

#[test]
fn rolling_update_moves_within_its_bounds() {
    for line in ROLLING.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let [head, sets, want] = line.split('|').map(str::trim).collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let [replicas, surge, unavailable] = head.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let deployment = deployment(replicas.parse().unwrap(), parse(surge), parse(unavailable), 9);
        let sets: Vec<_> = sets
            .split_whitespace()
            .map(|set| {
                let (version, rest) = set.split_once(':').unwrap();
                let (size, available) = rest.split_once('/').unwrap();
                let [version, size, available] =
                    [version, size, available].map(|part| part.parse::<i32>().unwrap());
                stored(&deployment, version as u32, size, available)
            })
            .collect();
        assert_eq!(describe(&run(&deployment, &sets, 100)), want, "{line}");
    }
}

#[test]
fn scaling_in_the_middle_of_a_rollout_is_proportional() {
    let before = deployment(10, IntOrString::Int(3), IntOrString::Int(2), 9);
    for (replicas, old, new, want) in [
        (15, 8, 5, "web-v9:5->7 web-v1:8->11"),
        (30, 8, 5, "web-v9:5->13 web-v1:8->20"),
        (5, 8, 5, "web-v9:5->3 web-v1:8->5"),
        (0, 8, 5, "web-v9:5->0 web-v1:8->0"),
        (10, 8, 5, ""),
    ] {
        let sets = [stored(&before, 1, old, old), stored(&before, 9, new, 0)];
        let mut after = before.clone();
        after.spec.replicas = Some(replicas);
        assert_eq!(describe(&run(&after, &sets, 100)), want, "to {replicas}");
    }
}

#[test]
fn scaling_at_rest_sets_the_one_replica_set() {
    let before = deployment(3, parse("25%"), parse("25%"), 9);
    let sets = [stored(&before, 1, 0, 0), stored(&before, 9, 3, 3)];
    let mut after = before.clone();
    after.spec.replicas = Some(7);
    assert_eq!(describe(&run(&after, &sets, 100)), "web-v9:3->7");
}

#[test]
fn paused_deployment_scales_but_does_not_roll() {
    let before = deployment(3, parse("25%"), parse("25%"), 9);
    let sets = [stored(&before, 1, 3, 3)];
    let mut paused = before.clone();
    paused.spec.paused = Some(true);
    let outcome = run(&paused, &sets, 100);
    assert_eq!(describe(&outcome), "");
    let progressing = condition::get(&outcome.status, condition::PROGRESSING).unwrap();
    assert_eq!(
        (progressing.status.as_deref(), progressing.reason.as_deref()),
        (Some("Unknown"), Some("DeploymentPaused"))
    );
    paused.spec.replicas = Some(5);
    assert_eq!(describe(&run(&paused, &sets, 100)), "web-v1:3->5");
}

#[test]
fn recreate_waits_for_the_old_pods() {
    let mut recreate = deployment(3, parse("0"), parse("0"), 9);
    recreate.spec.strategy =
        Some(DeploymentStrategy { type_: Some("Recreate".into()), rolling_update: None });
    let old = stored(&recreate, 1, 3, 3);
    assert_eq!(describe(&run(&recreate, std::slice::from_ref(&old), 100)), "web-v1:3->0");
    let gone = Arc::new(stored(&recreate, 1, 0, 0));
    let sets = [gone];
    let with = |old_pods_run| Inputs {
        deployment: &recreate,
        replica_sets: &sets,
        old_pods_run,
        now: at(100),
    };
    assert_eq!(describe(&reconcile(&with(true))), "");
    assert_eq!(describe(&reconcile(&with(false))), "+3");
}

#[test]
fn going_back_reuses_the_old_replica_set_as_the_newest_revision() {
    let back = deployment(3, IntOrString::Int(1), IntOrString::Int(0), 1);
    let sets = [stored(&back, 1, 0, 0), stored(&back, 2, 3, 3)];
    let outcome = run(&back, &sets, 100);
    let [Write::Update { from: 0, to }] = &outcome.writes[..] else {
        panic!("{:?}", outcome.writes)
    };
    assert_eq!(to.name_any(), "web-v1");
    assert_eq!(replicas(to), 1);
    assert_eq!(to.annotations()[revision::REVISION], "3");
    assert_eq!(to.annotations()["deployment.kubernetes.io/revision-history"], "1");
    assert_eq!(outcome.revision.as_deref(), Some("3"));
}

#[test]
fn new_replica_set_is_told_apart_by_its_hash() {
    let web = deployment(2, parse("25%"), parse("25%"), 9);
    let Write::Create(set) = &run(&web, &[], 100).writes[0] else { panic!() };
    let hash = &set.labels()["pod-template-hash"];
    assert_eq!(set.name_any(), format!("web-{hash}"));
    let spec = &set.spec;
    assert_eq!(&spec.selector.match_labels.as_ref().unwrap()["pod-template-hash"], hash);
    assert_eq!(
        &crate::pod::template_labels(spec.template.as_ref().unwrap())["pod-template-hash"],
        hash
    );
    assert_eq!(set.annotations()[revision::DESIRED], "2");
    assert_eq!(set.annotations()[revision::MAX], "3");
    let mut collided = web.clone();
    collided.status = Some(DeploymentStatus { collision_count: Some(1), ..Default::default() });
    let Write::Create(other) = &run(&collided, &[], 100).writes[0] else { panic!() };
    assert_ne!(set.name_any(), other.name_any());
}

#[test]
fn history_keeps_the_newest_old_revisions() {
    let mut web = deployment(3, parse("25%"), parse("25%"), 9);
    let mut sets: Vec<_> = (1..=5).map(|version| stored(&web, version, 0, 0)).collect();
    sets.push(stored(&web, 9, 3, 3));
    web.status = Some(run(&web, &sets, 100).status);
    web.status.as_mut().unwrap().updated_replicas = Some(3);
    assert_eq!(describe(&run(&web, &sets, 100)), "-web-v1 -web-v2 -web-v3");
}

fn reasons(status: &DeploymentStatus) -> Vec<&str> {
    let mut reasons: Vec<_> =
        status.conditions.iter().flatten().filter_map(|it| it.reason.as_deref()).collect();
    reasons.sort_unstable();
    reasons
}

#[test]
fn conditions_tell_the_story_of_a_rollout() {
    let mut web = deployment(1, IntOrString::Int(1), IntOrString::Int(0), 9);
    let step = |web: &mut Deployment, sets: &[ReplicaSet], second| {
        let outcome = run(web, sets, second);
        web.status = Some(outcome.status.clone());
        outcome
    };
    let first = step(&mut web, &[], 100);
    assert_eq!(reasons(&first.status), ["MinimumReplicasUnavailable", "NewReplicaSetCreated"]);
    assert_eq!(first.again, Some(Duration::from_secs(601)));

    let sets = [stored(&web, 9, 1, 0)];
    let starting = step(&mut web, &sets, 110);
    assert_eq!(reasons(&starting.status), ["MinimumReplicasUnavailable", "ReplicaSetUpdated"]);

    let mut late = web.clone();
    let stuck = step(&mut late, &[stored(&web, 9, 1, 0)], 711);
    assert_eq!(reasons(&stuck.status), ["MinimumReplicasUnavailable", "ProgressDeadlineExceeded"]);
    assert_eq!(stuck.again, None);

    let sets = [stored(&web, 9, 1, 1)];
    let done = step(&mut web, &sets, 120);
    assert_eq!(reasons(&done.status), ["MinimumReplicasAvailable", "NewReplicaSetAvailable"]);
    let message = condition::get(&done.status, condition::PROGRESSING).unwrap().message.clone();
    assert_eq!(message.as_deref(), Some("ReplicaSet \"web-v9\" has successfully progressed."));
    let sets = [stored(&web, 9, 1, 1)];
    let again = step(&mut web, &sets, 130);
    assert_eq!(again.status, done.status, "nothing changed, so nothing is written");
}
