//! A container as CRI's container configuration: command, mounts, security, resources, labels.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, SeccompProfile, SecurityContext, VolumeMount};
use pintle_proto::cri::security_profile::ProfileType;
use pintle_proto::cri::{
    self, Capability, ContainerConfig, ContainerMetadata, ImageSpec, Int64Value, KeyValue,
    LinuxContainerConfig, LinuxContainerSecurityContext, Mount, MountPropagation, SecurityProfile,
};

use super::runtime_status::{
    ANNOTATION_HASH, ANNOTATION_RESTART_COUNT, ANNOTATION_TERMINATION_PATH,
    ANNOTATION_TERMINATION_POLICY, container_hash,
};
use super::{PodExt, env, sandbox_config};
use crate::resources;
use crate::runtime::{LABEL_CONTAINER_NAME, LABEL_POD_NAME, LABEL_POD_NAMESPACE, LABEL_POD_UID};

/// Kernel files that an unprivileged container does not see.
const MASKED_PATHS: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// Kernel files that an unprivileged container cannot write.
const READONLY_PATHS: &[&str] =
    &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Why a container cannot be made. It waits in `CreateContainerConfigError`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Its environment.
    #[error(transparent)]
    Env(#[from] env::Error),
    /// A mount of a volume that the pod does not have.
    #[error("volume {0:?} is not mounted")]
    NoVolume(String),
    /// `subPath` leaves its volume.
    #[error("subPath {0:?} leads out of its volume")]
    SubPath(String),
    /// `runAsNonRoot` and uid 0.
    #[error(
        "container has runAsNonRoot and image will run as root (pod: \"{pod}\", container: {container})"
    )]
    RunsAsRoot {
        /// The pod.
        pod: String,
        /// The container.
        container: String,
    },
    /// `runAsNonRoot` and a name that could stand for uid 0.
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root (pod: \"{pod}\", container: {container})"
    )]
    NamedUser {
        /// The user of the image.
        user: String,
        /// The pod.
        pod: String,
        /// The container.
        container: String,
    },
    /// The folder of a `subPath` could not be made.
    #[error("cannot prepare subPath: {0}")]
    Io(String),
}

/// What a container is made from.
#[derive(Debug)]
pub struct Input<'a> {
    /// Its pod.
    pub pod: &'a Pod,
    /// The container.
    pub container: &'a Container,
    /// How often its name was started before.
    pub restart_count: i32,
    /// The image that is there.
    pub image: &'a cri::Image,
    /// Its environment.
    pub env: Vec<(String, String)>,
    /// Where the pod's volumes are on the node.
    pub volumes: &'a HashMap<String, PathBuf>,
    /// The pod's `/etc/hosts`, if the agent writes it.
    pub hosts_file: Option<PathBuf>,
    /// Where its last words go on the node.
    pub termination_file: Option<PathBuf>,
    /// Memory of the node, for the OOM score.
    pub node_memory: i64,
    /// The sandbox whose processes an ephemeral container sees.
    pub target_id: Option<String>,
}

/// The configuration.
pub fn container_config(input: Input<'_>) -> Result<ContainerConfig, Error> {
    let (pod, container) = (input.pod, input.container);
    verify_non_root(pod, container, input.image)?;
    let lookup = |name: &str| input.env.iter().find(|(key, _)| key == name).map(|(_, v)| v.clone());
    let expand_all = |words: &Option<Vec<String>>| {
        words.iter().flatten().map(|word| env::expand(word, lookup)).collect::<Vec<_>>()
    };
    let (command, args) = (expand_all(&container.command), expand_all(&container.args));
    let mounts = mounts(&input, lookup)?;
    Ok(ContainerConfig {
        metadata: Some(ContainerMetadata {
            name: container.name.clone(),
            attempt: u32::try_from(input.restart_count).unwrap_or(0),
        }),
        image: Some(ImageSpec {
            image: input.image.id.clone(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..Default::default()
        }),
        command,
        args,
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: input
            .env
            .iter()
            .map(|(key, value)| KeyValue { key: key.clone(), value: value.clone().into() })
            .collect(),
        mounts,
        labels: labels(pod, container),
        annotations: annotations(container, input.restart_count),
        log_path: log_path(&container.name, input.restart_count),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        linux: Some(LinuxContainerConfig {
            resources: Some(resources::container_resources(pod, container, input.node_memory)),
            security_context: Some(security_context(pod, container, input.image, input.target_id)),
        }),
        ..Default::default()
    })
}

/// A container's log below its pod's folder.
pub fn log_path(name: &str, restart_count: i32) -> String {
    format!("{name}/{restart_count}.log")
}

fn labels(pod: &Pod, container: &Container) -> HashMap<String, String> {
    [
        (LABEL_POD_NAME, pod.name()),
        (LABEL_POD_NAMESPACE, pod.namespace()),
        (LABEL_POD_UID, pod.uid()),
        (LABEL_CONTAINER_NAME, &container.name),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

fn annotations(container: &Container, restart_count: i32) -> HashMap<String, String> {
    let path = container.termination_message_path.clone().unwrap_or_default();
    let policy = container.termination_message_policy.clone().unwrap_or_default();
    [
        (ANNOTATION_HASH, container_hash(container)),
        (ANNOTATION_RESTART_COUNT, restart_count.to_string()),
        (ANNOTATION_TERMINATION_PATH, path),
        (ANNOTATION_TERMINATION_POLICY, policy),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

fn mounts(
    input: &Input<'_>,
    lookup: impl Fn(&str) -> Option<String> + Copy,
) -> Result<Vec<Mount>, Error> {
    let mut mounts = Vec::new();
    for mount in input.container.volume_mounts.iter().flatten() {
        let volume =
            input.volumes.get(&mount.name).ok_or_else(|| Error::NoVolume(mount.name.clone()))?;
        let host_path = match sub_path(mount, lookup)? {
            Some(below) => prepare_sub_path(volume, &below)?,
            None => volume.clone(),
        };
        mounts.push(Mount {
            container_path: absolute(&mount.mount_path),
            host_path: host_path.to_string_lossy().into_owned(),
            readonly: mount.read_only.unwrap_or(false),
            propagation: propagation(mount) as i32,
            ..Default::default()
        });
    }
    let mounted: Vec<String> = mounts.iter().map(|mount| mount.container_path.clone()).collect();
    if let Some(file) =
        input.hosts_file.as_ref().filter(|_| !mounted.iter().any(|p| p == "/etc/hosts"))
    {
        mounts.push(file_mount("/etc/hosts", file));
    }
    if let Some(file) = &input.termination_file {
        let path =
            input.container.termination_message_path.as_deref().filter(|path| !path.is_empty());
        mounts.push(file_mount(path.unwrap_or("/dev/termination-log"), file));
    }
    Ok(mounts)
}

fn file_mount(container_path: &str, host_path: &Path) -> Mount {
    Mount {
        container_path: container_path.to_owned(),
        host_path: host_path.to_string_lossy().into_owned(),
        ..Default::default()
    }
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn propagation(mount: &VolumeMount) -> MountPropagation {
    match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => MountPropagation::PropagationHostToContainer,
        Some("Bidirectional") => MountPropagation::PropagationBidirectional,
        _ => MountPropagation::PropagationPrivate,
    }
}

fn sub_path(
    mount: &VolumeMount,
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<Option<String>, Error> {
    let path = match (&mount.sub_path, &mount.sub_path_expr) {
        (Some(path), _) if !path.is_empty() => path.clone(),
        (_, Some(expression)) if !expression.is_empty() => env::expand(expression, lookup),
        _ => return Ok(None),
    };
    let leaves = Path::new(&path).is_absolute()
        || Path::new(&path).components().any(|part| part == std::path::Component::ParentDir);
    if leaves { Err(Error::SubPath(path)) } else { Ok(Some(path)) }
}

/// The place inside the volume, created as a folder with the volume's mode when it is not there. Links that lead out of the
/// volume are refused.
fn prepare_sub_path(volume: &Path, below: &str) -> Result<PathBuf, Error> {
    let io = |error: std::io::Error| Error::Io(error.to_string());
    let mode = std::fs::metadata(volume).map_err(io)?.permissions();
    let mut target = volume.to_path_buf();
    for part in Path::new(below).components() {
        target.push(part);
        if !target.exists() {
            std::fs::create_dir(&target).map_err(io)?;
            std::fs::set_permissions(&target, mode.clone()).map_err(io)?;
        }
    }
    let real = target.canonicalize().map_err(io)?;
    if real.starts_with(volume.canonicalize().map_err(io)?) {
        Ok(real)
    } else {
        Err(Error::SubPath(below.to_owned()))
    }
}

/// The user that the container runs as: its own, the pod's, the image's.
fn run_as_user(pod: &Pod, container: &Container) -> Option<i64> {
    let own = container.security_context.as_ref().and_then(|context| context.run_as_user);
    own.or_else(|| pod.pod_spec().security_context.as_ref()?.run_as_user)
}

fn verify_non_root(pod: &Pod, container: &Container, image: &cri::Image) -> Result<(), Error> {
    let own = container.security_context.as_ref().and_then(|context| context.run_as_non_root);
    let required =
        own.or_else(|| pod.pod_spec().security_context.as_ref()?.run_as_non_root).unwrap_or(false);
    if !required {
        return Ok(());
    }
    let name = format!("{}_{}({})", pod.name(), pod.namespace(), pod.uid());
    let uid = run_as_user(pod, container).or(image.uid.as_ref().map(|uid| uid.value));
    match uid {
        Some(0) => Err(Error::RunsAsRoot { pod: name, container: container.name.clone() }),
        Some(_) => Ok(()),
        None if image.username.is_empty() => {
            Err(Error::RunsAsRoot { pod: name, container: container.name.clone() })
        }
        None => Err(Error::NamedUser {
            user: image.username.clone(),
            pod: name,
            container: container.name.clone(),
        }),
    }
}

fn security_context(
    pod: &Pod,
    container: &Container,
    image: &cri::Image,
    target_id: Option<String>,
) -> LinuxContainerSecurityContext {
    let empty = SecurityContext::default();
    let own = container.security_context.as_ref().unwrap_or(&empty);
    let of_pod = pod.pod_spec().security_context.as_ref();
    let privileged = own.privileged.unwrap_or(false);
    let mut namespaces = sandbox_config::namespace_options(pod);
    if let Some(target) = target_id {
        namespaces.pid = cri::NamespaceMode::Target as i32;
        namespaces.target_id = target;
    }
    let user = run_as_user(pod, container);
    let group = own.run_as_group.or_else(|| of_pod?.run_as_group);
    let profile = own.seccomp_profile.as_ref().or_else(|| of_pod?.seccomp_profile.as_ref());
    let unmasked = own.proc_mount.as_deref() == Some("Unmasked") || privileged;
    let paths = |list: &[&str]| match unmasked {
        true => Vec::new(),
        false => list.iter().map(|path| (*path).to_owned()).collect(),
    };
    LinuxContainerSecurityContext {
        capabilities: Some(Capability {
            add_capabilities: list(own.capabilities.as_ref().and_then(|c| c.add.as_ref())),
            drop_capabilities: list(own.capabilities.as_ref().and_then(|c| c.drop.as_ref())),
            add_ambient_capabilities: Vec::new(),
        }),
        privileged,
        namespace_options: Some(namespaces),
        run_as_user: user
            .or(image.uid.as_ref().map(|uid| uid.value))
            .map(|value| Int64Value { value }),
        run_as_username: if user.is_none() { image.username.clone() } else { String::new() },
        // A group needs a user beside it.
        run_as_group: group.map(|value| Int64Value { value }),
        readonly_rootfs: own.read_only_root_filesystem.unwrap_or(false),
        supplemental_groups: sandbox_config::supplemental_groups(pod),
        no_new_privs: own.allow_privilege_escalation == Some(false) && !privileged,
        masked_paths: paths(MASKED_PATHS),
        readonly_paths: paths(READONLY_PATHS),
        seccomp: Some(seccomp(profile)),
        ..Default::default()
    }
}

fn list(words: Option<&Vec<String>>) -> Vec<String> {
    words.cloned().unwrap_or_default()
}

fn seccomp(profile: Option<&SeccompProfile>) -> SecurityProfile {
    let (profile_type, localhost_ref) = match profile.map(|p| (p.type_.as_str(), p)) {
        Some(("RuntimeDefault", _)) => (ProfileType::RuntimeDefault, String::new()),
        Some(("Localhost", p)) => {
            (ProfileType::Localhost, p.localhost_profile.clone().unwrap_or_default())
        }
        _ => (ProfileType::Unconfined, String::new()),
    };
    SecurityProfile { profile_type: profile_type as i32, localhost_ref }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(
        pod: serde_json::Value,
        volumes: &HashMap<String, PathBuf>,
    ) -> Result<ContainerConfig, Error> {
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let container = pod.pod_spec().containers[0].clone();
        container_config(Input {
            pod: &pod,
            container: &container,
            restart_count: 2,
            image: &cri::Image { id: "sha256:1".to_owned(), ..Default::default() },
            env: vec![("NAME".to_owned(), "value".to_owned())],
            volumes,
            hosts_file: None,
            termination_file: None,
            node_memory: 1 << 30,
            target_id: None,
        })
    }

    #[test]
    fn commands_see_the_environment() {
        let pod = json!({ "metadata": { "name": "p", "uid": "u" }, "spec": { "containers": [{
            "name": "a", "command": ["run", "$(NAME)"], "args": ["$(MISSING)", "$$(NAME)"] }] } });
        let config = config(pod, &HashMap::new()).unwrap();
        assert_eq!(config.command, ["run", "value"]);
        assert_eq!(config.args, ["$(MISSING)", "$(NAME)"]);
        assert_eq!(config.log_path, "a/2.log");
        assert_eq!(config.labels[LABEL_POD_UID], "u");
    }

    #[test]
    fn security_is_the_containers_own_before_the_pods() {
        let pod = json!({ "metadata": { "name": "p", "uid": "u" }, "spec": {
            "securityContext": { "runAsUser": 1000, "runAsGroup": 2000, "fsGroup": 3000,
                "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{ "name": "a", "securityContext": { "runAsUser": 7,
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                "capabilities": { "drop": ["ALL"], "add": ["NET_BIND_SERVICE"] } } }] } });
        let context =
            config(pod, &HashMap::new()).unwrap().linux.unwrap().security_context.unwrap();
        assert_eq!(context.run_as_user.unwrap().value, 7);
        assert_eq!(context.run_as_group.unwrap().value, 2000);
        assert_eq!(context.supplemental_groups, [3000]);
        assert!(context.no_new_privs && context.readonly_rootfs);
        assert_eq!(context.seccomp.unwrap().profile_type, ProfileType::RuntimeDefault as i32);
        assert_eq!(context.capabilities.unwrap().drop_capabilities, ["ALL"]);
    }

    #[test]
    fn a_root_image_is_refused_where_root_is_forbidden() {
        let pod = json!({ "metadata": { "name": "p", "namespace": "n", "uid": "u" }, "spec": { "containers": [{
            "name": "a", "securityContext": { "runAsNonRoot": true } }] } });
        let error = config(pod, &HashMap::new()).unwrap_err().to_string();
        assert_eq!(
            error,
            "container has runAsNonRoot and image will run as root (pod: \"p_n(u)\", container: a)"
        );
    }

    #[test]
    fn a_sub_path_stays_in_its_volume() {
        let folder = tempfile::tempdir().unwrap();
        let volumes = [("v".to_owned(), folder.path().to_path_buf())].into();
        let pod = |sub: &str| {
            json!({ "metadata": { "name": "p", "uid": "u" }, "spec": { "containers": [{
                "name": "a", "volumeMounts": [{ "name": "v", "mountPath": "data", "subPath": sub }] }] } })
        };
        let mounts = config(pod("a/b"), &volumes).unwrap().mounts;
        assert_eq!(mounts[0].container_path, "/data");
        assert!(Path::new(&mounts[0].host_path).is_dir());
        assert!(matches!(config(pod("../x"), &volumes), Err(Error::SubPath(_))));
        std::os::unix::fs::symlink("/", folder.path().join("out")).unwrap();
        assert!(matches!(config(pod("out"), &volumes), Err(Error::SubPath(_))));
    }
}
