//! How fast nodes that are down may be emptied.

use crate::{cluster::taints, object};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::time::Instant;

/// The time between two nodes of a zone.
const INTERVAL: Duration = Duration::from_secs(10);
/// The same in a large zone of which most is down.
const INTERVAL_DISRUPTED: Duration = Duration::from_secs(100);
/// A zone with more nodes is large.
const LARGE_ZONE: usize = 50;
/// A zone is disrupted if this share of its nodes is down, and more than two.
const DISRUPTED_PERCENT: usize = 55;

type Zone = (String, String);

/// Remembers when the last node of each zone was let go.
#[derive(Default)]
pub(super) struct Pace {
    last: Mutex<HashMap<Zone, Instant>>,
}

impl Pace {
    /// Whether `node` may be emptied now, seeing the state of all `nodes`.
    pub(super) fn admit(&self, node: &Node, nodes: &[Arc<Node>]) -> bool {
        let zone = zone_of(node);
        let Some(interval) = interval(&zone, nodes) else { return false };
        let mut last = self.last.lock();
        let now = Instant::now();
        if last.get(&zone).is_some_and(|at| now < *at + interval) {
            return false;
        }
        last.insert(zone, now);
        true
    }
}

fn zone_of(node: &Node) -> Zone {
    let label = |key: &str| node.labels().get(key).cloned().unwrap_or_default();
    (label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone"))
}

/// The time between two nodes of the zone; `None` if none may go.
fn interval(zone: &Zone, nodes: &[Arc<Node>]) -> Option<Duration> {
    let staying = || nodes.iter().filter(|node| !object::is_deleting(&node.metadata));
    if !staying().any(|node| taints::is_ready(node)) {
        return None;
    }
    let of_zone = || staying().filter(|node| zone_of(node) == *zone);
    let total = of_zone().count();
    let down = of_zone().filter(|node| !taints::is_ready(node)).count();
    let disrupted = down > 2 && down < total && down * 100 >= total * DISRUPTED_PERCENT;
    match disrupted {
        false => Some(INTERVAL),
        true if total > LARGE_ZONE => Some(INTERVAL_DISRUPTED),
        true => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn nodes(zone: &str, ready: usize, down: usize) -> Vec<Arc<Node>> {
        let node = |i: usize, status: &str| {
            let node = json!({
                "metadata": {"name": format!("{zone}-{i}"), "labels": {"topology.kubernetes.io/zone": zone}},
                "status": {"conditions": [{"type": "Ready", "status": status}]},
            });
            Arc::new(serde_json::from_value(node).unwrap())
        };
        let up = (0..ready).map(|i| node(i, "True"));
        up.chain((ready..ready + down).map(|i| node(i, "Unknown"))).collect()
    }

    #[test]
    fn interval_follows_the_state_of_zone_and_cluster() {
        let cases = [
            ("one of three is down", nodes("a", 2, 1), Some(INTERVAL)),
            ("one of two is down", nodes("a", 1, 1), Some(INTERVAL)),
            ("everything is down", nodes("a", 0, 3), None),
            ("most of a small zone is down", nodes("a", 2, 3), None),
            ("most of a large zone is down", nodes("a", 40, 60), Some(INTERVAL_DISRUPTED)),
            (
                "a whole zone is down, another is not",
                [nodes("a", 0, 3), nodes("b", 3, 0)].concat(),
                Some(INTERVAL),
            ),
        ];
        for (name, nodes, expected) in cases {
            assert_eq!(interval(&(String::new(), "a".to_owned()), &nodes), expected, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nodes_of_a_zone_go_one_by_one() {
        let pace = Pace::default();
        let all = [nodes("a", 3, 2), nodes("b", 3, 1)].concat();
        assert!(pace.admit(&all[3], &all));
        assert!(!pace.admit(&all[4], &all));
        assert!(pace.admit(&all[8], &all), "another zone has its own pace");
        tokio::time::advance(INTERVAL).await;
        assert!(pace.admit(&all[4], &all));
    }
}
