//! The wiring: from a [`Config`] to running nodes.

use std::path::PathBuf;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Paths, RuntimeKind};
use crate::containerd;
use crate::context::NodeContext;
use crate::dns;
use crate::events;
use crate::eviction;
use crate::image_manager::ImageManager;
use crate::images;
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
use crate::runtime::hollow::Hollow;
use crate::{proxy, server};

/// Namespace and name of the service that the cluster DNS answers for.
const DNS_SERVICE: (&str, &str) = ("kube-system", "kube-dns");

/// What a pretended node has to offer.
const HOLLOW_MACHINE: Machine = Machine { cpus: 32, memory: 256 << 30, disk: 1 << 40, pods: 110 };

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

/// Runs the node, or the pretended nodes, until `shutdown`. Containers are left running then.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    std::fs::create_dir_all(&config.data_dir)?;
    let mut tasks = JoinSet::new();
    let shared = Shared {
        pods: PodTable::default(),
        services: watch_services(&config, &mut tasks, &shutdown),
    };
    match config.runtime {
        RuntimeKind::Containerd => real_node(&config, shared, &mut tasks, &shutdown).await?,
        RuntimeKind::Hollow { count } => {
            hollow_nodes(&config, count, shared, &mut tasks, &shutdown).await?;
        }
    }
    join(tasks).await;
    Ok(())
}

/// What the nodes of one process share.
#[derive(Clone)]
struct Shared {
    pods: PodTable,
    services: reflector::Store<Service>,
}

async fn real_node(
    config: &Config,
    shared: Shared,
    tasks: &mut JoinSet<()>,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let paths = Paths::new(&config.data_dir);
    containerd::ensure_running(&paths).await?;
    tasks.spawn(containerd::supervise(paths.clone(), shutdown.clone()));
    if config.proxy {
        serve_services(config, &paths, tasks, shutdown).await?;
    }
    let runtime: Arc<dyn Runtime> = Arc::new(Cri::new(&paths.containerd_socket()));
    let import = import_own_images(paths.clone());
    match runtime.image(images::PAUSE_IMAGE).await {
        // No pod runs without it.
        Ok(None) | Err(_) => import.await,
        Ok(Some(_)) => drop(tasks.spawn(import)),
    }
    let machine = Machine::read(paths.data_dir());
    let node =
        Node::new(config, config.node_name.clone(), paths, machine, runtime, shared, shutdown);
    node.serve(config, shutdown).await?;
    tasks.spawn(node.run(shutdown.clone()));
    Ok(())
}

/// The project's own images of this build. A node whose pause image came another way runs without.
async fn import_own_images(paths: Paths) {
    let folder = paths.containerd_dir().join("own-images");
    let result = match tokio::task::spawn_blocking(move || images::build_own(&folder)).await {
        Ok(Ok(archives)) => import_all(&paths, archives).await,
        Ok(Err(error)) => Err(error),
        Err(error) => return tracing::error!(%error, "building the own images"),
    };
    if let Err(error) = result {
        tracing::warn!(%error, "the own images are not imported");
    }
}

async fn import_all(paths: &Paths, archives: Vec<PathBuf>) -> Result<(), images::Error> {
    for archive in archives {
        images::import(paths.data_dir(), &archive).await?;
    }
    Ok(())
}

/// Many nodes of one process: their names are the agent's with a number, one kubelet API serves all.
async fn hollow_nodes(
    config: &Config,
    count: u32,
    shared: Shared,
    tasks: &mut JoinSet<()>,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    for index in 0..count {
        let name = match count {
            1 => config.node_name.clone(),
            _ => format!("{}-{index}", config.node_name),
        };
        let paths = Paths::new(&config.data_dir.join(&name));
        let runtime: Arc<dyn Runtime> = Arc::new(Hollow::default());
        let shared = shared.clone();
        let node = Node::new(config, name, paths, HOLLOW_MACHINE, runtime, shared, shutdown);
        if index == 0 {
            node.serve(config, shutdown).await?;
        }
        tasks.spawn(node.run(shutdown.clone()));
    }
    Ok(())
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
struct Node {
    context: Arc<NodeContext>,
    registration: Registration,
    pleg: Pleg,
    pods: PodTable,
    pressure: watch::Sender<Pressure>,
    events: events::Writer,
}

impl Node {
    fn new(
        config: &Config,
        name: String,
        paths: Paths,
        machine: Machine,
        runtime: Arc<dyn Runtime>,
        shared: Shared,
        shutdown: &CancellationToken,
    ) -> Self {
        let (recorder, events) = events::channel(config.client.clone(), &name);
        let context = Arc::new(NodeContext {
            name: name.clone(),
            client: config.client.clone(),
            images: ImageManager::new(runtime.clone(), recorder.clone()),
            events: recorder.clone(),
            dns: ClusterDns { server: config.cluster_dns, domain: config.cluster_domain.clone() },
            node_ip: config.node_ip,
            services: shared.services,
            allocatable: machine.allocatable(),
            memory: i64::try_from(machine.memory).unwrap_or(i64::MAX),
            runtime: runtime.clone(),
            paths: paths.clone(),
        });
        let pleg = Pleg::start(runtime.clone(), shutdown.clone());
        let (pressure, measured) = watch::channel(Pressure::default());
        let registration = Registration {
            client: config.client.clone(),
            facts: status::Facts {
                machine,
                info: info::system_info(String::new()),
                ip: config.node_ip.to_string(),
                hostname: name.clone(),
                port: config.listen.port(),
            },
            name,
            runtime,
            pleg: pleg.clone(),
            paths,
            events: recorder,
            pressure: measured,
        };
        Self { context, registration, pleg, pods: shared.pods, pressure, events }
    }

    async fn serve(&self, config: &Config, shutdown: &CancellationToken) -> Result<(), Error> {
        let state = server::State { context: self.context.clone(), pods: self.pods.clone() };
        server::start(state, config.listen, &config.tls, &config.client_ca, shutdown.clone())
            .await?;
        Ok(())
    }

    async fn run(self, shutdown: CancellationToken) {
        let mut tasks = JoinSet::new();
        tasks.spawn(self.events.run(shutdown.clone()));
        let Some(node) = self.registration.register(&shutdown).await else { return };
        let context = self.context;
        tracing::info!(node = context.name, "registered");
        tasks.spawn(lease::run(context.client.clone(), node.clone(), shutdown.clone()));
        tasks.spawn(self.registration.run(node, shutdown.clone()));
        let (manager, evictions) =
            Manager::new(context.clone(), self.pods.clone(), self.pleg, shutdown.clone());
        tasks.spawn(manager.run());
        if context.runtime.is_real() {
            tasks.spawn(rotate::run(context.runtime.clone(), shutdown.clone()));
            tasks.spawn(eviction::run(context, self.pods, self.pressure, evictions, shutdown));
        }
        join(tasks).await;
    }
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
