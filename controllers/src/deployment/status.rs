//! What a Deployment reports: counts, availability, progress.

use super::{
    Sets, bounds, condition, desired, replicas,
    revision::{Annotation, DESIRED},
};
use k8s_openapi::{
    api::apps::v1::{
        Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet, ReplicaSetStatus,
    },
    jiff::{SignedDuration, Timestamp},
};
use kube::ResourceExt;
use std::time::Duration;

/// The counts and the `Available` condition; other conditions stay as they are in `base`.
pub(super) fn counts(
    deployment: &Deployment,
    sets: &Sets,
    base: DeploymentStatus,
    now: Timestamp,
) -> DeploymentStatus {
    let sum = |count: fn(&ReplicaSetStatus) -> i32| -> i32 {
        sets.all().filter_map(|set| set.status.as_ref()).map(count).sum()
    };
    let available = sum(|status| status.available_replicas.unwrap_or(0));
    let new = sets.new.as_ref().and_then(|new| new.status.as_ref());
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: positive(sum(|status| status.replicas)),
        updated_replicas: positive(new.map_or(0, |status| status.replicas)),
        ready_replicas: positive(sum(|status| status.ready_replicas.unwrap_or(0))),
        available_replicas: positive(available),
        unavailable_replicas: positive(sets.asked() - available),
        terminating_replicas: Some(sum(|status| status.terminating_replicas.unwrap_or(0))),
        collision_count: base.collision_count,
        conditions: base.conditions,
    };
    condition::set(
        &mut status,
        condition::availability(deployment, bounds(deployment).1, available, now),
    );
    status
}

/// Upstream leaves zero counts out.
fn positive(count: i32) -> Option<i32> {
    (count > 0).then_some(count)
}

/// The status during a rollout: counts, progress and failures.
pub(super) fn rollout(
    deployment: &Deployment,
    sets: &Sets,
    base: DeploymentStatus,
    now: Timestamp,
) -> DeploymentStatus {
    let mut status = counts(deployment, sets, base, now);
    if condition::progress_deadline(deployment).is_none() {
        condition::remove(&mut status, condition::PROGRESSING);
    } else {
        let current = condition::get(&status, condition::PROGRESSING);
        let finished = status.replicas == status.updated_replicas
            && condition::has_reason(current, condition::NEW_AVAILABLE);
        if !finished {
            progress(deployment, sets, &mut status, now);
        }
    }
    match failure(sets) {
        Some(failure) => condition::set(&mut status, failure),
        None => condition::remove(&mut status, condition::REPLICA_FAILURE),
    }
    status
}

fn progress(deployment: &Deployment, sets: &Sets, status: &mut DeploymentStatus, now: Timestamp) {
    let subject = match &sets.new {
        Some(new) => format!("ReplicaSet \"{}\"", new.name_any()),
        None => format!("Deployment \"{}\"", deployment.name_any()),
    };
    let new = |status: &str, reason: &str, what: &str| {
        condition::new(condition::PROGRESSING, status, reason, format!("{subject} {what}"), now)
    };
    let last = deployment.status.clone().unwrap_or_default();
    let current = condition::get(status, condition::PROGRESSING).cloned();
    if is_complete(deployment, status) {
        condition::set(
            status,
            new("True", condition::NEW_AVAILABLE, "has successfully progressed."),
        );
    } else if has_progressed(&last, status) {
        let mut next = new("True", condition::UPDATED, "is progressing.");
        if let Some(current) = current.filter(|current| current.status.as_deref() == Some("True")) {
            next.last_transition_time = current.last_transition_time;
        }
        condition::replace(status, next);
    } else if has_timed_out(deployment, current.as_ref(), now) {
        condition::set(status, new("False", condition::TIMED_OUT, "has timed out progressing."));
    }
}

/// Whether the rollout has ended: all pods are of the new version, available, and no other is left.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let want = desired(deployment);
    [status.updated_replicas, status.replicas, status.available_replicas]
        .iter()
        .all(|count| count.unwrap_or(0) == want)
        && status.observed_generation.unwrap_or(0) >= deployment.metadata.generation.unwrap_or(0)
}

fn has_progressed(last: &DeploymentStatus, status: &DeploymentStatus) -> bool {
    let count = |value: Option<i32>| value.unwrap_or(0);
    let old = |status: &DeploymentStatus| count(status.replicas) - count(status.updated_replicas);
    count(status.updated_replicas) > count(last.updated_replicas)
        || old(status) < old(last)
        || count(status.ready_replicas) > count(last.ready_replicas)
        || count(status.available_replicas) > count(last.available_replicas)
}

fn has_timed_out(
    deployment: &Deployment,
    current: Option<&DeploymentCondition>,
    now: Timestamp,
) -> bool {
    if condition::has_reason(current, condition::TIMED_OUT) {
        return true;
    }
    !condition::has_reason(current, condition::NEW_AVAILABLE)
        && current
            .and_then(|current| time_left(deployment, current, now))
            .is_some_and(|left| left.is_negative())
}

fn time_left(
    deployment: &Deployment,
    progressing: &DeploymentCondition,
    now: Timestamp,
) -> Option<SignedDuration> {
    let deadline = condition::progress_deadline(deployment)?;
    let since = progressing.last_update_time.as_ref()?.0;
    Some(SignedDuration::from_secs(deadline.into()) - now.duration_since(since))
}

/// When the progress deadline has to be looked at again.
pub(super) fn deadline(
    deployment: &Deployment,
    status: &DeploymentStatus,
    now: Timestamp,
) -> Option<Duration> {
    let progressing = condition::get(status, condition::PROGRESSING)?;
    let over = [condition::TIMED_OUT, condition::NEW_AVAILABLE];
    if is_complete(deployment, status)
        || over.iter().any(|reason| condition::has_reason(Some(progressing), reason))
    {
        return None;
    }
    let left = time_left(deployment, progressing, now)?;
    // A second later, because the deadline is over only when it has passed.
    Some(Duration::try_from(left).unwrap_or_default() + Duration::from_secs(1))
}

/// Whether a ReplicaSet has all pods that its Deployment wants.
pub(super) fn is_saturated(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let noted = set.annotation(DESIRED).and_then(|noted| noted.parse::<i32>().ok());
    let available = set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0);
    let want = desired(deployment);
    replicas(set) == want && noted == Some(want) && available == want
}

/// A failure that a ReplicaSet reports, preferably the new one.
fn failure(sets: &Sets) -> Option<DeploymentCondition> {
    let of = |set: &ReplicaSet| {
        let conditions = set.status.as_ref()?.conditions.as_ref()?;
        let failure = conditions
            .iter()
            .find(|condition| condition.type_.as_deref() == Some(condition::REPLICA_FAILURE))?;
        Some(DeploymentCondition {
            type_: failure.type_.clone(),
            status: failure.status.clone(),
            reason: failure.reason.clone(),
            message: failure.message.clone(),
            last_transition_time: failure.last_transition_time.clone(),
            last_update_time: failure.last_transition_time.clone(),
        })
    };
    sets.new.as_ref().and_then(of).or_else(|| sets.old.iter().find_map(of))
}
