//! What a ReplicaSet or ReplicationController reports.

use crate::{
    object::time,
    pod::{is_active, is_available, is_ready, is_terminating},
};
use k8s_openapi::{
    api::{apps::v1::ReplicaSetCondition, core::v1::Pod},
    jiff::Timestamp,
};
use std::{collections::BTreeMap, sync::Arc};

/// The condition that tells of failed requests.
const REPLICA_FAILURE: &str = "ReplicaFailure";

/// The status of either kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// Active pods.
    pub replicas: i32,
    /// Those with all labels of the template.
    pub fully_labeled: i32,
    /// Those that are ready.
    pub ready: i32,
    /// Those that have been ready for long enough.
    pub available: i32,
    /// Pods that still run but are on their way out.
    pub terminating: Option<i32>,
    /// The newest generation that this status is about.
    pub observed_generation: Option<i64>,
    /// `ReplicaFailure`, and what others may have put there.
    pub conditions: Vec<ReplicaSetCondition>,
}

/// Why pods could not be created or deleted.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// `FailedCreate` or `FailedDelete`.
    pub reason: &'static str,
    /// What the server said.
    pub message: String,
}

/// The status of an object with these pods. `last` is its status so far.
pub fn status(
    last: &Counts,
    generation: Option<i64>,
    template_labels: &BTreeMap<String, String>,
    min_ready_seconds: i32,
    pods: &[Arc<Pod>],
    failure: Option<&Failure>,
    now: Timestamp,
) -> Counts {
    let active: Vec<_> = pods.iter().filter(|pod| is_active(pod)).collect();
    let count =
        |property: &dyn Fn(&Pod) -> bool| active.iter().filter(|pod| property(pod)).count() as i32;
    Counts {
        replicas: active.len() as i32,
        fully_labeled: count(&|pod| has_labels(pod, template_labels)),
        ready: count(&is_ready),
        available: count(&|pod| is_available(pod, min_ready_seconds, now)),
        terminating: Some(pods.iter().filter(|pod| is_terminating(pod)).count() as i32),
        observed_generation: generation,
        conditions: conditions(&last.conditions, failure, now),
    }
}

fn has_labels(pod: &Pod, labels: &BTreeMap<String, String>) -> bool {
    let own = pod.metadata.labels.as_ref();
    labels.iter().all(|(key, value)| own.and_then(|own| own.get(key)) == Some(value))
}

/// `ReplicaFailure` appears with the first failure and keeps its time until it goes away.
fn conditions(
    last: &[ReplicaSetCondition],
    failure: Option<&Failure>,
    now: Timestamp,
) -> Vec<ReplicaSetCondition> {
    let is_failure =
        |condition: &&ReplicaSetCondition| condition.type_.as_deref() == Some(REPLICA_FAILURE);
    let before = last.iter().find(is_failure);
    let mut conditions: Vec<_> =
        last.iter().filter(|condition| !is_failure(condition)).cloned().collect();
    conditions.extend(failure.map(|failure| match before {
        Some(known) if known.reason.as_deref() == Some(failure.reason) => known.clone(),
        _ => ReplicaSetCondition {
            type_: Some(REPLICA_FAILURE.to_owned()),
            status: Some("True".to_owned()),
            reason: Some(failure.reason.to_owned()),
            message: Some(failure.message.clone()),
            last_transition_time: Some(time(now)),
        },
    }));
    conditions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::tests::{at, running};

    #[test]
    fn finished_pods_do_not_count_and_leaving_ones_are_told_apart() {
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        let mut ready = running("ready", Some(95));
        ready.metadata.labels = Some(labels.clone());
        let unready = running("unready", None);
        let mut leaving = running("leaving", Some(1));
        leaving.metadata.deletion_timestamp = Some(time(at(90)));
        let mut failed = running("failed", Some(1));
        failed.status.as_mut().unwrap().phase = Some("Failed".into());
        let pods = [ready, unready, leaving, failed].map(Arc::new);
        let got = status(&Counts::default(), Some(7), &labels, 10, &pods, None, at(100));
        let want = Counts {
            replicas: 2,
            fully_labeled: 1,
            ready: 1,
            available: 0,
            terminating: Some(1),
            observed_generation: Some(7),
            conditions: vec![],
        };
        assert_eq!(got, want);
        assert_eq!(
            status(&Counts::default(), None, &labels, 10, &pods, None, at(105)).available,
            1
        );
    }

    #[test]
    fn failure_keeps_its_time_while_it_lasts() {
        let failure = Failure { reason: "FailedCreate", message: "quota".into() };
        let step = |last: &Counts, failure: Option<&Failure>, second| {
            status(last, None, &BTreeMap::new(), 0, &[], failure, at(second))
        };
        let first = step(&Counts::default(), Some(&failure), 10);
        assert_eq!(first.conditions[0].last_transition_time, Some(time(at(10))));
        let second = step(&first, Some(&failure), 20);
        assert_eq!(second, first);
        assert!(step(&second, None, 30).conditions.is_empty());
    }
}
