//! A pod that was marked for disruption and then spared is told so, or its owner would take its later end for a disruption.

use crate::{
    object::{ObjectKey, is_deleting, time},
    pod::{condition, is_finished},
    runtime::{Change, Controller, Setup, Store, SyncError, Verdict},
};
use async_trait::async_trait;
use k8s_openapi::{
    api::core::v1::Pod,
    jiff::{SignedDuration, Timestamp},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use std::{sync::Arc, time::Duration};

const DISRUPTION_TARGET: &str = "DisruptionTarget";
const TIMEOUT: SignedDuration = SignedDuration::from_secs(120);

/// How long the mark may still stand; `None` if there is none that must go.
fn time_left(pod: &Pod, now: Timestamp) -> Option<Duration> {
    let mark = condition(pod, DISRUPTION_TARGET).filter(|mark| mark.status == "True")?;
    if is_deleting(&pod.metadata) || is_finished(pod) {
        return None;
    }
    let since = mark.last_transition_time.as_ref()?.0;
    Some(Duration::try_from(TIMEOUT - now.duration_since(since)).unwrap_or_default())
}

pub(super) fn register(setup: &mut Setup) {
    let queue = setup.queue();
    let pods = setup.informer::<Pod>();
    let marked = queue.clone();
    pods.on_change(move |change| {
        let pod = change.object();
        if !matches!(change, Change::Deleted(_)) && time_left(pod, Timestamp::now()).is_some() {
            marked.add(ObjectKey::of(&**pod));
        }
    });
    let controller = StaleMarks { client: setup.client(), pods: pods.store() };
    setup.controller("stale-disruption-target", queue, controller);
}

struct StaleMarks {
    client: Client,
    pods: Arc<Store<Pod>>,
}

#[async_trait]
impl Controller for StaleMarks {
    fn keys(&self) -> Vec<ObjectKey> {
        let now = Timestamp::now();
        let marked = self.pods.list().into_iter().filter(|pod| time_left(pod, now).is_some());
        marked.map(|pod| ObjectKey::of(&*pod)).collect()
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Verdict, SyncError> {
        let Some(pod) = self.pods.get(key) else { return Ok(Verdict::Done) };
        let now = Timestamp::now();
        match time_left(&pod, now) {
            None => return Ok(Verdict::Done),
            Some(left) if !left.is_zero() => return Ok(Verdict::After(left)),
            Some(_) => {}
        }
        let change = json!({
            "metadata": { "uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version },
            "status": { "conditions": [{
                "type": DISRUPTION_TARGET, "status": "False", "lastTransitionTime": time(now),
            }]},
        });
        let api = Api::<Pod>::namespaced(self.client.clone(), &key.namespace);
        match api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(change)).await
        {
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            outcome => drop(outcome?),
        }
        Ok(Verdict::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::tests::{at, running};
    use k8s_openapi::api::core::v1::PodCondition;

    #[test]
    fn mark_of_a_spared_pod_goes_after_two_minutes() {
        let mut pod = running("p", Some(1));
        assert_eq!(time_left(&pod, at(10)), None);
        pod.status.as_mut().unwrap().conditions.as_mut().unwrap().push(PodCondition {
            type_: DISRUPTION_TARGET.into(),
            status: "True".into(),
            last_transition_time: Some(time(at(10))),
            ..Default::default()
        });
        assert_eq!(time_left(&pod, at(50)), Some(Duration::from_secs(80)));
        assert_eq!(time_left(&pod, at(500)), Some(Duration::ZERO));
        pod.metadata.deletion_timestamp = Some(time(at(40)));
        assert_eq!(time_left(&pod, at(500)), None, "it goes after all");
    }
}
