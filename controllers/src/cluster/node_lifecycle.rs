//! Node lifecycle: notices nodes that have fallen silent, says so in their conditions and taints, and in their pods.
//!
//! A node shows that it is alive by renewing its Lease in `kube-node-lease`, or by a heartbeat in its status. What counts
//! is our own clock: how long ago *we* have last seen either change, so no clock of a node is trusted. Every member
//! watches; a new leader knows how long each node has been silent.
//!
//! The taints that evict are set carefully ([`pace`]): one node of a zone every ten seconds, none in a small zone of which
//! most is down, and none at all while no node anywhere is ready: then it is likelier that we are cut off.

mod pace;
mod silence;

use super::taints;
use crate::{
    object::ObjectKey,
    pod,
    runtime::{Change, Controller, IndexKey, Recorder, Setup, Store, SyncError, Verdict},
};
use async_trait::async_trait;
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, Pod},
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;
use std::{sync::Arc, time::Duration};

/// Where nodes have their leases.
const LEASES: &str = "kube-node-lease";
/// How often a node is looked at that is not as it should be.
const MONITOR_PERIOD: Duration = Duration::from_secs(5);

/// Registers the controller.
pub(super) fn register(setup: &mut Setup) {
    let queue = setup.queue();
    let silence = Arc::new(silence::Silence::default());
    let nodes = setup.informer::<Node>();
    let seen = silence.clone();
    nodes.on_change(move |change| {
        let name = change.object().name_any();
        match change {
            Change::Added(_) => seen.heard_from(&name),
            Change::Updated { old, new } if silence::heartbeat(old) != silence::heartbeat(new) => {
                seen.heard_from(&name);
            }
            Change::Updated { .. } => {}
            Change::Deleted(_) => seen.forget(&name),
        }
    });
    nodes.enqueue(&queue);
    let leases = setup.informer::<Lease>();
    let seen = silence.clone();
    leases.on_change(move |change| {
        let renewal = |lease: &Lease| lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
        let lease = change.object();
        let renewed = match change {
            Change::Added(_) => true,
            Change::Updated { old, new } => renewal(old) != renewal(new),
            Change::Deleted(_) => false,
        };
        if renewed && lease.metadata.namespace.as_deref() == Some(LEASES) {
            seen.heard_from(&lease.name_any());
        }
    });
    let controller = NodeLifecycle {
        client: setup.client(),
        nodes: nodes.store(),
        pods: setup.informer::<Pod>().store(),
        silence,
        pace: pace::Pace::default(),
        grace: setup.config().node_monitor_grace,
        recorder: setup.recorder("node-controller"),
    };
    setup.controller("node-lifecycle", queue, controller);
}

struct NodeLifecycle {
    client: Client,
    nodes: Arc<Store<Node>>,
    pods: Arc<Store<Pod>>,
    silence: Arc<silence::Silence>,
    pace: pace::Pace,
    grace: Duration,
    recorder: Recorder,
}

#[async_trait]
impl Controller for NodeLifecycle {
    fn workers(&self) -> usize {
        8
    }

    fn keys(&self) -> Vec<ObjectKey> {
        self.nodes.keys()
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Verdict, SyncError> {
        let Some(node) = self.nodes.get(key) else { return Ok(Verdict::Done) };
        let silent_for = self.silence.of(&key.name);
        let silent = silent_for >= self.grace;
        let mut node = (*node).clone();
        if silent && let Some(conditions) = silence::conditions(&node, Timestamp::now()) {
            let was_ready = taints::is_ready(&node);
            let patch = Patch::Strategic(json!({"status": {"conditions": conditions}}));
            let api = Api::<Node>::all(self.client.clone());
            node = api.patch_status(&key.name, &PatchParams::default(), &patch).await?;
            if was_ready {
                let message = format!("Node {} status is now: NodeNotReady", key.name);
                self.recorder.normal(&node, "NodeNotReady", message);
            }
        }
        self.reconcile_taints(&node).await?;
        if taints::condition(&node, "Ready") == Some("Unknown") {
            self.mark_pods(&key.name).await?;
        }
        if silent || !taints::is_ready(&node) {
            return Ok(Verdict::After(MONITOR_PERIOD));
        }
        // Not before the grace can be over.
        Ok(Verdict::After(self.grace.saturating_sub(silent_for) + Duration::from_millis(50)))
    }
}

impl NodeLifecycle {
    async fn reconcile_taints(&self, node: &Node) -> Result<(), SyncError> {
        let evicting = taints::evicting(node);
        let is_new = evicting.is_some_and(|key| {
            let taints = taints::of(node);
            !taints.iter().any(|taint| taint.key == key && taint.effect == taints::NO_EXECUTE)
        });
        let may_evict = is_new && self.pace.admit(node, &self.nodes.list());
        let Some(taints) = taints::reconcile(node, may_evict, Timestamp::now()) else {
            return Ok(());
        };
        let patch = Patch::Merge(json!({
            "metadata": {"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version},
            "spec": {"taints": taints},
        }));
        let api = Api::<Node>::all(self.client.clone());
        api.patch(&node.name_any(), &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Nobody can say that the pods of a silent node are ready: they get no more traffic.
    async fn mark_pods(&self, node: &str) -> Result<(), SyncError> {
        for pod in self.pods.by_index(&IndexKey::Node(node.to_owned())) {
            if !pod::is_ready(&pod) {
                continue;
            }
            let condition = json!({
                "type": "Ready",
                "status": "False",
                "reason": "NodeNotReady",
                "message": "The node of the pod has stopped reporting",
                "lastTransitionTime": crate::object::time(Timestamp::now()),
            });
            let patch = Patch::Strategic(json!({
                "metadata": {"uid": pod.metadata.uid},
                "status": {"conditions": [condition]},
            }));
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let api = Api::<Pod>::namespaced(self.client.clone(), namespace);
            match api.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await {
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                outcome => drop(outcome?),
            }
            self.recorder.warning(&*pod, "NodeNotReady", "Node is not ready");
        }
        Ok(())
    }
}
