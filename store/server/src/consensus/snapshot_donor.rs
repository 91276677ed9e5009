//! Who sends a checkpoint: the leader asks a follower that is up to date to do it, because the leader
//! has more to do than anybody, and sends its own where nobody else can.
//!
//! What a follower sends is its own state: at least as new as the leader's checkpoint, and all of it
//! committed, so that the leader may count the target as having what its own would have brought.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pintle_proto::raft::{SendSnapshotRequest, peer_client::PeerClient};
use tonic::Status;

use super::convert::{log_id_to_pb, vote_from_pb, vote_to_pb};
use super::snapshot::StateSnapshot;
use super::state_machine::Shared;
use super::types::{Node, SnapshotMeta, Vote};
use super::{snapshot_resume, snapshot_stream};
use crate::host::blocking;
use crate::leadership::Leadership;
use crate::peer::{Lane, PeerChannel, Peers};

/// What is known of the other members once consensus runs.
#[derive(Debug, Default)]
pub(crate) struct Donors(OnceLock<(Leadership, Duration)>);

impl Donors {
    /// A follower that has not answered for `silence` is not asked.
    pub(crate) fn know(&self, leadership: Leadership, silence: Duration) {
        // Consensus starts once.
        drop(self.0.set((leadership, silence)));
    }

    /// The follower with the newest log that has at least what `meta` says, if there is one.
    fn choose(&self, own: u64, target: u64, meta: &SnapshotMeta) -> Option<(u64, Node)> {
        let (leadership, silence) = self.0.get()?;
        let needed = meta.last_log_id.map_or(0, |id| id.index());
        let active = leadership.active(*silence);
        let membership = leadership.membership();
        let membership = membership.membership();
        let others = membership.voter_ids().filter(|id| *id != own && *id != target);
        let ready = others
            .filter(|id| active.contains(id))
            .filter_map(|id| Some((leadership.matched(id).filter(|at| *at >= needed)?, id)));
        let (_, donor) = ready.max()?;
        Some((donor, membership.get_node(&donor)?.clone()))
    }

    /// Has a follower send its checkpoint to `target`; `None` when there is nobody to ask.
    pub(super) async fn send(
        &self,
        peers: &Peers,
        own: u64,
        target: (u64, &Node),
        vote: &Vote,
        meta: &SnapshotMeta,
    ) -> Option<Result<Vote, Status>> {
        let (donor, node) = self.choose(own, target.0, meta)?;
        let request = SendSnapshotRequest {
            addressed: Some(peers.addressed(donor)),
            vote: Some(vote_to_pb(vote)),
            target: target.0,
            target_urls: target.1.peer_urls.clone(),
            at_least: meta.last_log_id.as_ref().map(log_id_to_pb),
        };
        let asked = async {
            let mut client = peers.client(&node, Lane::Bulk)?;
            let response = client.send_snapshot(request).await?.into_inner();
            Ok(vote_from_pb(response.vote.as_ref())?)
        };
        Some(asked.await)
    }
}

/// Sends a checkpoint and waits until it is installed; the target's vote after that. A stalled
/// connection is ended by HTTP/2 keep-alive.
pub(super) async fn transfer(
    peers: &Peers,
    mut client: PeerClient<PeerChannel>,
    target: u64,
    vote: &Vote,
    snapshot: StateSnapshot,
) -> Result<Vote, Status> {
    let addressed = peers.addressed(target);
    let starts = snapshot_resume::ask(&mut client, addressed, &snapshot).await;
    let chunks = snapshot_stream::chunks(addressed, vote, snapshot, starts);
    let chunks = chunks.map_err(|error| Status::internal(error.to_string()))?;
    let response = client.install_snapshot(chunks).await?.into_inner();
    peers.traffic.of(target).sent_snapshot();
    Ok(vote_from_pb(response.vote.as_ref())?)
}

/// Sends this follower's checkpoint as the leader asks.
pub(crate) async fn donate(
    peers: &Peers,
    state: &Arc<Shared>,
    vote: &Vote,
    request: &SendSnapshotRequest,
    patience: Duration,
) -> Result<Vote, Status> {
    let needed = request.at_least.as_ref().map_or(0, |id| id.index);
    let mut applied = state.applied();
    let reached = async { applied.wait_for(|index| *index >= needed).await.is_ok() };
    if tokio::time::timeout(patience, reached).await != Ok(true) {
        return Err(Status::unavailable("this member is not up to date"));
    }
    let taken = Arc::clone(state);
    let take = move || taken.snapshots.checkpoint(&taken.reader);
    let internal = |error: &dyn std::fmt::Display| Status::internal(format!("snapshot: {error}"));
    let snapshot = blocking(take).await.map_err(|error| internal(&error))?;
    let snapshot = snapshot.map_err(|error| internal(&error))?;
    let node = Node { peer_urls: request.target_urls.clone(), ..Node::default() };
    let client = peers.client(&node, Lane::Bulk)?;
    transfer(peers, client, request.target, vote, snapshot).await
}
