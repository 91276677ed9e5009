//! Serves HTTP/1.1 and HTTP/2 on a port, with or without TLS. gRPC, health and metrics share it.

mod authority;
mod front;
mod gather;
mod pings;
mod short;

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::authority::MendAuthority;
pub(crate) use self::front::{Answering, Direct, Front};
use self::gather::Gather;
use self::pings::Pings;
use self::short::{Marker, Short};
use crate::auth::{ClientCertificate, common_name};
use crate::tls;

/// HTTP/2 receive windows: large enough that a log batch or a watch backlog is not sliced into
/// round trips.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// How long open requests may take to finish when the member stops.
const DRAIN_MAX: Duration = Duration::from_secs(1);
/// A handshake that takes longer is dropped.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Limits on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Requests and streams at the same time.
    pub concurrent_streams_max: u32,
    /// How often an idle connection is asked whether it is alive; zero: never.
    pub keepalive_interval: Duration,
    /// How long the answer to that may take.
    pub keepalive_timeout: Duration,
    /// A client that asks the same more often than this is told so, and loses its connection; zero: it may.
    pub keepalive_min_time: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            concurrent_streams_max: u32::MAX,
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(20),
            keepalive_min_time: Duration::ZERO,
        }
    }
}

/// How serving ends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    /// Accept nothing more, let open requests finish for a moment.
    pub(crate) gently: CancellationToken,
    /// Drop every connection; only looked at after `gently`.
    pub(crate) now: CancellationToken,
}

/// A bound port.
pub(crate) struct Listener {
    listener: TcpListener,
    tls: Option<Arc<tls::Server>>,
    limits: HttpLimits,
}

impl Listener {
    pub(crate) async fn bind(
        address: SocketAddr,
        tls: Option<Arc<tls::Server>>,
        limits: HttpLimits,
    ) -> io::Result<Self> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{address}: {error}"));
        Ok(Self { listener: TcpListener::bind(address).await.map_err(named)?, tls, limits })
    }

    pub(crate) fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Serves until `stop` says so.
    pub(crate) async fn serve(self, front: Front, stop: Stop) {
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = stop.gently.cancelled() => break,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (front, tls) = (front.clone(), self.tls.clone());
                    let (limits, stop) = (self.limits, stop.clone());
                    connections.spawn(connection(stream, tls, front, limits, stop));
                }
                Err(error) => {
                    // Out of file descriptors, mostly: accepting again at once would spin.
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        connections.close();
        connections.wait().await;
    }
}

async fn connection(
    stream: TcpStream,
    tls: Option<Arc<tls::Server>>,
    front: Front,
    limits: HttpLimits,
    stop: Stop,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY was not set");
    }
    let Some(tls) = tls else {
        return http(stream, front, limits, stop).await;
    };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.acceptor().accept(stream)).await {
        Ok(Ok(stream)) => {
            // The first one is the client's own, and was verified.
            let certificate =
                stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            let certificate = certificate.and_then(common_name).map(ClientCertificate);
            http(stream, front.with_certificate(certificate), limits, stop).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "rejected connection"),
        Err(_) => tracing::debug!("TLS handshake timed out"),
    }
}

async fn http<S>(stream: S, front: Front, limits: HttpLimits, stop: Stop)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let marker = Marker::default();
    let mut builder = auto::Builder::new(marker.executor());
    builder
        .http2()
        .timer(TokioTimer::new())
        // As in etcd: gRPC has no use for it, and every answer would carry it.
        .auto_date_header(false)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(limits.concurrent_streams_max)
        .keep_alive_interval(Some(limits.keepalive_interval).filter(|every| !every.is_zero()))
        .keep_alive_timeout(limits.keepalive_timeout);
    let pings = Pings::new(limits.keepalive_min_time);
    let stream = Gather::new(MendAuthority::new(stream), pings, marker.clone());
    let front = front.with_marker(marker.clone());
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), front);
    tokio::pin!(connection);
    let mut short = Short::new(marker);
    let ended = tokio::select! {
        ended = poll_fn(|context| short.poll(connection.as_mut(), context)) => ended,
        () = stop.gently.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = poll_fn(|context| short.poll(connection.as_mut(), context)) => ended,
                () = tokio::time::sleep(DRAIN_MAX) => Ok(()),
                () = stop.now.cancelled() => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

/// The socket address behind a listen URL such as `http://localhost:2379`.
pub(crate) async fn resolve(url: &str) -> io::Result<SocketAddr> {
    let invalid =
        |what: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{url}: {what}"));
    let uri: http::Uri = url.parse().map_err(|_| invalid("not a URL"))?;
    let host = uri.host().ok_or_else(|| invalid("no host"))?;
    let port = uri.port_u16().ok_or_else(|| invalid("no port"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let mut found: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
    // `localhost` is often both; the IPv4 address is what clients without IPv6 reach.
    found.sort_by_key(SocketAddr::is_ipv6);
    found.first().copied().ok_or_else(|| invalid("unknown host"))
}
