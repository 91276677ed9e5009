//! Starting and stopping a member. Read [`build`] from top to bottom to see how it is wired.

mod bootstrap;
mod ports;
mod threads;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::SnapshotPolicy;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::bootstrap::{cut_off, found, identify};
use self::ports::{Ports, Served};
use self::threads::Threads;
use crate::auth::{Authenticator, Passwords, SimpleTokens, TokenError, Tokens};
use crate::config::Config;
use crate::consensus::Raft;
use crate::consensus::log::LogStore;
use crate::consensus::network::NetworkFactory;
use crate::consensus::snapshot::SnapshotStore;
use crate::consensus::snapshot_donor::Donors;
use crate::consensus::state_machine::StateMachine;
use crate::core::{Core, Counters};
use crate::handle::Budget;
use crate::handle::Handle;
use crate::host::{Host, blocking};
use crate::identity::Identity;
use crate::leadership::Leadership;
use crate::lease::Leases;
use crate::listener::Stop;
use crate::peer::Peers;
use crate::proposer::Proposer;
use crate::quota::{self, Quota};
use crate::read_index::ReadIndex;
use crate::simulation::is_simulated;
use crate::watch::Hub;
use crate::{
    compactor, corruption, fail_over, lease, members, proposer, read_index, retention, tls,
};

/// How long a stopping leader waits for its successor.
const TRANSFER_MAX: Duration = Duration::from_secs(2);
/// How long the last write batch may take.
const APPLY_END_MAX: Duration = Duration::from_secs(5);

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
    /// Nobody was there to ask who this member is.
    #[error(
        "no member of initial-cluster answers: start them first, or check their peer addresses"
    )]
    Alone,
    /// The tokens that the configuration asks for cannot be made.
    #[error("auth-token: {0}")]
    AuthToken(#[from] TokenError),
    /// Time-outs that contradict each other.
    #[error("invalid time-outs: {0}")]
    Timeouts(String),
    /// Other members hold something else under the same revision.
    #[error("this member's data differs from that of the other members")]
    Corrupt,
    /// Consensus found its log or state damaged.
    #[error("consensus did not start: {0}")]
    Consensus(String),
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::Io { what, source }
}

/// A running member.
#[derive(Debug)]
pub struct Member {
    handle: Arc<Handle>,
    background: Background,
    served: Served,
    /// End with the member.
    _threads: Threads,
}

/// Starts a member, which then serves its peers and clients in background tasks. Returns as soon as
/// it runs; [`Member::ready`] tells when the cluster has a leader.
pub async fn start(config: Config) -> Result<Member, StartError> {
    let threads = Threads::start().map_err(failed("starting threads"))?;
    let started = threads.handle().spawn(open(config, Host::Machine)).await;
    let crashed = |error: tokio::task::JoinError| StartError::Consensus(error.to_string());
    let Running { handle, background, served } = started.map_err(crashed)??;
    Ok(Member { handle, background, served, _threads: threads })
}

/// What [`build`] gives to the member.
struct Running {
    handle: Arc<Handle>,
    background: Background,
    served: Served,
}

async fn open(config: Config, host: Host) -> Result<Running, StartError> {
    let identity_path = member_dir(&config).join("identity");
    std::fs::create_dir_all(member_dir(&config)).map_err(failed("creating the data folder"))?;
    let identity = match Identity::load(&identity_path).map_err(failed("reading the identity"))? {
        Some(identity) => identity,
        None => {
            let identity = identify(&config, &host).await?;
            identity.save(&identity_path).map_err(failed("saving the identity"))?;
            identity
        }
    };
    if config.force_new_cluster {
        cut_off(&config, &identity)?;
    }
    build(config, identity, host).await
}

fn member_dir(config: &Config) -> PathBuf {
    config.data_dir.join("member")
}

fn peer_client_tls(config: &Config) -> Result<Option<tls::Client>, StartError> {
    let files = config.peer_tls.as_ref();
    let client = files.map(|files| tls::Client::new(files, &config.peer_tls_policy)).transpose();
    client.map_err(failed("reading the peer certificates"))
}

fn raft_config(config: &Config) -> Result<Arc<openraft::Config>, StartError> {
    let (election_min, election_max) = config.election_bounds_ms();
    let raft = openraft::Config {
        cluster_name: config.name.clone(),
        heartbeat_interval: config.heartbeat_ms,
        election_timeout_min: election_min,
        election_timeout_max: election_max,
        enable_pre_vote: Some(config.pre_vote),
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

async fn build(config: Config, identity: Identity, host: Host) -> Result<Running, StartError> {
    let dir = member_dir(&config);
    let raft_config = raft_config(&config)?;
    let peer_tls = peer_client_tls(&config)?;
    let (cluster_id, member_id) = (identity.cluster_id, identity.member_id);
    let peers = Arc::new(Peers::new(cluster_id, member_id, peer_tls, host.clone()));

    let log = LogStore::open(&config.log_dir(), !config.unsafe_no_fsync, config.memory, host)
        .map_err(failed("opening the log"))?
        .of_member(member_id);
    let fresh = log.is_empty();
    let snapshots =
        SnapshotStore::open(dir.join("snap")).map_err(failed("opening the snapshot folder"))?;
    let leases = Leases::new();
    let simple = Arc::new(SimpleTokens::new(config.auth_token_ttl, log.last_index()));
    let tokens = Tokens::new(&config.auth_token, &simple)?;
    let mut hub = None;
    let memory = config.memory;
    let make_hub = |reader| Arc::clone(hub.insert(Hub::new(reader, memory)));
    let machine = StateMachine::open(
        &dir.join("state"),
        // What is a thread on the machine is none in a simulation.
        pintle_mvcc::Options {
            pending_thread: !is_simulated(),
            ..memory.state(config.state.clone())
        },
        snapshots,
        make_hub,
        Arc::clone(&leases),
        simple,
    )
    .map_err(failed("opening the state"))?;
    let hub = hub.expect("made when the state was opened");
    let state = machine.shared();

    let donors = Arc::new(Donors::default());
    let network =
        NetworkFactory::new(member_id, log.clone(), Arc::clone(&peers), Arc::clone(&donors));
    let raft = Raft::new(member_id, raft_config, network, log.clone(), machine)
        .await
        .map_err(|error| StartError::Consensus(error.to_string()))?;

    let leadership = Leadership::new(&raft);
    donors.know(leadership.clone(), Duration::from_millis(config.election_ms));
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
    let auth = Authenticator {
        reader: state.reader.clone(),
        tokens,
        passwords: Passwords::new(config.bcrypt_cost),
        client_certificates: config.client_tls.as_ref().is_some_and(|tls| tls.ca.is_some()),
        applied: state.applied(),
        timeout,
    };
    let (clients_stop, peers_stop) = (Stop::default(), Stop::default());
    let quota_backend_bytes = config.quota_backend_bytes;
    let range_budget = Budget::new(memory.share(config.range_bytes_in_flight_max, 16));
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
        quota: Quota::new(quota_backend_bytes),
        auth,
        counters: Counters::default(),
        changing: tokio::sync::Mutex::default(),
        removed: CancellationToken::new(),
        range_budget,
        has_leader: watch::Sender::new(false),
        relaying: watch::Sender::new(0),
        clients_stop: clients_stop.gently.clone(),
        peers_stop: peers_stop.gently.clone(),
    });
    let ports = Ports::bind(&core.config).await?;

    let background = Background::default();
    let context = proposer::Context {
        raft: raft.clone(),
        peers: Arc::clone(&peers),
        leadership: leadership.clone(),
        applied: core.state.applied(),
        timeout,
        lingering: watch::Sender::new(0),
    };
    let run = |task| background.spawn(task);
    run(Box::pin(proposer::run(context, proposals)) as BoxedTask);
    let context = read_index::Context { raft, peers, leadership };
    run(Box::pin(read_index::run(context, reads)));
    run(Box::pin(driver.run()));
    run(Box::pin(Arc::clone(&core.hub).run()));
    run(Box::pin(found(Arc::clone(&core), fresh)));
    run(Box::pin(count_leaders(Arc::clone(&core))));
    run(Box::pin(fail_over::run(Arc::clone(&core))));
    run(Box::pin(retention::run(Arc::clone(&core))));
    let watching = Arc::clone(&core);
    run(Box::pin(async move { watching.watch_leader().await }));
    let publishing = Arc::clone(&core);
    run(Box::pin(async move { members::publish(&publishing).await }));
    run(Box::pin(members::tend(Arc::clone(&core))));
    run(Box::pin(members::watch_removal(Arc::clone(&core))));

    run(Box::pin(quota::watch_disk(Arc::clone(&core))));
    let (newest, compacted) = (core.config.corrupt_check_time, core.config.compact_hash_check_time);
    if !newest.is_zero() {
        run(Box::pin(corruption::check_newest(Arc::clone(&core), newest)));
    }
    if let Some(every) = compacted {
        run(Box::pin(corruption::check_compacted(Arc::clone(&core), every)));
    }
    if core.config.initial_corrupt_check && corruption::differs_from_others(&core).await {
        return Err(StartError::Corrupt);
    }

    let handle = Arc::new(Handle::new(core));
    if let Some(mode) = handle.core().config.auto_compaction {
        run(Box::pin(compactor::run(Arc::clone(&handle), mode)));
    }
    let served = ports.serve(&handle, clients_stop, peers_stop);
    Ok(Running { handle, background, served })
}

type BoxedTask = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// The tasks of a member. They outlive the connections, whose last requests need them.
#[derive(Debug, Default)]
struct Background {
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl Background {
    fn spawn(&self, task: BoxedTask) {
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = task => {}
                () = shutdown.cancelled() => {}
            }
        });
    }

    async fn end(self) {
        self.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
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

impl Member {
    /// A member in the tasks of the current thread, on a simulated machine.
    #[cfg(feature = "simulation")]
    pub(crate) async fn on(config: Config, host: Host) -> Result<Self, StartError> {
        let Running { handle, background, served } = open(config, host).await?;
        Ok(Self { handle, background, served, _threads: Threads::default() })
    }

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
            if self.handle.core().removed.is_cancelled() {
                return members::REMOVED.to_owned();
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
        match blocking(move || reader.flush()).await {
            Ok(Ok(())) => {}
            // The log brings it back.
            Ok(Err(error)) => tracing::warn!(%error, "the state was not flushed"),
            Err(error) => tracing::warn!(%error, "the state was not flushed"),
        }
        close(&core).await;
    }

    /// Stops at once, as a crash would: nothing is handed over and nothing is flushed.
    pub async fn kill(self) {
        let core = Arc::clone(self.handle.core());
        self.served.abandon();
        self.end().await;
        close(&core).await;
    }

    async fn end(self) {
        self.served.end(&self.handle.core().relaying).await;
        self.background.end().await;
        if let Err(error) = self.handle.core().raft.shutdown().await {
            tracing::warn!(%error, "consensus did not stop cleanly");
        }
        let ended = self.handle.core().state.ended.cancelled();
        if tokio::time::timeout(APPLY_END_MAX, ended).await.is_err() {
            tracing::warn!("the apply thread did not end in time");
        }
    }
}

/// Leaves no thread at work in a database, so that the process may end at any time.
async fn close(core: &Arc<Core>) {
    let core = Arc::clone(core);
    let stopped = blocking(move || {
        core.reader().stop_background_work();
    });
    if let Err(error) = stopped.await {
        tracing::warn!(%error, "the databases were not closed");
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
    let answer = leadership.active(Duration::from_millis(core.config.election_ms));
    let fitness = |id: &u64| (answer.contains(id), leadership.matched(*id));
    let Some(target) = others.max_by_key(fitness) else { return };
    if tokio::time::timeout(TRANSFER_MAX, core.move_leader(target)).await.is_err() {
        tracing::warn!("no other member took over in time");
    }
}
