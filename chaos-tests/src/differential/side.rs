//! One of the two servers, as a client sees it.

mod auth;

use std::time::Instant;

use pintle_proto::etcdserverpb as pb;
use pintle_proto::etcdserverpb::auth_client::AuthClient;
use pintle_proto::etcdserverpb::cluster_client::ClusterClient;
use pintle_proto::etcdserverpb::kv_client::KvClient;
use pintle_proto::etcdserverpb::lease_client::LeaseClient;
use pintle_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use pintle_proto::etcdserverpb::watch_client::WatchClient;
use pintle_proto::etcdserverpb::watch_request::RequestUnion;
use tonic::Response;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};

pub(super) use self::auth::{ROOT, ROOT_PASSWORD};
use self::auth::{Shown, Tokens};
use super::call::{Call, Frame, Watch};
use super::server::Server;
use super::text::{self, response};
use super::watching::Watching;
use crate::{Result, wait_until};

/// A lease that lives shorter may end while a sequence runs.
const LASTING_TTL_MIN: i64 = 1_000;

type Service = InterceptedService<Channel, Shown>;

/// Clients of one server. They show root's token while authentication is on, unless a call of the
/// comparison is being made.
#[derive(Debug)]
pub(super) struct Side {
    channel: Channel,
    pub(super) kv: KvClient<Service>,
    lease: LeaseClient<Service>,
    cluster: ClusterClient<Service>,
    maintenance: MaintenanceClient<Service>,
    auth: AuthClient<Service>,
    watch: WatchClient<Service>,
    tokens: Tokens,
    pub(super) watching: Watching,
    started: Instant,
}

type Answer<T> = std::result::Result<Response<T>, tonic::Status>;

fn answer<T>(answer: Answer<T>, as_text: impl FnOnce(T) -> String) -> String {
    match answer {
        Ok(response) => as_text(response.into_inner()),
        Err(status) => text::refusal(&status),
    }
}

impl Side {
    /// Waits until the server answers.
    pub(super) async fn connect(server: &Server) -> Result<Self> {
        let endpoint = Endpoint::from_shared(server.url().to_owned());
        let endpoint = endpoint.map_err(|error| format!("{}: {error}", server.url()))?;
        let channel = wait_until("the server answers", super::PATIENCE, async || {
            let channel = endpoint.connect().await.map_err(|error| error.to_string())?;
            let request = pb::RangeRequest { key: "a".into(), ..Default::default() };
            let ready = KvClient::new(channel.clone()).range(request).await;
            ready.map(|_| channel).map_err(|status| status.to_string())
        })
        .await?;
        let watching = Watching::open(channel.clone()).await?;
        let tokens = Tokens::default();
        let service = InterceptedService::new(channel.clone(), tokens.shown());
        Ok(Self {
            kv: KvClient::new(service.clone()).max_decoding_message_size(usize::MAX),
            lease: LeaseClient::new(service.clone()),
            cluster: ClusterClient::new(service.clone()),
            maintenance: MaintenanceClient::new(service.clone()),
            auth: AuthClient::new(service.clone()),
            watch: WatchClient::new(service),
            tokens,
            channel,
            watching,
            started: Instant::now(),
        })
    }

    /// A new watch stream.
    pub(super) async fn rewatch(&mut self) -> Result {
        self.watching = Watching::open(self.channel.clone()).await?;
        Ok(())
    }

    /// Makes a call that is answered at once; the answer as text.
    pub(super) async fn call(&mut self, call: &Call, frame: &Frame) -> String {
        let user = match call {
            Call::As { user, .. } => Some(user.as_str()),
            _ => None,
        };
        self.tokens.show_of(user);
        let answer = self.make(call.inner(), frame).await;
        self.tokens.show_keeper();
        answer
    }

    async fn make(&mut self, call: &Call, frame: &Frame) -> String {
        match call {
            Call::Range(range) => {
                answer(self.kv.range(range.message(frame)).await, |it| response!(it))
            }
            Call::Put(put) => answer(self.kv.put(put.message()).await, |it| response!(it)),
            Call::Delete(delete) => {
                answer(self.kv.delete_range(delete.message()).await, |it| response!(it))
            }
            Call::Txn(txn) => answer(self.kv.txn(txn.message(frame)).await, |it| response!(it)),
            Call::Compact { revision, physical } => {
                let request = pb::CompactionRequest {
                    revision: frame.revision(revision),
                    physical: *physical,
                };
                answer(self.kv.compact(request).await, |it| response!(it))
            }
            Call::LeaseGrant { .. }
            | Call::LeaseRevoke { .. }
            | Call::LeaseTimeToLive { .. }
            | Call::LeaseKeepAlive { .. }
            | Call::LeaseLeases => self.lease_call(call).await,
            Call::Auth(call) => self.auth_call(call).await,
            Call::WatchAlone(watch) => self.watch_alone(watch, frame).await,
            Call::Watch(_) | Call::CancelWatch { .. } | Call::WatchProgress => {
                unreachable!("the session makes the calls of the watch stream")
            }
            _ => self.maintenance_call(call, frame).await,
        }
    }

    async fn lease_call(&mut self, call: &Call) -> String {
        match *call {
            Call::LeaseGrant { id, ttl } => {
                let granted = self.lease.lease_grant(pb::LeaseGrantRequest { ttl, id }).await;
                if let Ok(granted) = &granted
                    && ttl < LASTING_TTL_MIN
                {
                    // It must not end by itself while others are compared.
                    let request = pb::LeaseRevokeRequest { id: granted.get_ref().id };
                    drop(self.lease.lease_revoke(request).await);
                }
                answer(granted, |mut granted| {
                    // One that the server chose.
                    granted.id = if id == 0 { i64::from(granted.id > 0) } else { granted.id };
                    response!(granted)
                })
            }
            Call::LeaseRevoke { id } => {
                let request = pb::LeaseRevokeRequest { id };
                answer(self.lease.lease_revoke(request).await, |it| response!(it))
            }
            Call::LeaseTimeToLive { id, keys } => {
                let request = pb::LeaseTimeToLiveRequest { id, keys };
                let told = self.lease.lease_time_to_live(request).await;
                let elapsed = self.started.elapsed().as_secs();
                let elapsed = i64::try_from(elapsed).unwrap_or(i64::MAX);
                answer(told, |told| text::time_to_live(told, elapsed))
            }
            Call::LeaseKeepAlive { id } => self.keep_alive(id).await,
            _ => {
                let listed = self.lease.lease_leases(pb::LeaseLeasesRequest {}).await;
                answer(listed, text::leases)
            }
        }
    }

    async fn keep_alive(&mut self, id: i64) -> String {
        let requests = tokio_stream::once(pb::LeaseKeepAliveRequest { id });
        match self.lease.lease_keep_alive(requests).await {
            Ok(kept) => match kept.into_inner().message().await {
                Ok(Some(kept)) => response!(kept),
                Ok(None) => "nothing".to_owned(),
                Err(status) => text::refusal(&status),
            },
            Err(status) => text::refusal(&status),
        }
    }

    /// The first response on a stream of its own.
    async fn watch_alone(&mut self, watch: &Watch, frame: &Frame) -> String {
        let request_union = Some(RequestUnion::CreateRequest(watch.message(frame)));
        // The stream stays open: what comes first is the answer, not that it was closed.
        let requests = tokio_stream::once(pb::WatchRequest { request_union });
        let requests = tokio_stream::StreamExt::chain(requests, tokio_stream::pending());
        match self.watch.watch(requests).await {
            Ok(responses) => match responses.into_inner().message().await {
                Ok(Some(response)) => response!(response),
                Ok(None) => "nothing".to_owned(),
                Err(status) => text::refusal(&status),
            },
            Err(status) => text::refusal(&status),
        }
    }

    /// Writes a key that no call uses; its revision.
    pub(super) async fn put(&mut self, put: &super::call::Put) -> Result<i64> {
        let answer = self.kv.put(put.message()).await.map_err(|status| status.to_string())?;
        Ok(answer.into_inner().header.unwrap_or_default().revision)
    }

    async fn maintenance_call(&mut self, call: &Call, frame: &Frame) -> String {
        let urls = || vec!["http://127.0.0.1:1".to_owned()];
        match call {
            Call::HashKv { revision } => {
                let request = pb::HashKvRequest { revision: frame.revision(revision) };
                answer(self.maintenance.hash_kv(request).await, text::hash_kv)
            }
            Call::MemberList { linearizable } => {
                let request = pb::MemberListRequest { linearizable: *linearizable };
                answer(self.cluster.member_list(request).await, text::members)
            }
            Call::MemberRemove { id } => {
                let request = pb::MemberRemoveRequest { id: *id };
                answer(self.cluster.member_remove(request).await, |it| response!(it))
            }
            Call::MemberPromote { id } => {
                let request = pb::MemberPromoteRequest { id: *id };
                answer(self.cluster.member_promote(request).await, |it| response!(it))
            }
            Call::MemberUpdate { id } => {
                let request = pb::MemberUpdateRequest { id: *id, peer_ur_ls: urls() };
                answer(self.cluster.member_update(request).await, |it| response!(it))
            }
            Call::Alarms { action, alarm } => {
                let request = pb::AlarmRequest { action: *action, member_id: 0, alarm: *alarm };
                answer(self.maintenance.alarm(request).await, |it| response!(it))
            }
            Call::Defragment => {
                let request = pb::DefragmentRequest {};
                answer(self.maintenance.defragment(request).await, |it| response!(it))
            }
            Call::MoveLeader { target } => {
                let request = pb::MoveLeaderRequest { target_id: *target };
                answer(self.maintenance.move_leader(request).await, |it| response!(it))
            }
            _ => answer(self.maintenance.status(pb::StatusRequest {}).await, text::status),
        }
    }

    /// The ids of all leases, for the clean-up.
    pub(super) async fn lease_ids(&mut self) -> Result<Vec<i64>> {
        let listed = self.lease.lease_leases(pb::LeaseLeasesRequest {}).await;
        let listed = listed.map_err(|status| status.to_string())?.into_inner();
        Ok(listed.leases.iter().map(|lease| lease.id).collect())
    }
}
