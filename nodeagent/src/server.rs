//! The kubelet API: HTTPS for the apiserver and for administrators, nobody else.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use tokio_util::sync::CancellationToken;

use crate::config::TlsFiles;
use crate::context::NodeContext;
use crate::pod::table::PodTable;

mod error;
mod info;
mod logs;
mod streaming;
mod tls;

/// What the handlers read.
#[derive(Clone)]
pub struct State {
    /// The node.
    pub context: Arc<NodeContext>,
    /// Its pods.
    pub pods: PodTable,
}

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificates.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The address.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
}

/// Starts serving; returns when the socket listens.
pub async fn start(
    state: State,
    listen: SocketAddr,
    files: &TlsFiles,
    client_ca: &std::path::Path,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let acceptor = tls::acceptor(files, client_ca)?;
    let listener = tokio::net::TcpListener::bind(listen)
        .await
        .map_err(|source| Error::Listen { address: listen, source })?;
    tokio::spawn(tls::serve(listener, acceptor, router(state), shutdown));
    Ok(())
}

fn router(state: State) -> Router {
    let stream = |kind| {
        get(move |s, path, query, request| streaming::remote_command(kind, s, path, query, request))
            .post(move |s, path, query, request| {
                streaming::remote_command(kind, s, path, query, request)
            })
    };
    let forward = || get(streaming::port_forward).post(streaming::port_forward);
    Router::new()
        .route("/healthz", get(info::healthz))
        .route("/pods", get(info::pods))
        .route("/configz", get(info::configz))
        .route("/stats/summary", get(info::summary))
        .route("/metrics", get(info::metrics))
        .route("/metrics/resource", get(info::resource_metrics))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs::container_logs))
        .route("/exec/{namespace}/{pod}/{container}", stream(streaming::Kind::Exec))
        .route("/exec/{namespace}/{pod}/{uid}/{container}", stream(streaming::Kind::Exec))
        .route("/attach/{namespace}/{pod}/{container}", stream(streaming::Kind::Attach))
        .route("/attach/{namespace}/{pod}/{uid}/{container}", stream(streaming::Kind::Attach))
        .route("/portForward/{namespace}/{pod}", forward())
        .route("/portForward/{namespace}/{pod}/{uid}", forward())
        .with_state(state)
}
