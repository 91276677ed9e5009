//! A living pod: reads the runtime, decides, does.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use k8s_openapi::jiff::Timestamp;
use pintle_proto::cri::ContainerState;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::actions::{self, Actions, Cause, Input, Kill, Start, Waiting, compute_actions};
use super::runtime_status::{PodRuntime, Record};
use super::status::{Failure, WaitingReason};
use super::termination::{self, Stop};
use super::worker::{Next, Phase, Probes, Stage, Worker};
use super::{ContainerKind, PodExt, from_nanos, sandbox_config};
use crate::cgroup;
use crate::probe::check::{self, Target};
use crate::probe::prober::Prober;
use crate::probe::{ContainerHealth, ProbeKind};
use crate::runtime;
use crate::volume;
use crate::volume::sources::Sources;

/// How often volumes whose contents may change are refreshed.
const VOLUME_REFRESH: Duration = Duration::from_secs(30);
/// How soon missing objects are looked for again.
const RETRY: Duration = Duration::from_secs(2);

/// A stop that ends this much later than wished is not started anew.
const STOP_SLACK: Duration = Duration::from_secs(1);

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runtime.
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    /// A volume.
    #[error(transparent)]
    Volume(#[from] volume::Error),
    /// Files of the pod.
    #[error("files of the pod: {0}")]
    Io(#[from] std::io::Error),
}

impl Worker {
    /// One step of a living pod.
    pub(super) async fn sync(&mut self) -> Result<Next, Error> {
        self.read_runtime().await?;
        self.update_probes();
        if let Some(failure) = self.past_deadline() {
            self.failure = Some(failure);
            self.phase = Phase::Terminating;
            return Ok(Next::Now);
        }
        let now = Timestamp::now();
        let pod = self.current_pod();
        let actions = compute_actions(Input {
            pod: &pod,
            runtime: &self.runtime,
            health: &self.health,
            backoff: &self.backoff,
            now,
        });
        self.enter_waiting(&actions);
        self.publish();
        if actions.kill_pod && !actions.create_sandbox {
            self.phase = Phase::Terminating;
            return Ok(Next::Now);
        }
        self.act(&actions, now).await
    }

    /// Asks the runtime and takes in what follows from the answer.
    pub(super) async fn read_runtime(&mut self) -> Result<(), Error> {
        self.runtime = PodRuntime::read(&*self.context.runtime, self.pod.uid()).await?;
        self.reap_stops();
        for record in &self.runtime.containers {
            let id = &record.status.id;
            if record.state() == ContainerState::ContainerExited && !self.messages.contains_key(id)
            {
                let message = termination::read_message(&self.context.paths, &self.pod, record);
                self.messages.insert(id.clone(), message);
            }
        }
        let known: Vec<&str> =
            self.runtime.containers.iter().map(|r| r.status.id.as_str()).collect();
        self.messages.retain(|id, _| known.contains(&id.as_str()));
        Ok(())
    }

    fn past_deadline(&self) -> Option<Failure> {
        let limit = self.pod.pod_spec().active_deadline_seconds?;
        let start = self.current_pod().status?.start_time?.0;
        let age = Timestamp::now().duration_since(start).as_secs();
        (age >= limit).then(|| {
            let message =
                "Pod was active on the node longer than the specified deadline".to_owned();
            self.context.events.normal(&self.pod, None, "DeadlineExceeded", message.clone());
            Failure { reason: "DeadlineExceeded".to_owned(), message }
        })
    }

    /// Containers that wait for their backoff; the reasons of all others are void once they run.
    fn enter_waiting(&mut self, actions: &Actions) {
        let running: Vec<String> =
            self.runtime.running().map(|record| record.name.clone()).collect();
        self.waiting.retain(|name, _| !running.contains(name));
        for Waiting { name, wait } in &actions.waiting {
            let seconds = wait.delay.as_secs();
            let pod = format!("{}_{}({})", self.pod.name(), self.pod.namespace(), self.pod.uid());
            let message =
                format!("back-off {seconds}s restarting failed container={name} pod={pod}");
            let reason = WaitingReason { reason: "CrashLoopBackOff".to_owned(), message };
            if self
                .waiting
                .insert(name.clone(), reason)
                .is_none_or(|r| r.reason != "CrashLoopBackOff")
            {
                let message = format!("Back-off restarting failed container {name} in pod {pod}");
                self.context.events.warning(&self.pod, Some(name), "BackOff", message);
            }
        }
    }

    async fn act(&mut self, actions: &Actions, now: Timestamp) -> Result<Next, Error> {
        if actions.create_sandbox {
            if actions.kill_pod
                && !self
                    .stop_everything(
                        self.spec_grace(),
                        "Pod sandbox changed, it will be killed and re-created.",
                    )
                    .await?
            {
                return Ok(Next::After(Duration::from_secs(1)));
            }
            return self.create_sandbox(actions.attempt).await;
        }
        for kill in &actions.kill {
            self.kill(kill);
        }
        if let Some(next) = self.refresh_volumes().await? {
            return Ok(next);
        }
        let mut next = self.next_wake(actions, now);
        for start in &actions.start {
            match self.start_container(start).await? {
                Ok(()) => next = Next::Now,
                Err(reason) => {
                    let retry = if reason.reason.contains("Image") {
                        Duration::from_secs(10)
                    } else {
                        RETRY
                    };
                    self.waiting.insert(start.container.name.clone(), reason);
                    self.publish();
                    if next != Next::Now {
                        next = earlier(next, retry);
                    }
                    if matches!(start.kind, ContainerKind::Init | ContainerKind::Sidecar) {
                        break;
                    }
                }
            }
        }
        Ok(next)
    }

    /// When the first of backoff, deadline and refresh is due.
    fn next_wake(&self, actions: &Actions, now: Timestamp) -> Next {
        let mut next = Next::After(Duration::from_secs(60));
        for waiting in &actions.waiting {
            let left = waiting.wait.until.duration_since(now).as_millis().max(0);
            next = earlier(next, Duration::from_millis(u64::try_from(left).unwrap_or(0) + 10));
        }
        if let (Some(limit), Some(start)) = (
            self.pod.pod_spec().active_deadline_seconds,
            self.published.as_ref().and_then(|status| status.start_time.as_ref()),
        ) {
            let left = limit - now.duration_since(start.0).as_secs();
            next = earlier(next, Duration::from_secs(u64::try_from(left.max(1)).unwrap_or(1)));
        }
        if self.volumes.is_some() && volume::needs_refresh(&self.pod) {
            next = earlier(next, self.volumes_due.saturating_duration_since(Instant::now()));
        }
        next
    }

    fn spec_grace(&self) -> Duration {
        let seconds = self.pod.pod_spec().termination_grace_period_seconds.unwrap_or(30);
        Duration::from_secs(seconds.max(0).unsigned_abs())
    }

    /// Stops one container of a living pod.
    fn kill(&mut self, kill: &Kill) {
        let container = self.definition(&kill.name);
        let grace = match kill.cause {
            Cause::Probe(kind) => probe_grace(container.as_ref(), kind),
            _ => None,
        };
        let grace = grace.unwrap_or_else(|| self.spec_grace());
        self.stop_one(&kill.id, &kill.name, grace, kill.cause.message(&kill.name));
    }

    /// Starts a stop, unless one with no more patience is under way.
    pub(super) fn stop_one(&mut self, id: &str, name: &str, grace: Duration, message: String) {
        let deadline = Instant::now() + grace;
        let soon_enough = |(until, task): &(Instant, JoinHandle<()>)| {
            *until <= deadline + STOP_SLACK && !task.is_finished()
        };
        if self.stops.get(id).is_some_and(soon_enough) {
            return;
        }
        if let Some(probes) = self.probes.get(id) {
            probes.stop.cancel();
        }
        let stop = Stop {
            context: self.context.clone(),
            pod: self.pod.clone(),
            container: self.definition(name),
            container_id: id.to_owned(),
            grace,
            ip: check::address_of(&self.pod, &self.ips(), self.context.node_ip),
            message,
        };
        let wake = self.runtime_changed.clone();
        let task = tokio::spawn(async move {
            stop.run().await;
            wake.notify_one();
        });
        if let Some((_, earlier)) = self.stops.insert(id.to_owned(), (deadline, task)) {
            earlier.abort();
        }
    }

    pub(super) fn definition(&self, name: &str) -> Option<Container> {
        self.pod.all_containers().into_iter().map(|(_, c)| c).find(|c| c.name == name)
    }

    async fn create_sandbox(&mut self, attempt: u32) -> Result<Next, Error> {
        self.volumes = None;
        if let Some(next) = self.refresh_volumes().await? {
            return Ok(next);
        }
        let pod = self.pod.clone();
        let paths = &self.context.paths;
        if self.context.runtime.is_real() {
            std::fs::create_dir_all(sandbox_config::log_directory(paths, &pod))?;
            cgroup::prepare(&pod)?;
        }
        let config = sandbox_config::sandbox_config(
            &pod,
            attempt,
            &self.context.dns,
            &sandbox_config::read_host_resolv_conf(),
            paths,
        );
        match self.context.runtime.run_sandbox(config).await {
            Ok(_) => Ok(Next::Now),
            Err(error) => {
                let message = format!("Failed to create pod sandbox: {error}");
                self.context.events.warning(&pod, None, "FailedCreatePodSandBox", message);
                Err(error.into())
            }
        }
    }

    /// Mounts the volumes, or refreshes them when that is due. `Some` when the pod must wait.
    async fn refresh_volumes(&mut self) -> Result<Option<Next>, Error> {
        let due = Instant::now() >= self.volumes_due;
        if !self.context.runtime.is_real() {
            self.volumes = Some(volume::Mounted::new());
            return Ok(None);
        }
        if self.volumes.is_some() && !(due && volume::needs_refresh(&self.pod)) {
            return Ok(None);
        }
        let facts = self.context.facts(&self.pod, &self.ips());
        let sources = Sources::new(self.context.client.clone(), facts, self.tokens.clone());
        match volume::mount_all(&self.pod, &self.context.paths, &sources).await {
            Ok(mounted) => {
                self.volumes = Some(mounted);
                self.volumes_due = Instant::now() + VOLUME_REFRESH;
                Ok(None)
            }
            Err(error) if self.volumes.is_some() => {
                // The containers keep what they have.
                tracing::debug!(pod = self.pod.name(), %error, "volumes not refreshed");
                self.volumes_due = Instant::now() + RETRY;
                Ok(None)
            }
            Err(error) => {
                let message = format!("MountVolume.SetUp failed: {error}");
                self.context.events.warning(&self.pod, None, "FailedMount", message);
                Ok(Some(Next::After(RETRY)))
            }
        }
    }

    /// Starts and stops probes, so that each running container has those that it should.
    pub(super) fn update_probes(&mut self) {
        let running: Vec<Record> = self.runtime.running().cloned().collect();
        let alive = |id: &str| running.iter().any(|record| record.status.id == id);
        self.probes.retain(|id, probes| {
            let keep = alive(id);
            if !keep {
                probes.stop.cancel();
            }
            keep
        });
        self.health.retain(alive);
        for record in running {
            let Some(container) = self.definition(&record.name) else { continue };
            if !self.health.knows(&record.status.id) {
                let health = first_health(
                    &self.pod,
                    &container,
                    &record.status.id,
                    self.context.runtime.is_real(),
                );
                self.health.set(&record.status.id, health);
            }
            if self.context.runtime.is_real() && !self.stops.contains_key(&record.status.id) {
                self.probe(&container, &record);
            }
        }
    }

    fn probe(&mut self, container: &Container, record: &Record) {
        let id = &record.status.id;
        let health = self.health.of(id);
        let prober = Prober {
            runtime: self.context.runtime.clone(),
            container: container.clone(),
            target: Target {
                container_id: id.clone(),
                ip: check::address_of(&self.pod, &self.ips(), self.context.node_ip),
            },
            started_at: from_nanos(record.status.started_at),
            verdicts: self.verdicts.0.clone(),
        };
        let probes = self
            .probes
            .entry(id.clone())
            .or_insert_with(|| Probes { stop: CancellationToken::new(), stage: Stage::Fresh });
        let wanted = match &container.startup_probe {
            Some(_) if !health.started => Stage::Startup,
            _ => Stage::Running,
        };
        if probes.stage >= wanted {
            return;
        }
        probes.stage = wanted;
        let kinds: &[(ProbeKind, Option<&Probe>, Option<bool>)] = match wanted {
            Stage::Startup => &[(ProbeKind::Startup, container.startup_probe.as_ref(), None)],
            _ => &[
                (ProbeKind::Liveness, container.liveness_probe.as_ref(), Some(true)),
                (ProbeKind::Readiness, container.readiness_probe.as_ref(), Some(health.ready)),
            ],
        };
        for (kind, probe, believed) in kinds {
            if let Some(probe) = probe {
                tokio::spawn(prober.clone().run(
                    *kind,
                    (*probe).clone(),
                    *believed,
                    probes.stop.clone(),
                ));
            }
        }
    }
}

/// What is believed of a container before its first probe: what the apiserver was last told about this
/// very instance, so that a restart of the agent disturbs no traffic; else that it has nothing to show.
fn first_health(pod: &Pod, container: &Container, id: &str, real: bool) -> ContainerHealth {
    let api_id = super::status::container_id(id);
    let status = pod.status.as_ref();
    let lists = status.map(|s| [&s.container_statuses, &s.init_container_statuses]);
    let told = lists
        .into_iter()
        .flatten()
        .flatten()
        .flatten()
        .find(|status| status.container_id.as_ref() == Some(&api_id));
    ContainerHealth {
        started: !real
            || container.startup_probe.is_none()
            || told.is_some_and(|s| s.started == Some(true)),
        ready: !real || container.readiness_probe.is_none() || told.is_some_and(|s| s.ready),
        failed: None,
    }
}

fn probe_grace(container: Option<&Container>, kind: ProbeKind) -> Option<Duration> {
    let container = container?;
    let probe = match kind {
        ProbeKind::Liveness => container.liveness_probe.as_ref(),
        ProbeKind::Startup => container.startup_probe.as_ref(),
        ProbeKind::Readiness => None,
    };
    let seconds = probe?.termination_grace_period_seconds?;
    Some(Duration::from_secs(seconds.max(0).unsigned_abs()))
}

/// The earlier of two.
fn earlier(next: Next, pause: Duration) -> Next {
    match next {
        Next::Now => Next::Now,
        Next::After(other) => Next::After(other.min(pause)),
    }
}

impl Worker {
    /// Notes that a start was tried, for the backoff.
    pub(super) fn note_attempt(&mut self, start: &Start) {
        if let Some(after) = start.after {
            self.backoff.attempted(actions::backoff_key(&start.container), after, Timestamp::now());
        }
    }
}
