//! The seam between the agent and what runs containers.
//!
//! The vocabulary is CRI's own messages, because every runtime that the agent will ever meet speaks
//! them. Two implementations stand behind it: [`cri::Cri`] (containerd over its socket) and
//! [`hollow::Hollow`] that pretends.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use ipnet::Ipv4Net;
use pintle_proto::cri::{
    Container, ContainerConfig, ContainerStats, ContainerStatus, FilesystemUsage, Image,
    PodSandbox, PodSandboxConfig, PodSandboxStatus,
};

pub mod cri;
pub mod hollow;

/// Label of every sandbox and container: the pod's name.
pub const LABEL_POD_NAME: &str = "io.kubernetes.pod.name";
/// Label of every sandbox and container: the pod's namespace.
pub const LABEL_POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Label of every sandbox and container: the pod's uid, by which they are adopted after a restart.
pub const LABEL_POD_UID: &str = "io.kubernetes.pod.uid";
/// Label of every container: its name in the pod.
pub const LABEL_CONTAINER_NAME: &str = "io.kubernetes.container.name";

/// What a runtime call answers.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a runtime call failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The runtime does not know the sandbox, the container or the image.
    #[error("{0}")]
    NotFound(String),
    /// The runtime cannot be reached; worth another try.
    #[error("the container runtime does not answer: {0}")]
    Unavailable(String),
    /// The call did not end in its time.
    #[error("{0}")]
    DeadlineExceeded(String),
    /// This runtime has no such call.
    #[error("{0}")]
    Unimplemented(String),
    /// The runtime refused or failed.
    #[error("{0}")]
    Failed(String),
}

/// Name and version of a runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Such as `containerd`.
    pub name: String,
    /// Such as `1.6.20`.
    pub version: String,
}

/// Whether the runtime and its network can run pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readiness {
    /// `Some(message)` when the runtime itself is not ready.
    pub runtime: Option<String>,
    /// `Some(message)` when pod networking is not ready.
    pub network: Option<String>,
}

/// A sandbox and what only the verbose status tells.
#[derive(Debug, Clone)]
pub struct SandboxDetail {
    /// Its status.
    pub status: PodSandboxStatus,
    /// Its first process, whose `/proc/PID/ns/net` is the pod's network.
    pub pid: Option<i32>,
}

/// A container and what only the verbose status tells.
#[derive(Debug, Clone)]
pub struct ContainerDetail {
    /// Its status.
    pub status: ContainerStatus,
    /// Its first process.
    pub pid: Option<i32>,
}

/// What a command in a container printed.
#[derive(Debug, Clone, Default)]
pub struct ExecOutput {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// The exit code.
    pub exit_code: i32,
}

/// Which streams of a command are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Streams {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// A terminal: output and errors are one stream.
    pub tty: bool,
}

/// An image on the node.
pub type ImageRef = Image;

/// Runs sandboxes and containers.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Whether containers see this machine's files and networks. A pretending runtime says no, and the
    /// agent then mounts no volumes, writes no logs and probes nothing.
    fn is_real(&self) -> bool;
    /// Returns when something may have changed since the last call.
    async fn changed(&self);
    /// The range of the node's pods is known. Real runtimes get it by their network configuration.
    fn pod_network(&self, _subnet: Ipv4Net) {}
    /// Name and version.
    async fn version(&self) -> Result<Version>;
    /// Whether pods can run.
    async fn readiness(&self) -> Result<Readiness>;

    /// Creates and starts a sandbox; its id.
    async fn run_sandbox(&self, config: PodSandboxConfig) -> Result<String>;
    /// Stops a sandbox with all that runs in it; a second call does nothing.
    async fn stop_sandbox(&self, id: &str) -> Result<()>;
    /// Removes a stopped sandbox.
    async fn remove_sandbox(&self, id: &str) -> Result<()>;
    /// All sandboxes, or those of one pod.
    async fn list_sandboxes(&self, pod_uid: Option<&str>) -> Result<Vec<PodSandbox>>;
    /// One sandbox.
    async fn sandbox(&self, id: &str) -> Result<SandboxDetail>;

    /// Creates a container in a sandbox; its id.
    async fn create_container(
        &self,
        sandbox_id: &str,
        config: ContainerConfig,
        sandbox: PodSandboxConfig,
    ) -> Result<String>;
    /// Starts a created container.
    async fn start_container(&self, id: &str) -> Result<()>;
    /// Stops a container: its stop signal, then SIGKILL after `grace`.
    async fn stop_container(&self, id: &str, grace: Duration) -> Result<()>;
    /// Removes a container.
    async fn remove_container(&self, id: &str) -> Result<()>;
    /// All containers, or those of one pod.
    async fn list_containers(&self, pod_uid: Option<&str>) -> Result<Vec<Container>>;
    /// One container.
    async fn container(&self, id: &str) -> Result<ContainerDetail>;
    /// Makes the runtime open the container's log file again.
    async fn reopen_log(&self, id: &str) -> Result<()>;
    /// Usage of all containers.
    async fn container_stats(&self) -> Result<Vec<ContainerStats>>;

    /// Runs a command and collects what it prints.
    async fn exec_sync(
        &self,
        id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutput>;
    /// Prepares a streamed command; the URL of the runtime's streaming server.
    async fn exec(&self, id: &str, command: &[String], streams: Streams) -> Result<String>;
    /// Prepares an attachment to the first process.
    async fn attach(&self, id: &str, streams: Streams) -> Result<String>;
    /// Prepares the forwarding of ports.
    async fn port_forward(&self, sandbox_id: &str, ports: &[i32]) -> Result<String>;

    /// All images.
    async fn list_images(&self) -> Result<Vec<ImageRef>>;
    /// One image, by any of its names.
    async fn image(&self, name: &str) -> Result<Option<ImageRef>>;
    /// Pulls an image; its reference.
    async fn pull_image(&self, name: &str) -> Result<String>;
    /// Removes an image.
    async fn remove_image(&self, name: &str) -> Result<()>;
    /// The file systems that hold images.
    async fn image_filesystems(&self) -> Result<Vec<FilesystemUsage>>;
}

/// The pod uid among the labels of a sandbox or a container.
pub fn pod_uid(labels: &HashMap<String, String>) -> Option<&str> {
    labels.get(LABEL_POD_UID).map(String::as_str)
}
