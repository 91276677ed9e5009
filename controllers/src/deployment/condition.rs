//! The conditions of a Deployment, and the rules by which their times move.

use super::desired;
use crate::object::time;
use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus},
    jiff::Timestamp,
};

pub(super) const AVAILABLE: &str = "Available";
pub(super) const PROGRESSING: &str = "Progressing";
pub(super) const REPLICA_FAILURE: &str = "ReplicaFailure";

pub(super) const NEW_AVAILABLE: &str = "NewReplicaSetAvailable";
pub(super) const UPDATED: &str = "ReplicaSetUpdated";
pub(super) const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";
const RESUMED: &str = "DeploymentResumed";

/// The condition of this type.
pub(super) fn get<'a>(
    status: &'a DeploymentStatus,
    type_: &str,
) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_.as_deref() == Some(type_))
}

pub(super) fn has_reason(condition: Option<&DeploymentCondition>, reason: &str) -> bool {
    condition.is_some_and(|condition| condition.reason.as_deref() == Some(reason))
}

/// A condition that became so now.
pub(super) fn new(
    type_: &str,
    status: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: Some(type_.to_owned()),
        status: Some(status.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(time(now)),
        last_transition_time: Some(time(now)),
    }
}

/// Puts a condition in. One with the same status and reason is left as it is; with the same status, the time of the transition
/// stays.
pub(super) fn set(status: &mut DeploymentStatus, mut condition: DeploymentCondition) {
    let type_ = condition.type_.clone().unwrap_or_default();
    if let Some(current) = get(status, &type_) {
        if current.status == condition.status && current.reason == condition.reason {
            return;
        }
        if current.status == condition.status {
            condition.last_transition_time = current.last_transition_time.clone();
        }
    }
    replace(status, condition);
}

/// Puts a condition in, whatever was there.
pub(super) fn replace(status: &mut DeploymentStatus, condition: DeploymentCondition) {
    let type_ = condition.type_.clone().unwrap_or_default();
    remove(status, &type_);
    status.conditions.get_or_insert_default().push(condition);
}

pub(super) fn remove(status: &mut DeploymentStatus, type_: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|condition| condition.type_.as_deref() != Some(type_));
    }
    status.conditions = status.conditions.take().filter(|conditions| !conditions.is_empty());
}

/// Whether progress is watched; seconds without it that are too many.
pub(super) fn progress_deadline(deployment: &Deployment) -> Option<i32> {
    let deadline = deployment.spec.progress_deadline_seconds;
    deadline.filter(|deadline| *deadline != i32::MAX)
}

/// A pause stops the clock of the progress deadline, and resuming starts it anew.
pub(super) fn pausing(
    deployment: &Deployment,
    paused: bool,
    status: &mut DeploymentStatus,
    now: Timestamp,
) {
    if progress_deadline(deployment).is_none() {
        return;
    }
    let current = get(status, PROGRESSING);
    if has_reason(current, TIMED_OUT) {
        return;
    }
    let was_paused = has_reason(current, PAUSED);
    if paused && !was_paused {
        set(status, new(PROGRESSING, "Unknown", PAUSED, "Deployment is paused".into(), now));
    } else if !paused && was_paused {
        set(status, new(PROGRESSING, "Unknown", RESUMED, "Deployment is resumed".into(), now));
    }
}

/// A ReplicaSet of the template existed already.
pub(super) fn found(
    deployment: &Deployment,
    status: &mut DeploymentStatus,
    name: &str,
    now: Timestamp,
) {
    if progress_deadline(deployment).is_some() && get(status, PROGRESSING).is_none() {
        let message = format!("Found new replica set \"{name}\"");
        set(status, new(PROGRESSING, "True", "FoundNewReplicaSet", message, now));
    }
}

/// A ReplicaSet of the template is made.
pub(super) fn created(
    deployment: &Deployment,
    status: &mut DeploymentStatus,
    name: &str,
    now: Timestamp,
) {
    if progress_deadline(deployment).is_some() {
        let message = format!("Created new replica set \"{name}\"");
        set(status, new(PROGRESSING, "True", "NewReplicaSetCreated", message, now));
    }
}

/// The ReplicaSet of the template could not be made.
pub(super) fn creation_failed(
    deployment: &Deployment,
    status: &mut DeploymentStatus,
    name: &str,
    why: &str,
    now: Timestamp,
) {
    if progress_deadline(deployment).is_some() {
        let message = format!("Failed to create new replica set \"{name}\": {why}");
        set(status, new(PROGRESSING, "False", "ReplicaSetCreateError", message, now));
    }
}

/// Whether enough pods are available.
pub(super) fn availability(
    deployment: &Deployment,
    max_unavailable: i32,
    available: i32,
    now: Timestamp,
) -> DeploymentCondition {
    if available >= desired(deployment) - max_unavailable {
        let message = "Deployment has minimum availability.".to_owned();
        new(AVAILABLE, "True", "MinimumReplicasAvailable", message, now)
    } else {
        let message = "Deployment does not have minimum availability.".to_owned();
        new(AVAILABLE, "False", "MinimumReplicasUnavailable", message, now)
    }
}
