//! The wiring: from a [`Config`] to a running node.

use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Paths};
use crate::containerd;
use crate::context::NodeContext;
use crate::dns;
use crate::events;
use crate::eviction;
use crate::image_manager::ImageManager;
use crate::log::rotate;
use crate::node::info::{self, Machine};
use crate::node::registration::{Pressure, Registration};
use crate::node::{lease, status};
use crate::pod::manager::Manager;
use crate::pod::pleg::Pleg;
use crate::pod::sandbox_config::ClusterDns;
use crate::pod::table::PodTable;
use crate::runtime::Runtime;
use crate::runtime::cri::Cri;
use crate::{proxy, server};

/// Namespace and name of the service that the cluster DNS answers for.
const DNS_SERVICE: (&str, &str) = ("kube-system", "kube-dns");

/// Why an agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// containerd.
    #[error(transparent)]
    Containerd(#[from] containerd::Error),
    /// The kubelet API.
    #[error("kubelet API: {0}")]
    Server(#[from] server::Error),
    /// The data folder.
    #[error("data folder: {0}")]
    Io(#[from] std::io::Error),
}

/// Runs a node until `shutdown`. Containers are left running then.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    std::fs::create_dir_all(&config.data_dir)?;
    let paths = Paths::new(&config.data_dir);
    containerd::ensure_running(&paths).await?;
    let runtime: Arc<dyn Runtime> = Arc::new(Cri::new(&paths.containerd_socket()));
    let mut tasks = JoinSet::new();
    tasks.spawn(containerd::supervise(paths.clone(), shutdown.clone()));
    if config.proxy {
        serve_services(&config, &paths, &mut tasks, &shutdown).await?;
    }
    let result = run_node(config, paths, runtime, shutdown.clone()).await;
    shutdown.cancel();
    join(tasks).await;
    result
}

/// The service proxy and the cluster DNS that it sends queries to.
async fn serve_services(
    config: &Config,
    paths: &Paths,
    tasks: &mut JoinSet<()>,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let server = dns::Server::bind().await?;
    let local = [((DNS_SERVICE.0.to_owned(), DNS_SERVICE.1.to_owned()), server.address())].into();
    let names =
        dns::Config { client: config.client.clone(), domain: config.cluster_domain.clone() };
    tasks.spawn(server.run(names, shutdown.clone()));
    let services = proxy::Config {
        client: config.client.clone(),
        node_name: config.node_name.clone(),
        bridge: paths.bridge(),
        local,
    };
    tasks.spawn(proxy::run(services, shutdown.clone()));
    Ok(())
}

async fn join(mut tasks: JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a task of the agent failed");
        }
    }
}

/// One node on a runtime.
pub async fn run_node(
    config: Config,
    paths: Paths,
    runtime: Arc<dyn Runtime>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let mut tasks = JoinSet::new();
    let (recorder, event_writer) = events::channel(config.client.clone(), &config.node_name);
    tasks.spawn(event_writer.run(shutdown.clone()));
    let services = watch_services(&config, &mut tasks, &shutdown);
    let machine = Machine::read(paths.data_dir());
    let context = Arc::new(NodeContext {
        name: config.node_name.clone(),
        client: config.client.clone(),
        images: ImageManager::new(runtime.clone(), recorder.clone()),
        events: recorder.clone(),
        dns: ClusterDns { server: config.cluster_dns, domain: config.cluster_domain.clone() },
        node_ip: config.node_ip,
        services,
        allocatable: machine.allocatable(),
        memory: i64::try_from(machine.memory).unwrap_or(i64::MAX),
        runtime: runtime.clone(),
        paths: paths.clone(),
    });

    let pods = PodTable::default();
    let state = server::State { context: context.clone(), pods: pods.clone() };
    server::start(state, config.listen, &config.tls, &config.client_ca, shutdown.clone()).await?;

    let pleg = Pleg::start(runtime.clone(), shutdown.clone());
    let (pressure_sender, pressure) = watch::channel(Pressure::default());
    let registration = Registration {
        client: config.client.clone(),
        name: config.node_name.clone(),
        facts: status::Facts {
            machine,
            info: info::system_info(String::new()),
            ip: config.node_ip.to_string(),
            hostname: config.node_name.clone(),
            port: config.listen.port(),
        },
        runtime: runtime.clone(),
        pleg: pleg.clone(),
        paths,
        events: recorder,
        pressure,
    };
    let Some(node) = registration.register(&shutdown).await else { return Ok(()) };
    tracing::info!(node = config.node_name, "registered");
    tasks.spawn(lease::run(config.client.clone(), node.clone(), shutdown.clone()));
    tasks.spawn(registration.run(node, shutdown.clone()));

    let (manager, evictions) = Manager::new(context.clone(), pods.clone(), pleg, shutdown.clone());
    tasks.spawn(manager.run());
    if runtime.is_real() {
        tasks.spawn(rotate::run(runtime, shutdown.clone()));
        tasks.spawn(eviction::run(context, pods, pressure_sender, evictions, shutdown.clone()));
    }
    join(tasks).await;
    Ok(())
}

/// Services for the environment of containers. A pod that starts before the first list has come is told
/// about none, as upstream.
fn watch_services(
    config: &Config,
    tasks: &mut JoinSet<()>,
    shutdown: &CancellationToken,
) -> reflector::Store<Service> {
    let (reader, writer) = reflector::store();
    let api: Api<Service> = Api::all(config.client.clone());
    let stream = reflector(writer, watcher(api, watcher::Config::default())).default_backoff();
    let shutdown = shutdown.clone();
    tasks.spawn(async move {
        let drain = stream.for_each(|event| async move {
            if let Err(error) = event {
                tracing::debug!(%error, "watching services");
            }
        });
        shutdown.run_until_cancelled(drain).await;
    });
    reader
}
