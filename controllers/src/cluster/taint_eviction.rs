//! Taint eviction: deletes pods that do not tolerate a `NoExecute` taint of their node, or not for that long.
//!
//! The time that a pod tolerates a taint counts from when the taint was set, as the node says, so that a change of the
//! leader does not start it anew.

use super::taints;
use crate::{
    object::{ObjectKey, is_deleting},
    pod::{self, node_name},
    runtime::{Change, Controller, IndexKey, Recorder, Setup, Store, SyncError, Verdict},
};
use async_trait::async_trait;
use k8s_openapi::{
    api::core::v1::{Node, Pod, Taint, Toleration},
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use pintle_machinery::node::is_tolerated;
use serde_json::json;
use std::{sync::Arc, time::Duration};

/// What becomes of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Stays,
    /// It has to go after this time.
    GoesIn(Duration),
    GoesNow,
}

/// Decides about a pod with these tolerations on a node with these taints.
fn fate(tolerations: &[Toleration], node_taints: &[Taint], now: Timestamp) -> Fate {
    let evicting = node_taints.iter().filter(|taint| taint.effect == taints::NO_EXECUTE);
    let mut soonest: Option<Duration> = None;
    for taint in evicting {
        let mut tolerating = tolerations.iter().filter(|t| is_tolerated(t, taint)).peekable();
        if tolerating.peek().is_none() {
            return Fate::GoesNow;
        }
        // The shortest of the times; a toleration without one sets no limit.
        let seconds = tolerating.filter_map(|t| t.toleration_seconds).min();
        let Some(seconds) = seconds else { continue };
        let since = taint.time_added.as_ref().map_or(now, |at| at.0);
        let been = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        let allowed = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let left = allowed.saturating_sub(been);
        soonest = Some(soonest.map_or(left, |soonest| soonest.min(left)));
    }
    match soonest {
        None => Fate::Stays,
        Some(Duration::ZERO) => Fate::GoesNow,
        Some(left) => Fate::GoesIn(left),
    }
}

/// Registers the controller.
pub(super) fn register(setup: &mut Setup) {
    let queue = setup.queue();
    let nodes = setup.informer::<Node>();
    let pods = setup.informer::<Pod>();
    let again = queue.clone();
    pods.on_change(move |change| match change {
        Change::Added(pod) if !node_name(pod).is_empty() => again.add(ObjectKey::of(&**pod)),
        Change::Updated { old, new }
            if node_name(old) != node_name(new) || tolerations(old) != tolerations(new) =>
        {
            again.add(ObjectKey::of(&**new));
        }
        _ => {}
    });
    let (again, of_node) = (queue.clone(), pods.store());
    nodes.on_change(move |change| {
        let evicts = |node: &Node| taints::of(node).iter().any(|t| t.effect == taints::NO_EXECUTE);
        let concerns = match change {
            Change::Added(node) => evicts(node),
            Change::Updated { old, new } => taints::of(old) != taints::of(new) && evicts(new),
            Change::Deleted(_) => false,
        };
        if concerns {
            let on_it = IndexKey::Node(change.object().name_any());
            of_node.by_index(&on_it).iter().for_each(|pod| again.add(ObjectKey::of(&**pod)));
        }
    });
    let controller = TaintEviction {
        client: setup.client(),
        nodes: nodes.store(),
        pods: pods.store(),
        recorder: setup.recorder("taint-eviction-controller"),
    };
    setup.controller("taint-eviction", queue, controller);
}

fn tolerations(pod: &Pod) -> &[Toleration] {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref());
    tolerations.unwrap_or_default()
}

struct TaintEviction {
    client: Client,
    nodes: Arc<Store<Node>>,
    pods: Arc<Store<Pod>>,
    recorder: Recorder,
}

#[async_trait]
impl Controller for TaintEviction {
    fn workers(&self) -> usize {
        8
    }

    fn keys(&self) -> Vec<ObjectKey> {
        let tainted =
            self.nodes.list().into_iter().filter(|node| {
                taints::of(node).iter().any(|taint| taint.effect == taints::NO_EXECUTE)
            });
        let pods = tainted.flat_map(|node| self.pods.by_index(&IndexKey::Node(node.name_any())));
        pods.map(|pod| ObjectKey::of(&*pod)).collect()
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Verdict, SyncError> {
        let Some(pod) = self.pods.get(key) else { return Ok(Verdict::Done) };
        if is_deleting(&pod.metadata) || pod::is_finished(&pod) {
            return Ok(Verdict::Done);
        }
        let node = self.nodes.get(&ObjectKey::new("", node_name(&pod)));
        let Some(node) = node else { return Ok(Verdict::Done) };
        match fate(tolerations(&pod), taints::of(&node), Timestamp::now()) {
            Fate::Stays => Ok(Verdict::Done),
            Fate::GoesIn(left) => Ok(Verdict::After(left)),
            Fate::GoesNow => {
                self.evict(&pod).await?;
                Ok(Verdict::Done)
            }
        }
    }
}

impl TaintEviction {
    async fn evict(&self, pod: &Pod) -> Result<(), SyncError> {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let message = format!("Marking for deletion Pod {namespace}/{name}");
        self.recorder.normal(pod, "TaintManagerEviction", message);
        let api = Api::<Pod>::namespaced(self.client.clone(), &namespace);
        let condition = json!({
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint",
            "lastTransitionTime": crate::object::time(Timestamp::now()),
        });
        let patch = Patch::Strategic(json!({
            "metadata": {"uid": pod.metadata.uid},
            "status": {"conditions": [condition]},
        }));
        let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams::default().preconditions(preconditions);
        let outcome = match api.patch_status(&name, &PatchParams::default(), &patch).await {
            Ok(_) => api.delete(&name, &params).await.map(drop),
            Err(error) => Err(error),
        };
        match outcome {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            outcome => Ok(outcome?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn fates_follow_the_table() {
        let now = Timestamp::from_second(1000).unwrap();
        let taint = |key: &str, effect: &str| json!({"key": key, "effect": effect, "timeAdded": "1970-01-01T00:15:00Z"});
        let unreachable = json!([taint("unreachable", "NoExecute")]);
        let tolerate = |seconds: Value| json!([{"key": "unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}]);
        let cases = [
            ("no taint", json!([]), json!([]), Fate::Stays),
            ("one that does not evict", json!([taint("x", "NoSchedule")]), json!([]), Fate::Stays),
            ("not tolerated", unreachable.clone(), json!([]), Fate::GoesNow),
            ("tolerated for ever", unreachable.clone(), tolerate(Value::Null), Fate::Stays),
            (
                "tolerated for a while",
                unreachable.clone(),
                tolerate(json!(300)),
                Fate::GoesIn(Duration::from_secs(200)),
            ),
            (
                "tolerated for too short a while",
                unreachable.clone(),
                tolerate(json!(100)),
                Fate::GoesNow,
            ),
            ("not tolerated at all", unreachable.clone(), tolerate(json!(0)), Fate::GoesNow),
            (
                "one of two is not tolerated",
                json!([taint("unreachable", "NoExecute"), taint("other", "NoExecute")]),
                tolerate(Value::Null),
                Fate::GoesNow,
            ),
            ("everything is tolerated", unreachable, json!([{"operator": "Exists"}]), Fate::Stays),
        ];
        for (name, taints, tolerations, expected) in cases {
            let taints: Vec<Taint> = serde_json::from_value(taints).unwrap();
            let tolerations: Vec<Toleration> = serde_json::from_value(tolerations).unwrap();
            assert_eq!(fate(&tolerations, &taints, now), expected, "{name}");
        }
    }
}
