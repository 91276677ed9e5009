//! `pintle server`: one control-plane member. Store, apiserver, scheduler and controllers share
//! the process; the apiserver reads the store without a socket between them.
//!
//! Order of a clean stop: scheduler and controllers release their leases, the apiserver drains,
//! the store hands over its leadership.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clients;
use crate::cluster::{CLUSTER_CIDR, SERVICE_CIDR};
use crate::pki::{Pair, Pki};
use crate::signals;

/// How long one role may take to end before the process ends without it.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);
/// Between two looks at whether the API is ready.
const READY_POLL: Duration = Duration::from_millis(20);

/// One member.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The member's name, as in --initial-cluster.
    #[arg(long)]
    name: String,
    /// Where the store keeps its data.
    #[arg(long)]
    data_dir: PathBuf,
    /// The folder with the cluster's certificates.
    #[arg(long)]
    pki_dir: PathBuf,
    /// Where the Kubernetes API is served.
    #[arg(long)]
    listen_api: SocketAddr,
    /// Where the store serves etcd clients.
    #[arg(long)]
    listen_client: SocketAddr,
    /// Where the store talks to its peers.
    #[arg(long)]
    listen_peer: SocketAddr,
    /// Where metrics are served, as plain HTTP.
    #[arg(long)]
    listen_metrics: Option<SocketAddr>,
    /// All members, as name=https://host:port of their peer ports.
    #[arg(long, value_delimiter = ',', value_parser = parse_member)]
    initial_cluster: Vec<(String, String)>,
    /// The API addresses of all members: the endpoints of the service default/kubernetes.
    #[arg(long, value_delimiter = ',')]
    advertise_api: Vec<SocketAddr>,
    /// Milliseconds between two heartbeats of the leader.
    #[arg(long, default_value_t = pintle_store::Config::default().heartbeat_ms)]
    heartbeat_interval: u64,
    /// Milliseconds without a heartbeat before an election.
    #[arg(long, default_value_t = pintle_store::Config::default().election_ms)]
    election_timeout: u64,
}

fn parse_member(text: &str) -> Result<(String, String), String> {
    let (name, url) =
        text.split_once('=').ok_or_else(|| format!("{text:?} is not name=peer-url"))?;
    Ok((name.to_owned(), url.to_owned()))
}

/// Runs the member until SIGTERM.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let shutdown = signals::shutdown_token()?;
    let pki = Pki::new(options.pki_dir.clone());
    let member = pintle_store::start(store_config(&options, &pki)).await.context("store")?;

    let stop_api = CancellationToken::new();
    let api_config = apiserver_config(&options, &pki)?;
    let mut api =
        tokio::spawn(pintle_apiserver::serve(api_config, member.handle(), stop_api.clone()));
    let server = format!("https://{}", options.listen_api);
    let mut roles = start_roles(&options.name, &server, &pki, &shutdown).await?;

    let ended = tokio::select! {
        () = shutdown.cancelled() => None,
        result = &mut api => Some(unasked("apiserver", result.map(|end| end.map_err(Into::into)))),
        (name, result) = first_end(&mut roles) => Some(unasked(name, result)),
        reason = member.failed() => Some(anyhow::anyhow!("store: {reason}")),
    };
    shutdown.cancel();
    for (name, role) in roles.into_iter().filter(|(_, role)| !role.is_finished()) {
        match tokio::time::timeout(DRAIN_WITHIN, role).await {
            Ok(result) => result?.with_context(|| name)?,
            Err(_) => tracing::warn!(name, "did not end in time"),
        }
    }
    stop_api.cancel();
    if !api.is_finished() && tokio::time::timeout(DRAIN_WITHIN, api).await.is_err() {
        tracing::warn!("the apiserver still had requests when it was stopped");
    }
    member.shutdown().await;
    ended.map_or(Ok(()), Err)
}

/// Waits until one of the roles ends, whichever is first.
async fn first_end(roles: &mut [Role]) -> (&'static str, Ended) {
    let ends = roles.iter_mut().map(|(name, role)| Box::pin(async move { (*name, role.await) }));
    futures::future::select_all(ends).await.0
}

/// The error of a part that ended although nobody asked it to.
fn unasked(name: &'static str, result: Ended) -> anyhow::Error {
    match result {
        Ok(Ok(())) => anyhow::anyhow!("{name} ended by itself"),
        Ok(Err(error)) => error.context(name),
        Err(error) => anyhow::Error::new(error).context(name),
    }
}

/// How the task of a role ended.
type Ended = Result<anyhow::Result<()>, tokio::task::JoinError>;
type Role = (&'static str, JoinHandle<anyhow::Result<()>>);

async fn start_roles(
    identity: &str,
    server: &str,
    pki: &Pki,
    shutdown: &CancellationToken,
) -> anyhow::Result<Vec<Role>> {
    let ca = pki.ca().cert;
    let scheduler = pintle_scheduler::Config {
        client: clients::kube_client(server, &ca, &pki.scheduler()).await?,
        identity: identity.to_owned(),
        scheduler_name: "default-scheduler".to_owned(),
    };
    let controllers = controllers_config(identity, server, pki).await?;
    let (stop_scheduler, stop_controllers) = (shutdown.clone(), shutdown.clone());
    Ok(vec![
        (
            "scheduler",
            tokio::spawn(async move {
                api_ready(&scheduler.client, &stop_scheduler).await;
                Ok(pintle_scheduler::run(scheduler, stop_scheduler).await?)
            }),
        ),
        (
            "controllers",
            tokio::spawn(async move {
                api_ready(&controllers.client, &stop_controllers).await;
                Ok(pintle_controllers::run(controllers, stop_controllers).await?)
            }),
        ),
    ])
}

/// Waits until this member's API is ready: before that, the roles that its clients need are not
/// there yet. A stop ends the wait, too.
async fn api_ready(client: &kube::Client, stop: &CancellationToken) {
    let ready = async {
        while !is_ready(client).await {
            tokio::time::sleep(READY_POLL).await;
        }
    };
    tokio::select! {
        () = ready => {}
        () = stop.cancelled() => {}
    }
}

async fn is_ready(client: &kube::Client) -> bool {
    match http::Request::get("/readyz").body(Vec::new()) {
        Ok(request) => client.request_text(request).await.is_ok(),
        Err(_) => false,
    }
}

/// The controllers' configuration against `server`.
pub(crate) async fn controllers_config(
    identity: &str,
    server: &str,
    pki: &Pki,
) -> anyhow::Result<pintle_controllers::Config> {
    let ca = pki.ca().cert;
    let root_ca_pem =
        std::fs::read_to_string(&ca).with_context(|| format!("reading {}", ca.display()))?;
    let client = clients::kube_client(server, &ca, &pki.controllers()).await?;
    Ok(pintle_controllers::Config {
        cluster_cidr: CLUSTER_CIDR.parse()?,
        ..pintle_controllers::Config::new(client, identity, root_ca_pem)
    })
}

fn store_config(options: &Options, pki: &Pki) -> pintle_store::Config {
    let tls = || store_tls(&pki.member(), &pki.ca().cert);
    let url = |address: SocketAddr| vec![format!("https://{address}")];
    pintle_store::Config {
        name: options.name.clone(),
        data_dir: options.data_dir.clone(),
        memory: pintle_store::MemoryLimit::of_this_process(),
        listen_client_urls: url(options.listen_client),
        advertise_client_urls: url(options.listen_client),
        listen_peer_urls: url(options.listen_peer),
        initial_advertise_peer_urls: url(options.listen_peer),
        initial_cluster: options.initial_cluster.clone(),
        initial_cluster_token: "pintle".to_owned(),
        client_tls: Some(tls()),
        peer_tls: Some(tls()),
        heartbeat_ms: options.heartbeat_interval,
        election_ms: options.election_timeout,
        metrics_listen: options.listen_metrics,
        ..pintle_store::Config::default()
    }
}

fn store_tls(pair: &Pair, ca: &Path) -> pintle_store::TlsFiles {
    pintle_store::TlsFiles {
        cert: pair.cert.clone(),
        key: pair.key.clone(),
        ca: Some(ca.to_path_buf()),
    }
}

fn apiserver_config(options: &Options, pki: &Pki) -> anyhow::Result<pintle_apiserver::Config> {
    apiserver(&options.name, options.listen_api, options.advertise_api.clone(), pki)
}

/// The apiserver's configuration from a folder of certificates.
pub(crate) fn apiserver(
    name: &str,
    listen: SocketAddr,
    advertise: Vec<SocketAddr>,
    pki: &Pki,
) -> anyhow::Result<pintle_apiserver::Config> {
    let ca = pki.ca();
    let tls = |pair: Pair| pintle_apiserver::TlsFiles { cert: pair.cert, key: pair.key, ca: None };
    Ok(pintle_apiserver::Config {
        member_name: name.to_owned(),
        listen,
        tls: tls(pki.member()),
        client_ca: ca.cert.clone(),
        service_account_issuer: "https://kubernetes.default.svc.cluster.local".to_owned(),
        service_account_key: pki.service_account_key(),
        service_cidr: SERVICE_CIDR.parse()?,
        cluster_ca: ca.cert,
        cluster_ca_key: Some(ca.key),
        kubelet_client: tls(pki.kubelet_client()),
        advertise,
        metrics_listen: None,
    })
}
