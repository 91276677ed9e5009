//! Jobs: run pods until enough of them have succeeded, or too many have failed.
//!
//! Every pod of a job carries the finalizer [`FINALIZER`] until it is counted, so that no end of a pod is lost, even if the
//! pod is deleted meanwhile, and none is counted twice. A pass goes through three pure steps with I/O between them:
//! [`View::new`] looks at job and pods, and [`View::work`] says which pods to make or delete; [`View::report`] says, once
//! that is done, what the status is and which pods are counted in it (their UIDs are in `uncountedTerminatedPods`); when the
//! status is stored and the finalizers of those pods are gone, [`Report::settle`] moves them into the counters, and ends the
//! job if it is over. A step that fails is taken again by the next pass, from what is stored.

mod backoff;
mod condition;
mod finalizers;
mod indexes;
mod orphans;
mod policy;
mod removal;
mod report;
#[cfg(test)]
mod simulation;
mod spec;
mod sync;
mod template;
#[cfg(test)]
mod tests;
mod view;
mod work;

pub use backoff::Backoff;
pub use indexes::Indexes;
pub use report::{News, Report};
pub use sync::register;
pub use view::{Inputs, View};
pub use work::{Done, Slot, Work};

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};

/// Holds a pod until it is counted.
pub const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// Most pods that one pass creates or deletes for one job, and most that wait to be counted.
pub const BURST: usize = 500;

fn has_finalizer(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

/// Whether the job is over, one way or the other.
pub fn is_finished(job: &Job) -> bool {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| {
        matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True"
    })
}

/// Whether somebody else runs this job.
fn is_managed_elsewhere(job: &Job) -> bool {
    let manager = job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref());
    manager.is_some_and(|manager| manager != "kubernetes.io/job-controller")
}
