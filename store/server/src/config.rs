//! What a member is told when it starts, with etcd's defaults.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::compactor::AutoCompaction;
use crate::disk::DiskConfig;
use crate::listener::HttpLimits;
use crate::tls::TlsPolicy;

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
    /// Where the log is kept, if not in the data folder.
    pub wal_dir: Option<PathBuf>,
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
    /// What is asked of clients beyond a certificate.
    pub client_tls_policy: TlsPolicy,
    /// What is asked of members beyond a certificate.
    pub peer_tls_policy: TlsPolicy,
    /// Limits on the connections of clients.
    pub http: HttpLimits,
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
    /// Plain HTTP for `/metrics`, `/health` and profiles.
    pub metrics_listen: Option<SocketAddr>,
    /// What answers to large ranges may hold in memory together; more are refused as too many
    /// requests.
    pub range_bytes_in_flight_max: usize,
    /// What is served beside gRPC.
    pub web: crate::WebConfig,
    /// How users show that they have logged in: `simple`, or `jwt` with its options.
    pub auth_token: String,
    /// How long a simple token lives when it is not used.
    pub auth_token_ttl: Duration,
    /// How slow it is to hash a password: 2^this rounds.
    pub bcrypt_cost: u32,
    /// Learners that may be members at the same time.
    pub max_learners: usize,
    /// How often a watcher that asked for it is told how far it is.
    pub watch_progress_interval: Duration,
    /// What is compacted without being asked.
    pub auto_compaction: Option<AutoCompaction>,
    /// A unary request that takes longer is named in the log; zero: none is.
    pub warning_unary_request_duration: Duration,
    /// Whether a member asks before it stands for election.
    pub pre_vote: bool,
    /// Whether changes of the membership that would endanger the quorum are refused.
    pub strict_reconfig_check: bool,
    /// Does without fsync: faster, and a crash of the machine loses data.
    pub unsafe_no_fsync: bool,
    /// Makes this member, with what it has, a cluster of its own.
    pub force_new_cluster: bool,
    /// Bytes of living keys and values that may be stored; 0 and below: no limit.
    pub quota_backend_bytes: i64,
    /// When the disk counts as full.
    pub disk: DiskConfig,
    /// How often the leader compares everybody's newest data; zero: never.
    pub corrupt_check_time: Duration,
    /// How often the leader looks for a compaction at which to compare everybody's data; `None`:
    /// never.
    pub compact_hash_check_time: Option<Duration>,
    /// Whether to compare with the others before anything is served.
    pub initial_corrupt_check: bool,
    /// Database memory, where the process has no limit.
    pub state: pintle_mvcc::Options,
    /// What the process may use: caches and buffers are made smaller for it.
    pub memory: crate::MemoryLimit,
}

impl Default for Config {
    fn default() -> Self {
        let client = || vec!["http://localhost:2379".to_owned()];
        let peer = || vec!["http://localhost:2380".to_owned()];
        Self {
            name: "default".into(),
            data_dir: "default.etcd".into(),
            wal_dir: None,
            listen_client_urls: client(),
            advertise_client_urls: client(),
            listen_peer_urls: peer(),
            initial_advertise_peer_urls: peer(),
            initial_cluster: vec![("default".into(), "http://localhost:2380".into())],
            initial_cluster_token: "etcd-cluster".into(),
            initial_cluster_existing: false,
            client_tls: None,
            peer_tls: None,
            client_tls_policy: TlsPolicy::default(),
            peer_tls_policy: TlsPolicy::default(),
            http: HttpLimits::default(),
            heartbeat_ms: 100,
            election_ms: 500,
            snapshot_count: 10_000,
            snapshot_catchup_entries: 5_000,
            max_request_bytes: 1_572_864,
            max_txn_ops: 128,
            metrics_listen: None,
            range_bytes_in_flight_max: 1 << 30,
            web: crate::WebConfig::default(),
            auth_token: "simple".to_owned(),
            auth_token_ttl: Duration::from_secs(300),
            bcrypt_cost: 10,
            max_learners: 1,
            watch_progress_interval: Duration::from_secs(600),
            auto_compaction: None,
            warning_unary_request_duration: Duration::from_millis(300),
            pre_vote: true,
            strict_reconfig_check: true,
            unsafe_no_fsync: false,
            force_new_cluster: false,
            quota_backend_bytes: 0,
            disk: DiskConfig::default(),
            corrupt_check_time: Duration::ZERO,
            compact_hash_check_time: None,
            initial_corrupt_check: false,
            state: pintle_mvcc::Options::default(),
            memory: crate::MemoryLimit::default(),
        }
    }
}

impl Config {
    /// The folder of the log.
    pub(crate) fn log_dir(&self) -> PathBuf {
        self.wal_dir.clone().unwrap_or_else(|| self.data_dir.join("member/log"))
    }

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
