//! Accepts connections, ends them gently.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{Peer, Request, Server};

/// A handshake that takes longer is given up, so that half-open connections do not pile up.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// How long requests under way may take to end after the listener has closed.
const DRAIN_MAX: Duration = Duration::from_secs(4);

/// Streams of one HTTP/2 connection, as upstream: clients multiplex hundreds of watches.
const STREAMS_MAX: u32 = 1000;

/// Between pings on an HTTP/2 connection, so that a peer that vanished is noticed.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// After an accept error that is not the connection's own (out of file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves HTTPS until `shutdown`, then lets what is under way end.
pub(crate) async fn run(
    listener: TcpListener,
    tls: TlsAcceptor,
    server: Arc<Server>,
    shutdown: CancellationToken,
) {
    let graceful = GracefulShutdown::new();
    loop {
        let (stream, remote) = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accept(&listener) => accepted,
        };
        let (tls, server, watcher) = (tls.clone(), server.clone(), graceful.watcher());
        tokio::spawn(async move {
            let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_MAX, tls.accept(stream)).await
            else {
                return;
            };
            let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let certificates = certificates.iter().map(|one| one.clone().into_owned()).collect();
            let peer = Arc::new(Peer { remote, certificates, secure: true });
            serve(stream, peer, server, watcher).await;
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_MAX, graceful.shutdown()).await.is_err() {
        tracing::debug!("connections are cut that did not end by themselves");
    }
}

/// Plain HTTP for metrics and health only.
pub(crate) async fn plain(listener: TcpListener, server: Arc<Server>, shutdown: CancellationToken) {
    loop {
        let (stream, remote) = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = accept(&listener) => accepted,
        };
        let server = server.clone();
        tokio::spawn(async move {
            let peer = Arc::new(Peer { remote, certificates: Vec::new(), secure: false });
            serve(stream, peer, server, GracefulShutdown::new().watcher()).await;
        });
    }
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "TCP_NODELAY");
                }
                return (stream, remote);
            }
            Err(error) => {
                tracing::warn!(%error, "accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve<S>(stream: S, peer: Arc<Peer>, server: Arc<Server>, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request| {
        let (server, peer) = (server.clone(), peer.clone());
        async move { Ok::<_, Infallible>(server.handle(peer, request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(PING_INTERVAL);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection.into_owned()).await {
        tracing::trace!(%error, "a connection ended");
    }
}
