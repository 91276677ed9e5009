//! Tells about pods: conditions, events, nominations; and asks victims of preemption to go.
//!
//! One task writes, a bounded number of requests at a time. Reports are best effort: when the queue is full they are dropped,
//! and the pod's next attempt reports again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::bind::Failure;
use super::events::{Kind, Note, Recorder, Subject, Write};
use crate::pod::{PodInfo, Uid};

/// Reports that wait to be written.
const REPORTS_MAX: usize = 4096;
/// Requests at a time; few, so that reports never stand in the way of bindings.
const REQUESTS_MAX: usize = 32;
/// The most that one request may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The way to the task that writes.
#[derive(Clone)]
pub(super) struct Reporter {
    reports: mpsc::Sender<Report>,
}

enum Report {
    Note(Note),
    /// The condition `PodScheduled=False`, and where room is being made.
    Unschedulable {
        pod: Subject,
        message: String,
        reason: &'static str,
        nominated: Option<Arc<str>>,
        /// Whether the condition was something else before.
        transition: bool,
    },
    Preempt {
        victim: Subject,
        by: Subject,
    },
}

impl Reporter {
    /// Starts the task that writes.
    pub(super) fn spawn(
        tasks: &mut JoinSet<()>,
        config: &super::Config,
        stop: CancellationToken,
    ) -> Self {
        let (reports, inbox) = mpsc::channel(REPORTS_MAX);
        let instance = format!("{}-{}", config.scheduler_name, config.identity);
        let writer = Writer {
            client: config.client.clone(),
            recorder: Recorder::new(config.scheduler_name.clone(), instance),
            epoch: Instant::now(),
            requests: JoinSet::new(),
            conditions: HashMap::new(),
        };
        tasks.spawn(writer.run(inbox, stop));
        Self { reports }
    }

    /// The pod has its node.
    pub(super) fn scheduled(&self, pod: &PodInfo, node: &str) {
        let message = format!("Successfully assigned {} to {node}", pod.key());
        self.note(pod, Kind::Normal, "Scheduled", "Binding", message);
    }

    /// The pod has found no node.
    pub(super) fn unschedulable(
        &self,
        pod: &PodInfo,
        message: String,
        nominated: Option<Arc<str>>,
    ) {
        self.condition(pod, message.clone(), "Unschedulable", nominated);
        self.note(pod, Kind::Warning, "FailedScheduling", "Scheduling", message);
    }

    /// The pod could not be bound to the node that was found.
    pub(super) fn bind_failed(&self, pod: &PodInfo, failure: &Failure) {
        let message = failure.to_string();
        self.condition(pod, message.clone(), "SchedulerError", None);
        self.note(pod, Kind::Warning, "FailedScheduling", "Scheduling", message);
    }

    /// `victim` has to make room for `pod`.
    pub(super) fn preempt(&self, victim: &PodInfo, pod: &PodInfo, node: Option<&str>) {
        let node = node.unwrap_or_default();
        let message = format!("Preempted by pod {} on node {node}", pod.uid);
        self.note(victim, Kind::Normal, "Preempted", "Preempting", message);
        self.send(Report::Preempt { victim: victim.into(), by: pod.into() });
    }

    fn condition(
        &self,
        pod: &PodInfo,
        message: String,
        reason: &'static str,
        nominated: Option<Arc<str>>,
    ) {
        if pod.unschedulable_message.as_deref() == Some(message.as_str())
            && pod.nominated_node == nominated
        {
            return;
        }
        let transition = pod.unschedulable_message.is_none();
        self.send(Report::Unschedulable {
            pod: pod.into(),
            message,
            reason,
            nominated,
            transition,
        });
    }

    fn note(
        &self,
        pod: &PodInfo,
        kind: Kind,
        reason: &'static str,
        action: &'static str,
        message: String,
    ) {
        self.send(Report::Note(Note { kind, reason, action, message, pod: pod.into() }));
    }

    fn send(&self, report: Report) {
        if self.reports.try_send(report).is_err() {
            debug!("too many reports: one is dropped");
        }
    }
}

struct Writer {
    client: Client,
    recorder: Recorder,
    epoch: Instant,
    requests: JoinSet<Option<Uid>>,
    /// Pods whose condition is being written, and what is to be written next: two patches must not overtake each other.
    conditions: HashMap<Uid, Option<Report>>,
}

impl Writer {
    async fn run(mut self, mut inbox: mpsc::Receiver<Report>, stop: CancellationToken) {
        loop {
            let has_room = self.requests.len() < REQUESTS_MAX;
            tokio::select! {
                () = stop.cancelled() => return,
                Some(ended) = self.requests.join_next() => self.request_ended(ended.ok().flatten()),
                Some(report) = inbox.recv(), if has_room => self.write(report),
            }
        }
    }

    fn request_ended(&mut self, condition_of: Option<Uid>) {
        if let Some(uid) = condition_of
            && let Some(Some(next)) = self.conditions.remove(&uid)
        {
            self.write(next);
        }
    }

    fn write(&mut self, report: Report) {
        let client = self.client.clone();
        match report {
            Report::Note(note) => {
                let write = self.recorder.record(note, self.epoch.elapsed(), Timestamp::now());
                if write != Write::Nothing {
                    self.requests.spawn(async move {
                        attempt("event", write_event(client, write)).await;
                        None
                    });
                }
            }
            Report::Unschedulable { ref pod, .. } => {
                let uid: Uid = pod.uid.as_str().into();
                if let Some(next) = self.conditions.get_mut(&uid) {
                    *next = Some(report);
                    return;
                }
                self.conditions.insert(uid.clone(), None);
                self.requests.spawn(async move {
                    attempt("condition", write_condition(client, report)).await;
                    Some(uid)
                });
            }
            Report::Preempt { victim, by } => {
                self.requests.spawn(async move {
                    attempt("preemption", evict(client, victim, by)).await;
                    None
                });
            }
        }
    }
}

/// Makes a request; what goes wrong is logged, unless the pod is simply gone.
async fn attempt(what: &str, request: impl Future<Output = Result<(), kube::Error>>) {
    match timeout(TIMEOUT, request).await {
        Ok(Ok(())) => {}
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => {
            debug!(what, %status.message, "not reported");
        }
        Ok(Err(error)) => warn!(what, %error, "cannot report"),
        Err(_) => warn!(what, "reporting timed out"),
    }
}

async fn write_event(client: Client, write: Write) -> Result<(), kube::Error> {
    match write {
        Write::Create(event) => {
            let namespace = event.metadata.namespace.clone().unwrap_or_default();
            let events: Api<Event> = Api::namespaced(client, &namespace);
            events.create(&PostParams::default(), &event).await.map(drop)
        }
        Write::Count { namespace, name, count, last } => {
            let events: Api<Event> = Api::namespaced(client, &namespace);
            let patch = Patch::Merge(json!({"count": count, "lastTimestamp": last}));
            events.patch(&name, &PatchParams::default(), &patch).await.map(drop)
        }
        Write::Nothing => Ok(()),
    }
}

async fn write_condition(client: Client, report: Report) -> Result<(), kube::Error> {
    let Report::Unschedulable { pod, message, reason, nominated, transition } = report else {
        return Ok(());
    };
    let mut condition =
        json!({"type": "PodScheduled", "status": "False", "reason": reason, "message": message});
    if transition {
        condition["lastTransitionTime"] = now();
    }
    let status = json!({"conditions": [condition], "nominatedNodeName": nominated.as_deref()});
    patch_status(client, &pod, status).await
}

/// Marks the victim as disrupted, so that its owner knows it did not fail, and deletes it gracefully.
async fn evict(client: Client, victim: Subject, by: Subject) -> Result<(), kube::Error> {
    let condition = json!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "PreemptionByScheduler",
        "message": format!("default-scheduler: preempting to accommodate a higher priority pod {}/{}", by.namespace, by.name),
        "lastTransitionTime": now(),
    });
    patch_status(client.clone(), &victim, json!({"conditions": [condition]})).await?;
    let pods: Api<Pod> = Api::namespaced(client, &victim.namespace);
    let preconditions = Preconditions { uid: Some(victim.uid), resource_version: None };
    let params = DeleteParams::default().preconditions(preconditions);
    pods.delete(&victim.name, &params).await.map(drop)
}

async fn patch_status(client: Client, pod: &Subject, status: Value) -> Result<(), kube::Error> {
    let pods: Api<Pod> = Api::namespaced(client, &pod.namespace);
    // The uid makes the patch fail on another pod of the same name.
    let patch = Patch::Strategic(json!({"metadata": {"uid": pod.uid}, "status": status}));
    pods.patch_status(&pod.name, &PatchParams::default(), &patch).await.map(drop)
}

fn now() -> Value {
    json!(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::now()))
}
