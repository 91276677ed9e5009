//! Puts the parts together and runs them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pintle_apiserver_storage::{Caches, Storage, run_compactor};
use pintle_store_api::Store;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::documents::Documents;
use crate::health::Health;
use crate::http::{self, Server};
use crate::openid::Openid;
use crate::registry::Registry;
use crate::{Config, admission, authn, authz, bootstrap, connect, crd};

/// Between attempts to create the bootstrap objects.
const BOOTSTRAP_PAUSE: Duration = Duration::from_millis(500);

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A file of the configuration cannot be used.
    #[error("{path}: {why}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: std::net::SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// Serves until `shutdown`; returns when requests under way have ended.
pub async fn serve(
    config: Config,
    store: Arc<dyn Store>,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let config = Arc::new(config);
    let tls = http::acceptor(&config)?;
    let listener = listen(config.listen).await?;
    let plain = match config.metrics_listen {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    // Ends after the listener: requests that drain still read the caches.
    let background = CancellationToken::new();
    let server = assemble(&config, store.clone(), &background, &shutdown)?;
    let tasks = TaskTracker::new();
    tasks.spawn(run_compactor(store, background.clone()));
    tasks.spawn(crd::run(server.registry.clone(), background.clone()));
    tasks.spawn(prepare(config.clone(), server.clone(), background.clone()));
    if let Some(plain) = plain {
        tasks.spawn(http::plain(plain, server.clone(), background.clone()));
    }
    tracing::info!(address = %config.listen, member = config.member_name, "serving");
    http::run(listener, tls, server, shutdown).await;
    background.cancel();
    tasks.close();
    tasks.wait().await;
    Ok(())
}

async fn listen(address: std::net::SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })
}

fn assemble(
    config: &Arc<Config>,
    store: Arc<dyn Store>,
    background: &CancellationToken,
    shutdown: &CancellationToken,
) -> Result<Arc<Server>, ServeError> {
    let caches = Caches::start(Storage::new(store), background.clone());
    let registry = Registry::new(config.clone(), caches);
    let authenticator = authn::build(config, &registry)?;
    registry.complete(admission::build(config, &registry)?, authz::build(config, &registry)?);
    let endpoints = connect::build(config, &registry)?
        .into_iter()
        .map(|((group, plural, below), endpoint)| {
            ((group.to_owned(), plural.to_owned(), below.to_owned()), endpoint)
        })
        .collect();
    Ok(Arc::new(Server {
        registry,
        authenticator,
        endpoints,
        documents: Documents::default(),
        openid: Openid::new(config)?,
        health: Health::default(),
        metrics: http::Metrics::default(),
        in_flight: http::InFlight::default(),
        shutdown: shutdown.clone(),
    }))
}

/// Creates the bootstrap objects, then keeps up what has to be kept up.
async fn prepare(config: Arc<Config>, server: Arc<Server>, shutdown: CancellationToken) {
    loop {
        let attempt = tokio::select! {
            () = shutdown.cancelled() => return,
            attempt = bootstrap::reconcile(&config, &server.registry) => attempt,
        };
        match attempt {
            Ok(()) => break,
            Err(error) => tracing::warn!(%error, "the bootstrap objects are not complete yet"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(BOOTSTRAP_PAUSE) => {}
        }
    }
    server.health.bootstrapped();
    bootstrap::run(config, server.registry.clone(), shutdown).await;
}
