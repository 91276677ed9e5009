//! How long each node has been silent, and what its conditions say then.

use crate::object::time;
use k8s_openapi::{
    api::core::v1::{Node, NodeCondition},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use parking_lot::Mutex;
use std::{collections::HashMap, time::Duration};
use tokio::time::Instant;

/// The conditions that only a node itself can know about.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// When each node was last heard from, by our clock.
#[derive(Default)]
pub(super) struct Silence {
    heard: Mutex<HashMap<String, Instant>>,
}

impl Silence {
    pub(super) fn heard_from(&self, node: &str) {
        self.heard.lock().insert(node.to_owned(), Instant::now());
    }

    pub(super) fn forget(&self, node: &str) {
        self.heard.lock().remove(node);
    }

    /// How long a node has been silent. One that we have never heard from begins to be silent now.
    pub(super) fn of(&self, node: &str) -> Duration {
        let mut heard = self.heard.lock();
        heard.entry(node.to_owned()).or_insert_with(Instant::now).elapsed()
    }
}

/// The heartbeat in the status of a node.
pub(super) fn heartbeat(node: &Node) -> Option<&Time> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| c.type_ == "Ready")?.last_heartbeat_time.as_ref()
}

/// The conditions of a node that has been silent for too long; `None` if they are so already.
pub(super) fn conditions(node: &Node, now: Timestamp) -> Option<Vec<NodeCondition>> {
    let present =
        node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let unknown = |type_: &str| {
        let old = present.iter().find(|condition| condition.type_ == type_);
        let (reason, message) = match old {
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
        };
        (old.map(|condition| condition.status.as_str()) != Some("Unknown")).then(|| NodeCondition {
            type_: type_.to_owned(),
            status: "Unknown".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_heartbeat_time: old.and_then(|condition| condition.last_heartbeat_time.clone()),
            last_transition_time: Some(time(now)),
        })
    };
    let changed: Vec<_> = REPORTED.into_iter().filter_map(unknown).collect();
    (!changed.is_empty()).then_some(changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn silent_node_loses_what_only_it_can_know() {
        let node: Node = serde_json::from_value(json!({"status": {"conditions": [
            {"type": "Ready", "status": "True", "lastHeartbeatTime": "2030-01-01T00:00:00Z"},
            {"type": "MemoryPressure", "status": "False"},
            {"type": "DiskPressure", "status": "Unknown"},
            {"type": "NetworkUnavailable", "status": "False"},
        ]}}))
        .unwrap();
        let changed = conditions(&node, Timestamp::UNIX_EPOCH).unwrap();
        let told: Vec<_> =
            changed.iter().map(|c| (c.type_.as_str(), c.reason.as_deref().unwrap())).collect();
        assert_eq!(
            told,
            [
                ("Ready", "NodeStatusUnknown"),
                ("MemoryPressure", "NodeStatusUnknown"),
                ("PIDPressure", "NodeStatusNeverUpdated"),
            ]
        );
        assert!(changed[0].last_heartbeat_time.is_some(), "the last sign of life stays visible");
        let mut silent = node;
        silent.status.as_mut().unwrap().conditions = Some(
            REPORTED
                .map(|t| NodeCondition {
                    type_: t.into(),
                    status: "Unknown".into(),
                    ..Default::default()
                })
                .into(),
        );
        assert_eq!(conditions(&silent, Timestamp::UNIX_EPOCH), None);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_counts_from_the_last_sign() {
        let silence = Silence::default();
        assert_eq!(silence.of("n"), Duration::ZERO);
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(silence.of("n"), Duration::from_secs(30));
        silence.heard_from("n");
        assert_eq!(silence.of("n"), Duration::ZERO);
    }
}
