//! A command's answer between the member that was asked and the leader that proposed.

use pintle_mvcc::Response;
use pintle_proto::raft as pb;
use pintle_store_api::{Rejection, Revision, WriteError};

use crate::errors;

/// What a proposer is told.
pub(crate) type Answer = Result<Response, WriteError>;

pub(crate) fn refusal_to_pb(rejection: &Rejection) -> pb::Refusal {
    let compact_revision = match rejection {
        Rejection::Compacted(revision) => revision.0,
        _ => 0,
    };
    pb::Refusal {
        code: errors::code(rejection).into(),
        message: rejection.to_string(),
        compact_revision,
    }
}

pub(crate) fn refusal_from_pb(refusal: &pb::Refusal) -> Rejection {
    let compacted = Revision(refusal.compact_revision);
    errors::rejection(refusal.code.into(), &refusal.message, compacted)
}

pub(crate) fn to_pb(answer: Answer) -> pb::Outcome {
    use pb::outcome::Kind;
    let kind = match answer {
        Ok(Response::Put(response)) => Kind::Put(response),
        Ok(Response::DeleteRange(response)) => Kind::DeleteRange(response),
        Ok(Response::Txn(response)) => Kind::Txn(response),
        Ok(Response::Compact(response)) => Kind::Compact(response),
        Ok(Response::LeaseGrant(response)) => Kind::LeaseGrant(response),
        Ok(Response::LeaseRevoke(response)) => Kind::LeaseRevoke(response),
        Ok(Response::LeaseCheckpoint(response)) => Kind::Done(pb::Done { header: response.header }),
        Ok(Response::Alarm(response)) => Kind::Alarm(response),
        Ok(Response::Auth(header)) => Kind::Auth(pb::Done { header }),
        Ok(Response::Authenticate(response)) => Kind::Authenticate(response),
        Err(WriteError::Rejected(rejection)) => Kind::Refusal(refusal_to_pb(&rejection)),
        Err(WriteError::NotApplied(message)) => Kind::NotApplied(message),
        Err(WriteError::Unknown(message)) => Kind::Unknown(message),
    };
    pb::Outcome { kind: Some(kind) }
}

pub(crate) fn from_pb(outcome: pb::Outcome) -> Answer {
    use pb::outcome::Kind;
    match outcome.kind {
        Some(Kind::Put(response)) => Ok(Response::Put(response)),
        Some(Kind::DeleteRange(response)) => Ok(Response::DeleteRange(response)),
        Some(Kind::Txn(response)) => Ok(Response::Txn(response)),
        Some(Kind::Compact(response)) => Ok(Response::Compact(response)),
        Some(Kind::LeaseGrant(response)) => Ok(Response::LeaseGrant(response)),
        Some(Kind::LeaseRevoke(response)) => Ok(Response::LeaseRevoke(response)),
        Some(Kind::Done(done)) => {
            let response = pintle_store_api::pb::LeaseCheckpointResponse { header: done.header };
            Ok(Response::LeaseCheckpoint(response))
        }
        Some(Kind::Alarm(response)) => Ok(Response::Alarm(response)),
        Some(Kind::Auth(done)) => Ok(Response::Auth(done.header)),
        Some(Kind::Authenticate(response)) => Ok(Response::Authenticate(response)),
        Some(Kind::Refusal(refusal)) => Err(refusal_from_pb(&refusal).into()),
        Some(Kind::NotApplied(message)) => Err(WriteError::NotApplied(message)),
        Some(Kind::Unknown(message)) => Err(WriteError::Unknown(message)),
        // A newer leader answered with what this version does not know.
        None => Err(WriteError::Unknown("etcdserver: unknown answer of the leader".into())),
    }
}
