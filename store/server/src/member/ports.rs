//! The ports of a member and what is served on them.

use std::sync::Arc;
use std::time::Duration;

use pintle_proto::raft::peer_server::PeerServer;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{StartError, failed};
use crate::config::{Config, TlsFiles};
use crate::handle::Handle;
use crate::listener::{Front, HttpLimits, Listener, Stop, resolve};
use crate::peer::{MESSAGE_BYTES_MAX, PeerService, append_routes};
use crate::tls::TlsPolicy;
use crate::{grpc, http, proposer, tls};

/// How long a member that stops waits for the writes of others that it has taken.
const RELAY_MAX: Duration = Duration::from_secs(1);

/// The ports, bound before anything is served, so that a taken one fails the start.
pub(super) struct Ports {
    clients: Vec<Listener>,
    peers: Vec<Listener>,
    metrics: Option<Listener>,
}

impl Ports {
    pub(super) async fn bind(config: &Config) -> Result<Self, StartError> {
        let metrics = match config.metrics_listen {
            Some(address) => {
                let bound = Listener::bind(address, None, HttpLimits::default()).await;
                Some(bound.map_err(failed("binding the metrics port"))?)
            }
            None => None,
        };
        let clients = server_tls(config.client_tls.as_ref(), &config.client_tls_policy)?;
        let peers = server_tls(config.peer_tls.as_ref(), &config.peer_tls_policy)?;
        Ok(Self {
            clients: bind_urls(&config.listen_client_urls, clients, config.http).await?,
            peers: bind_urls(&config.listen_peer_urls, peers, HttpLimits::default()).await?,
            metrics,
        })
    }

    pub(super) fn serve(
        self,
        handle: &Arc<Handle>,
        clients_stop: Stop,
        peers_stop: Stop,
    ) -> Served {
        let core = handle.core();
        let service = PeerServer::new(PeerService::new(Arc::clone(core)))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let peer_routes =
            tonic::service::Routes::new(service).into_axum_router().merge(append_routes(core));
        let grpc_routes = grpc::routes(handle);
        let front = |tls| {
            let routes = http::client_routes(core, grpc_routes.clone(), tls);
            Front::new(grpc::busiest(handle), routes)
        };
        let (plain, tls) = (front(false), front(true));
        let metric_routes = http::metrics_routes(core);
        let clients = self.clients.into_iter().map(|listener| {
            let front = if listener.has_tls() { &tls } else { &plain };
            (listener, front.clone())
        });
        let peers = self.peers.into_iter().map(|listener| (listener, peer_routes.clone().into()));
        let metrics =
            self.metrics.into_iter().map(|listener| (listener, metric_routes.clone().into()));
        let start = |(listener, front): (Listener, Front), stop: &Stop| {
            tokio::spawn(listener.serve(front, stop.clone()))
        };
        let clients = clients.chain(metrics).map(|one| start(one, &clients_stop)).collect();
        let peers = peers.map(|one| start(one, &peers_stop)).collect();
        Served { clients, clients_stop, peers, peers_stop }
    }
}

/// What is being served, and how to end it.
#[derive(Debug)]
pub(super) struct Served {
    clients: Vec<JoinHandle<()>>,
    clients_stop: Stop,
    peers: Vec<JoinHandle<()>>,
    peers_stop: Stop,
}

impl Served {
    /// Lets go of open requests too.
    pub(super) fn abandon(&self) {
        self.clients_stop.now.cancel();
        self.peers_stop.now.cancel();
    }

    /// Clients first: what they still wait for, this member learns from its peers. So it does with
    /// what peers have asked it to write when it still led (`relaying` counts it).
    pub(super) async fn end(self, relaying: &watch::Sender<usize>) {
        self.clients_stop.gently.cancel();
        join(self.clients).await;
        tokio::select! {
            () = proposer::none(relaying) => {}
            () = self.peers_stop.now.cancelled() => {}
            () = tokio::time::sleep(RELAY_MAX) => {}
        }
        self.peers_stop.gently.cancel();
        join(self.peers).await;
    }
}

async fn join(servers: Vec<JoinHandle<()>>) {
    for server in servers {
        if let Err(error) = server.await {
            tracing::warn!(%error, "a server did not end cleanly");
        }
    }
}

fn server_tls(
    files: Option<&TlsFiles>,
    policy: &TlsPolicy,
) -> Result<Option<Arc<tls::Server>>, StartError> {
    let server = files.map(|files| tls::Server::new(files, policy)).transpose();
    Ok(server.map_err(failed("reading certificates"))?.map(Arc::new))
}

async fn bind_urls(
    urls: &[String],
    server: Option<Arc<tls::Server>>,
    limits: HttpLimits,
) -> Result<Vec<Listener>, StartError> {
    let mut bound = Vec::new();
    for url in urls {
        let address = resolve(url).await.map_err(failed("resolving a listen address"))?;
        let tls = server.clone().filter(|_| url.starts_with("https://"));
        bound.push(Listener::bind(address, tls, limits).await.map_err(failed("binding a port"))?);
    }
    Ok(bound)
}
