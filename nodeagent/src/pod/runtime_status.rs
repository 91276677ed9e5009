//! What the runtime says about one pod: its sandboxes and containers, newest first.

use k8s_openapi::api::core::v1::Container;
use pintle_proto::cri::{self, ContainerState, NamespaceMode, PodSandboxState};
use sha2::{Digest, Sha256};

use crate::runtime::{self, LABEL_CONTAINER_NAME, Runtime};

/// Annotation of a container: what it was made from; another value means that it is out of date.
pub const ANNOTATION_HASH: &str = "io.kubernetes.container.hash";
/// Annotation of a container: how often its name was started before.
pub const ANNOTATION_RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// Annotation of a container: where it may leave its last words.
pub const ANNOTATION_TERMINATION_PATH: &str = "io.kubernetes.container.terminationMessagePath";
/// Annotation of a container: where else its last words may come from.
pub const ANNOTATION_TERMINATION_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";

/// A sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// The runtime's id.
    pub id: String,
    /// How many sandboxes the pod had before.
    pub attempt: u32,
    /// Whether it can hold containers.
    pub ready: bool,
    /// Nanoseconds since 1970.
    pub created_at: i64,
    /// Its addresses, none on the node's network.
    pub ips: Vec<String>,
    /// Whether it shares the node's network.
    pub host_network: bool,
}

/// A container.
#[derive(Debug, Clone)]
pub struct Record {
    /// The sandbox it is in.
    pub sandbox_id: String,
    /// Its name in the pod.
    pub name: String,
    /// The runtime's status.
    pub status: cri::ContainerStatus,
}

impl Record {
    /// The runtime's state.
    pub fn state(&self) -> ContainerState {
        self.status.state()
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.state() == ContainerState::ContainerRunning
    }

    /// How often the name was started before.
    pub fn attempt(&self) -> u32 {
        self.status.metadata.as_ref().map_or(0, |metadata| metadata.attempt)
    }

    /// The restart count in the container's own annotation.
    pub fn restart_count(&self) -> i32 {
        let noted = self.status.annotations.get(ANNOTATION_RESTART_COUNT);
        noted.and_then(|text| text.parse().ok()).unwrap_or(self.attempt() as i32)
    }

    /// What it was made from.
    pub fn hash(&self) -> Option<&str> {
        self.status.annotations.get(ANNOTATION_HASH).map(String::as_str)
    }
}

/// All that the runtime knows about a pod.
#[derive(Debug, Clone, Default)]
pub struct PodRuntime {
    /// Newest first.
    pub sandboxes: Vec<Sandbox>,
    /// Newest first.
    pub containers: Vec<Record>,
}

impl PodRuntime {
    /// Asks the runtime.
    pub async fn read(runtime: &dyn Runtime, uid: &str) -> runtime::Result<Self> {
        let mut sandboxes = Vec::new();
        for sandbox in runtime.list_sandboxes(Some(uid)).await? {
            match runtime.sandbox(&sandbox.id).await {
                Ok(detail) => sandboxes.push(sandbox_of(detail.status)),
                Err(runtime::Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        sandboxes.sort_by_key(|sandbox| std::cmp::Reverse((sandbox.attempt, sandbox.created_at)));
        let mut containers = Vec::new();
        for container in runtime.list_containers(Some(uid)).await? {
            match runtime.container(&container.id).await {
                Ok(detail) => containers.push(Record {
                    sandbox_id: container.pod_sandbox_id,
                    name: container.labels.get(LABEL_CONTAINER_NAME).cloned().unwrap_or_default(),
                    status: detail.status,
                }),
                Err(runtime::Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        containers
            .sort_by_key(|record| std::cmp::Reverse((record.status.created_at, record.attempt())));
        Ok(Self { sandboxes, containers })
    }

    /// The newest sandbox.
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first()
    }

    /// The newest container of a name.
    pub fn newest(&self, name: &str) -> Option<&Record> {
        self.containers.iter().find(|record| record.name == name)
    }

    /// The newest container of a name in the given sandbox.
    pub fn newest_in(&self, sandbox_id: &str, name: &str) -> Option<&Record> {
        self.containers.iter().find(|record| record.name == name && record.sandbox_id == sandbox_id)
    }

    /// The newest container of a name before the newest that has ended.
    pub fn last_terminated(&self, name: &str) -> Option<&Record> {
        self.containers
            .iter()
            .filter(|record| record.name == name)
            .skip(1)
            .find(|record| record.state() == ContainerState::ContainerExited)
    }

    /// Those that run.
    pub fn running(&self) -> impl Iterator<Item = &Record> {
        self.containers.iter().filter(|record| record.is_running())
    }

    /// Whether anything of the pod still runs.
    pub fn is_alive(&self) -> bool {
        self.sandboxes.iter().any(|sandbox| sandbox.ready) || self.running().next().is_some()
    }
}

fn sandbox_of(status: cri::PodSandboxStatus) -> Sandbox {
    let network = status.network.as_ref();
    let ips = network
        .map(|network| {
            let more = network.additional_ips.iter().map(|ip| ip.ip.clone());
            std::iter::once(network.ip.clone()).chain(more).filter(|ip| !ip.is_empty()).collect()
        })
        .unwrap_or_default();
    let options =
        status.linux.as_ref().and_then(|linux| linux.namespaces.as_ref()?.options.as_ref());
    Sandbox {
        ready: status.state() == PodSandboxState::SandboxReady,
        attempt: status.metadata.as_ref().map_or(0, |metadata| metadata.attempt),
        created_at: status.created_at,
        host_network: options.is_some_and(|o| o.network() == NamespaceMode::Node),
        ips,
        id: status.id,
    }
}

/// What a change of restarts the container: its name and image.
pub fn container_hash(container: &Container) -> String {
    let mut hasher = Sha256::new();
    hasher.update(container.name.as_bytes());
    hasher.update([0]);
    hasher.update(container.image.as_deref().unwrap_or_default().as_bytes());
    hasher.finalize().iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}
