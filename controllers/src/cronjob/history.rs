//! What has become of the Jobs that were started: the list of active ones, and how many ended ones are kept.

use super::{Inputs, Outcome, news};
use crate::{
    object::{is_deleting, uid},
    runtime::EventType,
};
use k8s_openapi::api::batch::v1::{CronJobStatus, Job};
use kube::ResourceExt;
use std::sync::Arc;

/// How a Job has ended, if it has.
pub(super) fn ended(job: &Job) -> Option<&str> {
    let mut conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ended = conditions.find(|condition| {
        matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True"
    });
    ended.map(|condition| condition.type_.as_str())
}

fn is_active(status: &CronJobStatus, uid: &str) -> bool {
    status.active.iter().flatten().any(|job| job.uid.as_deref() == Some(uid))
}

pub(super) fn drop_active(status: &mut CronJobStatus, uid: &str) {
    let active = status.active.take().unwrap_or_default();
    let others: Vec<_> = active.into_iter().filter(|job| job.uid.as_deref() != Some(uid)).collect();
    status.active = Some(others).filter(|others| !others.is_empty());
}

/// Brings the list of active Jobs and the time of the last success up to date.
pub(super) fn follow(inputs: &Inputs<'_>, outcome: &mut Outcome) {
    for job in inputs.jobs {
        let id = uid(&job.metadata);
        match (is_active(&outcome.status, id), ended(job)) {
            (true, Some(how)) => {
                drop_active(&mut outcome.status, id);
                let text = format!("Saw completed job: {}, condition: {how}", job.name_any());
                outcome.news.push(news(EventType::Normal, "SawCompletedJob", text));
            }
            (false, None) if !is_deleting(&job.metadata) => {
                let text = format!(
                    "Saw a job that the controller did not create or forgot: {}",
                    job.name_any()
                );
                outcome.news.push(news(EventType::Warning, "UnexpectedJob", text));
            }
            _ => {}
        }
        note_success(job, &mut outcome.status);
    }
    for job in outcome.status.active.clone().unwrap_or_default() {
        let id = job.uid.unwrap_or_default();
        if inputs.gone.contains(&id) {
            drop_active(&mut outcome.status, &id);
            let text = format!("Active job went missing: {}", job.name.unwrap_or_default());
            outcome.news.push(news(EventType::Normal, "MissingJob", text));
        }
    }
}

fn note_success(job: &Job, status: &mut CronJobStatus) {
    if ended(job) != Some("Complete") {
        return;
    }
    let at = job.status.as_ref().and_then(|status| status.completion_time.clone());
    let last = status.last_successful_time.as_ref();
    if let Some(at) = at.filter(|at| last.is_none_or(|last| at.0 > last.0)) {
        status.last_successful_time = Some(at);
    }
}

/// Picks the oldest ended Jobs beyond the limits.
pub(super) fn clean_up(inputs: &Inputs<'_>, outcome: &mut Outcome) {
    let spec = &inputs.cron.spec;
    for (how, limit) in [
        ("Complete", spec.successful_jobs_history_limit),
        ("Failed", spec.failed_jobs_history_limit),
    ] {
        let Some(limit) = limit else { continue };
        let mut jobs: Vec<Arc<Job>> = inputs
            .jobs
            .iter()
            .filter(|job| ended(job) == Some(how) && !is_deleting(&job.metadata))
            .cloned()
            .collect();
        let surplus = jobs.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        jobs.sort_by_key(|job| {
            let start = job.status.as_ref().and_then(|status| status.start_time.as_ref());
            (start.is_none(), start.map(|time| time.0), job.name_any())
        });
        outcome.delete.extend(jobs.into_iter().take(surplus));
    }
}
