//! How openraft reaches the other members: replication in one pipelined stream, heartbeats and
//! votes beside it, snapshots on a connection of their own.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{RPCOption, RPCTypes, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use pintle_proto::raft as pb;
use pintle_proto::raft::peer_client::PeerClient;
use prost::Message;
use tonic::{Code, Status};

use super::convert::{
    append_result_from_pb, append_to_pb, log_id_from_pb, log_id_to_pb, vote_from_pb, vote_to_pb,
};
use super::log::LogStore;
use super::news::Together;
use super::snapshot::{SnapshotData, StateSnapshot};
use super::snapshot_donor::{self, Donors};
use super::types::{LogId, Node, TypeConfig, Vote};
use crate::peer::{Lane, PeerChannel, Peers};

type Rpc<T> = Result<T, RPCError<TypeConfig>>;
type AppendResults<'s> = BoxStream<'s, Rpc<StreamAppendResult<TypeConfig>>>;

/// Makes the clients that openraft asks for.
pub(crate) struct NetworkFactory {
    member_id: u64,
    log: LogStore,
    peers: Arc<Peers>,
    donors: Arc<Donors>,
}

impl NetworkFactory {
    /// `log` is the one whose entries are sent.
    pub(crate) fn new(
        member_id: u64,
        log: LogStore,
        peers: Arc<Peers>,
        donors: Arc<Donors>,
    ) -> Self {
        Self { member_id, log, peers, donors }
    }

    fn network(&self, target: u64, node: &Node, lane: Lane) -> Network {
        Network {
            member_id: self.member_id,
            target,
            node: node.clone(),
            lane,
            log: self.log.clone(),
            peers: Arc::clone(&self.peers),
            donors: Arc::clone(&self.donors),
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for NetworkFactory {
    type Network = Network;

    async fn new_client(&mut self, target: u64, node: &Node) -> Network {
        self.network(target, node, Lane::Log)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Node) -> Network {
        self.network(target, node, Lane::Control)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &Node) -> Network {
        self.network(target, node, Lane::Bulk)
    }
}

/// One member, as seen from here.
pub(crate) struct Network {
    member_id: u64,
    target: u64,
    node: Node,
    lane: Lane,
    log: LogStore,
    peers: Arc<Peers>,
    donors: Arc<Donors>,
}

fn unreachable(status: &Status) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(status))
}

/// No connection: openraft waits before it tries again. Anything else may work at once.
fn failed(status: &Status) -> RPCError<TypeConfig> {
    match status.code() {
        Code::Unavailable | Code::FailedPrecondition => unreachable(status),
        _ => RPCError::Network(NetworkError::new(status)),
    }
}

fn malformed(missing: &super::convert::Missing) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::new(missing))
}

/// What is said on one stream, to its end or until the log no longer has what the stream is for.
///
/// openraft takes its next command for a member between two streams, or on a stream that has sent
/// everything (`StreamState::get_log_id_range`). When the entries that a stream should send next
/// have been cut from the log, it is neither: it finds none, sends a request without any in their
/// place, and the same again, for ever, while the command to go on after the snapshot waits.
/// A single request of this kind may also be the news of a commit, which ends by itself.
fn while_served<S>(
    requests: S,
    purged: impl Fn() -> Option<LogId>,
) -> impl Stream<Item = S::Item> + Unpin
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin,
{
    let mut starved = false;
    requests.take_while(move |request| {
        let empty = request.entries.is_empty() && request.prev_log_id < purged();
        let ends = std::mem::replace(&mut starved, empty) && empty;
        std::future::ready(!ends)
    })
}

impl Network {
    fn client(&self, lane: Lane) -> Rpc<PeerClient<PeerChannel>> {
        self.peers.client(&self.node, lane).map_err(|status| unreachable(&status))
    }

    async fn within<T>(
        &self,
        action: RPCTypes,
        option: &RPCOption,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Rpc<T> {
        let timeout = option.soft_ttl();
        let traffic = self.peers.traffic.of(self.target);
        let began = Instant::now();
        let answer = tokio::time::timeout(timeout, call).await;
        match answer {
            Ok(Ok(response)) => {
                traffic.round_trips.observe(began.elapsed());
                Ok(response.into_inner())
            }
            Ok(Err(status)) => {
                traffic.failed();
                Err(failed(&status))
            }
            Err(_) => {
                traffic.failed();
                let (id, target) = (self.member_id, self.target);
                Err(RPCError::Timeout(Timeout { action, id, target, timeout }))
            }
        }
    }

    async fn ask_vote(
        &self,
        request: VoteRequest<TypeConfig>,
        pre_vote: bool,
        option: &RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        let mut client = self.client(Lane::Control)?;
        let message = pb::VoteRequest {
            addressed: Some(self.peers.addressed(self.target)),
            vote: Some(vote_to_pb(&request.vote)),
            last_log_id: request.last_log_id.as_ref().map(log_id_to_pb),
            leadership_transfer: request.leadership_transfer,
            pre_vote,
        };
        let response = self.within(RPCTypes::Vote, option, client.vote(message)).await?;
        let vote = vote_from_pb(response.vote.as_ref()).map_err(|missing| malformed(&missing))?;
        let last_log_id = response.last_log_id.as_ref().map(log_id_from_pb);
        Ok(VoteResponse::new(vote, last_log_id, response.granted))
    }

    /// A follower sends its own, or else this leader does.
    async fn send_snapshot(
        &self,
        client: PeerClient<PeerChannel>,
        vote: &Vote,
        snapshot: StateSnapshot,
    ) -> Result<Vote, Status> {
        let target = (self.target, &self.node);
        let donated = self.donors.send(&self.peers, self.member_id, target, vote, &snapshot.meta);
        match donated.await {
            Some(Ok(vote)) => return Ok(vote),
            Some(Err(error)) => tracing::info!(%error, "a follower could not send its snapshot"),
            None => {}
        }
        snapshot_donor::transfer(&self.peers, client, self.target, vote, snapshot).await
    }

    async fn open_stream<'s, S>(&'s self, input: S) -> Rpc<AppendResults<'s>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        let addressed = self.peers.addressed(self.target);
        let log = self.log.clone();
        let served = while_served(input, move || log.purged());
        let mut requests = Together::new(served, self.peers.traffic.of(self.target))
            .map(move |request| append_to_pb(&request, addressed))
            .peekable();
        // After a failure openraft waits with its next request (`StreamState::backoff_if_enabled`): to
        // ask for it first is what keeps a member that is gone from being called without a pause.
        if Pin::new(&mut requests).peek().await.is_none() {
            return Ok(futures::stream::empty().boxed());
        }
        let opened = self.peers.open_append(&self.node).await;
        let opened = opened.map_err(|error| RPCError::Unreachable(Unreachable::new(&error)))?;
        let Some(opened) = opened else { return self.call_append(requests).await };
        let traffic = self.peers.traffic.of(self.target);
        traffic.framed_streams.fetch_add(1, Ordering::Relaxed);
        let responses = opened.append(requests, &traffic);
        let results = responses.map(|response| match response {
            Ok(response) => append_result_from_pb(response).map_err(|missing| malformed(&missing)),
            Err(error) => Err(RPCError::Unreachable(Unreachable::new(&error))),
        });
        Ok(results.boxed())
    }

    /// The same with gRPC.
    async fn call_append<'s>(
        &'s self,
        requests: impl Stream<Item = pb::AppendRequest> + Send + 'static,
    ) -> Rpc<AppendResults<'s>> {
        let mut client = self.client(Lane::Log)?;
        let traffic = self.peers.traffic.of(self.target);
        let sent = Arc::clone(&traffic);
        let requests = requests.inspect(move |request| sent.sent(request.encoded_len()));
        let responses = client.append(requests).await.map_err(|status| failed(&status))?;
        traffic.grpc_streams.fetch_add(1, Ordering::Relaxed);
        let results = responses.into_inner().map(|response| match response {
            Ok(response) => append_result_from_pb(response).map_err(|missing| malformed(&missing)),
            Err(status) => Err(failed(&status)),
        });
        Ok(results.boxed())
    }
}

impl RaftNetworkV2<TypeConfig> for Network {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<AppendEntriesResponse<TypeConfig>> {
        let mut client = self.client(self.lane)?;
        let message = append_to_pb(&request, self.peers.addressed(self.target));
        let call = client.append_one(message);
        let response = self.within(RPCTypes::AppendEntries, &option, call).await?;
        let result = append_result_from_pb(response).map_err(|missing| malformed(&missing))?;
        Ok(AppendEntriesResponse::from(result))
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Rpc<AppendResults<'s>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        if self.lane == Lane::Log {
            Box::pin(self.open_stream(input))
        } else {
            // A heartbeat is a single message: no stream to set up.
            stream_append_sequential(self, input, option)
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        self.ask_vote(request, false, &option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        self.ask_vote(request, true, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: StateSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let client = self.client(Lane::Bulk)?;
        let sent = tokio::select! {
            sent = self.send_snapshot(client, &vote, snapshot) => sent,
            closed = cancel => return Err(StreamingError::Closed(closed)),
        };
        sent.map(SnapshotResponse::new).map_err(|status| failed(&status).into())
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<TransferLeaderResponse<TypeConfig>> {
        let mut client = self.client(Lane::Control)?;
        let message = pb::TransferLeaderRequest {
            addressed: Some(self.peers.addressed(self.target)),
            from_leader: Some(vote_to_pb(request.from_leader())),
            to: *request.to_node_id(),
            last_log_id: request.last_log_id().map(log_id_to_pb),
        };
        let call = client.transfer_leader(message);
        let response = self.within(RPCTypes::TransferLeader, &option, call).await?;
        if response.accepted {
            return Ok(Ok(()));
        }
        Ok(Err(match response.actual_vote {
            Some(actual) => TransferLeaderError::VoteChanged {
                expected: *request.from_leader(),
                actual: vote_from_pb(Some(&actual)).map_err(|missing| malformed(&missing))?,
            },
            None => TransferLeaderError::LogNotFlushed {
                expected: request.last_log_id().copied(),
                actual: response.actual_log_id.as_ref().map(log_id_from_pb),
            },
        }))
    }
}

impl From<super::convert::Missing> for RPCError<TypeConfig> {
    fn from(missing: super::convert::Missing) -> Self {
        malformed(&missing)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use openraft::entry::RaftEntry;
    use openraft::vote::RaftLeaderId;
    use openraft::{EntryPayload, impls::leader_id_std::LeaderId};

    use super::*;

    fn id(index: u64) -> LogId {
        LogId::new(LeaderId::new(3, 1).to_committed(), index)
    }

    fn after(prev: u64, entries: u64) -> AppendEntriesRequest<TypeConfig> {
        let entry = |index| super::super::types::Entry::new(id(index), EntryPayload::Blank);
        AppendEntriesRequest {
            vote: Vote::new_committed(3, 1),
            prev_log_id: (prev > 0).then(|| id(prev)),
            entries: (prev + 1..=prev + entries).map(entry).collect(),
            leader_commit: Some(id(200)),
        }
    }

    /// How many requests of `said` are sent when the log is cut up to entry 171.
    fn sent(said: &[(u64, u64)]) -> usize {
        let requests: Vec<_> = said.iter().map(|(prev, entries)| after(*prev, *entries)).collect();
        let served = while_served(futures::stream::iter(requests), || Some(id(171)));
        served.count().now_or_never().expect("nothing to wait for")
    }

    #[test]
    fn a_stream_whose_entries_are_gone_ends() {
        assert_eq!(sent(&[(120, 11), (131, 0), (131, 0), (131, 0)]), 2);
        assert_eq!(sent(&[(0, 0), (0, 0)]), 1);
    }

    #[test]
    fn a_stream_that_tells_of_commits_goes_on() {
        assert_eq!(sent(&[(171, 0), (171, 0), (171, 4), (175, 0), (175, 0)]), 5);
        assert_eq!(sent(&[(131, 0), (171, 2), (131, 0), (173, 0)]), 4, "one alone says nothing");
    }
}
