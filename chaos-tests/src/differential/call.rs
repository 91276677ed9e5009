//! Calls as data: what the generators make, a failing run prints, and a replay reads.
//!
//! Revisions are named relative to the store's state, so that a sequence keeps its meaning when
//! the shrinker drops calls from it or when it starts at another revision.

mod auth;

use std::collections::BTreeMap;

use pintle_proto::etcdserverpb as pb;
use pintle_proto::etcdserverpb::compare::TargetUnion;
use serde::{Deserialize, Serialize};

pub use auth::{Auth, Permission};

/// A revision, named by what it is near to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Rev {
    /// As it is.
    Is(i64),
    /// The store's current revision, and so many on.
    Now(i64),
    /// The compact revision, and so many on.
    Floor(i64),
    /// The last modification of a key; 0 where there is none.
    Of(String),
}

impl Default for Rev {
    fn default() -> Self {
        Self::Is(0)
    }
}

/// What the store is at when a call is made.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    /// The current revision.
    pub now: i64,
    /// The compact revision.
    pub floor: i64,
    /// The keys and their last modifications.
    pub modified: BTreeMap<String, i64>,
}

impl Frame {
    /// The number that a name stands for now.
    pub fn revision(&self, rev: &Rev) -> i64 {
        match rev {
            Rev::Is(revision) => *revision,
            Rev::Now(on) => self.now + on,
            Rev::Floor(on) => self.floor + on,
            Rev::Of(key) => self.modified.get(key).copied().unwrap_or(0),
        }
    }
}

/// A value: a text, or so many bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "said above")]
pub enum Value {
    Text(String),
    Bytes(usize),
}

impl Value {
    fn bytes(&self) -> bytes::Bytes {
        match self {
            Self::Text(text) => text.clone().into(),
            Self::Bytes(count) => vec![b'v'; *count].into(),
        }
    }
}

/// `RangeRequest`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields are those of the message")]
pub struct Range {
    pub key: String,
    pub end: String,
    pub limit: i64,
    pub revision: Rev,
    pub order: i32,
    pub target: i32,
    pub serializable: bool,
    pub keys_only: bool,
    pub count_only: bool,
    /// Least and greatest mod revision, least and greatest create revision.
    pub within: [Rev; 4],
}

/// `PutRequest`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the message")]
pub struct Put {
    pub key: String,
    pub value: Value,
    pub lease: i64,
    pub prev_kv: bool,
    pub ignore_value: bool,
    pub ignore_lease: bool,
}

/// `DeleteRangeRequest`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the message")]
pub struct Delete {
    pub key: String,
    pub end: String,
    pub prev_kv: bool,
}

/// What a compare is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the variants are those of the message")]
pub enum Operand {
    None,
    Version(i64),
    Create(Rev),
    Mod(Rev),
    Value(Value),
    Lease(i64),
}

/// `Compare`. Target and operand need not fit together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the message")]
pub struct Compare {
    pub key: String,
    pub end: String,
    pub result: i32,
    pub target: i32,
    pub operand: Operand,
}

/// `TxnRequest`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the message")]
pub struct Txn {
    pub compare: Vec<Compare>,
    pub success: Vec<Op>,
    pub failure: Vec<Op>,
}

/// `RequestOp`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the variants are those of the message")]
pub enum Op {
    Range(Range),
    Put(Put),
    Delete(Delete),
    Txn(Txn),
    Nothing,
}

/// `WatchCreateRequest`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the message")]
pub struct Watch {
    pub key: String,
    pub end: String,
    pub start: Rev,
    pub id: i64,
    pub filters: Vec<i32>,
    pub prev_kv: bool,
    pub fragment: bool,
    pub progress_notify: bool,
}

/// One call of a sequence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each variant is the call of the same name")]
pub enum Call {
    Range(Range),
    Put(Put),
    Delete(Delete),
    Txn(Txn),
    Compact {
        revision: Rev,
        physical: bool,
    },
    LeaseGrant {
        id: i64,
        ttl: i64,
    },
    LeaseRevoke {
        id: i64,
    },
    LeaseTimeToLive {
        id: i64,
        keys: bool,
    },
    LeaseKeepAlive {
        id: i64,
    },
    LeaseLeases,
    Watch(Watch),
    CancelWatch {
        id: i64,
    },
    WatchProgress,
    HashKv {
        revision: Rev,
    },
    MemberList {
        linearizable: bool,
    },
    MemberRemove {
        id: u64,
    },
    MemberPromote {
        id: u64,
    },
    MemberUpdate {
        id: u64,
    },
    Status,
    Alarms {
        action: i32,
        alarm: i32,
    },
    Defragment,
    MoveLeader {
        target: u64,
    },
    Auth(Auth),
    /// A watch on a stream of its own: what counts is whether it may be.
    WatchAlone(Watch),
    /// With the token that the user got last; one that nobody made where there is none.
    As {
        user: String,
        call: Box<Call>,
    },
}

impl Call {
    /// The call, whoever makes it.
    pub fn inner(&self) -> &Self {
        match self {
            Self::As { call, .. } => call.inner(),
            call => call,
        }
    }

    /// Whether a [`Rev::Of`] occurs in it.
    pub fn names_a_key(&self) -> bool {
        // The one place where that can be seen without walking every message.
        serde_json::to_string(self).is_ok_and(|text| text.contains("{\"Of\":"))
    }
}

impl Range {
    /// The message.
    pub fn message(&self, frame: &Frame) -> pb::RangeRequest {
        let [min_mod, max_mod, min_create, max_create] = &self.within;
        pb::RangeRequest {
            key: self.key.clone().into(),
            range_end: self.end.clone().into(),
            limit: self.limit,
            revision: frame.revision(&self.revision),
            sort_order: self.order,
            sort_target: self.target,
            serializable: self.serializable,
            keys_only: self.keys_only,
            count_only: self.count_only,
            min_mod_revision: frame.revision(min_mod),
            max_mod_revision: frame.revision(max_mod),
            min_create_revision: frame.revision(min_create),
            max_create_revision: frame.revision(max_create),
        }
    }
}

impl Put {
    /// The message.
    pub fn message(&self) -> pb::PutRequest {
        pb::PutRequest {
            key: self.key.clone().into(),
            value: self.value.bytes(),
            lease: self.lease,
            prev_kv: self.prev_kv,
            ignore_value: self.ignore_value,
            ignore_lease: self.ignore_lease,
        }
    }
}

impl Delete {
    /// The message.
    pub fn message(&self) -> pb::DeleteRangeRequest {
        pb::DeleteRangeRequest {
            key: self.key.clone().into(),
            range_end: self.end.clone().into(),
            prev_kv: self.prev_kv,
        }
    }
}

impl Compare {
    fn message(&self, frame: &Frame) -> pb::Compare {
        let target_union = match &self.operand {
            Operand::None => None,
            Operand::Version(version) => Some(TargetUnion::Version(*version)),
            Operand::Create(rev) => Some(TargetUnion::CreateRevision(frame.revision(rev))),
            Operand::Mod(rev) => Some(TargetUnion::ModRevision(frame.revision(rev))),
            Operand::Value(value) => Some(TargetUnion::Value(value.bytes())),
            Operand::Lease(lease) => Some(TargetUnion::Lease(*lease)),
        };
        pb::Compare {
            result: self.result,
            target: self.target,
            key: self.key.clone().into(),
            range_end: self.end.clone().into(),
            target_union,
        }
    }
}

impl Txn {
    /// The message.
    pub fn message(&self, frame: &Frame) -> pb::TxnRequest {
        let ops = |ops: &[Op]| ops.iter().map(|op| op.message(frame)).collect();
        pb::TxnRequest {
            compare: self.compare.iter().map(|compare| compare.message(frame)).collect(),
            success: ops(&self.success),
            failure: ops(&self.failure),
        }
    }
}

impl Op {
    fn message(&self, frame: &Frame) -> pb::RequestOp {
        use pb::request_op::Request;
        let request = match self {
            Self::Range(range) => Some(Request::RequestRange(range.message(frame))),
            Self::Put(put) => Some(Request::RequestPut(put.message())),
            Self::Delete(delete) => Some(Request::RequestDeleteRange(delete.message())),
            Self::Txn(txn) => Some(Request::RequestTxn(txn.message(frame))),
            Self::Nothing => None,
        };
        pb::RequestOp { request }
    }
}

impl Watch {
    /// The message.
    pub fn message(&self, frame: &Frame) -> pb::WatchCreateRequest {
        pb::WatchCreateRequest {
            key: self.key.clone().into(),
            range_end: self.end.clone().into(),
            start_revision: frame.revision(&self.start),
            progress_notify: self.progress_notify,
            filters: self.filters.clone(),
            prev_kv: self.prev_kv,
            watch_id: self.id,
            fragment: self.fragment,
        }
    }
}
