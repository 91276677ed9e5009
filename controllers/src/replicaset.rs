//! ReplicaSets and ReplicationControllers: so many pods of one template.
//!
//! Both kinds are driven by the same code through [`Replicated`]. [`plan`] decides what to create or delete, [`status()`]
//! what to report; the order in which surplus pods go is in [`rank`].

mod kinds;
pub mod rank;
mod status;
mod sync;

use crate::{children::Namespaced, pod};
use k8s_openapi::{
    api::core::v1::{Pod, PodTemplateSpec},
    jiff::Timestamp,
};
use kube::core::{ParseExpressionError, Selector};
use std::sync::Arc;

pub use status::{Counts, Failure, status};
pub use sync::register;

/// Most pods that one sync creates or deletes for one object; the next sync goes on.
pub const BURST: usize = 500;

/// A kind that keeps a number of pods.
pub trait Replicated: Namespaced + serde::Serialize {
    /// The name of the kind's controller, which signs its events.
    const COMPONENT: &'static str;

    /// How many pods are asked for.
    fn replicas(&self) -> i32;
    /// How long a pod must be ready to be available.
    fn min_ready_seconds(&self) -> i32;
    /// Which pods count.
    fn selector(&self) -> Result<Option<Selector>, ParseExpressionError>;
    /// What new pods look like.
    fn template(&self) -> Option<&PodTemplateSpec>;
    /// The status as it is stored.
    fn counts(&self) -> Counts;
    /// A copy with another status.
    fn with_counts(&self, counts: &Counts) -> Self;
}

/// What to do about the pods of one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// As many as asked for.
    Keep,
    /// So many are missing.
    Create(usize),
    /// These are too many, first to go first.
    Delete(Vec<Arc<Pod>>),
}

/// Compares the active pods with the number that is asked for. `related` are all active pods that do the same work (those of
/// all ReplicaSets of the same Deployment): of two nodes, the one where more of them run loses a pod first.
pub fn plan(replicas: i32, active: &[Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) -> Plan {
    let want = usize::try_from(replicas).unwrap_or(0);
    if active.len() < want {
        return Plan::Create((want - active.len()).min(BURST));
    }
    let surplus = (active.len() - want).min(BURST);
    if surplus == 0 {
        return Plan::Keep;
    }
    let mut ordered = active.to_vec();
    rank::first_to_go_first(&mut ordered, related, now);
    ordered.truncate(surplus);
    Plan::Delete(ordered)
}

/// The pods that count as replicas.
pub fn active(pods: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
    pods.iter().filter(|pod| pod::is_active(pod)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::tests::{at, running};

    #[test]
    fn plan_makes_up_the_difference() {
        let pods = |count: usize| -> Vec<_> {
            (0..count).map(|index| Arc::new(running(&format!("p{index}"), Some(1)))).collect()
        };
        for (replicas, existing, created, deleted) in [
            (3, 0, 3, 0),
            (3, 3, 0, 0),
            (3, 5, 0, 2),
            (0, 2, 0, 2),
            (-1, 1, 0, 1),
            (2000, 10, 500, 0),
            (0, 700, 0, 500),
        ] {
            let pods = pods(existing);
            let got = match plan(replicas, &pods, &pods, at(100)) {
                Plan::Keep => (0, 0),
                Plan::Create(count) => (count, 0),
                Plan::Delete(pods) => (0, pods.len()),
            };
            assert_eq!(got, (created, deleted), "{existing} of {replicas}");
        }
    }
}
