//! The types with which openraft is instantiated, and short names for them.

use std::fmt;

use bytes::Bytes;
use openraft::alias;
use openraft::impls::leader_id_std;
use pintle_mvcc::Outcome;
use serde::{Deserialize, Serialize};

use super::state_machine::StateMachine;

openraft::declare_raft_types!(
    /// One leader in a term, as in the Raft paper: what a term identifies, it identifies alone.
    pub(crate) TypeConfig:
        D = Batch,
        R = Applied,
        NodeId = u64,
        Node = Node,
        Term = u64,
        LeaderId = leader_id_std::LeaderId<u64, u64>,
);

pub(crate) type Raft = openraft::Raft<TypeConfig, StateMachine>;
pub(crate) type Vote = alias::VoteOf<TypeConfig>;
pub(crate) type LogId = alias::LogIdOf<TypeConfig>;
pub(crate) type CommittedLeader = alias::CommittedLeaderIdOf<TypeConfig>;
pub(crate) type Entry = alias::EntryOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<u64, Node>;
pub(crate) type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;

/// The payload of a log entry: an encoded `raft.CommandBatch`, encoded once by the leader and
/// decoded where it is applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Batch(pub(crate) Bytes);

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What applying a batch answered, one outcome for each of its commands. It never leaves the
/// process through openraft, so it is not serialized.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Applied {
    #[serde(skip)]
    pub(crate) outcomes: Vec<Outcome>,
}

/// What the cluster knows of a member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) peer_urls: Vec<String>,
    pub(crate) client_urls: Vec<String>,
    /// A learner that becomes a voter as soon as it has caught up.
    pub(crate) promote: bool,
}
