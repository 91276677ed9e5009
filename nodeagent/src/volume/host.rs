//! Volumes that are folders of the node: `emptyDir`, on disk or in memory, and `hostPath`.

use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod};
use nix::mount::{MsFlags, mount};

use super::Error;
use crate::mounts;
use crate::pod::PodExt;
use crate::resources;

/// An empty folder that lives as long as the pod.
pub(super) fn empty_dir(
    pod: &Pod,
    source: &EmptyDirVolumeSource,
    path: PathBuf,
) -> Result<PathBuf, Error> {
    if source.medium.as_deref() == Some("Memory") {
        tmpfs(&path, source.size_limit.as_ref().map(resources::value).filter(|bytes| *bytes > 0))?;
    } else {
        std::fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
    }
    let group = pod.pod_spec().security_context.as_ref().and_then(|context| context.fs_group);
    let group = group.and_then(|gid| u32::try_from(gid).ok());
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    set_mode(&path, mode)?;
    if group.is_some() {
        chown(&path, None, group).map_err(Error::io("chown", &path))?;
    }
    Ok(path)
}

/// Mounts a tmpfs, once.
pub(super) fn tmpfs(path: &Path, bytes_max: Option<i64>) -> Result<(), Error> {
    std::fs::create_dir_all(path).map_err(Error::io("create", path))?;
    if mounts::is_mount_point(path) {
        return Ok(());
    }
    let options = bytes_max.map(|bytes| format!("size={bytes}"));
    mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), options.as_deref())
        .map_err(|errno| Error::io("mount tmpfs at", path)(errno.into()))
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(Error::io("chmod", path))
}

/// A place of the node, checked or created as its type says.
pub(super) fn host_path(path: &Path, kind: Option<&str>) -> Result<PathBuf, Error> {
    let wrong = |wanted| Error::HostPathType { path: path.to_path_buf(), wanted };
    let require = |ok: bool, wanted| if ok { Ok(()) } else { Err(wrong(wanted)) };
    let kind_of = || std::fs::metadata(path).map(|meta| meta.file_type());
    match kind.unwrap_or_default() {
        "" => {}
        "DirectoryOrCreate" => {
            if !path.exists() {
                std::fs::create_dir_all(path).map_err(Error::io("create", path))?;
            }
            require(path.is_dir(), "a directory")?;
        }
        "FileOrCreate" => {
            if !path.exists() {
                std::fs::File::create(path).map_err(Error::io("create", path))?;
            }
            require(path.is_file(), "a file")?;
        }
        "Directory" => require(path.is_dir(), "a directory")?,
        "File" => require(path.is_file(), "a file")?,
        "Socket" => require(kind_of().is_ok_and(|t| t.is_socket()), "a socket")?,
        "CharDevice" => require(kind_of().is_ok_and(|t| t.is_char_device()), "a character device")?,
        "BlockDevice" => require(kind_of().is_ok_and(|t| t.is_block_device()), "a block device")?,
        _ => return Err(wrong("of a known type")),
    }
    Ok(path.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_paths_are_what_they_are_declared_to_be() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f");
        assert!(host_path(&file, Some("File")).is_err());
        assert!(host_path(&file, Some("FileOrCreate")).is_ok());
        assert!(host_path(&file, Some("File")).is_ok());
        assert!(host_path(&file, Some("Directory")).is_err());
        assert!(host_path(&folder.path().join("d/e"), Some("DirectoryOrCreate")).unwrap().is_dir());
        assert!(host_path(Path::new("/dev/null"), Some("CharDevice")).is_ok());
        assert!(host_path(&file, Some("Socket")).is_err());
        assert!(host_path(&folder.path().join("absent"), None).is_ok());
    }
}
