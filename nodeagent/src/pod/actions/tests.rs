//! One line for each decision: `restart policy, containers | what runs | what to do`.
//!
//! Containers: `i` init, `s*` sidecar (declared before regular ones with `>`). Runtime: `box0` a ready
//! sandbox, `box0!` one that is not, `name=run`, `run?` (not started), `live!`, `start!`, `old` (another
//! image), `exit0`, `exit1`, `crash1` (exited, in backoff), `lost`.

use k8s_openapi::jiff::SignedDuration;
use pintle_proto::cri::{ContainerMetadata, ContainerStatus};
use serde_json::json;

use super::*;
use crate::pod::runtime_status::{ANNOTATION_HASH, Sandbox};
use crate::probe::ContainerHealth;

const CASES: &[(&str, &str, &str)] = &[
    // A pod's first minutes.
    ("Always a b", "", "sandbox 0"),
    ("Always a b", "box0", "start a #0; start b #0"),
    ("Always a b", "box0 a=run", "start b #0"),
    ("Always a b", "box0 a=run b=run", "nothing"),
    // Restarts.
    ("Always a", "box0 a=exit0", "start a #1"),
    ("Always a", "box0 a=exit1", "start a #1"),
    ("Always a", "box0 a=crash1", "wait a 10s"),
    ("OnFailure a", "box0 a=exit1", "start a #1"),
    ("OnFailure a b", "box0 a=exit0 b=run", "nothing"),
    ("OnFailure a b", "box0 a=exit0 b=crash1", "wait b 10s"),
    ("OnFailure a", "box0 a=exit0", "kill pod"),
    ("Never a b", "box0 a=exit1 b=run", "nothing"),
    ("Never a b", "box0 a=exit1 b=exit0", "kill pod"),
    // Probes, changes, loss.
    ("Always a b", "box0 a=live! b=run", "kill a (Probe(Liveness))"),
    ("Never a", "box0 a=live!", "kill a (Probe(Liveness))"),
    ("Always a", "box0 a=start!", "kill a (Probe(Startup))"),
    ("Always a", "box0 a=old", "kill a (Changed)"),
    ("Always a", "box0 a=lost", "kill a (Unknown)"),
    // Init containers.
    ("Always i j > a", "box0", "start i #0"),
    ("Always i j > a", "box0 i=run", "nothing"),
    ("Always i j > a", "box0 i=exit0", "start j #0"),
    ("Always i j > a", "box0 i=exit0 j=exit1", "start j #1"),
    ("Always i j > a", "box0 i=exit0 j=crash1", "wait j 10s"),
    ("Never i > a", "box0 i=exit1", "kill pod"),
    ("Always i j > a", "box0 i=exit0 j=exit0", "start a #0"),
    ("Always i > a", "box0 a=exit1", "start a #1"),
    // Sidecars.
    ("Always s* i > a", "box0", "start s #0"),
    ("Always s* i > a", "box0 s=run?", "nothing"),
    ("Always s* i > a", "box0 s=run", "start i #0"),
    ("Always s* > a", "box0 s=run", "start a #0"),
    ("Always s* > a", "box0 s=exit1 a=run", "start s #1"),
    ("Always s* > a", "box0 s=live! a=run", "kill s (Probe(Liveness))"),
    ("Never s* > a", "box0 s=exit0 a=run", "start s #1"),
    ("Never s* > a", "box0 s=run a=exit0", "kill pod"),
    ("OnFailure s* > a", "box0 s=exit1 a=exit0", "kill pod"),
    // A sandbox that dies.
    ("Always a", "box0! a=exit137", "sandbox 1"),
    ("Always a", "box0! a=run", "kill pod; sandbox 1"),
    ("Never a", "box0! a=exit0", "kill pod"),
    ("Never a", "box0!", "sandbox 1"),
    ("OnFailure a", "box0! a=exit0", "kill pod"),
    ("OnFailure a b", "box0! a=exit0 b=exit1", "sandbox 1"),
];

fn container(name: &str) -> serde_json::Value {
    json!({ "name": name.trim_end_matches('*'), "image": "demo:1",
        "restartPolicy": name.ends_with('*').then_some("Always") })
}

fn pod(text: &str) -> Pod {
    let (policy, rest) = text.split_once(' ').unwrap();
    let (init, regular) = rest.split_once('>').unwrap_or(("", rest));
    let list = |names: &str| names.split_whitespace().map(container).collect::<Vec<_>>();
    serde_json::from_value(json!({
        "metadata": { "name": "p", "uid": "u" },
        "spec": { "restartPolicy": policy, "initContainers": list(init), "containers": list(regular) },
    }))
    .unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

struct World {
    runtime: PodRuntime,
    health: Health,
    backoff: Backoff<BackoffKey>,
}

fn world(pod: &Pod, text: &str) -> World {
    let mut world = World {
        runtime: PodRuntime::default(),
        health: Health::default(),
        backoff: Backoff::default(),
    };
    for word in text.split_whitespace() {
        match word.split_once('=') {
            None => world.runtime.sandboxes.push(Sandbox {
                id: "box".to_owned(),
                attempt: 0,
                ready: !word.ends_with('!'),
                created_at: 0,
                ips: vec!["10.0.0.1".to_owned()],
                host_network: false,
            }),
            Some((name, state)) => add_container(&mut world, pod, name, state),
        }
    }
    world
}

fn add_container(world: &mut World, pod: &Pod, name: &str, state: &str) {
    let (_, spec) = pod.all_containers().into_iter().find(|(_, c)| c.name == name).unwrap();
    let ended = now() - SignedDuration::from_secs(1);
    let hash = if state == "old" { "another".to_owned() } else { container_hash(&spec) };
    let digits: String = state.chars().filter(char::is_ascii_digit).collect();
    let runtime_state = match state.trim_end_matches(|c: char| c.is_ascii_digit()) {
        "exit" | "crash" => ContainerState::ContainerExited,
        "lost" => ContainerState::ContainerUnknown,
        _ => ContainerState::ContainerRunning,
    };
    if state.starts_with("crash") {
        world.backoff.attempted(backoff_key(&spec), ended, ended);
    }
    let failed = match state {
        "live!" => Some(ProbeKind::Liveness),
        "start!" => Some(ProbeKind::Startup),
        _ => None,
    };
    let health = ContainerHealth { started: state != "run?", ready: true, failed };
    world.health.set(name, health);
    world.runtime.containers.push(Record {
        sandbox_id: "box".to_owned(),
        name: name.to_owned(),
        status: ContainerStatus {
            id: name.to_owned(),
            metadata: Some(ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            state: runtime_state as i32,
            exit_code: digits.parse().unwrap_or(0),
            finished_at: i64::try_from(ended.as_nanosecond()).unwrap(),
            annotations: [(ANNOTATION_HASH.to_owned(), hash)].into(),
            ..Default::default()
        },
    });
}

#[test]
fn every_situation_has_its_actions() {
    for (spec, situation, expected) in CASES {
        let pod = pod(spec);
        let world = world(&pod, situation);
        let input = Input {
            pod: &pod,
            runtime: &world.runtime,
            health: &world.health,
            backoff: &world.backoff,
            now: now(),
        };
        assert_eq!(compute_actions(input).to_string(), *expected, "{spec} | {situation}");
    }
}
