//! CronJobs: a Job at each time of a schedule.
//!
//! [`reconcile`] compares the schedule with what the status says was started last, and the Jobs with the list of active ones.
//! Only the latest time that was missed is made up for. The name of a Job is made of the CronJob's name and the minute it
//! is for, so that a time that was started already, by whatever member, is not started again.

mod history;
mod sync;
#[cfg(test)]
mod tests;

use crate::{
    object::{controller_reference, created_at, is_deleting, time, uid},
    runtime::EventType,
};
use k8s_openapi::{
    api::{
        batch::v1::{CronJob, CronJobStatus, Job},
        core::v1::ObjectReference,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    jiff::{SignedDuration, Timestamp, tz::TimeZone},
};
use kube::ResourceExt;
use pintle_machinery::schedule::Schedule;
use std::{collections::BTreeSet, sync::Arc, time::Duration};

pub use sync::register;

const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// More missed times than this are a sign of trouble that its owner should hear of.
const MISSED_MAX: usize = 100;
/// A timer that fires a little early would find nothing to do.
const SLACK: Duration = Duration::from_millis(100);

/// What [`reconcile`] looks at.
pub struct Inputs<'a> {
    /// The CronJob.
    pub cron: &'a CronJob,
    /// The Jobs that it controls.
    pub jobs: &'a [Arc<Job>],
    /// UIDs of active Jobs that certainly are no more.
    pub gone: &'a BTreeSet<String>,
    /// The time.
    pub now: Timestamp,
}

/// What to do, in this order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// What to tell in events.
    pub news: Vec<News>,
    /// A Job to start.
    pub start: Option<Start>,
    /// Old Jobs to delete.
    pub delete: Vec<Arc<Job>>,
    /// The status, without what comes of the start.
    pub status: CronJobStatus,
    /// When to look again.
    pub again: Option<Duration>,
}

/// A Job to start.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    /// The Job.
    pub job: Job,
    /// The time that it is for.
    pub at: Timestamp,
    /// Jobs that have to go first.
    pub replaces: Vec<ObjectReference>,
}

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// How bad it is.
    pub type_: EventType,
    /// The reason.
    pub reason: &'static str,
    /// The message.
    pub message: String,
}

fn news(type_: EventType, reason: &'static str, message: impl Into<String>) -> News {
    News { type_, reason, message: message.into() }
}

/// Decides what to do about one CronJob.
pub fn reconcile(inputs: &Inputs<'_>) -> Outcome {
    let mut outcome =
        Outcome { status: inputs.cron.status.clone().unwrap_or_default(), ..Outcome::default() };
    history::follow(inputs, &mut outcome);
    history::clean_up(inputs, &mut outcome);
    if !is_deleting(&inputs.cron.metadata) && inputs.cron.spec.suspend != Some(true) {
        match Plan::new(inputs.cron) {
            Ok(plan) => plan.run(inputs, &mut outcome),
            Err(problem) => outcome.news.push(problem),
        }
    }
    outcome
}

struct Plan {
    schedule: Schedule,
    zone: TimeZone,
}

impl Plan {
    fn new(cron: &CronJob) -> Result<Self, News> {
        let warning = |reason, message| news(EventType::Warning, reason, message);
        let zone = match cron.spec.time_zone.as_deref() {
            None => TimeZone::UTC,
            Some(name) => TimeZone::get(name).map_err(|_| {
                let text = format!("invalid timeZone: \"{name}\": unknown time zone {name}");
                warning("UnknownTimeZone", text)
            })?,
        };
        let text = &cron.spec.schedule;
        let schedule = Schedule::parse(text).map_err(|error| {
            warning("UnparseableSchedule", format!("unparseable schedule: \"{text}\" : {error}"))
        })?;
        Ok(Self { schedule, zone })
    }

    fn run(&self, inputs: &Inputs<'_>, outcome: &mut Outcome) {
        let Inputs { cron, now, .. } = *inputs;
        let next = self.schedule.next(now, &self.zone);
        let wait = next.and_then(|next| Duration::try_from(next.duration_since(now)).ok());
        outcome.again = wait.map(|wait| wait + SLACK);
        let since = self.since(cron, now);
        if let Some(at) = self.schedule.latest(since, now, &self.zone) {
            self.complain_of_many(inputs, since, outcome);
            self.start(inputs, at, outcome);
        }
    }

    /// From when on a missed time is made up for.
    fn since(&self, cron: &CronJob, now: Timestamp) -> Timestamp {
        let status = cron.status.as_ref();
        let last = status.and_then(|status| status.last_schedule_time.as_ref()).map(|time| time.0);
        last.or_else(|| created_at(&cron.metadata)).unwrap_or(now)
    }

    fn complain_of_many(&self, inputs: &Inputs<'_>, since: Timestamp, outcome: &mut Outcome) {
        let now = inputs.now;
        let since = earliest(inputs.cron, now).map_or(since, |earliest| since.max(earliest));
        let step = |time: &Timestamp| self.schedule.next(*time, &self.zone);
        let missed = std::iter::successors(step(&since), step).take_while(|time| *time <= now);
        if missed.take(MISSED_MAX + 1).count() > MISSED_MAX {
            let text = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            outcome.news.push(news(EventType::Warning, "TooManyMissedTimes", text));
        }
    }

    fn start(&self, inputs: &Inputs<'_>, at: Timestamp, outcome: &mut Outcome) {
        let Inputs { cron, now, .. } = *inputs;
        if earliest(cron, now).is_some_and(|earliest| at < earliest) {
            let text = format!("Missed scheduled time to start a job: {}", rfc1123(at));
            return outcome.news.push(news(EventType::Warning, "MissSchedule", text));
        }
        let active = outcome.status.active.clone().unwrap_or_default();
        let name = job_name(cron, at);
        if active.iter().any(|job| job.name.as_ref() == Some(&name)) {
            return;
        }
        let policy = cron.spec.concurrency_policy.as_deref();
        if policy == Some("Forbid") && !active.is_empty() {
            let text = "Not starting job because prior execution is running and concurrency policy is Forbid";
            return outcome.news.push(news(EventType::Normal, "JobAlreadyActive", text));
        }
        let replaces = if policy == Some("Replace") { active } else { Vec::new() };
        outcome.start = Some(Start { job: self.job(cron, name, at), at, replaces });
    }

    fn job(&self, cron: &CronJob, name: String, at: Timestamp) -> Job {
        let template = &cron.spec.job_template;
        let meta = template.metadata.clone().unwrap_or_default();
        let mut annotations = meta.annotations.unwrap_or_default();
        let local = at.to_zoned(self.zone.clone());
        let offset = if local.offset().seconds() == 0 { "Z" } else { "%:z" };
        let stamp = local.strftime(&format!("%Y-%m-%dT%H:%M:%S{offset}")).to_string();
        annotations.insert(SCHEDULED_AT.to_owned(), stamp);
        Job {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: cron.namespace(),
                labels: meta.labels,
                annotations: Some(annotations),
                owner_references: Some(vec![controller_reference(cron)]),
                ..Default::default()
            },
            spec: template.spec.clone(),
            status: None,
        }
    }
}

/// What was due before this time is too late to be started now.
fn earliest(cron: &CronJob, now: Timestamp) -> Option<Timestamp> {
    let deadline = SignedDuration::from_secs(cron.spec.starting_deadline_seconds?);
    now.checked_sub(deadline).ok()
}

/// The name of the Job for a time: times of one minute are one.
fn job_name(cron: &CronJob, at: Timestamp) -> String {
    format!("{}-{}", cron.name_any(), at.as_second() / 60)
}

/// How upstream writes the time in its message.
fn rfc1123(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S %z").to_string()
}

/// The entry of a Job in the list of active ones.
fn reference(job: &Job) -> ObjectReference {
    ObjectReference {
        api_version: Some("batch/v1".to_owned()),
        kind: Some("Job".to_owned()),
        namespace: job.namespace(),
        name: Some(job.name_any()),
        uid: Some(uid(&job.metadata).to_owned()),
        resource_version: job.resource_version(),
        ..Default::default()
    }
}

/// Notes that the Job of `at` was started (and may have ended since, if somebody else did it).
fn started(status: &mut CronJobStatus, job: &Job, at: Timestamp) {
    if history::ended(job).is_none() {
        status.active.get_or_insert_default().push(reference(job));
    }
    status.last_schedule_time = Some(time(at));
}
