//! What apply is given and what it gives back.

use pintle_proto::raft::Command;
use pintle_store_api::{Rejection, Revision, mvccpb::Event, pb};

/// The commands of one log entry.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The term of the log entry: a revoke by expiry counts only in the term that proposed it.
    pub term: u64,
    /// In order; each sees the writes of those before it.
    pub commands: &'a [Command],
}

/// The answer to an accepted command. `header.revision` is filled; cluster, member and term are
/// the server's to add.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each variant answers the command of the same name")]
pub enum Response {
    Put(pb::PutResponse),
    DeleteRange(pb::DeleteRangeResponse),
    Txn(pb::TxnResponse),
    Compact(pb::CompactionResponse),
    LeaseGrant(pb::LeaseGrantResponse),
    LeaseRevoke(pb::LeaseRevokeResponse),
    LeaseCheckpoint(pb::LeaseCheckpointResponse),
    Alarm(pb::AlarmResponse),
    /// To every change of users, roles and permissions: its header is all that it says.
    Auth(Option<pb::ResponseHeader>),
    /// The token is only its prefix here: the index of the log entry is the server's to add.
    Authenticate(pb::AuthenticateResponse),
}

/// A command's answer, or its refusal: the same on every member.
pub type Outcome = Result<Response, Rejection>;

/// All events of one revision, in the order in which they happened.
#[derive(Clone, Debug, PartialEq)]
pub struct RevisionEvents {
    /// The revision that they share.
    pub revision: Revision,
    /// `prev_kv` is always there when the key existed before; strip it for watchers that did not ask.
    pub events: Vec<Event>,
}

/// The result of one apply.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    /// One per command, over all entries, in order.
    pub outcomes: Vec<Outcome>,
    /// For the watch hub, ascending; revisions only exist where something changed.
    pub events: Vec<RevisionEvents>,
}

/// The part of a response header that the state knows.
pub(crate) fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, ..Default::default() })
}
