//! Claims bound to volumes that are folders of a node: `hostPath` and `local`.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

use super::sources::Sources;
use super::{Error, host};
use crate::pod::PodExt;

/// Where the volume behind a claim is on this node.
pub(super) async fn path_of_claim(
    pod: &Pod,
    claim: &str,
    sources: &Sources,
) -> Result<PathBuf, Error> {
    let volume = sources.volume_of_claim(pod.namespace(), claim).await?;
    let name = volume.metadata.name.clone().unwrap_or_default();
    let spec = volume.spec.unwrap_or_default();
    if let Some(source) = &spec.host_path {
        // The path of a provisioned volume is made by its first user.
        let kind = source.type_.as_deref().filter(|kind| !kind.is_empty());
        return host::host_path(Path::new(&source.path), Some(kind.unwrap_or("DirectoryOrCreate")));
    }
    if let Some(source) = &spec.local {
        return host::host_path(Path::new(&source.path), Some("Directory"));
    }
    Err(Error::Unsupported(name))
}
