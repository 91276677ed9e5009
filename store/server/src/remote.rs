//! The store behind any etcd v3 endpoint: ours, or a real etcd.
//!
//! Several endpoints are several members of one cluster: a call goes to one of them and, when it
//! fails before it was sent, to the next. Requests and answers are etcd's own, so this only maps
//! errors and turns the watch protocol into a [`WatchStream`].

mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use pintle_proto::etcdserverpb::cluster_client::ClusterClient;
use pintle_proto::etcdserverpb::kv_client::KvClient;
use pintle_proto::etcdserverpb::lease_client::LeaseClient;
use pintle_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use pintle_proto::etcdserverpb::watch_client::WatchClient;
use pintle_store_api::{
    LeaseId, ReadError, Revision, Store, WatchError, WatchStream, WriteError, pb,
};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use crate::config::TlsFiles;
use crate::{errors, tls};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// As long as a member may take to answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
const WINDOW: u32 = 4 << 20;

/// Why a remote store cannot be used at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// There must be one endpoint at least.
    #[error("no endpoints")]
    NoEndpoints,
    /// An endpoint is not a URL.
    #[error("invalid endpoint {url}")]
    Endpoint {
        /// What was given.
        url: String,
        /// What is wrong with it.
        source: tonic::transport::Error,
    },
    /// The certificates cannot be read.
    #[error("reading the client certificates")]
    Tls(#[source] std::io::Error),
}

/// A client of an etcd v3 cluster.
#[derive(Clone, Debug)]
pub struct Remote {
    channels: Arc<[Channel]>,
    /// The endpoint that answered last.
    current: Arc<AtomicUsize>,
}

impl Remote {
    /// Prepares connections to `endpoints` (`http://…` or `https://…`), which are made when needed.
    pub fn connect(endpoints: &[String], tls: Option<&TlsFiles>) -> Result<Self, ConnectError> {
        let tls = tls.map(tls::client).transpose().map_err(ConnectError::Tls)?;
        let connect = |url: &String| {
            let invalid = |source| ConnectError::Endpoint { url: url.clone(), source };
            let mut endpoint = Endpoint::from_shared(url.clone())
                .map_err(invalid)?
                .connect_timeout(CONNECT_TIMEOUT)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
                .keep_alive_timeout(KEEPALIVE_TIMEOUT)
                .initial_stream_window_size(WINDOW)
                .initial_connection_window_size(WINDOW);
            if let Some(tls) = tls.clone().filter(|_| url.starts_with("https://")) {
                endpoint = endpoint.tls_config(tls).map_err(invalid)?;
            }
            Ok(endpoint.connect_lazy())
        };
        let channels: Arc<[Channel]> = endpoints.iter().map(connect).collect::<Result<_, _>>()?;
        if channels.is_empty() {
            return Err(ConnectError::NoEndpoints);
        }
        Ok(Self { channels, current: Arc::default() })
    }

    fn channel(&self) -> Channel {
        self.channels[self.current.load(Ordering::Relaxed) % self.channels.len()].clone()
    }

    /// Calls the endpoints in turn until one was reached, or for idempotent calls answered.
    async fn call<T, F>(&self, idempotent: bool, call: impl Fn(Channel) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut last = Status::unavailable(errors::TIMEOUT);
        for _ in 0..self.channels.len() {
            let answer = tokio::time::timeout(REQUEST_TIMEOUT, call(self.channel())).await;
            let status = match answer {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => Status::unavailable(errors::TIMEOUT),
            };
            let again =
                errors::never_sent(&status) || (idempotent && status.code() == Code::Unavailable);
            if !again {
                return Err(status);
            }
            self.current.fetch_add(1, Ordering::Relaxed);
            last = status;
        }
        Err(last)
    }

    async fn read<T, F>(&self, call: impl Fn(Channel) -> F) -> Result<T, ReadError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.call(true, call).await.map_err(|status| errors::read_from(&status))
    }

    async fn write<T, F>(&self, call: impl Fn(Channel) -> F) -> Result<T, WriteError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.call(false, call).await.map_err(|status| errors::write_from(&status))
    }
}

fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(usize::MAX)
}

#[async_trait::async_trait]
impl Store for Remote {
    async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, ReadError> {
        self.read(|channel| {
            let request = request.clone();
            async move { kv(channel).range(request).await }
        })
        .await
    }

    async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, WriteError> {
        self.write(|channel| {
            let request = request.clone();
            async move { kv(channel).txn(request).await }
        })
        .await
    }

    async fn compact(
        &self,
        request: pb::CompactionRequest,
    ) -> Result<pb::CompactionResponse, WriteError> {
        self.write(|channel| async move { kv(channel).compact(request).await }).await
    }

    async fn watch(&self, request: pb::WatchCreateRequest) -> Result<WatchStream, WatchError> {
        let mut last = WatchError::Unavailable(errors::TIMEOUT.to_owned());
        for _ in 0..self.channels.len() {
            let client = WatchClient::new(self.channel()).max_decoding_message_size(usize::MAX);
            match watch::open(client, request.clone()).await {
                Err(WatchError::Unavailable(reason)) => {
                    self.current.fetch_add(1, Ordering::Relaxed);
                    last = WatchError::Unavailable(reason);
                }
                opened => return opened,
            }
        }
        Err(last)
    }

    async fn read_index(&self) -> Result<Revision, ReadError> {
        // The header of any linearizable read tells; a count of one key is the cheapest.
        let request = pb::RangeRequest {
            key: bytes::Bytes::from_static(&[0]),
            count_only: true,
            ..Default::default()
        };
        let response = self.range(request).await?;
        Ok(Revision(response.header.map_or(0, |header| header.revision)))
    }

    async fn lease_grant(
        &self,
        request: pb::LeaseGrantRequest,
    ) -> Result<pb::LeaseGrantResponse, WriteError> {
        self.write(|channel| async move { LeaseClient::new(channel).lease_grant(request).await })
            .await
    }

    async fn lease_keep_alive(
        &self,
        id: LeaseId,
    ) -> Result<pb::LeaseKeepAliveResponse, WriteError> {
        let renew = |channel| async move {
            let request = pb::LeaseKeepAliveRequest { id: id.0 };
            let requests = futures::stream::iter([request]).chain(futures::stream::pending());
            let answers = LeaseClient::new(channel).lease_keep_alive(requests).await?;
            let answer = answers.into_inner().message().await?;
            answer.map(Response::new).ok_or_else(|| Status::unavailable(errors::TIMEOUT))
        };
        // Renewing twice does no harm.
        self.call(true, renew).await.map_err(|status| errors::write_from(&status))
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<pb::LeaseRevokeResponse, WriteError> {
        let request = pb::LeaseRevokeRequest { id: id.0 };
        self.write(|channel| async move { LeaseClient::new(channel).lease_revoke(request).await })
            .await
    }

    async fn status(&self) -> Result<pb::StatusResponse, ReadError> {
        self.read(|channel| async move {
            MaintenanceClient::new(channel).status(pb::StatusRequest {}).await
        })
        .await
    }

    async fn member_list(&self) -> Result<pb::MemberListResponse, ReadError> {
        self.read(|channel| async move {
            let request = pb::MemberListRequest { linearizable: true };
            ClusterClient::new(channel).member_list(request).await
        })
        .await
    }
}
