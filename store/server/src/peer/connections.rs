//! Connections to the other members, by address and purpose.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pintle_proto::raft::Addressed;
use pintle_proto::raft::peer_client::PeerClient;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::PeerChannel;
use super::append::{self, Opened};
use super::dial::Dial;
use super::traffic::Traffic;
use crate::consensus::Node;
use crate::host::Host;
use crate::tls;

/// A connection is refused or stands within this time; elections wait for it.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;

/// Messages among members are bounded by what a log entry may hold; this only guards against
/// nonsense.
pub(crate) const MESSAGE_BYTES_MAX: usize = 512 << 20;

/// Traffic that must not queue behind other traffic has a connection of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    /// Log entries.
    Log,
    /// Heartbeats, votes, forwarded requests: small and urgent.
    Control,
    /// Snapshots.
    Bulk,
}

/// Makes and keeps connections. A broken one reconnects by itself with the next call.
#[derive(Debug)]
pub(crate) struct Peers {
    cluster_id: u64,
    member_id: u64,
    tls: Option<Arc<tls::Client>>,
    host: Host,
    channels: Mutex<HashMap<(String, Lane), PeerChannel>>,
    pub(crate) traffic: Traffic,
}

impl Peers {
    pub(crate) fn new(
        cluster_id: u64,
        member_id: u64,
        tls: Option<tls::Client>,
        host: Host,
    ) -> Self {
        let (tls, channels) = (tls.map(Arc::new), Mutex::default());
        Self { cluster_id, member_id, tls, host, channels, traffic: Traffic::default() }
    }

    /// How a request to `to` is addressed.
    pub(crate) fn addressed(&self, to: u64) -> Addressed {
        Addressed { cluster_id: self.cluster_id, from: self.member_id, to }
    }

    /// Refuses what is meant for another cluster or member.
    pub(crate) fn check(&self, addressed: Option<&Addressed>) -> Result<(), Status> {
        let addressed =
            addressed.ok_or_else(|| Status::invalid_argument("request without address"))?;
        if addressed.cluster_id != self.cluster_id {
            return Err(Status::failed_precondition("request of another cluster"));
        }
        if addressed.to != self.member_id {
            return Err(Status::failed_precondition("request for another member"));
        }
        Ok(())
    }

    /// The client of a member's first address.
    pub(crate) fn client(
        &self,
        node: &Node,
        lane: Lane,
    ) -> Result<PeerClient<PeerChannel>, Status> {
        let url =
            node.peer_urls.first().ok_or_else(|| Status::unavailable("member without address"))?;
        self.client_at(url, lane)
    }

    pub(crate) fn client_at(
        &self,
        url: &str,
        lane: Lane,
    ) -> Result<PeerClient<PeerChannel>, Status> {
        let mut channels = self.channels.lock();
        let key = (url.to_owned(), lane);
        let channel = match channels.get(&key) {
            Some(channel) => channel.clone(),
            None => channels.entry(key).or_insert(self.connect(url)?).clone(),
        };
        Ok(PeerClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    /// A connection for the log alone to a member's first address; `None` where gRPC must do.
    pub(crate) async fn open_append(&self, node: &Node) -> io::Result<Option<Opened>> {
        let unknown = || io::Error::new(io::ErrorKind::NotFound, "member without address");
        let url = node.peer_urls.first().ok_or_else(unknown)?;
        match &self.host {
            Host::Machine => append::open(url, self.tls.as_ref()).await,
            #[cfg(feature = "simulation")]
            Host::Simulated(simulated) => {
                Ok(simulated.network.open_append(url).await?.map(Opened::over))
            }
        }
    }

    fn connect(&self, url: &str) -> Result<PeerChannel, Status> {
        match &self.host {
            Host::Machine => connect(url, self.tls.as_ref()).map(PeerChannel::Connection),
            #[cfg(feature = "simulation")]
            Host::Simulated(simulated) => Ok(PeerChannel::Simulated {
                network: Arc::clone(&simulated.network),
                url: url.to_owned(),
            }),
        }
    }
}

fn connect(url: &str, tls: Option<&Arc<tls::Client>>) -> Result<Channel, Status> {
    let invalid = |error: tonic::transport::Error| Status::unavailable(format!("{url}: {error}"));
    // The channel leaves TLS to the dialler.
    let dial = tls.filter(|_| url.starts_with("https://")).map(|tls| Dial(Arc::clone(tls)));
    let plain = url.replacen("https://", "http://", 1);
    let endpoint = Endpoint::from_shared(if dial.is_some() { plain } else { url.to_owned() })
        .map_err(invalid)?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    Ok(match dial {
        Some(dial) => endpoint.connect_with_connector_lazy(dial),
        None => endpoint.connect_lazy(),
    })
}
