//! The roles of a member, each alone: `pintle apiserver`, `pintle scheduler`, `pintle controllers`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;

use crate::pki::Pki;
use crate::{clients, server, signals};

/// An apiserver on any etcd v3 store.
#[derive(Args, Clone, Debug)]
pub(crate) struct ApiserverOptions {
    /// The endpoints of the store, as URLs.
    #[arg(long, value_delimiter = ',', required = true)]
    etcd_servers: Vec<String>,
    /// The authority that signed the store's certificates.
    #[arg(long)]
    etcd_cafile: Option<PathBuf>,
    /// The certificate to show to the store.
    #[arg(long, requires = "etcd_keyfile")]
    etcd_certfile: Option<PathBuf>,
    /// Its key.
    #[arg(long)]
    etcd_keyfile: Option<PathBuf>,
    /// The name of this apiserver.
    #[arg(long, default_value = "apiserver")]
    name: String,
    /// Where the API is served.
    #[arg(long, default_value = "127.0.0.1:6443")]
    listen: SocketAddr,
    /// The folder with the cluster's certificates.
    #[arg(long)]
    pki_dir: PathBuf,
    /// The API addresses that default/kubernetes lists; without it, the one that is served.
    #[arg(long, value_delimiter = ',')]
    advertise_api: Vec<SocketAddr>,
}

/// Whom a scheduler or a controller talks to.
#[derive(Args, Clone, Debug)]
pub(crate) struct ClientOptions {
    /// The kubeconfig of the identity to act as.
    #[arg(long)]
    kubeconfig: PathBuf,
    /// The name under which to compete for the lease.
    #[arg(long, default_value = "standalone")]
    identity: String,
}

/// The controllers' own.
#[derive(Args, Clone, Debug)]
pub(crate) struct ControllersOptions {
    /// The API server.
    #[arg(long)]
    server: String,
    /// The folder with the cluster's certificates.
    #[arg(long)]
    pki_dir: PathBuf,
    /// The name under which to compete for the lease.
    #[arg(long, default_value = "standalone")]
    identity: String,
}

/// Serves the API until SIGTERM.
pub(crate) async fn apiserver(options: ApiserverOptions) -> anyhow::Result<()> {
    let shutdown = signals::shutdown_token()?;
    let pki = Pki::new(options.pki_dir);
    let tls = match (options.etcd_certfile, options.etcd_keyfile) {
        (Some(cert), Some(key)) => {
            Some(pintle_store::TlsFiles { cert, key, ca: options.etcd_cafile })
        }
        _ => None,
    };
    let store = pintle_store::remote::Remote::connect(&options.etcd_servers, tls.as_ref())
        .context("connecting to the store")?;
    let advertise =
        if options.advertise_api.is_empty() { vec![options.listen] } else { options.advertise_api };
    let config = server::apiserver(&options.name, options.listen, advertise, &pki)?;
    Ok(pintle_apiserver::serve(config, Arc::new(store), shutdown).await?)
}

/// Schedules while it holds the lease, until SIGTERM.
pub(crate) async fn scheduler(options: ClientOptions) -> anyhow::Result<()> {
    let config = pintle_scheduler::Config {
        client: clients::kube_client_of_file(&options.kubeconfig).await?,
        identity: options.identity,
        scheduler_name: "default-scheduler".to_owned(),
    };
    Ok(pintle_scheduler::run(config, signals::shutdown_token()?).await?)
}

/// Reconciles while it holds the lease, until SIGTERM.
pub(crate) async fn controllers(options: ControllersOptions) -> anyhow::Result<()> {
    let pki = Pki::new(options.pki_dir);
    let config = server::controllers_config(&options.identity, &options.server, &pki).await?;
    Ok(pintle_controllers::run(config, signals::shutdown_token()?).await?)
}
