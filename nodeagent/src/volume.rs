//! Volumes of pods: made on the node before the containers start, refreshed while they run, and taken
//! away when the pod is gone.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Pod, Volume};

use crate::config::Paths;
use crate::mounts;
use crate::pod::PodExt;

mod atomic_writer;
mod host;
mod payload;
mod persistent;
pub mod sources;

pub use payload::Payload;
use sources::Sources;

/// Why a volume is not there. The pod waits, with a `FailedMount` event.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error("{action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A ConfigMap, Secret, claim or volume is not there.
    #[error("{kind} {name:?} not found")]
    NotFound {
        /// `configmap`, `secret`, …
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A key is not in its object.
    #[error("references non-existent {kind} key: {key}")]
    NoKey {
        /// `config` or `secret`.
        kind: &'static str,
        /// The key.
        key: String,
    },
    /// The apiserver did not answer.
    #[error("reading {what}: {source}")]
    Api {
        /// What was read.
        what: String,
        /// Why not.
        source: Box<kube::Error>,
    },
    /// `hostPath` has another type than asked for.
    #[error("hostPath type check failed: {path} is not {wanted}", path = path.display())]
    HostPathType {
        /// The path.
        path: PathBuf,
        /// What it should be.
        wanted: &'static str,
    },
    /// This kind of volume does not exist here.
    #[error("volume {0:?} has a kind that this node does not support")]
    Unsupported(String),
    /// A path leads out of its volume, or a field cannot be read.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}

/// Where each volume of a pod is on the node.
pub type Mounted = HashMap<String, PathBuf>;

/// Makes or refreshes all volumes of a pod. Doing it again changes only what has changed.
pub async fn mount_all(pod: &Pod, paths: &Paths, sources: &Sources) -> Result<Mounted, Error> {
    let mut mounted = Mounted::new();
    for volume in pod.pod_spec().volumes.iter().flatten() {
        let path = mount(pod, volume, paths, sources).await?;
        mounted.insert(volume.name.clone(), path);
    }
    Ok(mounted)
}

/// Whether the pod has volumes whose contents may change.
pub fn needs_refresh(pod: &Pod) -> bool {
    pod.pod_spec().volumes.iter().flatten().any(|volume| {
        volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.downward_api.is_some()
            || volume.projected.is_some()
    })
}

async fn mount(
    pod: &Pod,
    volume: &Volume,
    paths: &Paths,
    sources: &Sources,
) -> Result<PathBuf, Error> {
    let place = |kind: &str| paths.pod(pod.uid()).join("volumes").join(kind).join(&volume.name);
    if let Some(source) = &volume.empty_dir {
        let path = place("kubernetes.io~empty-dir");
        return host::empty_dir(pod, source, path);
    }
    if let Some(source) = &volume.host_path {
        return host::host_path(Path::new(&source.path), source.type_.as_deref());
    }
    if let Some(claim) = &volume.persistent_volume_claim {
        return persistent::path_of_claim(pod, &claim.claim_name, sources).await;
    }
    if volume.ephemeral.is_some() {
        let name = format!("{}-{}", pod.name(), volume.name);
        return persistent::path_of_claim(pod, &name, sources).await;
    }
    let kind = match volume {
        Volume { config_map: Some(_), .. } => "kubernetes.io~configmap",
        Volume { secret: Some(_), .. } => "kubernetes.io~secret",
        Volume { downward_api: Some(_), .. } => "kubernetes.io~downward-api",
        Volume { projected: Some(_), .. } => "kubernetes.io~projected",
        _ => return Err(Error::Unsupported(volume.name.clone())),
    };
    let path = place(kind);
    let payload = payload::of_volume(pod, volume, sources).await?;
    // Secrets never touch the disk.
    if volume.secret.is_some() || volume.projected.is_some() {
        host::tmpfs(&path, None)?;
    }
    let group = pod.pod_spec().security_context.as_ref().and_then(|context| context.fs_group);
    atomic_writer::write(&path, &payload, group)?;
    Ok(path)
}

/// Takes the pod's volumes and files away. Call it when nothing of the pod runs.
pub fn remove_all(uid: &str, paths: &Paths) -> std::io::Result<()> {
    let folder = paths.pod(uid);
    mounts::unmount_below(&folder);
    // What could not be unmounted holds foreign data.
    if !mounts::mounted_below(&folder).is_empty() {
        return Err(std::io::Error::other(format!("{} still has mounts", folder.display())));
    }
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
