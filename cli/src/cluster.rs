//! A development cluster on disk: where everything lies under its folder, and `cluster.json`,
//! which scripts read (its shape is kept stable).

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// Services get their addresses from here; the first is the API, the tenth the DNS.
pub(crate) const SERVICE_CIDR: &str = "10.96.0.0/16";
/// Pods get their addresses from here, a /24 to each node.
pub(crate) const CLUSTER_CIDR: &str = "10.244.0.0/16";
/// The address of `kube-system/kube-dns`.
pub(crate) const CLUSTER_DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// The address of `default/kubernetes`.
pub(crate) const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The domain that cluster DNS answers for.
pub(crate) const CLUSTER_DOMAIN: &str = "cluster.local";

/// What a cluster was created with; a later `up` on the same folder resumes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shape {
    pub(crate) base_port: u16,
    pub(crate) members: u16,
    pub(crate) nodes: u16,
    pub(crate) hollow_nodes: u32,
}

impl Shape {
    /// The one port for the API of all members.
    pub(crate) fn front(&self) -> SocketAddr {
        loopback(self.base_port)
    }

    /// The API of member `i`, counted from 1.
    pub(crate) fn api(&self, member: u16) -> SocketAddr {
        loopback(self.base_port + 10 * member)
    }

    pub(crate) fn client(&self, member: u16) -> SocketAddr {
        loopback(self.base_port + 10 * member + 1)
    }

    pub(crate) fn peer(&self, member: u16) -> SocketAddr {
        loopback(self.base_port + 10 * member + 2)
    }

    pub(crate) fn metrics(&self, member: u16) -> SocketAddr {
        loopback(self.base_port + 10 * member + 3)
    }

    /// The kubelet port of agent `i`, counted from 1: beside the members' ports, so that two
    /// clusters with different base ports do not meet.
    pub(crate) fn kubelet(&self, agent: u16) -> SocketAddr {
        loopback(self.base_port + 10 * (self.members + agent) + 5)
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// The folder of a cluster.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// `dir` need not exist yet; it is made absolute, because children run elsewhere.
    pub(crate) fn new(dir: &Path) -> anyhow::Result<Self> {
        let root = std::path::absolute(dir).with_context(|| format!("folder {}", dir.display()))?;
        Ok(Self { root })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    pub(crate) fn admin_kubeconfig(&self) -> PathBuf {
        self.root.join("admin.kubeconfig")
    }

    pub(crate) fn shape_file(&self) -> PathBuf {
        self.root.join("up.json")
    }

    pub(crate) fn cluster_file(&self) -> PathBuf {
        self.root.join("cluster.json")
    }

    pub(crate) fn supervisor_file(&self) -> PathBuf {
        self.root.join("supervisor.json")
    }

    pub(crate) fn member_dir(&self, name: &str) -> PathBuf {
        self.root.join("members").join(name)
    }

    pub(crate) fn agent_dir(&self, name: &str) -> PathBuf {
        self.root.join("agents").join(name)
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.root.join("logs").join(format!("{name}.log"))
    }
}

/// `cluster.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ClusterFile {
    pub(crate) kubeconfig: PathBuf,
    pub(crate) front: String,
    pub(crate) ca: PathBuf,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) members: Vec<MemberEntry>,
    pub(crate) agents: Vec<AgentEntry>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MemberEntry {
    pub(crate) name: String,
    /// 0 while it is not running.
    pub(crate) pid: u32,
    pub(crate) api: String,
    pub(crate) client_url: String,
    pub(crate) peer_url: String,
    pub(crate) data_dir: PathBuf,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AgentEntry {
    pub(crate) name: String,
    pub(crate) pid: u32,
    pub(crate) runtime: String,
    pub(crate) data_dir: PathBuf,
}

impl ClusterFile {
    /// Reads `cluster.json` of a cluster folder.
    pub(crate) fn load(layout: &Layout) -> anyhow::Result<Self> {
        load_json(&layout.cluster_file()).with_context(|| {
            format!("no cluster in {}: start one with `pintle up`", layout.root().display())
        })
    }
}

/// Reads a JSON file.
pub(crate) fn load_json<T: for<'de> Deserialize<'de>>(path: &Path) -> anyhow::Result<T> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

/// Replaces a JSON file at once, so that a reader never sees half of it.
pub(crate) fn save_json<T: Serialize>(path: &Path, value: &T) -> anyhow::Result<()> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    replace_file(path, &text, 0o644)
}

/// Writes beside `path` and renames; `mode` are the permissions.
pub(crate) fn replace_file(path: &Path, content: &[u8], mode: u32) -> anyhow::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let beside = path.with_extension("tmp");
    let write = || -> std::io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(mode).open(&beside)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().with_context(|| format!("writing {}", path.display()))
}
