//! Changes of the membership: decided and carried out by the leader, forwarded to it by others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use openraft::ChangeMembers;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use pintle_proto::raft::change_member_request::Change;
use pintle_proto::raft::{ChangeMemberRequest, MemberEntry};
use pintle_store_api::{Rejection, WriteError, pb};
use tokio::time::Instant;
use tonic::Code;

use crate::consensus::convert::{node_from_pb, node_to_pb};
use crate::consensus::{Membership, Node};
use crate::core::Core;
use crate::errors;
use crate::identity::member_id;
use crate::leadership::Leader;
use crate::peer::{Lane, wire};

/// How long to wait while another change is under way.
const RETRY_AFTER: Duration = Duration::from_millis(30);

/// A learner is promoted when its log is at least this far along the leader's, in percent.
const READY_PERCENT: u64 = 90;

/// The members as clients see them, by id.
pub(crate) fn list(core: &Core) -> Vec<pb::Member> {
    let membership = core.leadership.membership();
    let membership = membership.membership();
    let learners: BTreeSet<u64> = membership.learner_ids().collect();
    let member = |(id, node): (&u64, &Node)| pb::Member {
        id: *id,
        name: node.name.clone(),
        peer_ur_ls: node.peer_urls.clone(),
        client_ur_ls: node.client_urls.clone(),
        is_learner: learners.contains(id),
    };
    membership.nodes().map(member).collect()
}

/// Carries a change out here if this member leads, else asks the leader.
pub(crate) async fn change(core: &Core, change: Change) -> Result<(), WriteError> {
    let deadline = Instant::now() + core.config.request_timeout();
    let mut leadership = core.leadership.clone();
    loop {
        let reason = match leadership.leader() {
            Leader::This => match apply(core, &change).await {
                Err(WriteError::NotApplied(reason)) => reason,
                done => return done,
            },
            Leader::Other(id, node) => match forward(core, id, &node, &change).await {
                Err(WriteError::NotApplied(reason)) => reason,
                done => return done,
            },
            Leader::Unknown => errors::NO_LEADER.to_owned(),
        };
        if Instant::now() >= deadline {
            return Err(WriteError::NotApplied(reason));
        }
        tokio::select! {
            () = leadership.changed() => {}
            () = tokio::time::sleep(RETRY_AFTER) => {}
        }
    }
}

async fn forward(core: &Core, leader: u64, node: &Node, change: &Change) -> Result<(), WriteError> {
    let not_applied = |status: tonic::Status| WriteError::NotApplied(status.message().to_owned());
    let mut client = core.peers.client(node, Lane::Control).map_err(not_applied)?;
    let request = ChangeMemberRequest {
        addressed: Some(core.peers.addressed(leader)),
        change: Some(change.clone()),
    };
    let response = match client.change_member(request).await {
        Ok(response) => response.into_inner(),
        Err(status) if status.message() == errors::NOT_LEADER => return Err(not_applied(status)),
        Err(status) => return Err(errors::write_from(&status)),
    };
    match response.refusal {
        None => Ok(()),
        Some(refusal) => Err(wire::refusal_from_pb(&refusal).into()),
    }
}

/// Carries a change out on the leader.
pub(crate) async fn apply(core: &Core, change: &Change) -> Result<(), WriteError> {
    let membership = core.leadership.membership();
    let membership = membership.membership();
    let members = match change {
        Change::Set(entry) => set(core, membership, entry)?,
        Change::Promote(id) => promote(core, membership, *id)?,
        Change::Remove(id) => remove(membership, *id)?,
    };
    let written = core.raft.change_membership(members, false).await;
    match written {
        Ok(_) => Ok(()),
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => {
            Err(WriteError::NotApplied(errors::NOT_LEADER.to_owned()))
        }
        Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(
            ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
        ))) => Err(WriteError::NotApplied(
            "etcdserver: another change of the membership is under way".to_owned(),
        )),
        Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error))) => {
            Err(errors::other(Code::FailedPrecondition, &error.to_string()).into())
        }
        Err(error) => Err(WriteError::Unknown(error.to_string())),
    }
}

type Members = ChangeMembers<u64, Node>;

fn not_found() -> Rejection {
    errors::other(Code::NotFound, errors::MEMBER_NOT_FOUND)
}

fn set(core: &Core, membership: &Membership, entry: &MemberEntry) -> Result<Members, Rejection> {
    let (id, node) = node_from_pb(entry.clone());
    let taken = |(other, known): (&u64, &Node)| {
        *other != id && known.peer_urls.iter().any(|url| node.peer_urls.contains(url))
    };
    if membership.nodes().any(taken) {
        return Err(errors::other(Code::FailedPrecondition, errors::PEER_URL_EXISTS));
    }
    if membership.get_node(&id).is_some() {
        return Ok(ChangeMembers::SetNodes(BTreeMap::from([(id, node)])));
    }
    if membership.learner_ids().count() >= core.config.max_learners {
        return Err(errors::other(Code::FailedPrecondition, errors::TOO_MANY_LEARNERS));
    }
    Ok(ChangeMembers::AddNodes(BTreeMap::from([(id, node)])))
}

fn promote(core: &Core, membership: &Membership, id: u64) -> Result<Members, Rejection> {
    membership.get_node(&id).ok_or_else(not_found)?;
    if membership.voter_ids().any(|voter| voter == id) {
        return Err(errors::other(Code::FailedPrecondition, errors::NOT_LEARNER));
    }
    let (matched, last) = (core.leadership.matched(id).unwrap_or(0), core.leadership.last_index());
    if matched * 100 < last * READY_PERCENT {
        return Err(errors::other(Code::FailedPrecondition, errors::LEARNER_NOT_READY));
    }
    Ok(ChangeMembers::AddVoterIds(BTreeSet::from([id])))
}

fn remove(membership: &Membership, id: u64) -> Result<Members, Rejection> {
    membership.get_node(&id).ok_or_else(not_found)?;
    let ids = BTreeSet::from([id]);
    if membership.voter_ids().any(|voter| voter == id) {
        return Ok(ChangeMembers::RemoveVoters(ids));
    }
    Ok(ChangeMembers::RemoveNodes(ids))
}

/// Adds a member, as a learner first; a voter is promoted as soon as it has caught up.
pub(crate) async fn add(
    core: &std::sync::Arc<Core>,
    peer_urls: Vec<String>,
    learner: bool,
) -> Result<u64, WriteError> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let token = &core.config.initial_cluster_token;
    let id = member_id(&peer_urls, token, &now.as_nanos().to_be_bytes());
    let node = Node { peer_urls, ..Node::default() };
    change(core, Change::Set(node_to_pb(id, &node))).await?;
    if !learner {
        let core = std::sync::Arc::clone(core);
        tokio::spawn(async move { promote_when_ready(&core, id).await });
    }
    Ok(id)
}

async fn promote_when_ready(core: &Core, id: u64) {
    while core.leadership.failure().is_none() {
        match change(core, Change::Promote(id)).await {
            Err(WriteError::Rejected(Rejection::Other { message, .. }))
                if message == errors::LEARNER_NOT_READY => {}
            Err(WriteError::NotApplied(_) | WriteError::Unknown(_)) => {}
            Ok(()) | Err(WriteError::Rejected(_)) => return,
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Tells the cluster this member's name and client addresses, as long as it takes.
pub(crate) async fn publish(core: &Core) {
    let id = core.identity.member_id;
    let mut leadership = core.leadership.clone();
    loop {
        let own = core.own_node();
        let membership = leadership.membership();
        if membership.membership().get_node(&id) == Some(&own) {
            return;
        }
        if membership.membership().get_node(&id).is_some()
            && let Err(error) = change(core, Change::Set(node_to_pb(id, &own))).await
        {
            tracing::debug!(%error, "client addresses are not published yet");
        }
        tokio::select! {
            () = leadership.changed() => {}
            () = tokio::time::sleep(10 * RETRY_AFTER) => {}
        }
    }
}
