//! The I/O of the CronJob controller.

use super::{Inputs, Start, history, reconcile, started};
use crate::{
    children::{delete_exactly, is_namespace_going, message},
    object::{ObjectKey, controller_of, uid},
    runtime::{Controller, Recorder, Setup, Store, SyncError, Verdict, Written},
};
use async_trait::async_trait;
use k8s_openapi::{
    api::{
        batch::v1::{CronJob, CronJobStatus, Job},
        core::v1::ObjectReference,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    jiff::Timestamp,
};
use kube::{Api, Client, ResourceExt, api::PostParams};
use std::{collections::BTreeSet, sync::Arc};

/// Registers the controller.
pub fn register(setup: &mut Setup) {
    let queue = setup.queue();
    let crons = setup.informer::<CronJob>();
    let jobs = setup.informer::<Job>();
    crons.enqueue(&queue);
    jobs.enqueue_controller::<CronJob>(&queue);
    let controller = CronJobController {
        client: setup.client(),
        recorder: setup.recorder("cronjob-controller"),
        crons: crons.store(),
        jobs: jobs.store(),
        written: Written::default(),
    };
    setup.controller("cronjob", queue, controller);
}

struct CronJobController {
    client: Client,
    recorder: Recorder,
    crons: Arc<Store<CronJob>>,
    jobs: Arc<Store<Job>>,
    written: Written,
}

#[async_trait]
impl Controller for CronJobController {
    fn keys(&self) -> Vec<ObjectKey> {
        self.crons.keys()
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Verdict, SyncError> {
        let Some(cron) = self.crons.get(key) else {
            self.written.forget(key);
            return Ok(Verdict::Done);
        };
        if !self.written.is_shown(&*cron) {
            return Err(SyncError::NotYet("the cache is behind".to_owned()));
        }
        let cron_uid = uid(&cron.metadata);
        let mut jobs = self.jobs.owned_by(cron_uid);
        jobs.retain(|job| controller_of(&job.metadata).is_some_and(|owner| owner.uid == cron_uid));
        let gone = self.gone(&cron, &jobs).await?;
        let inputs = Inputs { cron: &cron, jobs: &jobs, gone: &gone, now: Timestamp::now() };
        let outcome = reconcile(&inputs);
        for news in &outcome.news {
            self.recorder.record(&*cron, news.type_, news.reason, news.message.clone());
        }
        let mut status = outcome.status;
        for job in &outcome.delete {
            self.delete(&cron, &job.metadata, &mut status).await?;
        }
        let failure = match &outcome.start {
            Some(start) => self.start(&cron, start, &mut status).await.err(),
            None => None,
        };
        self.report(&cron, status).await?;
        failure.map_or(Ok(Verdict::after(outcome.again)), Err)
    }
}

impl CronJobController {
    fn job_api(&self, cron: &CronJob) -> Api<Job> {
        Api::namespaced(self.client.clone(), &cron.namespace().unwrap_or_default())
    }

    /// Active Jobs that the cache does not show, and the server does not have.
    async fn gone(&self, cron: &CronJob, jobs: &[Arc<Job>]) -> Result<BTreeSet<String>, SyncError> {
        let api = self.job_api(cron);
        let mut gone = BTreeSet::new();
        let active = cron.status.iter().flat_map(|status| status.active.iter().flatten());
        for reference in active {
            let id = reference.uid.as_deref().unwrap_or_default();
            if jobs.iter().any(|job| uid(&job.metadata) == id) {
                continue;
            }
            let live = api.get_opt(reference.name.as_deref().unwrap_or_default()).await?;
            if live.is_none_or(|job| uid(&job.metadata) != id) {
                gone.insert(id.to_owned());
            }
        }
        Ok(gone)
    }

    async fn start(
        &self,
        cron: &CronJob,
        start: &Start,
        status: &mut CronJobStatus,
    ) -> Result<(), SyncError> {
        for replaced in &start.replaces {
            self.delete(cron, &meta_of(replaced), status).await?;
        }
        let api = self.job_api(cron);
        let name = start.job.name_any();
        match api.create(&PostParams::default(), &start.job).await {
            Ok(job) => {
                self.recorder.normal(cron, "SuccessfulCreate", format!("Created job {name}"));
                started(status, &job, start.at);
                Ok(())
            }
            Err(error) if is_namespace_going(&error) => Ok(()),
            Err(kube::Error::Api(answer)) if answer.is_already_exists() => {
                self.take_over(cron, start, status).await
            }
            Err(error) => {
                let text = format!("Error creating job: {}", message(&error));
                self.recorder.warning(cron, "FailedCreate", text);
                Err(error.into())
            }
        }
    }

    /// The Job of this time is there already: we made it and could not note it, or somebody took its name.
    async fn take_over(
        &self,
        cron: &CronJob,
        start: &Start,
        status: &mut CronJobStatus,
    ) -> Result<(), SyncError> {
        let name = start.job.name_any();
        let Some(job) = self.job_api(cron).get_opt(&name).await? else {
            return Err(SyncError::NotYet(format!("job {name} has just gone")));
        };
        let is_ours =
            controller_of(&job.metadata).is_some_and(|owner| owner.uid == uid(&cron.metadata));
        if !is_ours {
            let text = format!("Error creating job: jobs.batch \"{name}\" already exists");
            self.recorder.warning(cron, "FailedCreate", text);
            return Err(SyncError::NotYet(format!("the name {name} is taken")));
        }
        started(status, &job, start.at);
        Ok(())
    }

    async fn delete(
        &self,
        cron: &CronJob,
        job: &ObjectMeta,
        status: &mut CronJobStatus,
    ) -> Result<(), SyncError> {
        let name = job.name.as_deref().unwrap_or_default();
        match delete_exactly(&self.job_api(cron), job).await {
            Ok(was_there) => {
                history::drop_active(status, uid(job));
                if was_there {
                    self.recorder.normal(cron, "SuccessfulDelete", format!("Deleted job {name}"));
                }
                Ok(())
            }
            Err(error) => {
                let text = format!("Deleted job: {}", message(&error));
                self.recorder.warning(cron, "FailedDelete", text);
                Err(error.into())
            }
        }
    }

    async fn report(&self, cron: &CronJob, status: CronJobStatus) -> Result<(), SyncError> {
        if cron.status.clone().unwrap_or_default() == status {
            return Ok(());
        }
        let changed = CronJob { status: Some(status), ..cron.clone() };
        let namespace = cron.namespace().unwrap_or_default();
        let api = Api::<CronJob>::namespaced(self.client.clone(), &namespace);
        let stored = api.replace_status(&cron.name_any(), &PostParams::default(), &changed).await?;
        self.written.note(&stored);
        Ok(())
    }
}

fn meta_of(reference: &ObjectReference) -> ObjectMeta {
    ObjectMeta { name: reference.name.clone(), uid: reference.uid.clone(), ..Default::default() }
}
