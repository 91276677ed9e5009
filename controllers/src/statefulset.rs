//! StatefulSets: pods with names that stay, in an order, each with claims of its own.
//!
//! [`plan`] looks at the pods by ordinal and says what to do next. Under `OrderedReady` that is one thing at a time: a
//! missing pod is made when all before it are available, the last surplus one goes when all others are, and only then an
//! update moves on, from the last ordinal down. Under `Parallel` everything that can be done is done at once.

mod claims;
mod identity;
mod plan;
mod status;
mod sync;
#[cfg(test)]
mod tests;

use crate::object::is_deleting;
use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, StatefulSet},
        core::v1::{PersistentVolumeClaim, Pod},
    },
    jiff::Timestamp,
};
use std::sync::Arc;

pub use plan::{Action, Plan, plan};
pub use sync::register;

/// What a pass looks at.
pub struct Inputs<'a> {
    /// The StatefulSet.
    pub set: &'a StatefulSet,
    /// Its own pods.
    pub pods: &'a [Arc<Pod>],
    /// The revision that pods outside of an update have.
    pub current: &'a ControllerRevision,
    /// The revision of the template.
    pub update: &'a ControllerRevision,
    /// The claim of this name, if the cache has one.
    pub claim: &'a (dyn Fn(&str) -> Option<Arc<PersistentVolumeClaim>> + Sync),
    /// The time.
    pub now: Timestamp,
}

impl Inputs<'_> {
    fn replicas(&self) -> i32 {
        self.set.spec.replicas.unwrap_or(1).max(0)
    }

    fn first_ordinal(&self) -> i32 {
        self.set.spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0)
    }

    /// Whether this ordinal is one that the set asks for.
    fn wants(&self, ordinal: i32) -> bool {
        let index = ordinal - self.first_ordinal();
        (0..self.replicas()).contains(&index)
    }

    fn is_ordered(&self) -> bool {
        self.set.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    fn rolls(&self) -> bool {
        let strategy = self.set.spec.update_strategy.as_ref();
        strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete")
    }

    /// The first index that an update concerns.
    fn partition(&self) -> i32 {
        let strategy = self.set.spec.update_strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        rolling.and_then(|rolling| rolling.partition).unwrap_or(0)
    }

    fn is_running_and_ready(&self, pod: &Pod) -> bool {
        crate::pod::phase(pod) == "Running" && crate::pod::is_ready(pod)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        let seconds = self.set.spec.min_ready_seconds.unwrap_or(0);
        self.is_running_and_ready(pod)
            && !is_deleting(&pod.metadata)
            && crate::pod::is_available(pod, seconds, self.now)
    }
}
