//! How long a job waits before it replaces a failed pod: 10 s, doubling with each failure since the last success, up to
//! ten minutes. A job with `backoffLimitPerIndex` counts for each index apart.

use crate::{object::created_at, pod::condition};
use k8s_openapi::{
    api::core::v1::{ContainerStatus, Pod},
    jiff::{SignedDuration, Timestamp},
};
use std::{collections::HashSet, sync::Arc, time::Duration};

const FIRST: Duration = Duration::from_secs(10);
const MAX: Duration = Duration::from_secs(600);

/// The failures since the last success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
    last: Option<Timestamp>,
}

impl Backoff {
    /// The record after these pods have ended, too.
    pub(super) fn after(self, succeeded: &[Arc<Pod>], failed: &[Arc<Pod>]) -> Self {
        let success = succeeded.iter().map(|pod| finished_at(pod)).max();
        let before = if success.is_some() { Self::default() } else { self };
        let later = |time: &Timestamp| success.is_none_or(|success| *time > success);
        let times: Vec<_> = failed.iter().map(|pod| finished_at(pod)).filter(later).collect();
        Self {
            failures: before.failures.saturating_add(times.len() as u32),
            last: times.into_iter().max().or(before.last),
        }
    }

    /// How long no new pod may be made.
    pub(super) fn remaining(self, now: Timestamp) -> Duration {
        self.last.map_or(Duration::ZERO, |last| remaining(self.failures, last, now))
    }
}

/// How long after its `failures`th failure, at `last`, something is not tried again.
pub(super) fn remaining(failures: u32, last: Timestamp, now: Timestamp) -> Duration {
    if failures == 0 {
        return Duration::ZERO;
    }
    let wait = FIRST.saturating_mul(1u32.checked_shl(failures - 1).unwrap_or(u32::MAX)).min(MAX);
    let been = Duration::try_from(now.duration_since(last)).unwrap_or_default();
    wait.saturating_sub(been)
}

/// When a pod ended, as well as can be told: its containers' end, or since when it is not ready, or its deletion.
pub(super) fn finished_at(pod: &Pod) -> Timestamp {
    let unready = || {
        let ready = condition(pod, "Ready").filter(|condition| condition.status == "False")?;
        ready.last_transition_time.as_ref().map(|time| time.0)
    };
    let deleted = || {
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
        Some(pod.metadata.deletion_timestamp.as_ref()?.0 - SignedDuration::from_secs(grace))
    };
    containers_ended(pod)
        .or_else(unready)
        .or_else(deleted)
        .or_else(|| created_at(&pod.metadata))
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

/// When the last container ended; `None` while one runs. Sidecars end last.
fn containers_ended(pod: &Pod) -> Option<Timestamp> {
    let init = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let sidecars: HashSet<_> = init
        .filter(|container| container.restart_policy.as_deref() == Some("Always"))
        .map(|container| container.name.as_str())
        .collect();
    let status = pod.status.as_ref()?;
    let main = status.container_statuses.iter().flatten();
    let beside = status.init_container_statuses.iter().flatten();
    let ended = |container: &ContainerStatus| {
        Some(container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0)
    };
    let all = main.chain(beside.filter(|container| sidecars.contains(container.name.as_str())));
    all.map(ended).collect::<Option<Vec<_>>>()?.into_iter().max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::tests::at;
    use serde_json::{from_value, json};

    fn ended(second: i64) -> Arc<Pod> {
        Arc::new(
            from_value(json!({"status": {"containerStatuses": [
                {"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                 "state": {"terminated": {"exitCode": 1, "finishedAt": at(second).to_string()}}}]}}))
            .unwrap(),
        )
    }

    #[test]
    fn wait_doubles_until_a_success() {
        let mut record = Backoff::default();
        assert_eq!(record.remaining(at(100)), Duration::ZERO);
        for (failure, wait) in [(100, 10), (200, 20), (300, 40)] {
            record = record.after(&[], &[ended(failure)]);
            assert_eq!(record.remaining(at(failure + 1)), Duration::from_secs(wait - 1));
        }
        let both = record.after(&[ended(350)], &[ended(340), ended(360)]);
        assert_eq!(both.remaining(at(360)), Duration::from_secs(10), "only the later one counts");
        assert_eq!(record.after(&[ended(400)], &[]), Backoff::default());
        let many: Vec<_> = (0..50).map(ended).collect();
        let long = Backoff::default().after(&[], &many).remaining(at(49));
        assert_eq!(long, Duration::from_secs(600));
    }

    #[test]
    fn end_of_a_pod_is_found_where_it_is_told() {
        assert_eq!(finished_at(&ended(70)), at(70));
        let unready = json!({"metadata": {"creationTimestamp": at(1).to_string()}, "status": {
            "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": at(50).to_string()}]}});
        assert_eq!(finished_at(&from_value(unready).unwrap()), at(50));
        let deleted = json!({"metadata": {"creationTimestamp": at(1).to_string(),
            "deletionTimestamp": at(90).to_string(), "deletionGracePeriodSeconds": 30}});
        assert_eq!(finished_at(&from_value(deleted).unwrap()), at(60));
        let lost = json!({"metadata": {"creationTimestamp": at(1).to_string()}});
        assert_eq!(finished_at(&from_value(lost).unwrap()), at(1));
    }
}
