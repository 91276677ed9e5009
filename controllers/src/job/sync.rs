//! The I/O of the job controller.

use super::{
    Backoff, Done, FINALIZER, Inputs, News, Report, Slot, View, Work,
    finalizers::{self, Releases},
    has_finalizer, is_finished, is_managed_elsewhere, orphans, template,
};
use crate::{
    children::{
        PodControl, Terms, check_cache, claim_children_with, follow_pods, forget_deleted,
        is_namespace_going, slow_start,
    },
    object::{self, ObjectKey, controller_of_kind, uid},
    pod::is_ready,
    runtime::{
        Change, Controller, Informer, Recorder, Setup, Store, SyncError, Term, Verdict, Written,
    },
};
use async_trait::async_trait;
use futures::{StreamExt, stream};
use k8s_openapi::{
    api::{
        batch::v1::{Job, JobStatus},
        core::v1::Pod,
    },
    jiff::Timestamp,
};
use kube::{Api, Client, ResourceExt, api::PostParams, core::Selector};
use parking_lot::Mutex;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// Requests about the pods of one job at a time.
const CONCURRENCY: usize = 50;

/// Registers the controller.
pub fn register(setup: &mut Setup) {
    let queue = setup.queue();
    let jobs = setup.informer::<Job>();
    let pods = setup.informer::<Pod>();
    let control = PodControl::new(setup.client(), setup.recorder("job-controller"));
    let releases = Arc::<Releases>::default();
    jobs.enqueue(&queue);
    forget_deleted(&jobs, control.expectations.clone());
    let selector = |job: &Job| selector_of(job).ok().flatten();
    follow_pods(&pods, &jobs.store(), &queue, control.expectations.clone(), selector);
    settle_releases(&pods, releases.clone());
    orphans::register(setup, &jobs, &pods);
    let controller = JobController {
        client: setup.client(),
        recorder: setup.recorder("job-controller"),
        term: setup.term(),
        jobs: jobs.store(),
        pods: pods.store(),
        control,
        releases,
        written: Written::default(),
        backoffs: Mutex::default(),
    };
    setup.controller("job", queue, controller);
}

fn selector_of(job: &Job) -> Result<Option<Selector>, SyncError> {
    Ok(object::selector(job.spec.as_ref().and_then(|spec| spec.selector.as_ref()))?)
}

fn settle_releases(pods: &Informer<Pod>, releases: Arc<Releases>) {
    pods.on_change(move |change| {
        let pod = change.object();
        let Some(owner) = controller_of_kind::<Job>(&pod.metadata) else { return };
        if matches!(change, Change::Deleted(_)) || !has_finalizer(pod) {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            releases.settle(&ObjectKey::new(namespace, &owner.name), uid(&pod.metadata));
        }
    });
}

struct JobController {
    client: Client,
    recorder: Recorder,
    term: Term,
    jobs: Arc<Store<Job>>,
    pods: Arc<Store<Pod>>,
    control: PodControl,
    releases: Arc<Releases>,
    written: Written,
    backoffs: Mutex<HashMap<ObjectKey, Backoff>>,
}

#[async_trait]
impl Controller for JobController {
    fn workers(&self) -> usize {
        8
    }

    fn keys(&self) -> Vec<ObjectKey> {
        self.jobs.keys()
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Verdict, SyncError> {
        let job = self.jobs.get(key);
        let Some(job) = job.filter(|job| !is_finished(job) && !is_managed_elsewhere(job)) else {
            self.forget(key);
            return Ok(Verdict::Done);
        };
        if !self.is_understood(&job) {
            return Ok(Verdict::Done);
        }
        if !self.written.is_shown(&*job) {
            return Err(SyncError::NotYet("the cache is behind".to_owned()));
        }
        let Some(selector) = selector_of(&job)? else { return Ok(Verdict::Done) };
        // Asked before the pods are read: what is seen afterwards is at least as new.
        let settled = self.control.expectations.satisfied(key);
        let released = self.releases.of(key);
        let terms = Terms { finalizer: Some(FINALIZER), ..Terms::default() };
        let pods = claim_children_with(&self.client, &*job, &selector, &self.pods, &terms).await?;
        let inputs = Inputs {
            job: &job,
            pods: &pods,
            released: &released,
            settled,
            backoff: self.backoffs.lock().get(key).copied().unwrap_or_default(),
            now: Timestamp::now(),
        };
        let Some(view) = View::new(&inputs) else { return Ok(Verdict::Done) };
        self.pass(key, &selector, &view).await
    }
}

impl JobController {
    fn forget(&self, key: &ObjectKey) {
        self.backoffs.lock().remove(key);
        if self.jobs.get(key).is_none() {
            self.releases.forget(key);
            self.written.forget(key);
        }
    }

    fn is_understood(&self, job: &Job) -> bool {
        let mode = job.spec.as_ref().and_then(|spec| spec.completion_mode.as_deref());
        let known = matches!(mode, None | Some("NonIndexed" | "Indexed"));
        if !known {
            let text = "Skipped Job sync because completion mode is unknown";
            self.recorder.warning(job, "UnknownCompletionMode", text);
        }
        known
    }

    async fn pass(
        &self,
        key: &ObjectKey,
        selector: &Selector,
        view: &View<'_>,
    ) -> Result<Verdict, SyncError> {
        let job = view.job();
        let work = view.work();
        if matches!(work, Work::Create(_) | Work::Remove(_)) {
            self.check_view(job, selector, view.pods()).await?;
        }
        let (done, failure) = self.perform(job, &work).await;
        let report = view.report(&work, done);
        self.track(key, job, report, view.backoff).await?;
        if let Some(error) = failure {
            return Err(error.into());
        }
        let wait = match work {
            Work::Wait(wait) => Some(wait),
            _ => None,
        };
        Ok(Verdict::after(wait.into_iter().chain(view.next_deadline()).min()))
    }

    /// In a young term, what the leader before us did may not be in the cache.
    async fn check_view(
        &self,
        job: &Job,
        selector: &Selector,
        pods: &[Arc<Pod>],
    ) -> Result<(), SyncError> {
        if !self.term.is_young() {
            return Ok(());
        }
        check_cache(&self.client, &self.term, &job.metadata, selector, pods).await?;
        let live = self.api(job).get_metadata(&job.name_any()).await?;
        if live.metadata.resource_version != job.metadata.resource_version {
            return Err(SyncError::NotYet("the cache is behind".to_owned()));
        }
        Ok(())
    }

    fn api(&self, job: &Job) -> Api<Job> {
        Api::namespaced(self.client.clone(), &job.namespace().unwrap_or_default())
    }

    fn pod_api(&self, job: &Job) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &job.namespace().unwrap_or_default())
    }

    async fn perform(&self, job: &Job, work: &Work) -> (Done, Option<kube::Error>) {
        match work {
            Work::Create(slots) => self.create(job, slots).await,
            Work::Remove(pods) => self.delete(job, pods, true).await,
            Work::Stop(pods) => self.delete(job, pods, false).await,
            Work::Hold | Work::Keep | Work::Wait(_) => (Done::default(), None),
        }
    }

    async fn create(&self, job: &Job, slots: &[Slot]) -> (Done, Option<kube::Error>) {
        let created = Mutex::new(0);
        let pods: Vec<_> = slots.iter().filter_map(|slot| template::pod(job, slot)).collect();
        let outcome = slow_start(pods, |pod| {
            let created = &created;
            async move {
                self.control.create(job, &pod).await?;
                *created.lock() += 1;
                Ok(())
            }
        })
        .await;
        let done = Done { created: *created.lock(), ..Done::default() };
        (done, outcome.err().filter(|error| !is_namespace_going(error)))
    }

    /// Pods that shall not count lose their finalizer first.
    async fn delete(
        &self,
        job: &Job,
        pods: &[Arc<Pod>],
        uncounted: bool,
    ) -> (Done, Option<kube::Error>) {
        let api = self.pod_api(job);
        let one = |pod: &Arc<Pod>| {
            let (api, pod) = (&api, pod.clone());
            async move {
                if uncounted && has_finalizer(&pod) {
                    finalizers::remove(api, &pod).await?;
                }
                self.control.delete(job, &pod).await?;
                Ok::<_, kube::Error>(is_ready(&pod))
            }
        };
        let outcomes: Vec<_> =
            stream::iter(pods.iter().map(one)).buffer_unordered(CONCURRENCY).collect().await;
        let mut done = Done::default();
        let mut failure = None;
        for outcome in outcomes {
            match outcome {
                Ok(ready) => {
                    done.deleted += 1;
                    done.deleted_ready += i32::from(ready);
                }
                Err(error) => failure = Some(error),
            }
        }
        (done, failure)
    }

    /// Stores which pods are counted, lets them go, and stores the counters.
    async fn track(
        &self,
        key: &ObjectKey,
        job: &Job,
        mut report: Report,
        backoff: Backoff,
    ) -> Result<(), SyncError> {
        let stored = self.store(job, report.status.clone()).await?;
        self.backoffs.lock().insert(key.clone(), backoff);
        let (released, failure) = self.release(key, job, &report.release).await;
        let status = stored.status.clone().unwrap_or_default();
        let (status, over) = report.settle(&status, &released, failure.is_none(), Timestamp::now());
        self.store(&stored, status).await?;
        report.news.iter().for_each(|news| self.tell(job, news));
        if over {
            self.backoffs.lock().remove(key);
        }
        failure.map_or(Ok(()), |error| Err(error.into()))
    }

    /// The job as the server has it then.
    async fn store(&self, job: &Job, status: JobStatus) -> Result<Job, SyncError> {
        let changed = Job { status: Some(status), ..job.clone() };
        if changed.status == job.status {
            return Ok(changed);
        }
        let api = self.api(job);
        let stored = api.replace_status(&job.name_any(), &PostParams::default(), &changed).await?;
        self.written.note(&stored);
        Ok(stored)
    }

    async fn release(
        &self,
        key: &ObjectKey,
        job: &Job,
        pods: &[Arc<Pod>],
    ) -> (HashSet<String>, Option<kube::Error>) {
        let api = self.pod_api(job);
        let one = |pod: &Arc<Pod>| {
            let (api, pod) = (&api, pod.clone());
            async move {
                let uid = uid(&pod.metadata).to_owned();
                self.releases.expect(key, &uid);
                let outcome = finalizers::remove(api, &pod).await;
                if outcome.is_err() {
                    self.releases.settle(key, &uid);
                }
                outcome.map(|()| uid)
            }
        };
        let mut released = HashSet::new();
        let mut failure = None;
        let mut outcomes = stream::iter(pods.iter().map(one)).buffer_unordered(CONCURRENCY);
        while let Some(outcome) = outcomes.next().await {
            match outcome {
                Ok(uid) => drop(released.insert(uid)),
                Err(error) => failure = Some(error),
            }
        }
        (released, failure)
    }

    fn tell(&self, job: &Job, news: &News) {
        let recorder = &self.recorder;
        match news {
            News::Suspended => recorder.normal(job, "Suspended", "Job suspended"),
            News::Resumed => recorder.normal(job, "Resumed", "Job resumed"),
            News::Completed { too_many } => {
                if *too_many {
                    let text = "Too many succeeded pods running after completion count reached";
                    recorder.warning(job, "TooManySucceededPods", text);
                }
                recorder.normal(job, "Completed", "Job completed");
            }
            News::Failed { reason, message } => recorder.warning(job, failed(reason), message),
        }
    }
}

/// The reasons of [`super::condition::FAILED`], as events know them.
fn failed(reason: &str) -> &'static str {
    const REASONS: &[&str] = &[
        "PodFailurePolicy",
        "BackoffLimitExceeded",
        "DeadlineExceeded",
        "MaxFailedIndexesExceeded",
        "FailedIndexes",
    ];
    REASONS.iter().find(|known| **known == reason).copied().unwrap_or("Failed")
}
