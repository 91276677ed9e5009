//! What other members may ask of this one.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use openraft::raft::{TransferLeaderError, TransferLeaderRequest, VoteRequest};
use pintle_proto::raft as pb;
use pintle_proto::raft::peer_server::Peer;
use pintle_proto::raft::snapshot_chunk::Chunk;
use pintle_store_api::pb::HashKvResponse;
use pintle_store_api::{LeaseId, WriteError};
use tonic::{Request, Response, Status, Streaming};

use super::append::accepted;
use super::wire;
use crate::consensus::convert::{
    append_from_pb, append_result_to_pb, log_id_from_pb, log_id_to_pb, membership_to_pb,
    vote_from_pb, vote_to_pb,
};
use crate::consensus::{snapshot_donor, snapshot_resume, snapshot_stream};
use crate::core::Core;
use crate::proposer::Counted;
use crate::{corruption, errors, members};

/// The peer port's service.
#[derive(Clone)]
pub(crate) struct PeerService {
    core: Arc<Core>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("{}: {error}", errors::STOPPED))
}

impl PeerService {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    fn check(&self, addressed: Option<&pb::Addressed>) -> Result<(), Status> {
        self.core.peers.check(addressed)
    }

    fn check_leader(&self, addressed: Option<&pb::Addressed>) -> Result<(), Status> {
        self.check(addressed)?;
        if !self.core.leadership.is_leader() {
            return Err(errors::transient(errors::NOT_LEADER));
        }
        self.check_member(addressed)
    }

    /// A member that was removed may not know it: to it, this leader is none.
    fn check_member(&self, addressed: Option<&pb::Addressed>) -> Result<(), Status> {
        let membership = self.core.leadership.membership();
        let from = addressed.map_or(0, |addressed| addressed.from);
        match membership.membership().get_node(&from) {
            Some(_) => Ok(()),
            None => Err(Status::unavailable(errors::MEMBER_NOT_FOUND)),
        }
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    type AppendStream = Answers<pb::AppendResponse>;

    async fn append(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let requests = accepted(&self.core, request.into_inner());
        let results = self.core.raft.stream_append(requests);
        let answers = results.map(|result| match result {
            Ok(result) => Ok(append_result_to_pb(&result)),
            Err(fatal) => Err(stopped(fatal)),
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn append_one(
        &self,
        request: Request<pb::AppendRequest>,
    ) -> Result<Response<pb::AppendResponse>, Status> {
        let request = request.into_inner();
        self.check(request.addressed.as_ref())?;
        let request = append_from_pb(request)?;
        let mut results =
            self.core.raft.stream_append(futures::stream::once(async { request })).boxed();
        match results.next().await {
            Some(Ok(result)) => Ok(Response::new(append_result_to_pb(&result))),
            Some(Err(fatal)) => Err(stopped(fatal)),
            None => Err(stopped("no answer")),
        }
    }

    async fn vote(
        &self,
        request: Request<pb::VoteRequest>,
    ) -> Result<Response<pb::VoteResponse>, Status> {
        let request = request.into_inner();
        self.check(request.addressed.as_ref())?;
        let last_log_id = request.last_log_id.as_ref().map(log_id_from_pb);
        let mut ask = VoteRequest::new(vote_from_pb(request.vote.as_ref())?, last_log_id);
        ask.leadership_transfer = request.leadership_transfer;
        let answer = if request.pre_vote {
            self.core.raft.pre_vote(ask).await
        } else {
            self.core.raft.vote(ask).await
        };
        let answer = answer.map_err(stopped)?;
        Ok(Response::new(pb::VoteResponse {
            vote: Some(vote_to_pb(&answer.vote)),
            granted: answer.vote_granted,
            last_log_id: answer.last_log_id.as_ref().map(log_id_to_pb),
        }))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderResponse>, Status> {
        let request = request.into_inner();
        self.check(request.addressed.as_ref())?;
        let transfer = TransferLeaderRequest::new(
            vote_from_pb(request.from_leader.as_ref())?,
            request.to,
            request.last_log_id.as_ref().map(log_id_from_pb),
        );
        let answer = self.core.raft.handle_transfer_leader(transfer).await.map_err(stopped)?;
        let (accepted, actual_vote, actual_log_id) = match answer {
            Ok(()) => (true, None, None),
            Err(TransferLeaderError::VoteChanged { actual, .. }) => {
                (false, Some(vote_to_pb(&actual)), None)
            }
            Err(TransferLeaderError::LogNotFlushed { actual, .. }) => {
                (false, None, actual.as_ref().map(log_id_to_pb))
            }
        };
        Ok(Response::new(pb::TransferLeaderResponse { accepted, actual_vote, actual_log_id }))
    }

    type AttendStream = Answers<pb::Attending>;

    async fn attend(
        &self,
        request: Request<pb::AttendRequest>,
    ) -> Result<Response<Self::AttendStream>, Status> {
        self.check_leader(request.into_inner().addressed.as_ref())?;
        let lost = self.core.leadership.clone().lost(self.core.identity.member_id);
        let stop = self.core.peers_stop.clone().cancelled_owned();
        let ends = async move {
            tokio::select! {
                () = lost => {}
                () = stop => {}
            }
        };
        let nothing = futures::stream::once(ends).filter_map(|()| std::future::ready(None));
        Ok(Response::new(nothing.boxed()))
    }

    async fn offer_snapshot(
        &self,
        request: Request<pb::SnapshotOffer>,
    ) -> Result<Response<pb::SnapshotKept>, Status> {
        let offer = request.into_inner();
        self.check(offer.addressed.as_ref())?;
        let kept = snapshot_resume::kept(&self.core.state.snapshots, offer).await;
        kept.map(Response::new).map_err(|error| Status::internal(error.to_string()))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<pb::SnapshotChunk>>,
    ) -> Result<Response<pb::SnapshotResponse>, Status> {
        let mut chunks = request.into_inner();
        let first = chunks.message().await?.and_then(|chunk| chunk.chunk);
        let Some(Chunk::Header(header)) = first else {
            return Err(Status::invalid_argument("a snapshot begins with its header"));
        };
        self.check(header.addressed.as_ref())?;
        let vote = vote_from_pb(header.vote.as_ref())?;
        tracing::info!(bytes = header.total_bytes, "receiving a snapshot");
        let store = &self.core.state.snapshots;
        let snapshot = snapshot_stream::receive(store, &header, chunks).await?;
        let answer = self.core.raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
        Ok(Response::new(pb::SnapshotResponse { vote: Some(vote_to_pb(&answer.vote)) }))
    }

    async fn send_snapshot(
        &self,
        request: Request<pb::SendSnapshotRequest>,
    ) -> Result<Response<pb::SnapshotResponse>, Status> {
        let request = request.into_inner();
        self.check(request.addressed.as_ref())?;
        let vote = vote_from_pb(request.vote.as_ref())?;
        if self.core.leadership.vote() != vote {
            return Err(errors::transient(errors::LEADER_CHANGED));
        }
        tracing::info!(target = request.target, "sending a snapshot in the leader's place");
        let (peers, state) = (&self.core.peers, &self.core.state);
        let patience = self.core.config.request_timeout();
        let vote = snapshot_donor::donate(peers, state, &vote, &request, patience).await?;
        Ok(Response::new(pb::SnapshotResponse { vote: Some(vote_to_pb(&vote)) }))
    }

    async fn propose(
        &self,
        request: Request<pb::ProposeRequest>,
    ) -> Result<Response<pb::ProposeResponse>, Status> {
        let request = request.into_inner();
        self.check(request.addressed.as_ref())?;
        if !self.core.leadership.is_leader() {
            return Ok(Response::new(pb::ProposeResponse { outcomes: None }));
        }
        self.check_member(request.addressed.as_ref())?;
        let _relaying = Counted::new(&self.core.relaying);
        let from = request.addressed.as_ref().map_or(0, |addressed| addressed.from);
        let _relay = self.core.peers.traffic.of(from).relay();
        let commands = request.batch.unwrap_or_default().commands;
        let answers = self.core.proposer.propose_all(commands).await;
        let outcomes = pb::Outcomes {
            outcomes: answers.into_iter().map(wire::to_pb).collect(),
            index: self.core.applied_index(),
        };
        Ok(Response::new(pb::ProposeResponse { outcomes: Some(outcomes) }))
    }

    async fn read_index(
        &self,
        request: Request<pb::ReadIndexRequest>,
    ) -> Result<Response<pb::ReadIndexResponse>, Status> {
        self.check_leader(request.into_inner().addressed.as_ref())?;
        let index = self.core.read_index.index().await.map_err(|error| errors::read(&error))?;
        Ok(Response::new(pb::ReadIndexResponse { index }))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<pb::PeerLeaseRequest>,
    ) -> Result<Response<pb::PeerLeaseResponse>, Status> {
        let request = request.into_inner();
        self.check_leader(request.addressed.as_ref())?;
        let renewed = self.core.leases.renew(LeaseId(request.id)).await;
        let ttl = renewed.map_err(|error| errors::write(&error))?;
        Ok(Response::new(pb::PeerLeaseResponse { ttl, granted_ttl: ttl }))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::PeerLeaseRequest>,
    ) -> Result<Response<pb::PeerLeaseResponse>, Status> {
        let request = request.into_inner();
        self.check_leader(request.addressed.as_ref())?;
        let ttl = self.core.leases.time_to_live(LeaseId(request.id)).await;
        let ttl = ttl.map_err(|error| errors::read(&error))?;
        Ok(Response::new(pb::PeerLeaseResponse { ttl: ttl.unwrap_or(-1), granted_ttl: 0 }))
    }

    async fn change_member(
        &self,
        request: Request<pb::ChangeMemberRequest>,
    ) -> Result<Response<pb::ChangeMemberResponse>, Status> {
        let request = request.into_inner();
        self.check_leader(request.addressed.as_ref())?;
        let change = request.change.ok_or_else(|| Status::invalid_argument("no change"))?;
        let refusal = match members::apply(&self.core, &change).await {
            Ok(()) => None,
            Err(WriteError::Rejected(rejection)) => Some(wire::refusal_to_pb(&rejection)),
            Err(WriteError::NotApplied(_)) => return Err(errors::transient(errors::NOT_LEADER)),
            Err(error) => return Err(errors::write(&error)),
        };
        Ok(Response::new(pb::ChangeMemberResponse { refusal }))
    }

    async fn hash_kv(
        &self,
        request: Request<pb::PeerHashRequest>,
    ) -> Result<Response<HashKvResponse>, Status> {
        let request = request.into_inner();
        self.check(request.addressed.as_ref())?;
        let answer = corruption::hash(&self.core, request.revision).await;
        answer.map(Response::new).map_err(|error| errors::read(&error))
    }

    async fn cluster_info(
        &self,
        _request: Request<pb::ClusterInfoRequest>,
    ) -> Result<Response<pb::ClusterInfoResponse>, Status> {
        let membership = self.core.leadership.membership();
        let applied = self.core.state.membership();
        Ok(Response::new(pb::ClusterInfoResponse {
            cluster_id: self.core.identity.cluster_id,
            member_id: self.core.identity.member_id,
            membership: Some(membership_to_pb(membership.membership())),
            applied_members: applied.membership().nodes().map(|(id, _)| *id).collect(),
            leads: self.core.leadership.is_leader(),
            term: self.core.leadership.term(),
        }))
    }
}
