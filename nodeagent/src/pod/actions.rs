//! The decision at the heart of the agent: given a pod and what the runtime says about it, what is to
//! be done now. Pure: the clock, the probes' verdicts and the backoff table are arguments.
//!
//! The order of a pod's life: sandbox; init containers one after the other, where a sidecar holds the
//! next one back only until it has started; regular containers; when the last of those has ended for
//! good, everything else is stopped.

use std::fmt;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::jiff::Timestamp;
use pintle_proto::cri::ContainerState;

use super::backoff::{Backoff, Wait};
use super::runtime_status::{PodRuntime, Record, container_hash};
use super::{ContainerKind, PodExt, RestartPolicy, ephemeral_as_container, from_nanos, init_kind};
use crate::probe::{Health, ProbeKind};

/// Backoff goes by container name and by what it is made from: a new image gets a new chance.
pub type BackoffKey = (String, String);

/// The key of a container.
pub fn backoff_key(container: &Container) -> BackoffKey {
    (container.name.clone(), container_hash(container))
}

/// All that the decision depends on.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The desired pod.
    pub pod: &'a Pod,
    /// The runtime's view.
    pub runtime: &'a PodRuntime,
    /// The probes' verdicts.
    pub health: &'a Health,
    /// Earlier crashes.
    pub backoff: &'a Backoff<BackoffKey>,
    /// The time.
    pub now: Timestamp,
}

/// A container to start.
#[derive(Debug, Clone)]
pub struct Start {
    /// Which list it stands in.
    pub kind: ContainerKind,
    /// The container.
    pub container: Container,
    /// How often its name was started before.
    pub restart_count: i32,
    /// When its predecessor ended, for the backoff.
    pub after: Option<Timestamp>,
}

/// A container to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kill {
    /// The runtime's id.
    pub id: String,
    /// Its name in the pod.
    pub name: String,
    /// Why.
    pub cause: Cause,
}

/// Why a container is stopped while its pod lives on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Its definition changed.
    Changed,
    /// A probe failed for good.
    Probe(ProbeKind),
    /// The runtime lost track of it.
    Unknown,
}

impl Cause {
    /// For the event.
    pub fn message(self, name: &str) -> String {
        match self {
            Self::Changed => format!("Container {name} definition changed, will be restarted"),
            Self::Probe(kind) => format!(
                "Container {name} failed {} probe, will be restarted",
                kind.as_str().to_lowercase()
            ),
            Self::Unknown => {
                format!("Container {name} is in unknown state, try killing it before restart")
            }
        }
    }
}

/// A container that waits after a crash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its name.
    pub name: String,
    /// The wait.
    pub wait: Wait,
}

/// What to do.
#[derive(Debug, Clone, Default)]
pub struct Actions {
    /// Stop everything that the pod has running, the sandbox too.
    pub kill_pod: bool,
    /// Create a sandbox, after the killing.
    pub create_sandbox: bool,
    /// The attempt number of a sandbox to create.
    pub attempt: u32,
    /// Containers to stop.
    pub kill: Vec<Kill>,
    /// Containers to start, in this order.
    pub start: Vec<Start>,
    /// Containers that wait.
    pub waiting: Vec<Waiting>,
}

/// Decides.
pub fn compute_actions(input: Input<'_>) -> Actions {
    let mut actions = Actions::default();
    let usable = input
        .runtime
        .sandbox()
        .filter(|sandbox| sandbox.ready && (sandbox.host_network || !sandbox.ips.is_empty()));
    let one_ready = input.runtime.sandboxes.iter().filter(|sandbox| sandbox.ready).count() <= 1;
    match usable.filter(|_| one_ready) {
        Some(sandbox) => Decider { input, sandbox: &sandbox.id, actions: &mut actions }.decide(),
        None => new_sandbox(input, &mut actions),
    }
    actions
}

/// There is no sandbox, or not one that containers can run in.
fn new_sandbox(input: Input<'_>, actions: &mut Actions) {
    let pod = input.pod;
    let ran_before = !input.runtime.containers.is_empty();
    actions.attempt = input.runtime.sandbox().map_or(0, |sandbox| sandbox.attempt + 1);
    actions.kill_pod = input.runtime.is_alive();
    let wanted = pod.pod_spec().containers.iter().any(|container| {
        input.runtime.newest(&container.name).is_none_or(|record| {
            // Whatever still runs dies with its sandbox.
            record.is_running() && pod.restart_policy() != RestartPolicy::Never
                || should_restart(container, pod.restart_policy(), record)
        })
    });
    let over = pod.restart_policy() == RestartPolicy::Never && ran_before;
    if over || !wanted {
        actions.kill_pod = true;
        return;
    }
    actions.create_sandbox = true;
}

struct Decider<'a> {
    input: Input<'a>,
    sandbox: &'a str,
    actions: &'a mut Actions,
}

impl<'a> Decider<'a> {
    fn decide(&mut self) {
        let spec = self.input.pod.pod_spec();
        for container in spec.ephemeral_containers.iter().flatten() {
            if self.input.runtime.newest(&container.name).is_none() {
                self.start(ContainerKind::Ephemeral, &ephemeral_as_container(container), None);
            }
        }
        let began = spec.containers.iter().any(|c| self.record(&c.name).is_some());
        if !self.init_containers(began) {
            return;
        }
        let mut going_on = false;
        for container in &spec.containers {
            going_on |= self.regular(container);
        }
        if !going_on {
            self.actions.kill_pod = true;
            self.actions.start.clear();
        }
    }

    fn record(&self, name: &str) -> Option<&'a Record> {
        self.input.runtime.newest_in(self.sandbox, name)
    }

    /// Whether the regular containers may run. `began`: they already did, so that init containers are
    /// behind us even if their remains are gone.
    fn init_containers(&mut self, began: bool) -> bool {
        for container in self.input.pod.pod_spec().init_containers.iter().flatten() {
            let done = match init_kind(container) {
                ContainerKind::Sidecar => self.sidecar(container) || began,
                _ => began || self.init(container),
            };
            if !done {
                return false;
            }
        }
        true
    }

    /// Whether an init container has done its work.
    fn init(&mut self, container: &Container) -> bool {
        let Some(record) = self.record(&container.name) else {
            self.start(ContainerKind::Init, container, None);
            return false;
        };
        match record.state() {
            ContainerState::ContainerExited if record.status.exit_code == 0 => return true,
            ContainerState::ContainerExited => {
                if self.input.pod.restart_policy() == RestartPolicy::Never {
                    self.actions.kill_pod = true;
                } else {
                    self.start(ContainerKind::Init, container, Some(record));
                }
            }
            ContainerState::ContainerUnknown => self.kill(record, Cause::Unknown),
            ContainerState::ContainerRunning => {}
            ContainerState::ContainerCreated => {
                self.start(ContainerKind::Init, container, Some(record));
            }
        }
        false
    }

    /// Whether a sidecar has started, so that what comes after it may.
    fn sidecar(&mut self, container: &Container) -> bool {
        let Some(record) = self.record(&container.name) else {
            self.start(ContainerKind::Sidecar, container, None);
            return false;
        };
        match record.state() {
            ContainerState::ContainerRunning => match self.condemned(container, record) {
                Some(cause) => {
                    self.kill(record, cause);
                    false
                }
                None => self.input.health.of(&record.status.id).started,
            },
            ContainerState::ContainerUnknown => {
                self.kill(record, Cause::Unknown);
                false
            }
            _ => {
                self.start(ContainerKind::Sidecar, container, Some(record));
                false
            }
        }
    }

    /// Whether a regular container runs or will run again.
    fn regular(&mut self, container: &Container) -> bool {
        let policy = self.input.pod.restart_policy();
        let Some(record) = self.record(&container.name) else {
            let ended = self.input.runtime.newest(&container.name);
            if ended.is_some_and(|record| {
                !should_restart(container, policy, record) && !record.is_running()
            }) {
                return false;
            }
            self.start(ContainerKind::Regular, container, ended);
            return true;
        };
        match record.state() {
            ContainerState::ContainerRunning => match self.condemned(container, record) {
                Some(cause) => {
                    self.kill(record, cause);
                    // Whether it comes back shows when it has ended.
                    true
                }
                None => true,
            },
            ContainerState::ContainerUnknown => {
                self.kill(record, Cause::Unknown);
                true
            }
            _ if should_restart(container, policy, record) => {
                self.start(ContainerKind::Regular, container, Some(record));
                true
            }
            _ => false,
        }
    }

    fn condemned(&self, container: &Container, record: &Record) -> Option<Cause> {
        if changed(container, record) {
            return Some(Cause::Changed);
        }
        self.input.health.of(&record.status.id).failed.map(Cause::Probe)
    }

    fn kill(&mut self, record: &Record, cause: Cause) {
        self.actions.kill.push(Kill {
            id: record.status.id.clone(),
            name: record.name.clone(),
            cause,
        });
    }

    /// Starts a container, or lets it wait when it crashed too often.
    fn start(&mut self, kind: ContainerKind, container: &Container, last: Option<&Record>) {
        let after = last
            .filter(|record| record.state() == ContainerState::ContainerExited)
            .map(|record| from_nanos(record.status.finished_at));
        if let Some(ended) = after
            && let Some(wait) =
                self.input.backoff.remaining(&backoff_key(container), ended, self.input.now)
        {
            self.actions.waiting.push(Waiting { name: container.name.clone(), wait });
            return;
        }
        let restart_count = match last.or_else(|| self.input.runtime.newest(&container.name)) {
            Some(record) => record.restart_count() + 1,
            None => restarts_in_status(self.input.pod, &container.name),
        };
        self.actions.start.push(Start { kind, container: container.clone(), restart_count, after });
    }
}

/// When the runtime has forgotten a container, its pod's status still counts it.
fn restarts_in_status(pod: &Pod, name: &str) -> i32 {
    let Some(status) = &pod.status else { return 0 };
    let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    all.filter(|s| s.name == name && s.container_id.as_ref().is_some_and(|id| !id.is_empty()))
        .map(|status| status.restart_count + 1)
        .next()
        .unwrap_or(0)
}

fn changed(container: &Container, record: &Record) -> bool {
    record.hash().is_some_and(|hash| hash != container_hash(container))
}

/// Whether a container that is not running is started again.
fn should_restart(container: &Container, policy: RestartPolicy, record: &Record) -> bool {
    if record.state() != ContainerState::ContainerExited || changed(container, record) {
        return true;
    }
    let code = record.status.exit_code;
    for rule in container.restart_policy_rules.iter().flatten() {
        if let Some(codes) = &rule.exit_codes {
            let listed = codes.values.iter().flatten().any(|value| *value == code);
            if listed == (codes.operator == "In") && rule.action == "Restart" {
                return true;
            }
        }
    }
    let policy = match container.restart_policy.as_deref() {
        Some(own) => RestartPolicy::parse(Some(own)),
        None => policy,
    };
    match policy {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => code != 0,
        RestartPolicy::Never => false,
    }
}

impl fmt::Display for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        if self.kill_pod {
            words.push("kill pod".to_owned());
        }
        if self.create_sandbox {
            words.push(format!("sandbox {}", self.attempt));
        }
        for kill in &self.kill {
            words.push(format!("kill {} ({:?})", kill.name, kill.cause));
        }
        for start in &self.start {
            words.push(format!("start {} #{}", start.container.name, start.restart_count));
        }
        for waiting in &self.waiting {
            words.push(format!("wait {} {}s", waiting.name, waiting.wait.delay.as_secs()));
        }
        if words.is_empty() {
            words.push("nothing".to_owned());
        }
        f.write_str(&words.join("; "))
    }
}

#[cfg(test)]
mod tests;
