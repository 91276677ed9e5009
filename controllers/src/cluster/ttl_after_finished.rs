//! TTL after finished: deletes jobs a while after they have ended, if they say so.

use crate::{
    object::{ObjectKey, is_deleting},
    runtime::{Controller, Setup, Store, SyncError, Verdict},
};
use async_trait::async_trait;
use k8s_openapi::{api::batch::v1::Job, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{DeleteParams, Preconditions, PropagationPolicy},
};
use std::{sync::Arc, time::Duration};

/// How long the job may still stay; `None` if for ever.
fn time_left(job: &Job, now: Timestamp) -> Option<Duration> {
    let ttl = job.spec.as_ref()?.ttl_seconds_after_finished?;
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let ended = conditions
        .iter()
        .find(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True")?;
    let since = ended.last_transition_time.as_ref()?.0;
    let been = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    Some(Duration::from_secs(u64::try_from(ttl).unwrap_or(0)).saturating_sub(been))
}

/// Registers the controller.
pub(super) fn register(setup: &mut Setup) {
    let queue = setup.queue();
    let jobs = setup.informer::<Job>();
    jobs.enqueue(&queue);
    let controller = TtlAfterFinished { client: setup.client(), jobs: jobs.store() };
    setup.controller("ttl-after-finished", queue, controller);
}

struct TtlAfterFinished {
    client: Client,
    jobs: Arc<Store<Job>>,
}

#[async_trait]
impl Controller for TtlAfterFinished {
    fn keys(&self) -> Vec<ObjectKey> {
        self.jobs.keys()
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Verdict, SyncError> {
        let Some(job) = self.jobs.get(key) else { return Ok(Verdict::Done) };
        if is_deleting(&job.metadata) {
            return Ok(Verdict::Done);
        }
        match time_left(&job, Timestamp::now()) {
            None => return Ok(Verdict::Done),
            Some(left) if !left.is_zero() => return Ok(Verdict::After(left)),
            Some(_) => {}
        }
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Foreground),
            // A longer time may have been set meanwhile.
            preconditions: Some(Preconditions {
                uid: job.metadata.uid.clone(),
                resource_version: job.metadata.resource_version.clone(),
            }),
            ..DeleteParams::default()
        };
        let api = Api::<Job>::namespaced(self.client.clone(), &key.namespace);
        match api.delete(&key.name, &params).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            outcome => drop(outcome?),
        }
        Ok(Verdict::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn time_counts_from_the_end_of_the_job() {
        let now = Timestamp::from_second(1000).unwrap();
        let job = |ttl: Value, condition: &str, status: &str| -> Job {
            serde_json::from_value(json!({
                "spec": {"ttlSecondsAfterFinished": ttl, "template": {}},
                "status": {"conditions": [
                    {"type": condition, "status": status, "lastTransitionTime": "1970-01-01T00:16:00Z"}]},
            }))
            .unwrap()
        };
        let cases = [
            (job(Value::Null, "Complete", "True"), None),
            (job(json!(100), "Complete", "True"), Some(60)),
            (job(json!(100), "Failed", "True"), Some(60)),
            (job(json!(10), "Complete", "True"), Some(0)),
            (job(json!(0), "Complete", "True"), Some(0)),
            (job(json!(100), "Complete", "False"), None),
            (job(json!(100), "Suspended", "True"), None),
        ];
        for (job, expected) in cases {
            assert_eq!(time_left(&job, now), expected.map(Duration::from_secs), "{job:?}");
        }
    }
}
