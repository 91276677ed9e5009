//! Events: what `kubectl describe` shows. Written in the background, repeated ones counted, and dropped
//! when the apiserver cannot keep up: an event is never worth waiting for.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, Node, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A burst of a full node: 110 pods with five events each, and some.
const QUEUE: usize = 1024;
/// How many recent events are remembered for counting; the table is emptied when it is full.
const REMEMBERED_MAX: usize = 4096;
/// An event is not worth more.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// `source.component`
const COMPONENT: &str = "kubelet";

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Occurrence {
    namespace: String,
    object: (String, String, String, String),
    field_path: Option<String>,
    warning: bool,
    reason: String,
    message: String,
}

/// Where events are handed in.
#[derive(Clone, Debug)]
pub struct Recorder {
    queue: mpsc::Sender<Occurrence>,
}

/// The other end of a [`Recorder`].
pub struct Writer {
    queue: mpsc::Receiver<Occurrence>,
    client: Client,
    node: String,
}

/// A recorder and the task that writes for it.
pub fn channel(client: Client, node: &str) -> (Recorder, Writer) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Recorder { queue: sender }, Writer { queue: receiver, client, node: node.to_owned() })
}

impl Recorder {
    /// Something normal about a pod; `container` narrows it down.
    pub fn normal(
        &self,
        pod: &Pod,
        container: Option<&str>,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.pod_event(pod, container, false, reason, message.into());
    }

    /// Something wrong with a pod.
    pub fn warning(
        &self,
        pod: &Pod,
        container: Option<&str>,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.pod_event(pod, container, true, reason, message.into());
    }

    /// Something about the node.
    pub fn node(&self, node: &Node, warning: bool, reason: &str, message: impl Into<String>) {
        let name = node.name_any();
        self.send(Occurrence {
            namespace: "default".to_owned(),
            object: ("Node".to_owned(), String::new(), name.clone(), node.uid().unwrap_or(name)),
            field_path: None,
            warning,
            reason: reason.to_owned(),
            message: message.into(),
        });
    }

    fn pod_event(
        &self,
        pod: &Pod,
        container: Option<&str>,
        warning: bool,
        reason: &str,
        message: String,
    ) {
        let namespace = pod.namespace().unwrap_or_else(|| "default".to_owned());
        self.send(Occurrence {
            object: (
                "Pod".to_owned(),
                namespace.clone(),
                pod.name_any(),
                pod.uid().unwrap_or_default(),
            ),
            namespace,
            field_path: container.map(|name| format!("spec.containers{{{name}}}")),
            warning,
            reason: reason.to_owned(),
            message,
        });
    }

    fn send(&self, occurrence: Occurrence) {
        tracing::debug!(
            object = occurrence.object.2,
            reason = occurrence.reason,
            message = occurrence.message,
            "event"
        );
        if self.queue.try_send(occurrence).is_err() {
            tracing::debug!("an event is dropped");
        }
    }
}

struct Written {
    name: String,
    count: i32,
}

impl Writer {
    /// Writes until all recorders are gone or `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut written: HashMap<Occurrence, Written> = HashMap::new();
        while let Some(Some(occurrence)) = shutdown.run_until_cancelled(self.queue.recv()).await {
            if written.len() >= REMEMBERED_MAX {
                written.clear();
            }
            let write = self.write(&occurrence, written.get(&occurrence));
            match tokio::time::timeout(WRITE_TIMEOUT, write).await {
                Ok(Ok(entry)) => {
                    written.insert(occurrence, entry);
                }
                Ok(Err(error)) => {
                    written.remove(&occurrence);
                    tracing::debug!(%error, reason = occurrence.reason, "cannot write an event");
                }
                Err(_) => tracing::debug!(reason = occurrence.reason, "no time to write an event"),
            }
        }
    }

    async fn write(
        &self,
        occurrence: &Occurrence,
        before: Option<&Written>,
    ) -> kube::Result<Written> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), &occurrence.namespace);
        let now = Time(Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default());
        if let Some(before) = before {
            let count = before.count + 1;
            let patch = json!({ "count": count, "lastTimestamp": now });
            api.patch(&before.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
            return Ok(Written { name: before.name.clone(), count });
        }
        let event = self.event(occurrence, now);
        let name = event.name_any();
        api.create(&PostParams::default(), &event).await?;
        Ok(Written { name, count: 1 })
    }

    fn event(&self, occurrence: &Occurrence, now: Time) -> Event {
        let (kind, namespace, name, uid) = occurrence.object.clone();
        let suffix = Timestamp::now().as_nanosecond() & 0xffff_ffff_ffff_ffff;
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{name}.{suffix:016x}")),
                namespace: Some(occurrence.namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some(kind),
                namespace: (!namespace.is_empty()).then_some(namespace),
                name: Some(name),
                uid: Some(uid),
                field_path: occurrence.field_path.clone(),
                resource_version: None,
            },
            type_: Some(if occurrence.warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(occurrence.reason.clone()),
            message: Some(occurrence.message.clone()),
            count: Some(1),
            first_timestamp: Some(now.clone()),
            last_timestamp: Some(now),
            source: Some(EventSource {
                component: Some(COMPONENT.to_owned()),
                host: Some(self.node.clone()),
            }),
            reporting_component: Some(COMPONENT.to_owned()),
            reporting_instance: Some(self.node.clone()),
            ..Event::default()
        }
    }
}
