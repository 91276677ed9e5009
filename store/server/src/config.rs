//! What a member is told when it starts, with etcd's defaults.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities that must have signed the other side's certificate; `None` does not ask
    /// clients for one, and trusts no server.
    pub ca: Option<PathBuf>,
}

/// One member of a store cluster.
#[derive(Clone, Debug)]
pub struct Config {
    /// Human-readable name, unique in the cluster.
    pub name: String,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Where clients are served.
    pub listen_client_urls: Vec<String>,
    /// What clients are told of this member.
    pub advertise_client_urls: Vec<String>,
    /// Where the other members are served.
    pub listen_peer_urls: Vec<String>,
    /// Where the other members find this one.
    pub initial_advertise_peer_urls: Vec<String>,
    /// Name and peer URL of every founding member, the same list on all of them. Read once, on the
    /// first start.
    pub initial_cluster: Vec<(String, String)>,
    /// Keeps two clusters with the same addresses apart.
    pub initial_cluster_token: String,
    /// Joins a running cluster that has added this member, instead of founding one.
    pub initial_cluster_existing: bool,
    /// TLS towards clients.
    pub client_tls: Option<TlsFiles>,
    /// TLS among members.
    pub peer_tls: Option<TlsFiles>,
    /// How often the leader says that it is there.
    pub heartbeat_ms: u64,
    /// About how long a silent leader is believed: a follower stands for election after 0.9 to
    /// 1.2 times this.
    pub election_ms: u64,
    /// Log entries after which the state is flushed and the log may be cut.
    pub snapshot_count: u64,
    /// Entries that stay in the log then, for followers that are a little behind.
    pub snapshot_catchup_entries: u64,
    /// The largest request.
    pub max_request_bytes: usize,
    /// The most operations in a transaction.
    pub max_txn_ops: usize,
    /// Plain HTTP for `/metrics` and `/health`.
    pub metrics_listen: Option<SocketAddr>,
    /// Learners that may be members at the same time.
    pub max_learners: usize,
    /// How often a watcher that asked for it is told how far it is.
    pub watch_progress_interval: Duration,
    /// Database memory.
    pub state: pintle_mvcc::Options,
}

impl Default for Config {
    fn default() -> Self {
        let client = || vec!["http://localhost:2379".to_owned()];
        let peer = || vec!["http://localhost:2380".to_owned()];
        Self {
            name: "default".into(),
            data_dir: "default.etcd".into(),
            listen_client_urls: client(),
            advertise_client_urls: client(),
            listen_peer_urls: peer(),
            initial_advertise_peer_urls: peer(),
            initial_cluster: vec![("default".into(), "http://localhost:2380".into())],
            initial_cluster_token: "etcd-cluster".into(),
            initial_cluster_existing: false,
            client_tls: None,
            peer_tls: None,
            heartbeat_ms: 100,
            election_ms: 500,
            snapshot_count: 10_000,
            snapshot_catchup_entries: 5_000,
            max_request_bytes: 1_572_864,
            max_txn_ops: 128,
            metrics_listen: None,
            max_learners: 1,
            watch_progress_interval: Duration::from_secs(600),
            state: pintle_mvcc::Options::default(),
        }
    }
}

impl Config {
    /// How long a request may wait for the cluster: as in etcd, 5 s and two elections.
    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * Duration::from_millis(self.election_ms)
    }

    /// The shortest lease: one that outlives an election.
    pub(crate) fn lease_ttl_min(&self) -> i64 {
        i64::try_from((self.election_ms * 3).div_ceil(2_000)).unwrap_or(i64::MAX)
    }

    /// openraft believes a leader for a lease of `election_timeout_max` after its last message, and
    /// then waits for a random time between the two bounds. 0.6 and 0.3 to 0.6 of `election_ms`
    /// together make 0.9 to 1.2 of it.
    pub(crate) fn election_bounds_ms(&self) -> (u64, u64) {
        let lease = (self.election_ms * 6 / 10).max(self.heartbeat_ms + 2);
        (lease.div_ceil(2).max(self.heartbeat_ms + 1), lease)
    }
}
