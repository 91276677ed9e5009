//! A pod's status from what the runtime says. Pure.

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use pintle_proto::cri::ContainerState as RuntimeState;
use std::collections::HashMap;

use super::runtime_status::{PodRuntime, Record};
use super::{ContainerKind, PodExt, RestartPolicy, from_nanos};
use crate::probe::Health;
use crate::resources;

/// Why a container waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingReason {
    /// Such as `CrashLoopBackOff`.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// Why the whole pod failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Such as `Evicted`.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// All that the status depends on.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The pod, with its last known status.
    pub pod: &'a Pod,
    /// The runtime's view.
    pub runtime: &'a PodRuntime,
    /// The probes' verdicts.
    pub health: &'a Health,
    /// Containers that wait for something else than their turn.
    pub waiting: &'a HashMap<String, WaitingReason>,
    /// Set when the agent ends the pod.
    pub failure: Option<&'a Failure>,
    /// Last words by container id.
    pub messages: &'a HashMap<String, String>,
    /// Everything of the pod has been stopped and stays so.
    pub terminated: bool,
    /// The node's address.
    pub host_ip: &'a str,
    /// When the agent first saw the pod.
    pub start_time: Timestamp,
    /// The time, for conditions that change.
    pub now: Timestamp,
}

/// The status.
pub fn generate(input: Input<'_>) -> PodStatus {
    let pod = input.pod;
    let previous = pod.status.clone().unwrap_or_default();
    let mut lists = Lists::default();
    for (kind, container) in pod.all_containers() {
        let status = container_status(input, kind, &container);
        match kind {
            ContainerKind::Init | ContainerKind::Sidecar => lists.init.push((kind, status)),
            ContainerKind::Regular => lists.regular.push(status),
            ContainerKind::Ephemeral => lists.ephemeral.push(status),
        }
    }
    let phase = phase(input, &previous, &lists);
    let ips = pod_ips(input, &previous);
    let mut status = PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(conditions(input, &previous, &lists, phase)),
        message: input.failure.map(|f| f.message.clone()).or(previous.message),
        reason: input.failure.map(|f| f.reason.clone()).or(previous.reason),
        host_ip: Some(input.host_ip.to_owned()),
        host_ips: Some(vec![HostIP { ip: input.host_ip.to_owned() }]),
        pod_ip: ips.first().cloned(),
        pod_ips: (!ips.is_empty()).then(|| ips.into_iter().map(|ip| PodIP { ip }).collect()),
        start_time: previous.start_time.or(Some(Time(input.start_time))),
        qos_class: Some(resources::qos_class(pod).as_str().to_owned()),
        observed_generation: pod.metadata.generation,
        container_statuses: Some(lists.regular),
        nominated_node_name: previous.nominated_node_name,
        ..PodStatus::default()
    };
    if !lists.init.is_empty() {
        status.init_container_statuses =
            Some(lists.init.into_iter().map(|(_, status)| status).collect());
    }
    if !lists.ephemeral.is_empty() {
        status.ephemeral_container_statuses = Some(lists.ephemeral);
    }
    status
}

#[derive(Default)]
struct Lists {
    init: Vec<(ContainerKind, ContainerStatus)>,
    regular: Vec<ContainerStatus>,
    ephemeral: Vec<ContainerStatus>,
}

fn pod_ips(input: Input<'_>, previous: &PodStatus) -> Vec<String> {
    if input.pod.host_network() {
        return vec![input.host_ip.to_owned()];
    }
    match input.runtime.sandbox() {
        Some(sandbox) if !sandbox.ips.is_empty() => sandbox.ips.clone(),
        // A stopped sandbox has given its address back; the record of it stays.
        _ if input.terminated || input.pod.is_finished() => {
            previous.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect()
        }
        _ => Vec::new(),
    }
}

fn container_status(
    input: Input<'_>,
    kind: ContainerKind,
    container: &Container,
) -> ContainerStatus {
    let record = input.runtime.newest(&container.name);
    let before = earlier_status(input.pod, &container.name);
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        started: Some(false),
        ..ContainerStatus::default()
    };
    match record {
        Some(record) => fill_from_record(&mut status, input, kind, container, record),
        None => fill_without_record(&mut status, input, kind, before),
    }
    if let Some(waiting) = input.waiting.get(&container.name)
        && !input.terminated
        && status.state.as_ref().is_none_or(|state| state.running.is_none())
    {
        let ended = status.state.take().filter(|state| state.terminated.is_some());
        status.last_state = ended.or(status.last_state.take());
        status.state = Some(waiting_state(&waiting.reason, &waiting.message));
        status.ready = false;
    }
    status
}

fn fill_from_record(
    status: &mut ContainerStatus,
    input: Input<'_>,
    kind: ContainerKind,
    container: &Container,
    record: &Record,
) {
    let health = input.health.of(&record.status.id);
    status.container_id = Some(container_id(&record.status.id));
    status.image_id = record.status.image_ref.clone();
    if let Some(image) =
        record.status.image.as_ref().filter(|i| !i.image.is_empty() && container.image.is_none())
    {
        status.image = image.image.clone();
    }
    status.restart_count = record.restart_count();
    status.state = Some(record_state(input, record));
    status.last_state = input
        .runtime
        .last_terminated(&record.name)
        .map(|ended| record_state(input, ended))
        .or_else(|| earlier_status(input.pod, &record.name)?.last_state.clone());
    match record.state() {
        RuntimeState::ContainerRunning => {
            status.started = Some(health.started);
            status.ready = health.started && health.ready;
        }
        RuntimeState::ContainerExited if kind == ContainerKind::Init => {
            status.ready = record.status.exit_code == 0;
        }
        _ => {}
    }
}

/// Nothing is known to the runtime: the container's turn has not come, or its remains are gone.
fn fill_without_record(
    status: &mut ContainerStatus,
    input: Input<'_>,
    kind: ContainerKind,
    before: Option<&ContainerStatus>,
) {
    let over = input.terminated || input.pod.is_finished();
    if let Some(before) = before.filter(|s| s.container_id.is_some()) {
        status.restart_count = before.restart_count;
        status.image_id = before.image_id.clone();
        status.container_id = before.container_id.clone();
        status.last_state = before.last_state.clone();
        let ended = before.state.as_ref().is_some_and(|state| state.terminated.is_some());
        if ended && (over || kind == ContainerKind::Init) {
            status.state = before.state.clone();
            status.ready = before.ready && kind == ContainerKind::Init;
            return;
        }
        if over {
            status.state = Some(lost_state(input.now));
            return;
        }
    } else if over {
        let reason = if input.terminated && input.failure.is_some() {
            "ContainerStatusUnknown"
        } else {
            "ContainerCreating"
        };
        status.state = Some(waiting_state(reason, ""));
        return;
    }
    let initializing = kind == ContainerKind::Regular
        && input.pod.pod_spec().init_containers.as_ref().is_some_and(|list| !list.is_empty());
    let reason = if initializing { "PodInitializing" } else { "ContainerCreating" };
    status.state = Some(waiting_state(reason, ""));
}

fn lost_state(now: Timestamp) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".to_owned()),
            message: Some(
                "The container could not be located when the pod was terminated".to_owned(),
            ),
            finished_at: Some(Time(now)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn earlier_status<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let lists = [
        &status.container_statuses,
        &status.init_container_statuses,
        &status.ephemeral_container_statuses,
    ];
    lists.into_iter().flatten().flatten().find(|status| status.name == name)
}

/// As the API writes it.
pub fn container_id(id: &str) -> String {
    format!("containerd://{id}")
}

fn waiting_state(reason: &str, message: &str) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message: (!message.is_empty()).then(|| message.to_owned()),
        }),
        ..Default::default()
    }
}

fn record_state(input: Input<'_>, record: &Record) -> ContainerState {
    let status = &record.status;
    let started_at = (status.started_at > 0).then(|| seconds(status.started_at));
    match record.state() {
        RuntimeState::ContainerRunning => ContainerState {
            running: Some(ContainerStateRunning { started_at }),
            ..Default::default()
        },
        RuntimeState::ContainerExited => ContainerState {
            terminated: Some(ContainerStateTerminated {
                container_id: Some(container_id(&status.id)),
                exit_code: status.exit_code,
                reason: Some(exit_reason(status)),
                message: input
                    .messages
                    .get(&status.id)
                    .cloned()
                    .or_else(|| Some(status.message.clone()))
                    .filter(|message| !message.is_empty()),
                signal: None,
                started_at,
                finished_at: (status.finished_at > 0).then(|| seconds(status.finished_at)),
            }),
            ..Default::default()
        },
        RuntimeState::ContainerCreated => waiting_state("ContainerCreating", ""),
        RuntimeState::ContainerUnknown => waiting_state("ContainerStatusUnknown", &status.message),
    }
}

/// API times have no fractions.
fn seconds(nanos: i64) -> Time {
    Time(Timestamp::from_second(from_nanos(nanos).as_second()).unwrap_or(Timestamp::UNIX_EPOCH))
}

fn exit_reason(status: &pintle_proto::cri::ContainerStatus) -> String {
    match (status.reason.as_str(), status.exit_code) {
        ("", 0) => "Completed".to_owned(),
        ("", _) => "Error".to_owned(),
        (reason, _) => reason.to_owned(),
    }
}

fn terminated(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    status.state.as_ref()?.terminated.as_ref()
}

fn is_running(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.running.is_some())
}

fn phase(input: Input<'_>, previous: &PodStatus, lists: &Lists) -> &'static str {
    match previous.phase.as_deref() {
        Some("Succeeded") => return "Succeeded",
        Some("Failed") => return "Failed",
        _ => {}
    }
    if input.failure.is_some() {
        return if input.terminated { "Failed" } else { "Running" };
    }
    if input.terminated {
        let all = || lists.regular.iter();
        let done = all().all(|status| terminated(status).is_some_and(|t| t.exit_code == 0));
        return if done && !lists.regular.is_empty() { "Succeeded" } else { "Failed" };
    }
    match (phase_of_living(input, lists), previous.phase.as_deref()) {
        // The end is told when everything has stopped, sidecars too.
        ("Succeeded" | "Failed", _) => "Running",
        // A pod never goes back.
        ("Pending", Some("Running")) => "Running",
        (phase, _) => phase,
    }
}

fn phase_of_living(input: Input<'_>, lists: &Lists) -> &'static str {
    let policy = input.pod.restart_policy();
    let init_failed = lists.init.iter().any(|(kind, status)| {
        *kind == ContainerKind::Init && terminated(status).is_some_and(|t| t.exit_code != 0)
    });
    if init_failed && policy == RestartPolicy::Never {
        return "Failed";
    }
    let any_began = lists.regular.iter().any(|s| {
        is_running(s)
            || terminated(s).is_some()
            || s.last_state.as_ref().is_some_and(|l| l.terminated.is_some())
    });
    if !any_began {
        return "Pending";
    }
    let ended: Vec<_> = lists.regular.iter().filter_map(terminated).collect();
    if ended.len() < lists.regular.len() || policy == RestartPolicy::Always {
        return "Running";
    }
    match policy {
        _ if ended.iter().all(|t| t.exit_code == 0) => "Succeeded",
        RestartPolicy::Never => "Failed",
        _ => "Running",
    }
}

fn conditions(
    input: Input<'_>,
    previous: &PodStatus,
    lists: &Lists,
    phase: &str,
) -> Vec<PodCondition> {
    let over = matches!(phase, "Succeeded" | "Failed");
    let sandbox_ready = input
        .runtime
        .sandbox()
        .is_some_and(|sandbox| sandbox.ready && (sandbox.host_network || !sandbox.ips.is_empty()));
    let unready: Vec<&str> = lists
        .regular
        .iter()
        .filter(|s| !s.ready)
        .map(|s| s.name.as_str())
        .chain(
            lists
                .init
                .iter()
                .filter(|(kind, s)| *kind == ContainerKind::Sidecar && !s.ready)
                .map(|(_, s)| s.name.as_str()),
        )
        .collect();
    let incomplete: Vec<&str> = lists
        .init
        .iter()
        .filter(|(kind, status)| match kind {
            ContainerKind::Sidecar => status.started != Some(true),
            _ => !status.ready,
        })
        .map(|(_, status)| status.name.as_str())
        .collect();
    let began = lists.regular.iter().any(|status| status.container_id.is_some());
    let initialized = incomplete.is_empty() || began || phase == "Succeeded";
    let containers_ready = if over {
        Verdict::no(if phase == "Succeeded" { "PodCompleted" } else { "PodFailed" }, String::new())
    } else if unready.is_empty() {
        Verdict::yes()
    } else {
        let names = unready.join(" ");
        Verdict::no("ContainersNotReady", format!("containers with unready status: [{names}]"))
    };
    let initialized = match (initialized, phase) {
        (true, "Succeeded") => Verdict { reason: Some("PodCompleted"), ..Verdict::yes() },
        (true, _) => Verdict::yes(),
        (false, _) => Verdict::no(
            "ContainersNotInitialized",
            format!("containers with incomplete status: [{}]", incomplete.join(" ")),
        ),
    };
    let sandbox = if sandbox_ready {
        Verdict::yes()
    } else {
        Verdict { yes: false, reason: None, message: String::new() }
    };
    let ready = readiness_gates(input.pod, previous, &containers_ready);
    let mut conditions = previous.conditions.clone().unwrap_or_default();
    for (kind, verdict) in [
        ("PodReadyToStartContainers", sandbox),
        ("Initialized", initialized),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", Verdict::yes()),
    ] {
        set_condition(&mut conditions, kind, verdict, input);
    }
    conditions
}

struct Verdict {
    yes: bool,
    reason: Option<&'static str>,
    message: String,
}

impl Verdict {
    fn yes() -> Self {
        Self { yes: true, reason: None, message: String::new() }
    }

    fn no(reason: &'static str, message: String) -> Self {
        Self { yes: false, reason: Some(reason), message }
    }
}

fn readiness_gates(pod: &Pod, previous: &PodStatus, containers: &Verdict) -> Verdict {
    if !containers.yes {
        return Verdict::no(
            containers.reason.unwrap_or("ContainersNotReady"),
            containers.message.clone(),
        );
    }
    let is_true = |kind: &str| {
        previous.conditions.iter().flatten().any(|c| c.type_ == kind && c.status == "True")
    };
    let gates = pod.pod_spec().readiness_gates.iter().flatten();
    let closed: Vec<_> =
        gates.map(|gate| &gate.condition_type).filter(|kind| !is_true(kind)).collect();
    match closed.first() {
        None => Verdict::yes(),
        Some(kind) => Verdict::no(
            "ReadinessGatesNotReady",
            format!("corresponding condition of pod readiness gate {kind:?} does not exist."),
        ),
    }
}

fn set_condition(list: &mut Vec<PodCondition>, kind: &str, verdict: Verdict, input: Input<'_>) {
    let status = if verdict.yes { "True" } else { "False" };
    let now = Time(Timestamp::from_second(input.now.as_second()).unwrap_or(input.now));
    let mut condition = PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.map(str::to_owned),
        message: (!verdict.message.is_empty()).then_some(verdict.message),
        last_transition_time: Some(now),
        observed_generation: input.pod.metadata.generation,
        ..PodCondition::default()
    };
    match list.iter_mut().find(|c| c.type_ == kind) {
        Some(current) => {
            if current.status == condition.status {
                condition.last_transition_time = current.last_transition_time.clone();
            }
            *current = condition;
        }
        None => list.push(condition),
    }
}

#[cfg(test)]
mod tests;
