//! Writes one pod's status to the apiserver, and deletes the pod when it has ended. A task of its own
//! for each pod, so that a slow apiserver never holds back the pod's containers.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::time::sleep;

use super::PodExt;

/// Conditions that are ours; all others belong to somebody else and are kept.
pub const OWN_CONDITIONS: &[&str] =
    &["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];
/// Fields that are ours and may vanish.
const CLEARED: &[&str] = &[
    "reason",
    "message",
    "podIP",
    "podIPs",
    "initContainerStatuses",
    "ephemeralContainerStatuses",
];
/// The first wait after a failure.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// The longest wait after failures.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// A request that hangs on a dying apiserver is tried again elsewhere.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// What the apiserver should have.
#[derive(Debug, Clone, Default)]
struct Wanted {
    status: Option<PodStatus>,
    delete: bool,
    /// The pod as the watch last showed it.
    seen: Option<Arc<Pod>>,
}

/// The worker's end.
#[derive(Debug)]
pub struct StatusWriter {
    wanted: watch::Sender<Wanted>,
    gone: watch::Receiver<bool>,
}

impl StatusWriter {
    /// Starts the task for a pod; it ends when the writer is dropped and all is written.
    pub fn start(client: Client, pod: &Pod) -> Self {
        let (wanted, receiver) = watch::channel(Wanted::default());
        let (gone_sender, gone) = watch::channel(false);
        let api = Api::namespaced(client, pod.namespace());
        let task = Task { api, known: pod.clone(), wanted: receiver, gone: gone_sender };
        tokio::spawn(task.run());
        Self { wanted, gone }
    }

    /// Has the status written, if it differs from the one that the apiserver has. `seen` is the pod as
    /// the watch shows it: what somebody else wrote over our fields is put right.
    pub fn publish(&self, status: PodStatus, seen: Arc<Pod>) {
        self.wanted.send_if_modified(|wanted| {
            let news = wanted.seen.as_ref().is_none_or(|before| !Arc::ptr_eq(before, &seen));
            let changed = wanted.status.as_ref() != Some(&status);
            wanted.status = Some(status);
            wanted.seen = Some(seen);
            changed || news
        });
    }

    /// Has the pod deleted, after its last status is written.
    pub fn delete(&self) {
        self.wanted.send_if_modified(|wanted| !std::mem::replace(&mut wanted.delete, true));
    }

    /// Whether the apiserver no longer has this pod.
    pub fn is_gone(&self) -> bool {
        *self.gone.borrow()
    }

    /// Waits until the apiserver no longer has it.
    pub async fn gone(&self) {
        let mut gone = self.gone.clone();
        // The task tells before it ends.
        if gone.wait_for(|gone| *gone).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

struct Task {
    api: Api<Pod>,
    known: Pod,
    wanted: watch::Receiver<Wanted>,
    gone: watch::Sender<bool>,
}

/// What one attempt came to.
enum Attempt {
    Done,
    Gone,
    Stale,
    Failed(kube::Error),
}

impl Task {
    async fn run(mut self) {
        while self.wanted.changed().await.is_ok() {
            let mut delay = RETRY_MIN;
            loop {
                let wanted = self.wanted.borrow_and_update().clone();
                let attempt = tokio::time::timeout(REQUEST_TIMEOUT, self.write(&wanted)).await;
                match attempt {
                    Ok(Attempt::Done) => break,
                    Ok(Attempt::Gone) => {
                        self.gone.send_replace(true);
                        return;
                    }
                    Ok(Attempt::Stale) => continue,
                    Ok(Attempt::Failed(error)) => {
                        tracing::debug!(pod = self.known.name(), %error, "status not written");
                    }
                    Err(_) => {
                        tracing::debug!(pod = self.known.name(), "status not written in time")
                    }
                }
                sleep(delay).await;
                delay = (delay * 2).min(RETRY_MAX);
            }
        }
    }

    async fn write(&mut self, wanted: &Wanted) -> Attempt {
        if let Some(seen) =
            wanted.seen.as_ref().filter(|seen| revision(seen) > revision(&self.known))
        {
            self.known = (**seen).clone();
        }
        if let Some(status) = &wanted.status {
            match self.write_status(status).await {
                Attempt::Done => {}
                other => return other,
            }
        }
        if wanted.delete { self.delete().await } else { Attempt::Done }
    }

    async fn write_status(&mut self, status: &PodStatus) -> Attempt {
        let Some(patch) = patch(&self.known, status) else { return Attempt::Done };
        let parameters = PatchParams::default();
        match self.api.patch_status(self.known.name(), &parameters, &Patch::Merge(patch)).await {
            Ok(pod) => {
                self.known = pod;
                Attempt::Done
            }
            Err(kube::Error::Api(answer)) if answer.code == 404 => Attempt::Gone,
            Err(kube::Error::Api(answer)) if answer.code == 409 => self.refresh().await,
            Err(error) => Attempt::Failed(error),
        }
    }

    /// Somebody else changed the pod: look at it again. Another uid means that ours is gone.
    async fn refresh(&mut self) -> Attempt {
        match self.api.get_opt(self.known.name()).await {
            Ok(Some(pod)) if pod.metadata.uid == self.known.metadata.uid => {
                let stale = pod.metadata.resource_version != self.known.metadata.resource_version;
                self.known = pod;
                if stale { Attempt::Stale } else { Attempt::Done }
            }
            Ok(_) => Attempt::Gone,
            Err(error) => Attempt::Failed(error),
        }
    }

    async fn delete(&self) -> Attempt {
        let preconditions =
            Preconditions { uid: self.known.metadata.uid.clone(), resource_version: None };
        let parameters = DeleteParams::default().grace_period(0).preconditions(preconditions);
        match self.api.delete(self.known.name(), &parameters).await {
            Ok(_) => Attempt::Gone,
            Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => Attempt::Gone,
            Err(error) => Attempt::Failed(error),
        }
    }
}

/// Resource versions of one object grow.
fn revision(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The merge patch from the known pod to the wanted status; `None` when they agree. It holds the known
/// resource version, so that a list of conditions never overwrites somebody else's.
fn patch(known: &Pod, wanted: &PodStatus) -> Option<Value> {
    let current = known.status.clone().unwrap_or_default();
    let mut wanted = wanted.clone();
    wanted.conditions = Some(merge_conditions(current.conditions.as_ref(), wanted.conditions));
    let current = fields(&current);
    let wanted = fields(&wanted);
    let mut changes: Map<String, Value> = wanted
        .iter()
        .filter(|(key, value)| current.get(*key) != Some(*value))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    for key in
        CLEARED.iter().filter(|key| current.contains_key(**key) && !wanted.contains_key(**key))
    {
        changes.insert((*key).to_owned(), Value::Null);
    }
    if changes.is_empty() {
        return None;
    }
    Some(json!({
        "metadata": { "uid": known.metadata.uid, "resourceVersion": known.metadata.resource_version },
        "status": changes,
    }))
}

fn fields(status: &PodStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// Our conditions as wanted, all others as they are.
pub fn merge_conditions(
    current: Option<&Vec<PodCondition>>,
    wanted: Option<Vec<PodCondition>>,
) -> Vec<PodCondition> {
    let own = |condition: &PodCondition| OWN_CONDITIONS.contains(&condition.type_.as_str());
    let ours = wanted.into_iter().flatten().filter(own);
    let theirs = current.into_iter().flatten().filter(|condition| !own(condition)).cloned();
    ours.chain(theirs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(status: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "p", "uid": "u", "resourceVersion": "7" }, "status": status }))
        .unwrap()
    }

    fn wanted(status: Value) -> PodStatus {
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn an_unchanged_status_is_not_written() {
        let status =
            json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] });
        assert_eq!(patch(&pod(status.clone()), &wanted(status)), None);
    }

    #[test]
    fn only_changed_fields_are_written_and_own_ones_cleared() {
        let known = pod(
            json!({ "phase": "Running", "reason": "x", "podIP": "1.1.1.1", "resize": "Proposed" }),
        );
        let patch = patch(&known, &wanted(json!({ "phase": "Failed" }))).unwrap();
        assert_eq!(
            patch["status"],
            json!({ "phase": "Failed", "reason": null, "podIP": null, "conditions": [] })
        );
        assert_eq!(patch["metadata"], json!({ "uid": "u", "resourceVersion": "7" }));
    }

    #[test]
    fn conditions_of_others_are_kept() {
        let known = pod(json!({ "conditions": [
            { "type": "Ready", "status": "False" }, { "type": "DisruptionTarget", "status": "True" }] }));
        let patch = patch(
            &known,
            &wanted(json!({ "conditions": [{ "type": "Ready", "status": "True" }] })),
        )
        .unwrap();
        let types: Vec<_> =
            patch["status"]["conditions"].as_array().unwrap().iter().map(|c| &c["type"]).collect();
        assert_eq!(types, ["Ready", "DisruptionTarget"]);
    }
}
