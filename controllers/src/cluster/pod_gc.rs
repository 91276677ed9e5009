//! Pod GC: deletes pods that nobody else will: ended ones beyond a number, those of nodes that are gone or out of
//! service, and those that were deleted before they had a node.

use super::taints;
use crate::{
    object::{created_at, is_deleting, time},
    pod::{is_finished, node_name},
    runtime::{Setup, Store, Task},
};
use async_trait::async_trait;
use k8s_openapi::{
    api::core::v1::{Node, Pod},
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::json;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// How often it looks.
const PERIOD: Duration = Duration::from_secs(20);
/// How long a node must be gone before its pods are: it may be about to come back under its name.
const NODE_QUARANTINE: Duration = Duration::from_secs(40);
/// Ended pods that are kept for whoever wants to look at them.
const FINISHED_MAX: usize = 12_500;

/// Why a pod goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Surplus,
    NodeGone,
    NodeOutOfService,
    Unscheduled,
}

impl Reason {
    /// What the pod's condition says, if the pod may not have ended by itself.
    fn told(self) -> Option<&'static str> {
        match self {
            Self::Surplus | Self::Unscheduled => None,
            Self::NodeGone => Some("PodGC: node no longer exists"),
            Self::NodeOutOfService => Some("PodGC: node is out of service"),
        }
    }
}

/// The pods that have to go. `lost` are the nodes that are known to be gone for long enough.
fn collect(
    pods: &[Arc<Pod>],
    nodes: &BTreeMap<String, Arc<Node>>,
    lost: &HashSet<String>,
    finished_max: usize,
) -> Vec<(Arc<Pod>, Reason)> {
    let mut going = Vec::new();
    let mut finished = Vec::new();
    for pod in pods {
        let on = node_name(pod);
        let reason = if on.is_empty() {
            is_deleting(&pod.metadata).then_some(Reason::Unscheduled)
        } else if lost.contains(on) {
            Some(Reason::NodeGone)
        } else {
            let out = nodes.get(on).is_some_and(|node| is_out_of_service(node));
            (out && is_deleting(&pod.metadata)).then_some(Reason::NodeOutOfService)
        };
        match reason {
            Some(reason) => going.push((pod.clone(), reason)),
            None if is_finished(pod) => finished.push(pod.clone()),
            None => {}
        }
    }
    let surplus = finished.len().saturating_sub(finished_max);
    finished.sort_by_key(|pod| created_at(&pod.metadata));
    going.extend(finished.into_iter().take(surplus).map(|pod| (pod, Reason::Surplus)));
    going
}

fn is_out_of_service(node: &Node) -> bool {
    !taints::is_ready(node) && taints::of(node).iter().any(|t| t.key == taints::OUT_OF_SERVICE)
}

/// Registers the task.
pub(super) fn register(setup: &mut Setup) {
    let task = PodGc {
        client: setup.client(),
        pods: setup.informer::<Pod>().store(),
        nodes: setup.informer::<Node>().store(),
    };
    setup.task("pod-garbage-collector", task);
}

struct PodGc {
    client: Client,
    pods: Arc<Store<Pod>>,
    nodes: Arc<Store<Node>>,
}

#[async_trait]
impl Task for PodGc {
    async fn run(&self, lead: CancellationToken) {
        let mut missing = HashMap::new();
        loop {
            tokio::select! {
                () = lead.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
            tokio::select! {
                () = lead.cancelled() => return,
                () = self.round(&mut missing) => {}
            }
        }
    }
}

impl PodGc {
    /// `missing` says since when each node that pods name has not been there.
    async fn round(&self, missing: &mut HashMap<String, Instant>) {
        let nodes: BTreeMap<_, _> =
            self.nodes.list().into_iter().map(|node| (node.name_any(), node)).collect();
        let pods = self.pods.list();
        let lost = self.lost(&pods, &nodes, missing).await;
        for (pod, reason) in collect(&pods, &nodes, &lost, FINISHED_MAX) {
            debug!(pod = pod.name_any(), ?reason, "collected");
            match self.remove(&pod, reason).await {
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(error) => warn!(pod = pod.name_any(), %error, "cannot collect a pod"),
                Ok(()) => {}
            }
        }
    }

    async fn lost(
        &self,
        pods: &[Arc<Pod>],
        nodes: &BTreeMap<String, Arc<Node>>,
        missing: &mut HashMap<String, Instant>,
    ) -> HashSet<String> {
        let named = pods.iter().map(|pod| node_name(pod)).filter(|name| !name.is_empty());
        let absent: HashSet<&str> = named.filter(|name| !nodes.contains_key(*name)).collect();
        missing.retain(|name, _| absent.contains(name.as_str()));
        let mut lost = HashSet::new();
        for name in absent {
            let since = missing.entry(name.to_owned()).or_insert_with(Instant::now);
            if since.elapsed() < NODE_QUARANTINE {
                continue;
            }
            // The cache may be wrong; the apiserver is not.
            match Api::<Node>::all(self.client.clone()).get_metadata_opt(name).await {
                Ok(None) => drop(lost.insert(name.to_owned())),
                Ok(Some(_)) => {}
                Err(error) => warn!(node = name, %error, "cannot tell whether the node is there"),
            }
        }
        lost
    }

    /// Says that the pod has failed, unless it has ended, and deletes it at once.
    async fn remove(&self, pod: &Pod, reason: Reason) -> Result<(), kube::Error> {
        let api = Api::<Pod>::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        if let Some(message) = reason.told().filter(|_| !is_finished(pod)) {
            let patch = Patch::Strategic(json!({
                "metadata": {"uid": pod.metadata.uid},
                "status": {"phase": "Failed", "conditions": [{
                    "type": "DisruptionTarget",
                    "status": "True",
                    "reason": "DeletionByPodGC",
                    "message": message,
                    "lastTransitionTime": time(Timestamp::now()),
                }]},
            }));
            api.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await?;
        }
        let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams::default().grace_period(0).preconditions(preconditions);
        api.delete(&pod.name_any(), &params).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str, node: &str, phase: &str, deleting: bool, second: i64) -> Arc<Pod> {
        let at = |s: i64| Timestamp::from_second(s).unwrap().to_string();
        let deletion = if deleting { json!(at(900)) } else { Value::Null };
        let pod = json!({
            "metadata": {"name": name, "creationTimestamp": at(second), "deletionTimestamp": deletion},
            "spec": {"nodeName": node, "containers": []},
            "status": {"phase": phase},
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn node(name: &str, ready: &str, out_of_service: bool) -> (String, Arc<Node>) {
        let taints = if out_of_service {
            json!([{"key": taints::OUT_OF_SERVICE, "effect": "NoExecute"}])
        } else {
            json!([])
        };
        let node = json!({
            "metadata": {"name": name}, "spec": {"taints": taints},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        });
        (name.to_owned(), Arc::new(serde_json::from_value(node).unwrap()))
    }

    #[test]
    fn only_pods_that_nobody_else_deletes_go() {
        let nodes: BTreeMap<_, _> =
            [node("up", "True", false), node("dead", "Unknown", true), node("odd", "True", true)]
                .into();
        let lost: HashSet<String> = ["lost".to_owned()].into();
        let cases = [
            (pod("running", "up", "Running", false, 1), None),
            (pod("leaving", "up", "Running", true, 1), None),
            (pod("waiting", "", "Pending", false, 1), None),
            (pod("deleted-early", "", "Pending", true, 1), Some(Reason::Unscheduled)),
            (pod("homeless", "lost", "Running", false, 1), Some(Reason::NodeGone)),
            (pod("unsure", "unknown", "Running", false, 1), None),
            (pod("stuck", "dead", "Running", true, 1), Some(Reason::NodeOutOfService)),
            (pod("on-dead", "dead", "Running", false, 1), None),
            (pod("on-odd", "odd", "Running", true, 1), None),
        ];
        for (pod, expected) in cases {
            let going = collect(std::slice::from_ref(&pod), &nodes, &lost, 10);
            let reason = going.first().map(|(_, reason)| *reason);
            assert_eq!(reason, expected, "{}", pod.name_any());
        }
    }

    #[test]
    fn oldest_of_too_many_ended_pods_go() {
        let pods: Vec<_> = [3, 1, 2, 4]
            .map(|second| pod(&format!("p{second}"), "up", "Succeeded", false, second))
            .into();
        let going = collect(&pods, &BTreeMap::new(), &HashSet::new(), 2);
        let names: Vec<_> = going.iter().map(|(pod, _)| pod.name_any()).collect();
        assert_eq!(names, ["p1", "p2"]);
    }
}
