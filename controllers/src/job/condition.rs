//! The conditions of a job.

use crate::object::time;
use k8s_openapi::{
    api::batch::v1::{JobCondition, JobStatus},
    jiff::Timestamp,
};

pub(super) const COMPLETE: &str = "Complete";
pub(super) const FAILED: &str = "Failed";
/// The job will be Failed when its pods are gone.
pub(super) const FAILURE_TARGET: &str = "FailureTarget";
/// The job will be Complete when its pods are gone.
pub(super) const SUCCESS_CRITERIA_MET: &str = "SuccessCriteriaMet";
pub(super) const SUSPENDED: &str = "Suspended";

/// A condition that became true now.
pub(super) fn new(type_: &str, reason: &str, message: &str, now: Timestamp) -> JobCondition {
    JobCondition {
        type_: type_.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()).filter(|text| !text.is_empty()),
        message: Some(message.to_owned()).filter(|text| !text.is_empty()),
        last_probe_time: Some(time(now)),
        last_transition_time: Some(time(now)),
    }
}

/// The condition of this type, if it is true.
pub(super) fn holding<'a>(status: &'a JobStatus, type_: &str) -> Option<&'a JobCondition> {
    let mut all = status.conditions.iter().flatten();
    all.find(|condition| condition.type_ == type_ && condition.status == "True")
}

/// Puts a condition in; whether that changed anything. One that was never there does not begin as false.
pub(super) fn ensure(status: &mut JobStatus, condition: JobCondition) -> bool {
    let conditions = status.conditions.get_or_insert_default();
    let known = conditions.iter_mut().find(|known| known.type_ == condition.type_);
    let changed = match known {
        Some(known) if is_same(known, &condition) => false,
        Some(known) => {
            *known = condition;
            true
        }
        None if condition.status == "False" => false,
        None => {
            conditions.push(condition);
            true
        }
    };
    status.conditions = status.conditions.take().filter(|conditions| !conditions.is_empty());
    changed
}

fn is_same(a: &JobCondition, b: &JobCondition) -> bool {
    a.status == b.status && a.reason == b.reason && a.message == b.message
}

/// What `FailureTarget` and `SuccessCriteriaMet` announce.
pub(super) fn announced(interim: &JobCondition, now: Timestamp) -> JobCondition {
    let type_ = if interim.type_ == SUCCESS_CRITERIA_MET { COMPLETE } else { FAILED };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    new(type_, &text(&interim.reason), &text(&interim.message), now)
}
