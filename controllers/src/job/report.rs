//! What a pass reports: first which pods it counts, then, when these are let go, the counters and the end of the job.

use super::{BURST, Done, View, Work, condition, indexes::completion_index, policy, spec::Spec};
use crate::{
    object::{is_deleting, time, uid},
    pod::phase,
};
use k8s_openapi::{
    api::{
        batch::v1::{JobCondition, JobStatus},
        core::v1::Pod,
    },
    jiff::Timestamp,
};
use std::{collections::HashSet, sync::Arc};

/// What happened to a job, for its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// It was told to pause.
    Suspended,
    /// It was told to go on.
    Resumed,
    /// It succeeded; whether more pods did than were asked for.
    Completed {
        /// More pods succeeded than were asked for.
        too_many: bool,
    },
    /// It failed.
    Failed {
        /// The condition's reason.
        reason: String,
        /// The condition's message.
        message: String,
    },
}

/// A status to store, and what may be done once it is.
#[derive(Clone, Debug)]
pub struct Report {
    /// To be stored before the finalizers go.
    pub status: JobStatus,
    /// The pods whose finalizers may go then.
    pub release: Vec<Arc<Pod>>,
    /// What happened.
    pub news: Vec<News>,
    /// The pods with a finalizer, by UID.
    held: HashSet<String>,
    /// `Complete` or `Failed`, if the job is over as soon as everything is counted.
    end: Option<JobCondition>,
    /// Whether there was more to count than fits into one status.
    more: bool,
    completions: Option<i32>,
}

impl View<'_> {
    /// The status after the work is done.
    pub fn report(&self, work: &Work, done: Done) -> Report {
        let mut report = Report {
            status: self.status.clone(),
            release: Vec::new(),
            news: Vec::new(),
            held: self.held(),
            end: None,
            more: false,
            completions: self.spec.completions,
        };
        let active = self.active.len() as i32 + done.created - done.deleted;
        let ended = self.ending(work, done, active, &mut report);
        report.status.active = positive(active);
        report.status.ready = Some(self.ready() - done.deleted_ready);
        report.status.terminating = Some(self.terminating + done.deleted);
        count_released(&mut report.status, &report.held);
        self.take_in(ended.as_ref(), &mut report);
        if let Some(interim) = ended {
            report.end = Some(condition::announced(&interim, self.inputs.now));
            condition::ensure(&mut report.status, interim);
        }
        report
    }

    fn held(&self) -> HashSet<String> {
        let held = self.inputs.pods.iter().filter(|pod| self.is_held(pod));
        held.map(|pod| uid(&pod.metadata).to_owned()).collect()
    }

    /// The interim condition of a job that is over, and the news of one that is not.
    fn ending(
        &self,
        work: &Work,
        done: Done,
        active: i32,
        report: &mut Report,
    ) -> Option<JobCondition> {
        if let Work::Stop(pods) = work {
            // While pods run on, or may be there unseen, their ends could be missed.
            let all = done.deleted == pods.len() as i32 && self.inputs.settled;
            return self.decided.clone().filter(|_| all);
        }
        let enough = match self.spec.completions {
            None => self.succeeded > 0,
            Some(completions) => self.succeeded >= completions,
        };
        if enough && active == 0 && self.inputs.settled {
            let (reason, text) =
                ("CompletionsReached", "Reached expected number of succeeded pods");
            let type_ = condition::SUCCESS_CRITERIA_MET;
            return Some(condition::new(type_, reason, text, self.inputs.now));
        }
        if *work != Work::Hold {
            note_suspension(&self.spec, self.inputs.now, report);
        }
        None
    }

    /// Counts the pods that ended.
    fn take_in(&self, ended: Option<&JobCondition>, report: &mut Report) {
        let mut pods: Vec<_> = self.inputs.pods.iter().filter(|pod| self.is_held(pod)).collect();
        if self.spec.indexes.is_some() {
            pods.sort_by_key(|pod| completion_index(pod));
        }
        let mut uncounted = report.status.uncounted_terminated_pods.take().unwrap_or_default();
        let mut succeeded = uncounted.succeeded.take().unwrap_or_default();
        let mut failed = uncounted.failed.take().unwrap_or_default();
        let mut indexes = Vec::new();
        let fails_all = ended.is_some_and(|end| end.type_ != condition::SUCCESS_CRITERIA_MET);
        for pod in pods {
            if !self.may_go(pod, ended.is_some()) {
                continue;
            }
            report.release.push(pod.clone());
            let id = uid(&pod.metadata).to_owned();
            if phase(pod) == "Succeeded" && !failed.contains(&id) {
                match (self.spec.indexes, completion_index(pod)) {
                    (Some(_), index) => indexes.extend(index.filter(|index| {
                        self.spec.has_place(pod) && !self.indexes_before.contains(*index)
                    })),
                    (None, _) if !succeeded.contains(&id) => succeeded.push(id),
                    (None, _) => {}
                }
            } else if (self.spec.is_failed(pod) || fails_all)
                && self.spec.has_place(pod)
                && !failed.contains(&id)
                && policy::counts(self.spec.failure_policy, pod)
            {
                failed.push(id);
            }
            if indexes.len() + succeeded.len() + failed.len() >= BURST {
                report.more = true;
                break;
            }
        }
        let full = |list: Vec<String>| Some(list).filter(|list| !list.is_empty());
        (uncounted.succeeded, uncounted.failed) = (full(succeeded), full(failed));
        report.status.uncounted_terminated_pods = Some(uncounted);
        self.report_indexes(&mut report.status);
    }

    fn report_indexes(&self, status: &mut JobStatus) {
        if self.spec.indexes.is_none() {
            return;
        }
        status.succeeded = positive(self.indexes.total());
        status.completed_indexes =
            Some(self.indexes.to_string()).filter(|indexes| !indexes.is_empty());
        status.failed_indexes = self.failed_indexes.as_ref().map(ToString::to_string);
    }

    /// Whether nothing speaks against removing the pod's finalizer once it is counted.
    fn may_go(&self, pod: &Pod, ended: bool) -> bool {
        if is_deleting(&self.inputs.job.metadata) || ended || phase(pod) == "Succeeded" {
            return true;
        }
        let is_replaced = || {
            let replaced = completion_index(pod).and_then(|index| self.replaced.get(&index));
            replaced.is_some_and(|waiting| waiting.metadata.uid == pod.metadata.uid)
        };
        self.spec.is_failed(pod) && !is_replaced()
    }
}

impl Report {
    /// The final status of the pass, `stored` being the status as the server has it now. `released` are the UIDs of the pods
    /// that lost their finalizers; `all` says that this went well for all. Also whether the job is over.
    pub fn settle(
        &mut self,
        stored: &JobStatus,
        released: &HashSet<String>,
        all: bool,
        now: Timestamp,
    ) -> (JobStatus, bool) {
        self.held.retain(|uid| !released.contains(uid));
        let mut status = stored.clone();
        count_released(&mut status, &self.held);
        let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
        let is_counted = uncounted.succeeded.is_none() && uncounted.failed.is_none();
        let is_quiet = status.terminating.unwrap_or(0) == 0;
        let Some(end) = self.end.clone().filter(|_| all && !self.more && is_counted && is_quiet)
        else {
            return (status, false);
        };
        if end.type_ == condition::COMPLETE {
            status.completion_time = Some(time(now));
            let too_many =
                self.completions.is_some_and(|most| status.succeeded.unwrap_or(0) > most);
            self.news.push(News::Completed { too_many });
        } else {
            let reason = end.reason.clone().unwrap_or_default();
            let message = end.message.clone().unwrap_or_default();
            self.news.push(News::Failed { reason, message });
        }
        condition::ensure(&mut status, end);
        (status, true)
    }
}

/// Moves the pods whose finalizers are gone from the lists to the counters.
fn count_released(status: &mut JobStatus, held: &HashSet<String>) {
    let Some(uncounted) = &mut status.uncounted_terminated_pods else { return };
    for (list, counter) in [
        (&mut uncounted.succeeded, &mut status.succeeded),
        (&mut uncounted.failed, &mut status.failed),
    ] {
        let before = list.take().unwrap_or_default();
        let (left, gone): (Vec<_>, Vec<_>) = before.into_iter().partition(|uid| held.contains(uid));
        *counter = positive(counter.unwrap_or(0) + gone.len() as i32);
        *list = Some(left).filter(|left| !left.is_empty());
    }
}

fn note_suspension(spec: &Spec<'_>, now: Timestamp, report: &mut Report) {
    let (status, reason, message, news) = if spec.suspended {
        ("True", "JobSuspended", "Job suspended", News::Suspended)
    } else {
        ("False", "JobResumed", "Job resumed", News::Resumed)
    };
    let mut condition = condition::new(condition::SUSPENDED, reason, message, now);
    condition.status = status.to_owned();
    if condition::ensure(&mut report.status, condition) {
        if !spec.suspended {
            // The deadline counts the time in which the job is continuously active.
            report.status.start_time = Some(time(now));
        }
        report.news.push(news);
    }
}

/// Upstream leaves zero counts out.
fn positive(count: i32) -> Option<i32> {
    (count > 0).then_some(count)
}
