//! A job's spec with upstream's defaults filled in.

use k8s_openapi::api::{
    batch::v1::{Job, PodFailurePolicy, SuccessPolicy},
    core::v1::{Pod, PodTemplateSpec},
};

/// What a job asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spec<'a> {
    /// How many pods must succeed; `None`: one, and then those that run may end as they like.
    pub(super) completions: Option<i32>,
    pub(super) parallelism: i32,
    pub(super) backoff_limit: i32,
    /// For an indexed job, the number of its indexes.
    pub(super) indexes: Option<i32>,
    pub(super) limit_per_index: Option<i32>,
    pub(super) max_failed_indexes: Option<i32>,
    pub(super) failure_policy: Option<&'a PodFailurePolicy>,
    pub(super) success_policy: Option<&'a SuccessPolicy>,
    /// Whether a pod is replaced only when it has ended, not when it begins to.
    pub(super) replace_when_failed: bool,
    pub(super) suspended: bool,
    pub(super) deadline_seconds: Option<i64>,
    pub(super) template: &'a PodTemplateSpec,
}

impl<'a> Spec<'a> {
    /// `None` for a job without a spec.
    pub(super) fn of(job: &'a Job) -> Option<Self> {
        let spec = job.spec.as_ref()?;
        let indexed = spec.completion_mode.as_deref() == Some("Indexed");
        let failure_policy = spec.pod_failure_policy.as_ref();
        Some(Self {
            completions: spec.completions,
            parallelism: spec.parallelism.unwrap_or(1),
            backoff_limit: spec.backoff_limit.unwrap_or(6),
            indexes: spec.completions.filter(|_| indexed),
            limit_per_index: spec.backoff_limit_per_index.filter(|_| indexed),
            max_failed_indexes: spec.max_failed_indexes,
            failure_policy,
            success_policy: spec.success_policy.as_ref().filter(|_| indexed),
            replace_when_failed: failure_policy.is_some()
                || spec.pod_replacement_policy.as_deref() == Some("Failed"),
            suspended: spec.suspend == Some(true),
            deadline_seconds: spec.active_deadline_seconds,
            template: &spec.template,
        })
    }

    /// Whether the pod counts as failed. One that is deleted may never get to say so itself.
    pub(super) fn is_failed(&self, pod: &Pod) -> bool {
        match crate::pod::phase(pod) {
            "Failed" => true,
            "Succeeded" => false,
            _ => !self.replace_when_failed && crate::object::is_deleting(&pod.metadata),
        }
    }

    /// Whether the pod has a place in the job: always, or a valid index.
    pub(super) fn has_place(&self, pod: &Pod) -> bool {
        let index = super::indexes::completion_index(pod);
        self.indexes.is_none_or(|limit| index.is_some_and(|index| index < limit))
    }

    pub(super) fn restarts_on_failure(&self) -> bool {
        let spec = self.template.spec.as_ref();
        spec.and_then(|spec| spec.restart_policy.as_deref()) == Some("OnFailure")
    }
}
