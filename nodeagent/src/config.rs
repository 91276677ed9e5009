//! What a node agent is told at its start, and the places it owns on this machine.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use sha2::{Digest, Sha256};

/// How the names of the bridges of all nodes begin.
pub(crate) const BRIDGE_PREFIX: &str = "pin";

/// The certificate and the key of a TLS server, as PEM files.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate chain.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Which runtime stands behind the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuntimeKind {
    /// Real containers on a containerd of the agent's own.
    Containerd,
    /// Pretended nodes, for scale.
    Hollow {
        /// How many nodes this process pretends to be.
        count: u32,
    },
}

/// One node agent.
#[derive(Clone)]
pub struct Config {
    /// Name of the Node object; for hollow nodes the prefix of their names.
    pub node_name: String,
    /// The connection to the apiserver, as `system:node:NAME`.
    pub client: kube::Client,
    /// Addresses of all apiservers, for the service proxy.
    pub api_servers: Vec<SocketAddr>,
    /// Where everything of this node lives.
    pub data_dir: PathBuf,
    /// The address that the node publishes.
    pub node_ip: IpAddr,
    /// Where the kubelet API listens (HTTPS).
    pub listen: SocketAddr,
    /// The serving certificate of the kubelet API.
    pub tls: TlsFiles,
    /// Client certificates of the kubelet API must be signed by this CA.
    pub client_ca: PathBuf,
    /// The runtime.
    pub runtime: RuntimeKind,
    /// Address of the cluster's DNS service.
    pub cluster_dns: Ipv4Addr,
    /// The cluster's DNS domain.
    pub cluster_domain: String,
    /// Addresses of services.
    pub service_cidr: Ipv4Net,
    /// Whether this agent runs the service proxy and the cluster DNS.
    pub proxy: bool,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("node_name", &self.node_name)
            .field("data_dir", &self.data_dir)
            .field("node_ip", &self.node_ip)
            .field("listen", &self.listen)
            .field("runtime", &self.runtime)
            .finish_non_exhaustive()
    }
}

/// The folders of one node. Unix sockets may not be longer than 107 bytes, so that sockets and the
/// runtime's state live under a short path of their own, derived from the data folder.
#[derive(Debug, Clone)]
pub struct Paths {
    data_dir: PathBuf,
    run_dir: PathBuf,
    id: String,
}

impl Paths {
    /// The places that belong to `data_dir`.
    pub fn new(data_dir: &Path) -> Self {
        let data_dir = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_path_buf());
        let digest = Sha256::digest(data_dir.as_os_str().as_encoded_bytes());
        let id: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        Self { run_dir: Path::new("/run/pintle").join(&id), data_dir, id }
    }

    /// Eight hexadecimal digits that tell this node from others on the machine.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The folder given in [`Config::data_dir`].
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Sockets and the runtime's volatile state.
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    /// containerd's socket.
    pub fn containerd_socket(&self) -> PathBuf {
        self.run_dir.join("containerd.sock")
    }

    /// containerd's configuration, log and images.
    pub fn containerd_dir(&self) -> PathBuf {
        self.data_dir.join("containerd")
    }

    /// The network configuration that containerd reads.
    pub fn cni_conf_dir(&self) -> PathBuf {
        self.data_dir.join("cni").join("net.d")
    }

    /// Where the address plugin remembers its leases.
    pub fn cni_state_dir(&self) -> PathBuf {
        self.data_dir.join("cni").join("networks")
    }

    /// Volumes and files of all pods.
    pub fn pods(&self) -> PathBuf {
        self.data_dir.join("pods")
    }

    /// Volumes and files of one pod.
    pub fn pod(&self, uid: &str) -> PathBuf {
        self.pods().join(uid)
    }

    /// Container logs, laid out like `/var/log/pods`.
    pub fn pod_logs(&self) -> PathBuf {
        self.data_dir.join("pods-logs")
    }

    /// The bridge that pods are plugged into; interface names hold 15 bytes.
    pub fn bridge(&self) -> String {
        format!("{BRIDGE_PREFIX}{}", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_paths_fit_however_deep_the_data_folder_is() {
        let deep = PathBuf::from("/").join("a-long-folder-name".repeat(20));
        let paths = Paths::new(&deep);
        assert!(paths.containerd_socket().as_os_str().len() < 108);
        assert!(paths.bridge().len() <= 15);
    }

    #[test]
    fn nodes_on_one_machine_do_not_share_a_run_folder() {
        assert_ne!(
            Paths::new(Path::new("/a/1")).run_dir(),
            Paths::new(Path::new("/a/2")).run_dir()
        );
    }
}
