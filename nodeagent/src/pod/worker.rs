//! One task for each pod. It owns the pod's whole state: what runs, what waits, what the probes say.
//!
//! The task is level-triggered: whatever wakes it (the apiserver, the runtime, a probe, a timer), it
//! looks at the desired pod and the runtime's state and does the next thing. A pod goes one way through
//! [`Phase`]: it is synced, it is torn down, it is over.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::jiff::Timestamp;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::PodExt;
use super::actions::BackoffKey;
use super::backoff::Backoff;
use super::runtime_status::PodRuntime;
use super::status::{self, Failure, WaitingReason};
use super::status_writer::{StatusWriter, merge_conditions};
use crate::context::NodeContext;
use crate::probe::prober::Verdict;
use crate::probe::{Health, ProbeKind};
use crate::volume::Mounted;
use crate::volume::sources::Tokens;

/// Verdicts that wait while the worker is busy; more make the probes wait.
const VERDICTS: usize = 32;
/// The longest time between two looks at a pod.
const RESYNC: Duration = Duration::from_secs(60);
/// The first wait after the runtime failed.
const RETRY_MIN: Duration = Duration::from_millis(500);
/// The longest wait after the runtime failed.
const RETRY_MAX: Duration = Duration::from_secs(15);

/// What the manager wants of a pod.
#[derive(Debug, Clone)]
pub struct Desired {
    /// As the apiserver has it.
    pub pod: Arc<Pod>,
    /// The apiserver no longer has it.
    pub removed: bool,
    /// The node does not want it any longer.
    pub evicted: Option<Failure>,
}

impl Desired {
    fn stops(&self) -> bool {
        self.removed || self.evicted.is_some() || self.pod.is_terminating()
    }
}

/// The manager's end of a worker.
#[derive(Debug)]
pub struct Handle {
    desired: watch::Sender<Desired>,
    runtime_changed: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Handle {
    /// The pod as the manager last saw it.
    pub fn pod(&self) -> Arc<Pod> {
        self.desired.borrow().pod.clone()
    }

    /// The apiserver has a newer pod.
    pub fn update(&self, pod: Arc<Pod>) {
        self.desired.send_modify(|desired| desired.pod = pod);
    }

    /// The apiserver has lost it.
    pub fn remove(&self) {
        self.desired.send_modify(|desired| desired.removed = true);
    }

    /// The node ends the pod.
    pub fn evict(&self, failure: Failure) {
        self.desired.send_modify(|desired| desired.evicted = Some(failure));
    }

    /// The runtime's view of the pod may have changed.
    pub fn runtime_changed(&self) {
        self.runtime_changed.notify_one();
    }

    /// Whether the pod is over and the worker has ended.
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }
}

/// How far a pod has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It runs, or is made to.
    Syncing,
    /// Everything of it is being stopped.
    Terminating,
    /// Nothing of it runs any more.
    Terminated,
}

/// Which probes of a container run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// None yet.
    Fresh,
    /// The startup probe.
    Startup,
    /// Liveness and readiness.
    Running,
}

/// The probes of a running container.
pub(super) struct Probes {
    pub(super) stop: CancellationToken,
    pub(super) stage: Stage,
}

/// A pod's worker.
pub struct Worker {
    pub(super) context: Arc<NodeContext>,
    pub(super) desired: watch::Receiver<Desired>,
    pub(super) pod: Arc<Pod>,
    pub(super) runtime_changed: Arc<Notify>,
    pub(super) phase: Phase,
    pub(super) failure: Option<Failure>,
    pub(super) runtime: PodRuntime,
    pub(super) health: Health,
    pub(super) probes: HashMap<String, Probes>,
    pub(super) verdicts: (mpsc::Sender<Verdict>, mpsc::Receiver<Verdict>),
    pub(super) waiting: HashMap<String, WaitingReason>,
    pub(super) backoff: Backoff<BackoffKey>,
    pub(super) messages: HashMap<String, String>,
    pub(super) stops: HashMap<String, (Instant, JoinHandle<()>)>,
    pub(super) volumes: Option<Mounted>,
    pub(super) volumes_due: Instant,
    pub(super) tokens: Tokens,
    pub(super) deadline: Option<Instant>,
    pub(super) writer: StatusWriter,
    pub(super) published: Option<PodStatus>,
    pub(super) first_seen: Timestamp,
    pub(super) retry: Duration,
    /// Mounts and groups are gone.
    pub(super) swept: bool,
    /// Logs and the runtime's records are gone too.
    pub(super) cleaned: bool,
    shutdown: CancellationToken,
}

/// When to look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// At once: something was done.
    Now,
    /// After a while, or when woken.
    After(Duration),
}

impl Worker {
    /// Starts a worker for a pod.
    pub fn start(context: Arc<NodeContext>, pod: Arc<Pod>, shutdown: CancellationToken) -> Handle {
        let desired = Desired { pod: pod.clone(), removed: false, evicted: None };
        let (sender, receiver) = watch::channel(desired);
        let runtime_changed = Arc::new(Notify::new());
        let writer = StatusWriter::start(context.client.clone(), &pod);
        let worker = Self {
            desired: receiver,
            phase: Phase::Syncing,
            failure: None,
            runtime: PodRuntime::default(),
            health: Health::default(),
            probes: HashMap::new(),
            verdicts: mpsc::channel(VERDICTS),
            waiting: HashMap::new(),
            backoff: Backoff::default(),
            messages: HashMap::new(),
            stops: HashMap::new(),
            volumes: None,
            volumes_due: Instant::now(),
            tokens: Tokens::default(),
            deadline: None,
            writer,
            published: None,
            first_seen: Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default(),
            retry: RETRY_MIN,
            swept: false,
            cleaned: false,
            runtime_changed: runtime_changed.clone(),
            shutdown,
            context,
            pod,
        };
        let task = tokio::spawn(worker.run());
        Handle { desired: sender, runtime_changed, task }
    }

    async fn run(mut self) {
        loop {
            let next = self.look().await;
            if self.is_over() {
                break;
            }
            let pause = match next {
                Next::Now => continue,
                Next::After(pause) => pause.min(RESYNC),
            };
            tokio::select! {
                () = self.shutdown.cancelled() => break,
                changed = self.desired.changed() => if changed.is_err() { break },
                () = self.runtime_changed.notified() => {}
                Some(verdict) = self.verdicts.1.recv() => self.enter_verdict(verdict),
                () = self.writer.gone(), if self.phase == Phase::Terminated && !self.writer.is_gone() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        for probes in self.probes.values() {
            probes.stop.cancel();
        }
    }

    /// The pod has gone from runtime and apiserver.
    fn is_over(&self) -> bool {
        let removed = self.desired.borrow().removed || self.writer.is_gone();
        self.phase == Phase::Terminated && self.cleaned && removed
    }

    /// One step. A step of a living pod is given up when the pod is to end.
    async fn look(&mut self) -> Next {
        while let Ok(verdict) = self.verdicts.1.try_recv() {
            self.enter_verdict(verdict);
        }
        let desired = self.desired.borrow_and_update().clone();
        self.pod = desired.pod.clone();
        if self.failure.is_none() {
            self.failure = desired.evicted.clone();
        }
        if self.phase == Phase::Syncing && (desired.stops() || self.pod.is_finished()) {
            self.phase = Phase::Terminating;
        }
        let result = match self.phase {
            Phase::Syncing => {
                let mut watched = self.desired.clone();
                let shutdown = self.shutdown.clone();
                tokio::select! {
                    biased;
                    _ = watched.wait_for(Desired::stops) => return Next::Now,
                    () = shutdown.cancelled() => return Next::After(RETRY_MAX),
                    result = self.sync() => result,
                }
            }
            Phase::Terminating => self.tear_down().await,
            Phase::Terminated => self.clean_up().await,
        };
        match result {
            Ok(next) => {
                self.retry = RETRY_MIN;
                next
            }
            Err(error) => {
                tracing::warn!(pod = self.pod.name(), namespace = self.pod.namespace(), %error, "pod not synced");
                let pause = self.retry;
                self.retry = (self.retry * 2).min(RETRY_MAX);
                Next::After(pause)
            }
        }
    }

    fn enter_verdict(&mut self, verdict: Verdict) {
        if !self.health.knows(&verdict.container_id) {
            return;
        }
        if !verdict.healthy || !verdict.message.is_empty() {
            let message = format!("{} probe failed: {}", verdict.kind.as_str(), verdict.message);
            self.context.events.warning(&self.pod, Some(&verdict.container), "Unhealthy", message);
        }
        if !verdict.changed {
            return;
        }
        let mut health = self.health.of(&verdict.container_id);
        match verdict.kind {
            ProbeKind::Startup if verdict.healthy => health.started = true,
            ProbeKind::Readiness => health.ready = verdict.healthy,
            ProbeKind::Liveness if verdict.healthy => {}
            kind => health.failed = Some(kind),
        }
        self.health.set(&verdict.container_id, health);
    }

    /// The pod with the newest status that is known: our own, with other people's conditions.
    pub(super) fn current_pod(&self) -> Pod {
        let mut pod = (*self.pod).clone();
        if let Some(published) = &self.published {
            let theirs = pod.status.as_ref().and_then(|status| status.conditions.clone());
            let mut status = published.clone();
            status.conditions =
                Some(merge_conditions(theirs.as_ref(), published.conditions.clone()));
            pod.status = Some(status);
        }
        pod
    }

    /// Tells the apiserver how the pod is.
    pub(super) fn publish(&mut self) {
        let pod = self.current_pod();
        let host_ip = self.context.node_ip.to_string();
        let status = status::generate(status::Input {
            pod: &pod,
            runtime: &self.runtime,
            health: &self.health,
            waiting: &self.waiting,
            failure: self.failure.as_ref(),
            messages: &self.messages,
            terminated: self.phase == Phase::Terminated,
            host_ip: &host_ip,
            start_time: self.first_seen,
            now: Timestamp::now(),
        });
        self.published = Some(status.clone());
        self.writer.publish(status, self.pod.clone());
    }

    /// The addresses of the pod.
    pub(super) fn ips(&self) -> Vec<String> {
        self.runtime.sandbox().map(|sandbox| sandbox.ips.clone()).unwrap_or_default()
    }

    /// Forgets stops that are over.
    pub(super) fn reap_stops(&mut self) {
        self.stops.retain(|_, (_, task)| !task.is_finished());
    }
}
