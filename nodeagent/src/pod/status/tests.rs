use pintle_proto::cri::{ContainerMetadata, ContainerStatus as CriStatus};
use serde_json::json;

use super::*;
use crate::pod::runtime_status::{ANNOTATION_RESTART_COUNT, Sandbox};
use crate::probe::ContainerHealth;

fn pod(spec: serde_json::Value) -> Pod {
    serde_json::from_value(json!({ "metadata": { "name": "p", "uid": "u" }, "spec": spec }))
        .unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_second(2_000_000).unwrap()
}

fn sandbox() -> Sandbox {
    Sandbox {
        id: "box".to_owned(),
        attempt: 0,
        ready: true,
        created_at: 1,
        ips: vec!["10.244.0.5".to_owned()],
        host_network: false,
    }
}

fn record(name: &str, attempt: u32, exit: Option<i32>) -> Record {
    let state =
        if exit.is_some() { RuntimeState::ContainerExited } else { RuntimeState::ContainerRunning };
    Record {
        sandbox_id: "box".to_owned(),
        name: name.to_owned(),
        status: CriStatus {
            id: format!("{name}-{attempt}"),
            metadata: Some(ContainerMetadata { name: name.to_owned(), attempt }),
            state: state as i32,
            started_at: 1_000_000_000_000_000,
            finished_at: if exit.is_some() { 1_001_000_000_000_000 } else { 0 },
            exit_code: exit.unwrap_or(0),
            annotations: [(ANNOTATION_RESTART_COUNT.to_owned(), attempt.to_string())].into(),
            ..Default::default()
        },
    }
}

struct World {
    pod: Pod,
    runtime: PodRuntime,
    health: Health,
    waiting: HashMap<String, WaitingReason>,
    failure: Option<Failure>,
    terminated: bool,
}

impl World {
    fn new(spec: serde_json::Value, records: Vec<Record>) -> Self {
        let runtime = PodRuntime { sandboxes: vec![sandbox()], containers: records };
        Self {
            pod: pod(spec),
            runtime,
            health: Health::default(),
            waiting: HashMap::new(),
            failure: None,
            terminated: false,
        }
    }

    fn healthy(mut self, id: &str) -> Self {
        self.health.set(id, ContainerHealth { started: true, ready: true, failed: None });
        self
    }

    fn status(&self) -> PodStatus {
        generate(Input {
            pod: &self.pod,
            runtime: &self.runtime,
            health: &self.health,
            waiting: &self.waiting,
            failure: self.failure.as_ref(),
            messages: &HashMap::new(),
            terminated: self.terminated,
            host_ip: "192.0.2.2",
            start_time: now(),
            now: now(),
        })
    }
}

fn condition<'a>(status: &'a PodStatus, kind: &str) -> &'a PodCondition {
    status.conditions.iter().flatten().find(|c| c.type_ == kind).unwrap()
}

#[test]
fn the_phase_follows_from_containers_and_policy() {
    let containers = |policy: &str| json!({ "restartPolicy": policy, "containers": [{ "name": "a" }, { "name": "b" }] });
    let exits: &[(&str, [Option<Option<i32>>; 2], &str)] = &[
        ("Always", [None, None], "Pending"),
        ("Always", [Some(None), None], "Running"),
        ("Always", [Some(None), Some(None)], "Running"),
        ("Always", [Some(Some(0)), Some(Some(1))], "Running"),
        ("OnFailure", [Some(Some(0)), Some(Some(0))], "Succeeded"),
        ("OnFailure", [Some(Some(0)), Some(Some(1))], "Running"),
        ("Never", [Some(Some(0)), Some(Some(1))], "Failed"),
        ("Never", [Some(Some(0)), Some(None)], "Running"),
    ];
    for (policy, states, phase) in exits {
        let records = ["a", "b"]
            .iter()
            .zip(states)
            .filter_map(|(name, state)| state.map(|exit| record(name, 0, exit)))
            .collect();
        let mut world = World::new(containers(policy), records);
        if matches!(*phase, "Succeeded" | "Failed") {
            assert_eq!(world.status().phase.as_deref(), Some("Running"), "before all has stopped");
            world.terminated = true;
        }
        assert_eq!(world.status().phase.as_deref(), Some(*phase), "{policy} {states:?}");
    }
}

#[test]
fn a_pod_is_ready_when_all_its_containers_are() {
    let spec = json!({ "containers": [{ "name": "a" }, { "name": "b" }] });
    let records = || vec![record("a", 0, None), record("b", 0, None)];
    let half = World::new(spec.clone(), records()).healthy("a-0").status();
    assert_eq!(condition(&half, "Ready").status, "False");
    assert_eq!(
        condition(&half, "ContainersReady").message.as_deref(),
        Some("containers with unready status: [b]")
    );
    let whole = World::new(spec, records()).healthy("a-0").healthy("b-0").status();
    for kind in
        ["Ready", "ContainersReady", "Initialized", "PodScheduled", "PodReadyToStartContainers"]
    {
        assert_eq!(condition(&whole, kind).status, "True", "{kind}");
    }
    assert_eq!(whole.pod_ip.as_deref(), Some("10.244.0.5"));
}

#[test]
fn a_readiness_gate_holds_ready_back() {
    let spec = json!({ "containers": [{ "name": "a" }], "readinessGates": [{ "conditionType": "example.org/up" }] });
    let mut world = World::new(spec, vec![record("a", 0, None)]).healthy("a-0");
    assert_eq!(condition(&world.status(), "Ready").status, "False");
    world.pod.status = Some(
        serde_json::from_value(
            json!({ "conditions": [{ "type": "example.org/up", "status": "True" }] }),
        )
        .unwrap(),
    );
    assert_eq!(condition(&world.status(), "Ready").status, "True");
    assert_eq!(condition(&world.status(), "example.org/up").status, "True");
}

#[test]
fn a_crash_loop_shows_the_wait_and_the_last_end() {
    let mut world = World::new(
        json!({ "containers": [{ "name": "a" }] }),
        vec![record("a", 1, Some(3)), record("a", 0, Some(2))],
    );
    let reason =
        WaitingReason { reason: "CrashLoopBackOff".to_owned(), message: "back-off 10s".to_owned() };
    world.waiting.insert("a".to_owned(), reason);
    let status = world.status().container_statuses.unwrap().remove(0);
    assert_eq!(status.state.unwrap().waiting.unwrap().reason.as_deref(), Some("CrashLoopBackOff"));
    assert_eq!(status.last_state.unwrap().terminated.unwrap().exit_code, 3);
    assert_eq!(status.restart_count, 1);
}

#[test]
fn containers_after_init_containers_say_so() {
    let spec = json!({ "initContainers": [{ "name": "i" }], "containers": [{ "name": "a" }] });
    let status = World::new(spec, vec![record("i", 0, None)]).status();
    let waiting = status.container_statuses.as_ref().unwrap()[0].state.as_ref().unwrap();
    assert_eq!(waiting.waiting.as_ref().unwrap().reason.as_deref(), Some("PodInitializing"));
    assert_eq!(condition(&status, "Initialized").status, "False");
    assert_eq!(status.phase.as_deref(), Some("Pending"));
}

#[test]
fn an_evicted_pod_fails_when_it_has_stopped() {
    let mut world =
        World::new(json!({ "containers": [{ "name": "a" }] }), vec![record("a", 0, None)]);
    world.failure =
        Some(Failure { reason: "Evicted".to_owned(), message: "low on memory".to_owned() });
    assert_eq!(world.status().phase.as_deref(), Some("Running"));
    world.runtime.containers = vec![record("a", 0, Some(0))];
    world.terminated = true;
    let status = world.status();
    assert_eq!(
        (status.phase.as_deref(), status.reason.as_deref()),
        (Some("Failed"), Some("Evicted"))
    );
}

#[test]
fn transition_times_change_only_with_the_status() {
    let mut world =
        World::new(json!({ "containers": [{ "name": "a" }] }), vec![record("a", 0, None)])
            .healthy("a-0");
    let mut before = world.status();
    let early = Time(Timestamp::from_second(5).unwrap());
    for condition in before.conditions.iter_mut().flatten() {
        condition.last_transition_time = Some(early.clone());
    }
    world.pod.status = Some(before);
    assert_eq!(condition(&world.status(), "Ready").last_transition_time, Some(early.clone()));
    world.health = Health::default();
    assert_eq!(condition(&world.status(), "Ready").last_transition_time, Some(Time(now())));
    assert_eq!(condition(&world.status(), "PodScheduled").last_transition_time, Some(early));
}
