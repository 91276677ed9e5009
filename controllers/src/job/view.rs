//! What one pass sees: the pods sorted out, what is new about them, and whether the job is decided.

use super::{
    Backoff, Indexes, backoff, condition, has_finalizer, indexes::completion_index, policy,
    spec::Spec, template::failures_of_index,
};
use crate::{
    object::{time, uid},
    pod::{is_active, is_ready, is_terminating, phase},
};
use k8s_openapi::{
    api::{
        batch::v1::{Job, JobCondition, JobStatus, UncountedTerminatedPods},
        core::v1::Pod,
    },
    jiff::{SignedDuration, Timestamp},
};
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

/// What a pass looks at.
pub struct Inputs<'a> {
    /// The job.
    pub job: &'a Job,
    /// Its own pods.
    pub pods: &'a [Arc<Pod>],
    /// UIDs of pods whose finalizer is gone, although the cache does not show it yet.
    pub released: &'a HashSet<String>,
    /// Whether the cache shows all pods that were made and deleted.
    pub settled: bool,
    /// The failures before this pass.
    pub backoff: Backoff,
    /// The time.
    pub now: Timestamp,
}

/// What a pass sees.
pub struct View<'a> {
    pub(super) inputs: &'a Inputs<'a>,
    pub(super) spec: Spec<'a>,
    /// The status as stored, with the start of the job noted.
    pub(super) status: JobStatus,
    pub(super) active: Vec<Arc<Pod>>,
    pub(super) terminating: i32,
    /// Pods that succeeded, counted already or not; of an indexed job, indexes.
    pub(super) succeeded: i32,
    pub(super) failed: i32,
    /// Succeeded indexes as stored, and with what is new.
    pub(super) indexes_before: Indexes,
    pub(super) indexes: Indexes,
    /// Failed indexes, if indexes can fail.
    pub(super) failed_indexes: Option<Indexes>,
    /// The last failed pod of each index that waits for a new one, which inherits its count of failures.
    pub(super) replaced: BTreeMap<i32, Arc<Pod>>,
    /// `FailureTarget` or `SuccessCriteriaMet`, once the job is decided.
    pub(super) decided: Option<JobCondition>,
    /// The failures up to this pass.
    pub backoff: Backoff,
}

impl<'a> View<'a> {
    /// Looks; `None` for a job without a spec.
    pub fn new(inputs: &'a Inputs<'a>) -> Option<Self> {
        let spec = Spec::of(inputs.job)?;
        let count =
            |property: fn(&Pod) -> bool| inputs.pods.iter().filter(move |pod| property(pod));
        let mut view = Self {
            inputs,
            spec,
            status: started(inputs, &spec),
            active: count(is_active).cloned().collect(),
            terminating: count(is_terminating).count() as i32,
            succeeded: 0,
            failed: 0,
            indexes_before: Indexes::default(),
            indexes: Indexes::default(),
            failed_indexes: None,
            replaced: BTreeMap::new(),
            decided: None,
            backoff: inputs.backoff,
        };
        view.count();
        view.decided = view.decide();
        view.look_at_indexes();
        Some(view)
    }

    /// The job.
    pub fn job(&self) -> &'a Job {
        self.inputs.job
    }

    /// Its pods.
    pub fn pods(&self) -> &'a [Arc<Pod>] {
        self.inputs.pods
    }

    /// When to look again for the sake of the job's deadline.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.deadline().filter(|_| self.decided.is_none())
    }

    pub(super) fn uncounted(&self) -> UncountedTerminatedPods {
        self.status.uncounted_terminated_pods.clone().unwrap_or_default()
    }

    /// Whether this pod still waits to be counted, as far as is known.
    pub(super) fn is_held(&self, pod: &Pod) -> bool {
        has_finalizer(pod) && !self.inputs.released.contains(uid(&pod.metadata))
    }

    /// The pods that ended and are in no count yet.
    fn new_ends(
        &self,
        uncounted: Option<&Vec<String>>,
        ended: impl Fn(&Pod) -> bool,
    ) -> Vec<Arc<Pod>> {
        let known: HashSet<_> = uncounted.into_iter().flatten().map(String::as_str).collect();
        let is_new = |pod: &&Arc<Pod>| {
            self.is_held(pod)
                && !known.contains(uid(&pod.metadata))
                && self.spec.has_place(pod)
                && ended(pod)
        };
        self.inputs.pods.iter().filter(is_new).cloned().collect()
    }

    fn count(&mut self) {
        let uncounted = self.uncounted();
        let length = |list: &Option<Vec<String>>| list.as_ref().map_or(0, Vec::len) as i32;
        let succeeded =
            self.new_ends(uncounted.succeeded.as_ref(), |pod| phase(pod) == "Succeeded");
        let failed = self.new_ends(uncounted.failed.as_ref(), |pod| self.spec.is_failed(pod));
        let policy = self.spec.failure_policy;
        let counted = failed.iter().filter(|pod| policy::counts(policy, pod)).count() as i32;
        self.backoff = self.inputs.backoff.after(&succeeded, &failed);
        self.succeeded = self.status.succeeded.unwrap_or(0)
            + succeeded.len() as i32
            + length(&uncounted.succeeded);
        self.failed = self.status.failed.unwrap_or(0) + counted + length(&uncounted.failed);
    }

    /// Whether the whole job is over already, whatever its indexes say.
    fn decide(&self) -> Option<JobCondition> {
        let now = self.inputs.now;
        let interim = [condition::SUCCESS_CRITERIA_MET, condition::FAILURE_TARGET];
        let before = interim.into_iter().find_map(|type_| condition::holding(&self.status, type_));
        if let Some(before) = before {
            return Some(before.clone());
        }
        let fails = |reason, message: &str| {
            Some(condition::new(condition::FAILURE_TARGET, reason, message, now))
        };
        let failed = self.inputs.pods.iter().filter(|pod| self.spec.is_failed(pod));
        for pod in failed {
            if let Some(policy::Action::FailJob(why)) =
                policy::action(self.spec.failure_policy, pod)
            {
                return fails("PodFailurePolicy", &why);
            }
        }
        if self.failed > self.spec.backoff_limit || self.restarted_too_often() {
            return fails("BackoffLimitExceeded", "Job has reached the specified backoff limit");
        }
        if self.deadline().is_some_and(|left| left.is_zero()) {
            return fails("DeadlineExceeded", "Job was active longer than specified deadline");
        }
        None
    }

    /// How long the job may still be active, if there is a limit.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let allowed = self.spec.deadline_seconds.filter(|_| !self.spec.suspended)?;
        let since = self.status.start_time.as_ref()?.0;
        let left = SignedDuration::from_secs(allowed) - self.inputs.now.duration_since(since);
        Some(Duration::try_from(left).unwrap_or_default())
    }

    /// Containers that the node restarts count like failed pods.
    fn restarted_too_often(&self) -> bool {
        if !self.spec.restarts_on_failure() {
            return false;
        }
        let running =
            self.inputs.pods.iter().filter(|pod| matches!(phase(pod), "Running" | "Pending"));
        let statuses = running.flat_map(|pod| &pod.status).flat_map(|status| {
            let init = status.init_container_statuses.iter().flatten();
            init.chain(status.container_statuses.iter().flatten())
        });
        let restarts: i32 = statuses.map(|container| container.restart_count).sum();
        restarts >= self.spec.backoff_limit.max(1)
    }

    fn look_at_indexes(&mut self) {
        let Some(limit) = self.spec.indexes else { return };
        let stored = self.status.completed_indexes.as_deref().unwrap_or_default();
        self.indexes_before = Indexes::parse(stored, limit);
        self.indexes =
            self.indexes_before.union(&self.indexes_that(|pod| phase(pod) == "Succeeded"));
        self.succeeded = self.indexes.total();
        if let Some(most) = self.spec.limit_per_index {
            self.look_at_failed_indexes(limit, most);
        }
        if self.decided.is_none() {
            let met = policy::success(self.spec.success_policy, limit, &self.indexes);
            self.decided = met.map(|rule| {
                let type_ = condition::SUCCESS_CRITERIA_MET;
                condition::new(type_, "SuccessPolicy", &rule, self.inputs.now)
            });
        }
    }

    fn look_at_failed_indexes(&mut self, limit: i32, most: i32) {
        let stored = self.status.failed_indexes.as_deref().unwrap_or_default();
        let failed = Indexes::parse(stored, limit).union(
            &self.indexes_that(|pod| self.spec.is_failed(pod) && self.fails_index(pod, most)),
        );
        let fails = |reason, message| {
            Some(condition::new(condition::FAILURE_TARGET, reason, message, self.inputs.now))
        };
        if self.decided.is_none() && failed.total() > 0 {
            let too_many = self.spec.max_failed_indexes.is_some_and(|max| failed.total() > max);
            if too_many {
                let text = "Job has exceeded the specified maximal number of failed indexes";
                self.decided = fails("MaxFailedIndexesExceeded", text);
            } else if failed.total() + self.indexes.total() >= limit {
                self.decided = fails("FailedIndexes", "Job has failed indexes");
            }
        }
        self.failed_indexes = Some(failed);
        self.replaced = self.waiting_for_replacement();
    }

    /// The valid indexes of pods that are held and have this property.
    fn indexes_that(&self, property: impl Fn(&Pod) -> bool) -> Indexes {
        let pods = self
            .inputs
            .pods
            .iter()
            .filter(|pod| has_finalizer(pod) && self.spec.has_place(pod) && property(pod));
        pods.filter_map(|pod| completion_index(pod)).collect()
    }

    fn fails_index(&self, pod: &Pod, most: i32) -> bool {
        match policy::action(self.spec.failure_policy, pod) {
            Some(policy::Action::FailIndex) => true,
            Some(policy::Action::Ignore) => false,
            _ => failures_of_index(pod).counted >= most,
        }
    }

    fn waiting_for_replacement(&self) -> BTreeMap<i32, Arc<Pod>> {
        let failed_indexes = self.failed_indexes.clone().unwrap_or_default();
        let active: Indexes = self.active.iter().filter_map(|pod| completion_index(pod)).collect();
        let is_open = |index: i32| {
            !self.indexes.contains(index)
                && !failed_indexes.contains(index)
                && !active.contains(index)
        };
        let mut last = BTreeMap::<i32, Arc<Pod>>::new();
        for pod in self.new_ends(None, |pod| self.spec.is_failed(pod)) {
            let Some(index) = completion_index(&pod).filter(|index| is_open(*index)) else {
                continue;
            };
            let rank = |pod: &Pod| (failures_of_index(pod).total(), backoff::finished_at(pod));
            if last.get(&index).is_none_or(|known| rank(known) <= rank(&pod)) {
                last.insert(index, pod);
            }
        }
        last
    }

    pub(super) fn ready(&self) -> i32 {
        self.active.iter().filter(|pod| is_ready(pod)).count() as i32
    }
}

/// The stored status; the clock of a job starts when it is first seen not suspended.
fn started(inputs: &Inputs<'_>, spec: &Spec<'_>) -> JobStatus {
    let mut status = inputs.job.status.clone().unwrap_or_default();
    status.uncounted_terminated_pods.get_or_insert_default();
    if status.start_time.is_none() && !spec.suspended {
        status.start_time = Some(time(inputs.now));
    }
    status
}
