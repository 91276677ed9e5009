//! Starting and stopping a member. Read [`build`] from top to bottom to see how it is wired.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::SnapshotPolicy;
use pintle_proto::raft::ClusterInfoRequest;
use pintle_proto::raft::peer_server::PeerServer;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::consensus::convert::node_from_pb;
use crate::consensus::log::LogStore;
use crate::consensus::network::NetworkFactory;
use crate::consensus::snapshot::SnapshotStore;
use crate::consensus::state_machine::StateMachine;
use crate::consensus::{Node, Raft};
use crate::core::{Core, Counters};
use crate::handle::Handle;
use crate::identity::Identity;
use crate::leadership::Leadership;
use crate::lease::Leases;
use crate::listener::{Listener, Stop, resolve};
use crate::peer::{Lane, PeerService, Peers};
use crate::proposer::Proposer;
use crate::read_index::ReadIndex;
use crate::watch::Hub;
use crate::{grpc, http, lease, members, metrics, proposer, read_index, tls};

/// How long a stopping leader waits for its successor.
const TRANSFER_MAX: Duration = Duration::from_secs(2);

/// Why a member did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A file, a port or a certificate.
    #[error("{what}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The founding list does not name this member.
    #[error("initial-cluster does not name the member {0:?}")]
    NotInCluster(String),
    /// No member of the running cluster knows this member's peer address.
    #[error("no running member knows this one: add it to the cluster first")]
    NotAdded,
    /// Time-outs that contradict each other.
    #[error("invalid time-outs: {0}")]
    Timeouts(String),
    /// Consensus found its log or state damaged.
    #[error("consensus did not start: {0}")]
    Consensus(String),
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::Io { what, source }
}

/// The threads of a member. Consensus has its own, so that whatever else runs in the process (an
/// apiserver that encodes a long list) cannot hold up a heartbeat.
#[derive(Debug)]
struct Threads(Option<Runtime>);

/// One thread answers peers while another waits for a lock or copies a large message.
const THREADS: usize = 2;

impl Threads {
    fn start() -> io::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(THREADS).thread_name("store").enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    fn handle(&self) -> &tokio::runtime::Handle {
        self.0.as_ref().expect("only taken when dropped").handle()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // The usual drop waits, which async code may not.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A running member.
#[derive(Debug)]
pub struct Member {
    handle: Arc<Handle>,
    stop: Stop,
    tasks: TaskTracker,
    servers: Vec<JoinHandle<()>>,
    /// End with the member.
    _threads: Threads,
}

/// Starts a member, which then serves its peers and clients in background tasks. Returns as soon as
/// it runs; [`Member::ready`] tells when the cluster has a leader.
pub async fn start(config: Config) -> Result<Member, StartError> {
    let threads = Threads::start().map_err(failed("starting threads"))?;
    let started = threads.handle().spawn(open(config)).await;
    let crashed = |error: tokio::task::JoinError| StartError::Consensus(error.to_string());
    let Running { handle, stop, tasks, servers } = started.map_err(crashed)??;
    Ok(Member { handle, stop, tasks, servers, _threads: threads })
}

/// What [`build`] gives to the member.
struct Running {
    handle: Arc<Handle>,
    stop: Stop,
    tasks: TaskTracker,
    servers: Vec<JoinHandle<()>>,
}

async fn open(config: Config) -> Result<Running, StartError> {
    let identity_path = member_dir(&config).join("identity");
    std::fs::create_dir_all(member_dir(&config)).map_err(failed("creating the data folder"))?;
    let identity = match Identity::load(&identity_path).map_err(failed("reading the identity"))? {
        Some(identity) => identity,
        None => {
            let identity = identify(&config).await?;
            identity.save(&identity_path).map_err(failed("saving the identity"))?;
            identity
        }
    };
    build(config, identity).await
}

fn member_dir(config: &Config) -> PathBuf {
    config.data_dir.join("member")
}

/// Who this member is, on its first start.
async fn identify(config: &Config) -> Result<Identity, StartError> {
    if !config.initial_cluster_existing {
        let found = Identity::found(config);
        return found.ok_or_else(|| StartError::NotInCluster(config.name.clone()));
    }
    let peers = Peers::new(0, 0, peer_client_tls(config)?);
    for (_, url) in &config.initial_cluster {
        if config.initial_advertise_peer_urls.contains(url) {
            continue;
        }
        let Ok(mut client) = peers.client_at(url, Lane::Control) else { continue };
        let info = match client.cluster_info(ClusterInfoRequest {}).await {
            Ok(info) => info.into_inner(),
            Err(status) => {
                tracing::warn!(url, %status, "a member of the cluster did not answer");
                continue;
            }
        };
        let members = info.membership.unwrap_or_default().members.into_iter().map(node_from_pb);
        let own = |node: &Node| {
            node.peer_urls.iter().any(|url| config.initial_advertise_peer_urls.contains(url))
        };
        if let Some((member_id, _)) = members.into_iter().find(|(_, node)| own(node)) {
            let founders = BTreeMap::new();
            return Ok(Identity { cluster_id: info.cluster_id, member_id, founders });
        }
    }
    Err(StartError::NotAdded)
}

fn peer_client_tls(
    config: &Config,
) -> Result<Option<tonic::transport::ClientTlsConfig>, StartError> {
    let files = config.peer_tls.as_ref();
    files.map(tls::client).transpose().map_err(failed("reading the peer certificates"))
}

fn raft_config(config: &Config) -> Result<Arc<openraft::Config>, StartError> {
    let (election_min, election_max) = config.election_bounds_ms();
    let raft = openraft::Config {
        cluster_name: config.name.clone(),
        heartbeat_interval: config.heartbeat_ms,
        election_timeout_min: election_min,
        election_timeout_max: election_max,
        enable_pre_vote: Some(true),
        // Applied state is not flushed at each write: a restarted leader must not trust it.
        enable_leader_restore: Some(false),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_count),
        max_in_snapshot_log_to_keep: config.snapshot_catchup_entries,
        replication_lag_threshold: config.snapshot_catchup_entries.max(config.snapshot_count),
        purge_batch_size: (config.snapshot_count / 4).clamp(1, 256),
        install_snapshot_timeout: 600_000,
        backoff: "20ms 40ms 80ms ...250ms".to_owned(),
        ..openraft::Config::default()
    };
    let valid = raft.validate().map_err(|error| StartError::Timeouts(error.to_string()))?;
    Ok(Arc::new(valid))
}

async fn build(config: Config, identity: Identity) -> Result<Running, StartError> {
    let dir = member_dir(&config);
    let raft_config = raft_config(&config)?;
    let peer_tls = peer_client_tls(&config)?;
    let peers = Arc::new(Peers::new(identity.cluster_id, identity.member_id, peer_tls));

    let log = LogStore::open(&dir.join("log")).map_err(failed("opening the log"))?;
    let fresh = log.is_empty();
    let snapshots =
        SnapshotStore::open(dir.join("snap")).map_err(failed("opening the snapshot folder"))?;
    let leases = Leases::new();
    let mut hub = None;
    let make_hub = |reader| Arc::clone(hub.insert(Hub::new(reader)));
    let machine = StateMachine::open(
        &dir.join("state"),
        config.state.clone(),
        snapshots,
        make_hub,
        Arc::clone(&leases),
    )
    .map_err(failed("opening the state"))?;
    let hub = hub.expect("made when the state was opened");
    let state = machine.shared();

    let network = NetworkFactory::new(identity.member_id, Arc::clone(&peers));
    let raft = Raft::new(identity.member_id, raft_config, network, log.clone(), machine)
        .await
        .map_err(|error| StartError::Consensus(error.to_string()))?;

    let leadership = Leadership::new(&raft);
    let timeout = config.request_timeout();
    let (proposer, proposals) = Proposer::new(timeout);
    let (read_index, reads) = ReadIndex::new(state.applied(), timeout);
    let driver = lease::Driver {
        leases,
        reader: state.reader.clone(),
        proposer: proposer.clone(),
        read_index: read_index.clone(),
        leadership: leadership.clone(),
        extend: Duration::from_millis(config.election_ms),
        timeout,
    };
    let stop = Stop::default();
    let core = Arc::new(Core {
        identity,
        config,
        raft: raft.clone(),
        log,
        state,
        hub,
        peers: Arc::clone(&peers),
        leadership: leadership.clone(),
        proposer,
        read_index,
        leases: driver.clone(),
        counters: Counters::default(),
        has_leader: watch::Sender::new(false),
        shutdown: stop.gently.clone(),
    });
    let listeners = Listeners::bind(&core.config).await?;

    let tasks = TaskTracker::new();
    let context = proposer::Context {
        raft: raft.clone(),
        peers: Arc::clone(&peers),
        leadership: leadership.clone(),
        applied: core.state.applied(),
        timeout,
    };
    let run = |task| Background { shutdown: stop.gently.clone(), tasks: &tasks }.spawn(task);
    run(Box::pin(proposer::run(context, proposals)) as BoxedTask);
    let context = read_index::Context { raft, peers, leadership, timeout };
    run(Box::pin(read_index::run(context, reads)));
    run(Box::pin(driver.run()));
    run(Box::pin(Arc::clone(&core.hub).run()));
    run(Box::pin(found(Arc::clone(&core), fresh)));
    run(Box::pin(count_leaders(Arc::clone(&core))));
    let watching = Arc::clone(&core);
    run(Box::pin(async move { watching.watch_leader().await }));
    let publishing = Arc::clone(&core);
    run(Box::pin(async move { members::publish(&publishing).await }));
    tasks.close();

    let handle = Arc::new(Handle::new(core));
    let servers = listeners.serve(&handle, &stop);
    Ok(Running { handle, stop, tasks, servers })
}

type BoxedTask = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// Tasks that end with the member.
struct Background<'a> {
    shutdown: CancellationToken,
    tasks: &'a TaskTracker,
}

impl Background<'_> {
    fn spawn(self, task: BoxedTask) {
        let shutdown = self.shutdown;
        self.tasks.spawn(async move {
            tokio::select! {
                () = task => {}
                () = shutdown.cancelled() => {}
            }
        });
    }
}

/// Founds the cluster on its first start. One founder begins, so that the others do not stand
/// against it; they only begin themselves if they do not hear from it.
async fn found(core: Arc<Core>, fresh: bool) {
    let founders = &core.identity.founders;
    if !fresh || founders.is_empty() {
        return;
    }
    let first = founders.keys().next() == Some(&core.identity.member_id);
    if !first {
        tokio::time::sleep(Duration::from_millis(2 * core.config.election_ms)).await;
    }
    if core.raft.is_initialized().await.unwrap_or(true) {
        return;
    }
    if let Err(error) = core.raft.initialize(founders.clone()).await {
        // Another founder was faster.
        tracing::debug!(%error, "not the one who founds the cluster");
    }
}

async fn count_leaders(core: Arc<Core>) {
    let mut leadership = core.leadership.clone();
    let mut last = None;
    loop {
        let leader = leadership.leader_id();
        if leader.is_some() && leader != last {
            core.counters.leader_changes.fetch_add(1, Ordering::Relaxed);
            tracing::info!(leader, term = leadership.term(), "the cluster has a leader");
            last = leader;
        }
        leadership.changed().await;
    }
}

/// The ports, bound before anything is served, so that a taken one fails the start.
struct Listeners {
    clients: Vec<Listener>,
    peers: Vec<Listener>,
    metrics: Option<Listener>,
}

impl Listeners {
    async fn bind(config: &Config) -> Result<Self, StartError> {
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

    fn serve(self, handle: &Arc<Handle>, stop: &Stop) -> Vec<JoinHandle<()>> {
        let core = handle.core();
        let service = PeerServer::new(PeerService::new(Arc::clone(core)))
            .max_decoding_message_size(crate::peer::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(crate::peer::MESSAGE_BYTES_MAX);
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

async fn bind_urls(
    urls: &[String],
    files: Option<&crate::TlsFiles>,
) -> Result<Vec<Listener>, StartError> {
    let acceptor = files.map(tls::acceptor).transpose().map_err(failed("reading certificates"))?;
    let mut bound = Vec::new();
    for url in urls {
        let address = resolve(url).await.map_err(failed("resolving a listen address"))?;
        let tls = acceptor.clone().filter(|_| url.starts_with("https://"));
        bound.push(Listener::bind(address, tls).await.map_err(failed("binding a port"))?);
    }
    Ok(bound)
}

impl Member {
    /// The store, for callers in this process.
    pub fn handle(&self) -> Arc<Handle> {
        Arc::clone(&self.handle)
    }

    /// Resolves when the cluster has a leader and this member has caught up with it.
    pub async fn ready(&self) {
        while self.handle.core().read_index.wait().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Resolves when this member can go on no longer (its disk failed): with the reason.
    pub async fn failed(&self) -> String {
        loop {
            if let Some(reason) = self.handle.core().leadership.failure() {
                return reason;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Stops cleanly: hands over leadership, lets open requests finish, flushes.
    pub async fn shutdown(self) {
        let core = Arc::clone(self.handle.core());
        hand_over(&core).await;
        self.end().await;
        let reader = core.reader().clone();
        drop(core);
        match tokio::task::spawn_blocking(move || reader.flush()).await {
            Ok(Ok(())) => {}
            // The log brings it back.
            Ok(Err(error)) => tracing::warn!(%error, "the state was not flushed"),
            Err(error) => tracing::warn!(%error, "the state was not flushed"),
        }
    }

    /// Stops at once, as a crash would: nothing is handed over and nothing is flushed.
    pub async fn kill(self) {
        self.stop.now.cancel();
        self.end().await;
    }

    async fn end(self) {
        self.stop.gently.cancel();
        for server in self.servers {
            if let Err(error) = server.await {
                tracing::warn!(%error, "a server did not end cleanly");
            }
        }
        self.tasks.wait().await;
        if let Err(error) = self.handle.core().raft.shutdown().await {
            tracing::warn!(%error, "consensus did not stop cleanly");
        }
    }
}

/// Makes the member whose log is the closest to this one's the leader.
async fn hand_over(core: &Core) {
    let leadership = &core.leadership;
    if !leadership.is_leader() {
        return;
    }
    let membership = leadership.membership();
    let own = core.identity.member_id;
    let others = membership.membership().voter_ids().filter(|id| *id != own);
    let Some(target) = others.max_by_key(|id| leadership.matched(*id)) else { return };
    if tokio::time::timeout(TRANSFER_MAX, core.move_leader(target)).await.is_err() {
        tracing::warn!("no other member took over in time");
    }
}
