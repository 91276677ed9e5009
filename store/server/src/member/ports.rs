//! The ports of a member and what is served on them.

use std::sync::Arc;

use pintle_proto::raft::peer_server::PeerServer;
use tokio::task::JoinHandle;

use super::{StartError, failed};
use crate::config::{Config, TlsFiles};
use crate::handle::Handle;
use crate::listener::{Listener, Stop, resolve};
use crate::peer::{MESSAGE_BYTES_MAX, PeerService};
use crate::{grpc, http, metrics, tls};

/// The ports, bound before anything is served, so that a taken one fails the start.
pub(super) struct Ports {
    clients: Vec<Listener>,
    peers: Vec<Listener>,
    metrics: Option<Listener>,
}

impl Ports {
    pub(super) async fn bind(config: &Config) -> Result<Self, StartError> {
        let metrics = match config.metrics_listen {
            Some(address) => Some(
                Listener::bind(address, None).await.map_err(failed("binding the metrics port"))?,
            ),
            None => None,
        };
        Ok(Self {
            clients: bind_urls(&config.listen_client_urls, config.client_tls.as_ref()).await?,
            peers: bind_urls(&config.listen_peer_urls, config.peer_tls.as_ref()).await?,
            metrics,
        })
    }

    pub(super) fn serve(self, handle: &Arc<Handle>, stop: &Stop) -> Vec<JoinHandle<()>> {
        let core = handle.core();
        let service = PeerServer::new(PeerService::new(Arc::clone(core)))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let peer_routes = tonic::service::Routes::new(service).into_axum_router();
        let health = http::router(Arc::clone(core));
        let client_routes = grpc::routes(handle).merge(health.clone());
        let metric_routes = metrics::router(Arc::clone(core)).merge(health);
        let clients = self.clients.into_iter().map(|listener| (listener, client_routes.clone()));
        let peers = self.peers.into_iter().map(|listener| (listener, peer_routes.clone()));
        let metrics = self.metrics.into_iter().map(|listener| (listener, metric_routes.clone()));
        let all = clients.chain(peers).chain(metrics);
        all.map(|(listener, router)| tokio::spawn(listener.serve(router, stop.clone()))).collect()
    }
}

async fn bind_urls(urls: &[String], files: Option<&TlsFiles>) -> Result<Vec<Listener>, StartError> {
    let acceptor = files.map(tls::acceptor).transpose().map_err(failed("reading certificates"))?;
    let mut bound = Vec::new();
    for url in urls {
        let address = resolve(url).await.map_err(failed("resolving a listen address"))?;
        let tls = acceptor.clone().filter(|_| url.starts_with("https://"));
        bound.push(Listener::bind(address, tls).await.map_err(failed("binding a port"))?);
    }
    Ok(bound)
}
