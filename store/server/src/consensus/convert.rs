//! Between openraft's types and the messages of `raft.proto`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use openraft::entry::RaftEntry;
use openraft::raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult};
use openraft::vote::RaftLeaderId;
use pintle_proto::raft as pb;
use prost::Message;

use super::types::{Batch, Entry, LogId, Membership, Node, TypeConfig, Vote};

type Leader = openraft::alias::LeaderIdOf<TypeConfig>;
type Payload = openraft::alias::PayloadOf<TypeConfig>;

/// A message of a peer lacked a field that it must have.
#[derive(Debug, thiserror::Error)]
#[error("malformed peer message: {0} is missing")]
pub(crate) struct Missing(pub(crate) &'static str);

impl From<Missing> for io::Error {
    fn from(missing: Missing) -> Self {
        Self::new(io::ErrorKind::InvalidData, missing)
    }
}

impl From<Missing> for tonic::Status {
    fn from(missing: Missing) -> Self {
        Self::invalid_argument(missing.to_string())
    }
}

pub(crate) fn log_id_to_pb(id: &LogId) -> pb::LogId {
    pb::LogId { term: id.committed_leader_id().term, index: id.index() }
}

pub(crate) fn log_id_from_pb(id: &pb::LogId) -> LogId {
    LogId::new(Leader::new(id.term, 0).to_committed(), id.index)
}

pub(crate) fn vote_to_pb(vote: &Vote) -> pb::Vote {
    pb::Vote {
        term: vote.leader_id.term,
        voted_for: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

pub(crate) fn vote_from_pb(vote: Option<&pb::Vote>) -> Result<Vote, Missing> {
    let vote = vote.ok_or(Missing("vote"))?;
    Ok(Vote { leader_id: Leader::new(vote.term, vote.voted_for), committed: vote.committed })
}

pub(crate) fn node_to_pb(id: u64, node: &Node) -> pb::MemberEntry {
    let info = pb::MemberInfo {
        name: node.name.clone(),
        peer_urls: node.peer_urls.clone(),
        client_urls: node.client_urls.clone(),
        promote: node.promote,
    };
    pb::MemberEntry { id, info: Some(info) }
}

pub(crate) fn node_from_pb(entry: pb::MemberEntry) -> (u64, Node) {
    let info = entry.info.unwrap_or_default();
    let node = Node {
        name: info.name,
        peer_urls: info.peer_urls,
        client_urls: info.client_urls,
        promote: info.promote,
    };
    (entry.id, node)
}

pub(crate) fn membership_to_pb(membership: &Membership) -> pb::Membership {
    let configs = membership.get_joint_config().iter();
    pb::Membership {
        configs: configs.map(|ids| pb::VoterSet { ids: ids.iter().copied().collect() }).collect(),
        members: membership.nodes().map(|(id, node)| node_to_pb(*id, node)).collect(),
    }
}

pub(crate) fn membership_from_pb(membership: pb::Membership) -> Result<Membership, Missing> {
    let configs: Vec<BTreeSet<u64>> =
        membership.configs.into_iter().map(|set| set.ids.into_iter().collect()).collect();
    let nodes: BTreeMap<u64, Node> = membership.members.into_iter().map(node_from_pb).collect();
    Membership::new(configs, nodes).map_err(|_| Missing("a voter"))
}

pub(crate) fn entry_to_pb(entry: &Entry) -> pb::Entry {
    let payload = match &entry.payload {
        Payload::Blank => pb::entry::Payload::Blank(pb::Blank {}),
        Payload::Normal(batch) => pb::entry::Payload::Commands(batch.0.clone()),
        Payload::Membership(membership) => {
            pb::entry::Payload::Membership(membership_to_pb(membership))
        }
    };
    pb::Entry { log_id: Some(log_id_to_pb(&entry.log_id())), payload: Some(payload) }
}

pub(crate) fn entry_from_pb(entry: pb::Entry) -> Result<Entry, Missing> {
    let log_id = log_id_from_pb(entry.log_id.as_ref().ok_or(Missing("log_id"))?);
    let payload = match entry.payload.ok_or(Missing("payload"))? {
        pb::entry::Payload::Blank(_) => Payload::Blank,
        pb::entry::Payload::Commands(bytes) => Payload::Normal(Batch(bytes)),
        pb::entry::Payload::Membership(membership) => {
            Payload::Membership(membership_from_pb(membership)?)
        }
    };
    Ok(Entry::new(log_id, payload))
}

#[cfg(test)]
pub(crate) fn entry_to_bytes(entry: &Entry) -> Vec<u8> {
    entry_to_pb(entry).encode_to_vec()
}

pub(crate) fn entry_from_bytes(bytes: bytes::Bytes) -> io::Result<Entry> {
    let entry = pb::Entry::decode(bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(entry_from_pb(entry)?)
}

pub(crate) fn append_to_pb(
    request: &AppendEntriesRequest<TypeConfig>,
    addressed: pb::Addressed,
) -> pb::AppendRequest {
    pb::AppendRequest {
        addressed: Some(addressed),
        vote: Some(vote_to_pb(&request.vote)),
        prev: request.prev_log_id.as_ref().map(log_id_to_pb),
        entries: request.entries.iter().map(entry_to_pb).collect(),
        leader_commit: request.leader_commit.as_ref().map(log_id_to_pb),
    }
}

pub(crate) fn append_from_pb(
    request: pb::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, Missing> {
    Ok(AppendEntriesRequest {
        vote: vote_from_pb(request.vote.as_ref())?,
        prev_log_id: request.prev.as_ref().map(log_id_from_pb),
        entries: request.entries.into_iter().map(entry_from_pb).collect::<Result<_, _>>()?,
        leader_commit: request.leader_commit.as_ref().map(log_id_from_pb),
    })
}

pub(crate) fn append_result_to_pb(result: &StreamAppendResult<TypeConfig>) -> pb::AppendResponse {
    use pb::append_response::Result as Wire;
    let wire = match result {
        Ok(matching) => {
            Wire::Matching(pb::Matching { log_id: matching.as_ref().map(log_id_to_pb) })
        }
        Err(StreamAppendError::Conflict(at)) => Wire::Conflict(log_id_to_pb(at)),
        Err(StreamAppendError::HigherVote(vote)) => Wire::HigherVote(vote_to_pb(vote)),
    };
    pb::AppendResponse { result: Some(wire) }
}

pub(crate) fn append_result_from_pb(
    response: pb::AppendResponse,
) -> Result<StreamAppendResult<TypeConfig>, Missing> {
    use pb::append_response::Result as Wire;
    Ok(match response.result.ok_or(Missing("result"))? {
        Wire::Matching(matching) => Ok(matching.log_id.as_ref().map(log_id_from_pb)),
        Wire::Conflict(at) => Err(StreamAppendError::Conflict(log_id_from_pb(&at))),
        Wire::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote_from_pb(Some(&vote))?)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_survive_the_log_format() {
        let id = |index| LogId::new(Leader::new(3, 0).to_committed(), index);
        let node = Node {
            name: "m1".into(),
            peer_urls: vec!["http://127.0.0.1:2380".into()],
            client_urls: vec![],
            promote: true,
        };
        let membership = Membership::new(
            vec![BTreeSet::from([1]), BTreeSet::from([1, 2])],
            BTreeMap::from([(1, node.clone()), (2, node)]),
        )
        .expect("voters have nodes");
        let entries = [
            Entry::new(id(1), Payload::Blank),
            Entry::new(id(2), Payload::Normal(Batch(bytes::Bytes::from_static(b"x")))),
            Entry::new(id(3), Payload::Membership(membership)),
        ];
        for entry in entries {
            let read = entry_from_bytes(entry_to_bytes(&entry).into()).expect("own encoding");
            assert_eq!(read, entry);
        }
    }
}
