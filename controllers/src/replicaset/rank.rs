//! Which of too many pods go first.
//!
//! In this order: not bound to a node; pending before unknown before running; not ready; lower
//! `controller.kubernetes.io/pod-deletion-cost`; more pods of the same work on its node; ready more recently; restarted
//! more often; created more recently. Times count by order of magnitude, and within one magnitude the UID decides, so that a
//! scale-down after a burst does not always hit the newest pods.

use crate::{
    object::{created_at, uid},
    pod::{is_ready, node_name, phase, ready_since},
};
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use std::{
    cmp::{Ordering, Reverse},
    collections::HashMap,
    sync::Arc,
};

/// The annotation by which users say what losing a pod costs.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Orders `pods` so that those to be deleted come first.
pub fn first_to_go_first(pods: &mut [Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) {
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for pod in related {
        *on_node.entry(node_name(pod)).or_default() += 1;
    }
    pods.sort_by_cached_key(|pod| {
        Rank::of(pod, on_node.get(node_name(pod)).copied().unwrap_or(0), now)
    });
}

/// The derived order is the order of deletion.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    bound: bool,
    phase: u8,
    ready: bool,
    deletion_cost: i32,
    doubled_up: Reverse<usize>,
    ready_for: Age,
    restarts: Reverse<i32>,
    exists_for: Age,
    uid: String,
}

impl Rank {
    fn of(pod: &Pod, on_its_node: usize, now: Timestamp) -> Self {
        Self {
            bound: !node_name(pod).is_empty(),
            phase: match phase(pod) {
                "Pending" => 0,
                "Unknown" => 1,
                _ => 2,
            },
            ready: is_ready(pod),
            deletion_cost: deletion_cost(pod),
            doubled_up: Reverse(on_its_node),
            ready_for: Age::since(ready_since(pod), now),
            restarts: Reverse(restarts(pod)),
            exists_for: Age::since(created_at(&pod.metadata), now),
            uid: uid(&pod.metadata).to_owned(),
        }
    }
}

/// How long ago, by order of magnitude; never counts as shortest.
#[derive(PartialEq, Eq)]
struct Age(Option<u32>);

impl Age {
    fn since(time: Option<Timestamp>, now: Timestamp) -> Self {
        let seconds =
            |time: Timestamp| u64::try_from(now.duration_since(time).as_secs()).unwrap_or(0);
        Self(time.map(|time| u64::BITS - seconds(time).leading_zeros()))
    }
}

impl PartialOrd for Age {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Age {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

fn deletion_cost(pod: &Pod) -> i32 {
    let cost =
        pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(DELETION_COST));
    cost.and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses.map(|status| status.restart_count).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        object::time,
        pod::tests::{at, running},
    };
    use k8s_openapi::api::core::v1::{ContainerStatus, PodSpec};
    use std::collections::BTreeMap;

    struct Case {
        pod: Pod,
    }

    fn ready(name: &str) -> Case {
        let mut pod = running(name, Some(1000));
        pod.spec =
            Some(PodSpec { node_name: Some(format!("node-of-{name}")), ..Default::default() });
        pod.metadata.creation_timestamp = Some(time(at(1000)));
        Case { pod }
    }

    impl Case {
        fn node(mut self, node: &str) -> Self {
            self.pod.spec = Some(PodSpec { node_name: Some(node.into()), ..Default::default() });
            self
        }
        fn phase(mut self, phase: &str) -> Self {
            self.pod.status.as_mut().unwrap().phase = Some(phase.into());
            self
        }
        fn unready(mut self) -> Self {
            self.pod.status.as_mut().unwrap().conditions = None;
            self
        }
        fn ready_since(mut self, second: i64) -> Self {
            let conditions = self.pod.status.as_mut().unwrap().conditions.as_mut().unwrap();
            conditions[0].last_transition_time = Some(time(at(second)));
            self
        }
        fn created(mut self, second: i64) -> Self {
            self.pod.metadata.creation_timestamp = Some(time(at(second)));
            self
        }
        fn cost(mut self, cost: &str) -> Self {
            self.pod.metadata.annotations =
                Some(BTreeMap::from([(DELETION_COST.to_owned(), cost.to_owned())]));
            self
        }
        fn restarts(mut self, count: i32) -> Self {
            self.pod.status.as_mut().unwrap().container_statuses =
                Some(vec![ContainerStatus { restart_count: count, ..Default::default() }]);
            self
        }
    }

    /// The one named "first" must be deleted before the one named "last".
    #[test]
    fn each_criterion_decides() {
        let cases = [
            ("unbound", ready("first").node(""), ready("last").unready().phase("Pending")),
            ("pending", ready("first").phase("Pending"), ready("last").phase("Unknown")),
            ("unknown", ready("first").phase("Unknown"), ready("last")),
            ("unready", ready("first").unready().cost("9"), ready("last")),
            ("cost", ready("first").cost("-1"), ready("last")),
            ("bad cost counts as zero", ready("first").cost("cheap"), ready("last").cost("1")),
            (
                "ready for less long",
                ready("first").ready_since(9000),
                ready("last").ready_since(10),
            ),
            ("restarts", ready("first").restarts(3), ready("last").restarts(1)),
            ("newer", ready("first").created(9999), ready("last").created(10)),
            ("same magnitude: uid", ready("first").created(998), ready("last").created(999)),
        ];
        for (what, first, last) in cases {
            for mut pods in [
                [Arc::new(first.pod.clone()), Arc::new(last.pod.clone())],
                [Arc::new(last.pod.clone()), Arc::new(first.pod.clone())],
            ] {
                first_to_go_first(&mut pods, &[], at(10_000));
                assert_eq!(pods[0].metadata.name.as_deref(), Some("first"), "{what}");
            }
        }
    }

    #[test]
    fn crowded_node_loses_first() {
        let crowded = Arc::new(ready("z-crowded").node("n1").pod);
        let other = Arc::new(ready("y-crowded").node("n1").pod);
        let lonely = Arc::new(ready("a-lonely").node("n2").pod);
        let mut pods = vec![lonely.clone(), crowded.clone()];
        first_to_go_first(&mut pods, &[lonely, crowded, other], at(10_000));
        assert_eq!(pods[0].metadata.name.as_deref(), Some("z-crowded"));
    }
}
