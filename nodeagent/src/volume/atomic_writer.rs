//! Files that change all at once: the visible names are links through `..data`, which is a link to a
//! folder with a timestamp, and an update swaps that one link.

use std::collections::BTreeSet;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Component, Path};

use k8s_openapi::jiff::Timestamp;

use super::payload::File;
use super::{Error, Payload};

/// The link to the current folder.
const DATA: &str = "..data";
/// The link that is about to replace it.
const DATA_NEW: &str = "..data_tmp";

/// Makes `target` hold exactly `payload`. An unchanged payload changes nothing.
pub(super) fn write(target: &Path, payload: &Payload, group: Option<i64>) -> Result<(), Error> {
    std::fs::create_dir_all(target).map_err(Error::io("create", target))?;
    set_mode(target, 0o755)?;
    let current = std::fs::read_link(target.join(DATA)).ok();
    if let Some(current) = &current
        && is_current(&target.join(current), payload, group)
    {
        return Ok(());
    }
    let name = folder_name();
    let folder = target.join(&name);
    fill(&folder, payload, group)?;
    let draft = target.join(DATA_NEW);
    remove_file(&draft)?;
    symlink(&name, &draft).map_err(Error::io("link", &draft))?;
    let data = target.join(DATA);
    std::fs::rename(&draft, &data).map_err(Error::io("rename", &data))?;
    link_names(target, payload)?;
    if let Some(old) = current {
        let old = target.join(old);
        std::fs::remove_dir_all(&old).map_err(Error::io("remove", &old))?;
    }
    Ok(())
}

/// Unique, and sorted by time.
fn folder_name() -> String {
    let now = Timestamp::now();
    format!("..{}.{:09}", now.strftime("%Y_%m_%d_%H_%M_%S"), now.subsec_nanosecond())
}

/// The group that the pod runs with may read.
fn mode_of(file: &File, group: Option<i64>) -> u32 {
    if group.is_some() { file.mode | 0o040 } else { file.mode }
}

fn is_current(folder: &Path, payload: &Payload, group: Option<i64>) -> bool {
    let same = payload.files.iter().all(|(path, file)| {
        let path = folder.join(path);
        let mode = std::fs::metadata(&path).map(|meta| meta.permissions().mode() & 0o777);
        std::fs::read(&path).is_ok_and(|data| data == file.data)
            && mode.is_ok_and(|m| m == mode_of(file, group) & 0o777)
    });
    same && count_files(folder) == payload.files.len()
}

fn count_files(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| if entry.path().is_dir() { count_files(&entry.path()) } else { 1 })
        .sum()
}

fn fill(folder: &Path, payload: &Payload, group: Option<i64>) -> Result<(), Error> {
    std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    set_mode(folder, 0o755)?;
    for (name, file) in &payload.files {
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        }
        std::fs::write(&path, &file.data).map_err(Error::io("write", &path))?;
        let gid = group.and_then(|gid| u32::try_from(gid).ok());
        let uid = file.uid.and_then(|uid| u32::try_from(uid).ok());
        if gid.is_some() || uid.is_some() {
            chown(&path, uid, gid).map_err(Error::io("chown", &path))?;
        }
        set_mode(&path, mode_of(file, group))?;
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(Error::io("chmod", path))
}

/// One link for each top-level name; links to what is no longer there go.
fn link_names(target: &Path, payload: &Payload) -> Result<(), Error> {
    let wanted: BTreeSet<_> =
        payload.files.keys().filter_map(|path| Path::new(path).components().next()).collect();
    for name in &wanted {
        let link = target.join(name);
        if link.symlink_metadata().is_err() {
            symlink(Path::new(DATA).join(name), &link).map_err(Error::io("link", &link))?;
        }
    }
    for entry in std::fs::read_dir(target).map_err(Error::io("read", target))?.flatten() {
        let name = entry.file_name();
        let internal = name.as_encoded_bytes().starts_with(b"..");
        if !internal && !wanted.contains(&Component::Normal(&name)) {
            remove_file(&entry.path())?;
        }
    }
    Ok(())
}

fn remove_file(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let files = files
            .iter()
            .map(|(path, data)| {
                (
                    (*path).to_owned(),
                    File { data: data.as_bytes().to_vec(), mode: 0o644, uid: None },
                )
            })
            .collect();
        Payload { files }
    }

    fn read(target: &Path, name: &str) -> Option<String> {
        std::fs::read_to_string(target.join(name)).ok()
    }

    #[test]
    fn an_update_changes_adds_and_removes_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path();
        write(target, &payload(&[("a", "1"), ("deep/b", "2")]), None).unwrap();
        assert_eq!(read(target, "deep/b").as_deref(), Some("2"));
        let first = std::fs::read_link(target.join(DATA)).unwrap();
        write(target, &payload(&[("a", "3"), ("c", "4")]), None).unwrap();
        assert_eq!(read(target, "a").as_deref(), Some("3"));
        assert_eq!(read(target, "c").as_deref(), Some("4"));
        assert_eq!(read(target, "deep/b"), None);
        assert!(!target.join(first).exists());
    }

    #[test]
    fn the_same_again_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let files = payload(&[("a", "1")]);
        write(folder.path(), &files, None).unwrap();
        let before = std::fs::read_link(folder.path().join(DATA)).unwrap();
        write(folder.path(), &files, None).unwrap();
        assert_eq!(std::fs::read_link(folder.path().join(DATA)).unwrap(), before);
    }
}
