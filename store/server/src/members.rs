//! Changes of the membership: decided (`decide`) and carried out by the leader, forwarded to it by
//! others. The leader also finishes what was begun: a member that was added to vote becomes a voter
//! when it has caught up, and a change that a fallen leader left half done is completed.

mod decide;
mod removal;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use pintle_proto::raft::ChangeMemberRequest;
use pintle_proto::raft::change_member_request::Change;
use pintle_store_api::{Rejection, WriteError, pb};
use tokio::time::Instant;
use tonic::Code;

pub(crate) use self::decide::are_peer_urls;
use self::decide::{Members, Standing};
pub(crate) use self::removal::{REMOVED, watch as watch_removal};
use crate::consensus::Node;
use crate::consensus::convert::{node_from_pb, node_to_pb};
use crate::core::Core;
use crate::errors;
use crate::identity::member_id;
use crate::leadership::Leader;
use crate::peer::{Lane, wire};

/// How long to wait while another change is under way.
const RETRY_AFTER: Duration = Duration::from_millis(30);
/// A member that has not answered for so long counts as down.
const ACTIVE_WITHIN: Duration = Duration::from_secs(5);
/// How often the leader looks for what is left to finish.
const TEND_EVERY: Duration = Duration::from_millis(200);

/// The members as clients see them, by id. One that was added to vote is no learner to them.
pub(crate) fn list(core: &Core) -> Vec<pb::Member> {
    let membership = core.leadership.membership();
    let membership = membership.membership();
    let learners: BTreeSet<u64> = membership.learner_ids().collect();
    let member = |(id, node): (&u64, &Node)| pb::Member {
        id: *id,
        name: node.name.clone(),
        peer_ur_ls: node.peer_urls.clone(),
        client_ur_ls: node.client_urls.clone(),
        is_learner: learners.contains(id) && !node.promote,
    };
    membership.nodes().map(member).collect()
}

/// Carries a change out here if this member leads, else asks the leader.
pub(crate) async fn change(core: &Core, change: Change) -> Result<(), WriteError> {
    core.check_voter()?;
    announce(core, change).await
}

/// The same, also for a learner, which may tell of itself.
async fn announce(core: &Core, change: Change) -> Result<(), WriteError> {
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

/// Carries a client's change out on the leader.
pub(crate) async fn apply(core: &Core, change: &Change) -> Result<(), WriteError> {
    let _changing = core.changing.lock().await;
    let members = decide(core, |standing| match change {
        Change::Add(entry) => {
            let (id, node) = node_from_pb(entry.clone());
            standing.add(id, node)
        }
        Change::Set(entry) => {
            let (id, node) = node_from_pb(entry.clone());
            standing.set(id, node)
        }
        Change::Promote(id) => standing.promote(*id, core.leadership.matched(*id), true),
        Change::Remove(id) => standing.remove(*id),
    })?;
    write(core, members).await
}

fn decide<T>(
    core: &Core,
    by: impl FnOnce(&Standing<'_>) -> Result<T, Rejection>,
) -> Result<T, Rejection> {
    let membership = core.leadership.membership();
    by(&Standing {
        own: core.identity.member_id,
        membership: membership.membership(),
        learners_max: core.config.max_learners,
        strict: core.config.strict_reconfig_check,
        active: core.leadership.active(ACTIVE_WITHIN),
        last: core.leadership.last_index(),
    })
}

async fn write(core: &Core, members: Members) -> Result<(), WriteError> {
    let changed = core.raft.change_membership(members, false);
    // A leader that has lost its quorum would wait for it.
    let Ok(written) = tokio::time::timeout(core.config.request_timeout(), changed).await else {
        return Err(WriteError::Unknown(errors::TIMEOUT.to_owned()));
    };
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

/// Adds a member, as a learner first; one that is to vote is promoted as soon as it has caught up.
pub(crate) async fn add(
    core: &Core,
    peer_urls: Vec<String>,
    learner: bool,
) -> Result<u64, WriteError> {
    let token = &core.config.initial_cluster_token;
    let id = member_id(&peer_urls, token, &rand::random::<[u8; 16]>());
    let node = Node { peer_urls, promote: !learner, ..Node::default() };
    change(core, Change::Add(node_to_pb(id, &node))).await?;
    Ok(id)
}

/// Finishes changes while this member leads.
pub(crate) async fn tend(core: Arc<Core>) {
    loop {
        tokio::time::sleep(TEND_EVERY).await;
        if !core.leadership.is_leader() {
            continue;
        }
        // A change under way finishes itself.
        let Ok(_changing) = core.changing.try_lock() else { continue };
        let finished = match unfinished(&core) {
            Some(members) => write(&core, members).await,
            None => Ok(()),
        };
        if let Err(error) = finished {
            tracing::debug!(%error, "a change of the membership is not finished yet");
        }
    }
}

/// The next step of a change that was begun.
fn unfinished(core: &Core) -> Option<Members> {
    let stored = core.leadership.membership();
    let membership = stored.membership();
    if let [_, goal] = membership.get_joint_config().as_slice() {
        // Only if nobody is at it: what is applied has been committed.
        let is_applied = core.state.membership().log_id() == stored.log_id();
        return is_applied.then(|| ChangeMembers::ReplaceAllVoters(goal.clone()));
    }
    let waits = |id: &u64| membership.get_node(id).is_some_and(|node| node.promote);
    let ready = |id: u64| {
        let matched = core.leadership.matched(id);
        decide(core, |standing| standing.promote(id, matched, false)).ok()
    };
    membership.learner_ids().filter(waits).find_map(ready)
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
            && let Err(error) = announce(core, Change::Set(node_to_pb(id, &own))).await
        {
            tracing::debug!(%error, "client addresses are not published yet");
        }
        tokio::select! {
            () = leadership.changed() => {}
            () = tokio::time::sleep(10 * RETRY_AFTER) => {}
        }
    }
}
