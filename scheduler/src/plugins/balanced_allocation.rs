//! NodeResourcesBalancedAllocation: likes nodes whose resources would be used up evenly.

use crate::cluster::{Cluster, Slot};
use crate::framework::{MAX_SCORE, Score, ScorePlugin};
use crate::node::NodeInfo;
use crate::pod::PodInfo;

pub(super) struct BalancedAllocation;

struct Prepared<'a> {
    pod: &'a PodInfo,
}

impl ScorePlugin for BalancedAllocation {
    fn pre_score<'a>(
        &self,
        _: &'a Cluster,
        pod: &'a PodInfo,
        _: &[Slot],
    ) -> Option<Box<dyn Score + 'a>> {
        pod.states_resources.then(|| Box::new(Prepared { pod }) as Box<dyn Score>)
    }
}

impl Score for Prepared<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let (have, want) = (&node.facts.allocatable, &self.pod.requests.actual);
        let fraction = |used: i64, have: i64| (used as f64 / have as f64).min(1.0);
        // With two resources the standard deviation is half of their distance; with one it is nothing.
        let deviation = if have.milli_cpu > 0 && have.memory > 0 {
            let cpu = fraction(node.requested.milli_cpu + want.milli_cpu, have.milli_cpu);
            let memory = fraction(node.requested.memory + want.memory, have.memory);
            (cpu - memory).abs() / 2.0
        } else {
            0.0
        };
        ((1.0 - deviation) * MAX_SCORE as f64) as i64
    }
}
