//! Pods: what a pod asks for, what the runtime says, and what to do about the difference.

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};
use k8s_openapi::jiff::Timestamp;

pub mod actions;
pub mod backoff;
pub mod container_config;
pub mod env;
pub mod hooks;
pub mod manager;
pub mod pleg;
pub mod runtime_status;
pub mod sandbox_config;
pub mod start;
pub mod status;
pub mod status_writer;
pub mod sync;
pub mod table;
pub mod teardown;
pub mod termination;
pub mod worker;

/// Short ways to fields that every served pod has.
pub trait PodExt {
    /// `metadata.uid`
    fn uid(&self) -> &str;
    /// `metadata.name`
    fn name(&self) -> &str;
    /// `metadata.namespace`
    fn namespace(&self) -> &str;
    /// `spec`; an empty one for an object without.
    fn pod_spec(&self) -> &PodSpec;
    /// Whether its deletion has begun.
    fn is_terminating(&self) -> bool;
    /// `status.phase` is `Succeeded` or `Failed`: it never runs again.
    fn is_finished(&self) -> bool;
    /// Whether it uses the node's network.
    fn host_network(&self) -> bool;
    /// `spec.restartPolicy`
    fn restart_policy(&self) -> RestartPolicy;
    /// The time that its containers get to stop, in seconds.
    fn grace_seconds(&self) -> i64;
    /// Init, regular and ephemeral containers as one kind of thing.
    fn all_containers(&self) -> Vec<(ContainerKind, Container)>;
}

/// When containers are started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Whatever the exit code.
    Always,
    /// After a failure.
    OnFailure,
    /// Never.
    Never,
}

impl RestartPolicy {
    /// Unknown and absent mean `Always`, the API's default.
    pub fn parse(text: Option<&str>) -> Self {
        match text {
            Some("Never") => Self::Never,
            Some("OnFailure") => Self::OnFailure,
            _ => Self::Always,
        }
    }
}

/// Which list of the spec a container stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerKind {
    /// `initContainers`, run to its end.
    Init,
    /// `initContainers` with `restartPolicy: Always`: runs beside the pod.
    Sidecar,
    /// `containers`
    Regular,
    /// `ephemeralContainers`
    Ephemeral,
}

static EMPTY_SPEC: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);

impl PodExt for Pod {
    fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or("default")
    }

    fn pod_spec(&self) -> &PodSpec {
        self.spec.as_ref().unwrap_or(&EMPTY_SPEC)
    }

    fn is_terminating(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    fn is_finished(&self) -> bool {
        let phase = self.status.as_ref().and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    }

    fn host_network(&self) -> bool {
        self.pod_spec().host_network.unwrap_or(false)
    }

    fn restart_policy(&self) -> RestartPolicy {
        RestartPolicy::parse(self.pod_spec().restart_policy.as_deref())
    }

    fn grace_seconds(&self) -> i64 {
        self.metadata
            .deletion_grace_period_seconds
            .or(self.pod_spec().termination_grace_period_seconds)
            .unwrap_or(30)
    }

    fn all_containers(&self) -> Vec<(ContainerKind, Container)> {
        let spec = self.pod_spec();
        let init = spec.init_containers.iter().flatten().map(|c| (init_kind(c), c.clone()));
        let regular = spec.containers.iter().map(|c| (ContainerKind::Regular, c.clone()));
        let ephemeral = spec
            .ephemeral_containers
            .iter()
            .flatten()
            .map(|c| (ContainerKind::Ephemeral, ephemeral_as_container(c)));
        init.chain(regular).chain(ephemeral).collect()
    }
}

/// Whether an init container is a sidecar.
pub fn init_kind(container: &Container) -> ContainerKind {
    match container.restart_policy.as_deref() {
        Some("Always") => ContainerKind::Sidecar,
        _ => ContainerKind::Init,
    }
}

/// Ephemeral containers have the fields of containers, as far as they apply.
pub fn ephemeral_as_container(container: &EphemeralContainer) -> Container {
    let c = container.clone();
    Container {
        name: c.name,
        image: c.image,
        image_pull_policy: c.image_pull_policy,
        command: c.command,
        args: c.args,
        working_dir: c.working_dir,
        env: c.env,
        env_from: c.env_from,
        volume_mounts: c.volume_mounts,
        volume_devices: c.volume_devices,
        security_context: c.security_context,
        stdin: c.stdin,
        stdin_once: c.stdin_once,
        tty: c.tty,
        termination_message_path: c.termination_message_path,
        termination_message_policy: c.termination_message_policy,
        ..Container::default()
    }
}

/// CRI counts nanoseconds since 1970.
pub fn from_nanos(nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::UNIX_EPOCH)
}
