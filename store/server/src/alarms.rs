//! Alarms: as clients list and change them, and as this member raises its own.

use pintle_proto::raft::Command;
use pintle_proto::raft::command::Kind;
use pintle_store_api::pb::AlarmType;
use pintle_store_api::pb::alarm_request::AlarmAction;
use pintle_store_api::{WriteError, pb};

use crate::core::Core;
use crate::errors;

/// Answers a client.
pub(crate) async fn answer(
    core: &Core,
    request: pb::AlarmRequest,
) -> Result<pb::AlarmResponse, WriteError> {
    core.check_voter()?;
    let mut response = match request.action() {
        AlarmAction::Get => list(core, request.alarm()).await?,
        AlarmAction::Activate | AlarmAction::Deactivate => propose(core, request).await?,
    };
    core.complete(&mut response.header);
    Ok(response)
}

async fn list(core: &Core, kind: AlarmType) -> Result<pb::AlarmResponse, WriteError> {
    let read = core.read_index.wait().await;
    read.map_err(|error| WriteError::NotApplied(error.to_string()))?;
    let mut alarms = core.reader().alarms();
    alarms.retain(|one| kind == AlarmType::None || one.alarm() == kind);
    Ok(pb::AlarmResponse { header: None, alarms })
}

async fn propose(core: &Core, request: pb::AlarmRequest) -> Result<pb::AlarmResponse, WriteError> {
    let command = Command { kind: Some(Kind::Alarm(request)), caller: None };
    match core.proposer.propose(command).await? {
        pintle_mvcc::Response::Alarm(response) => Ok(response),
        _ => Err(WriteError::Unknown(errors::UNEXPECTED.to_owned())),
    }
}

/// Raises an alarm that concerns a member (0: nobody knows which), unless it is raised already.
pub(crate) async fn raise(core: &Core, kind: AlarmType, member_id: u64) {
    let alarm = pb::AlarmMember { member_id, alarm: kind.into() };
    if core.reader().alarms().contains(&alarm) {
        return;
    }
    let action = AlarmAction::Activate.into();
    let request = pb::AlarmRequest { action, member_id, alarm: kind.into() };
    match propose(core, request).await {
        Ok(_) => tracing::error!(member_id, alarm = kind.as_str_name(), "alarm raised"),
        Err(error) => tracing::warn!(%error, alarm = kind.as_str_name(), "alarm not raised yet"),
    }
}

/// An alarm as a member's status tells of it.
pub(crate) fn describe(alarm: &pb::AlarmMember) -> String {
    format!("memberID:{} alarm:{} ", alarm.member_id, alarm.alarm().as_str_name())
}
