//! The two servers: a real etcd as a process, and a member of our store in this one. Both serve
//! plain gRPC on loopback, with the same limits.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use pintle_store::{Config, Member, start};
use pintle_testing::free_port;
use tempfile::TempDir;

use crate::Result;

/// Small, so that a request that is too large is still cheap.
const REQUEST_BYTES_MAX: usize = 65_536;
const TXN_OPS_MAX: usize = 8;
/// As cheap as a password can be: there are many logins.
const BCRYPT_COST: u32 = 4;
/// The shortest lease is half as much again.
const ELECTION_MS: u64 = 1_000;

/// A server under comparison; it ends when it is dropped.
#[derive(Debug)]
pub struct Server {
    url: String,
    running: Running,
    _dir: TempDir,
}

#[derive(Debug)]
enum Running {
    Etcd(Child),
    Pintle(Option<Member>),
}

fn temporary() -> Result<TempDir> {
    tempfile::tempdir().map_err(|error| format!("a temporary folder: {error}"))
}

impl Server {
    /// Starts `etcd`, which `scripts/setup` puts into the PATH of `make`.
    pub fn etcd() -> Result<Self> {
        let dir = temporary()?;
        let (client, peer) = (free_port(), free_port());
        let url = format!("http://127.0.0.1:{client}");
        let child = etcd_command(dir.path(), &url, peer).spawn().map_err(|error| {
            format!("etcd does not start: {error}; `make setup` fetches it, scripts/env.sh sets the PATH")
        })?;
        Ok(Self { url, running: Running::Etcd(child), _dir: dir })
    }

    /// Starts our store.
    pub async fn pintle() -> Result<Self> {
        let dir = temporary()?;
        let (client, peer) = (free_port(), free_port());
        let url = format!("http://127.0.0.1:{client}");
        let peer = format!("http://127.0.0.1:{peer}");
        let mut config = Config {
            data_dir: dir.path().join("data"),
            listen_client_urls: vec![url.clone()],
            advertise_client_urls: vec![url.clone()],
            listen_peer_urls: vec![peer.clone()],
            initial_advertise_peer_urls: vec![peer.clone()],
            initial_cluster: vec![("default".to_owned(), peer)],
            election_ms: ELECTION_MS,
            max_request_bytes: REQUEST_BYTES_MAX,
            max_txn_ops: TXN_OPS_MAX,
            bcrypt_cost: BCRYPT_COST,
            ..Config::default()
        };
        // Small, so that single keys are read from everywhere where they may be.
        (config.state.pending_bytes, config.state.recent_bytes) = (4_000, 20_000);
        let member = start(config).await.map_err(|error| format!("the store: {error}"))?;
        member.ready().await;
        Ok(Self { url, running: Running::Pintle(Some(member)), _dir: dir })
    }

    /// Where clients are served.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether it is the real one.
    pub fn is_etcd(&self) -> bool {
        matches!(self.running, Running::Etcd(_))
    }
}

fn etcd_command(dir: &Path, url: &str, peer: u16) -> Command {
    let peer = format!("http://127.0.0.1:{peer}");
    let mut command = Command::new("etcd");
    command
        .arg("--data-dir")
        .arg(dir.join("data"))
        .args(["--listen-client-urls", url, "--advertise-client-urls", url])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .args(["--election-timeout", &ELECTION_MS.to_string(), "--heartbeat-interval", "100"])
        .args(["--max-request-bytes", &REQUEST_BYTES_MAX.to_string()])
        .args(["--max-txn-ops", &TXN_OPS_MAX.to_string()])
        .args(["--bcrypt-cost", &BCRYPT_COST.to_string()])
        // Its durability is not what is compared.
        .args(["--unsafe-no-fsync", "--log-level", "panic"])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

impl Drop for Server {
    fn drop(&mut self) {
        match &mut self.running {
            Running::Etcd(child) => {
                // It may have ended by itself.
                drop(child.kill());
                drop(child.wait());
            }
            Running::Pintle(member) => {
                if let Some(member) = member.take() {
                    stop(member);
                }
            }
        }
    }
}

/// The process must not end while a database is at work.
fn stop(member: Member) {
    let stop = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        match runtime {
            Ok(runtime) => runtime.block_on(member.kill()),
            Err(error) => eprintln!("stopping the store: {error}"),
        }
    };
    drop(std::thread::spawn(stop).join());
}
