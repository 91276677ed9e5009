//! NodeResourcesFit: the requests must fit into what is left of a node; among those that fit, the least allocated is liked best.

use super::ClusterEvent;
use crate::cluster::{Cluster, Slot};
use crate::framework::{
    Filter, FilterPlugin, MAX_SCORE, Plugin, PreFilter, Rejection, Score, ScorePlugin,
};
use crate::node::NodeInfo;
use crate::pod::PodInfo;

pub(super) struct NodeResourcesFit;

struct Prepared<'a> {
    pod: &'a PodInfo,
}

impl FilterPlugin for NodeResourcesFit {
    fn pre_filter<'a>(&self, _: &'a Cluster, pod: &'a PodInfo) -> PreFilter<'a> {
        PreFilter::Run(Box::new(Prepared { pod }))
    }
}

impl Filter for Prepared<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if fits(self.pod, node) { Ok(()) } else { Err(shortage(self.pod, node)) }
    }
}

/// The quick answer, for the many nodes of a cycle that is about to succeed.
fn fits(pod: &PodInfo, node: &NodeInfo) -> bool {
    let (want, have, used) = (&pod.requests.actual, &node.facts.allocatable, &node.requested);
    let fits = |want: i64, have: i64, used: i64| want == 0 || want <= have - used;
    (node.pods.len() as i64) < node.facts.allowed_pods
        && fits(want.milli_cpu, have.milli_cpu, used.milli_cpu)
        && fits(want.memory, have.memory, used.memory)
        && fits(want.ephemeral_storage, have.ephemeral_storage, used.ephemeral_storage)
        && want.scalars.iter().all(|(name, want)| fits(*want, have.scalar(name), used.scalar(name)))
}

/// Everything that is short. It is beyond repair if one of the requests exceeds the whole node.
fn shortage(pod: &PodInfo, node: &NodeInfo) -> Rejection {
    let (want, have, used) = (&pod.requests.actual, &node.facts.allocatable, &node.requested);
    let basic = [
        ("cpu", want.milli_cpu, have.milli_cpu, used.milli_cpu),
        ("memory", want.memory, have.memory, used.memory),
        (
            "ephemeral-storage",
            want.ephemeral_storage,
            have.ephemeral_storage,
            used.ephemeral_storage,
        ),
    ];
    let scalars = want.scalars.iter();
    let scalars =
        scalars.map(|(name, want)| (&**name, *want, have.scalar(name), used.scalar(name)));
    let mut rejection =
        Rejection { plugin: Plugin::NodeResourcesFit, resolvable: true, reasons: Vec::new() };
    if node.pods.len() as i64 >= node.facts.allowed_pods {
        rejection.reasons.push("Too many pods".into());
    }
    for (name, want, have, used) in basic.into_iter().chain(scalars) {
        if want > 0 && want > have - used {
            rejection.reasons.push(format!("Insufficient {name}").into());
            rejection.resolvable &= want <= have;
        }
    }
    rejection
}

impl ScorePlugin for NodeResourcesFit {
    fn pre_score<'a>(
        &self,
        _: &'a Cluster,
        pod: &'a PodInfo,
        _: &[Slot],
    ) -> Option<Box<dyn Score + 'a>> {
        Some(Box::new(Prepared { pod }))
    }
}

impl Score for Prepared<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let have = &node.facts.allocatable;
        let requests = &self.pod.requests;
        let resources = [
            (have.milli_cpu, node.scoring_milli_cpu + requests.scoring_milli_cpu),
            (have.memory, node.scoring_memory + requests.scoring_memory),
        ];
        let present = resources.into_iter().filter(|(have, _)| *have > 0);
        let (sum, count) = present.fold((0, 0), |(sum, count), (have, used)| {
            (sum + (have - used).max(0) * MAX_SCORE / have, count + 1)
        });
        if count == 0 { 0 } else { sum / count }
    }
}

pub(super) fn worth_retrying(event: ClusterEvent<'_>, pod: &PodInfo) -> bool {
    match event {
        ClusterEvent::Node(node, change) => change.allocatable && fits(pod, node),
        ClusterEvent::PodGone(_) => true,
        _ => false,
    }
}
