//! Rotation: a log that has grown past its limit is renamed, the runtime opens a new one, and old ones
//! beyond the limit go.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::runtime::{self, Runtime};
use pintle_proto::cri::ContainerState;

/// The size at which a log is rotated.
pub const LOG_BYTES_MAX: u64 = 10 << 20;
/// How many files of a container are kept, the current one included.
pub const LOG_FILES_MAX: usize = 5;
/// How often sizes are looked at.
const PERIOD: Duration = Duration::from_secs(10);

/// Rotates the logs of all running containers until shutdown.
pub async fn run(runtime: Arc<dyn Runtime>, shutdown: CancellationToken) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        if let Err(error) = rotate_all(&*runtime).await {
            tracing::debug!(%error, "logs not rotated");
        }
    }
}

async fn rotate_all(runtime: &dyn Runtime) -> runtime::Result<()> {
    for container in runtime.list_containers(None).await? {
        if container.state != ContainerState::ContainerRunning as i32 {
            continue;
        }
        let status = match runtime.container(&container.id).await {
            Ok(detail) => detail.status,
            Err(_) => continue,
        };
        let path = Path::new(&status.log_path);
        if std::fs::metadata(path).is_ok_and(|meta| meta.len() >= LOG_BYTES_MAX) {
            rotate(runtime, &container.id, path).await?;
        }
    }
    Ok(())
}

async fn rotate(runtime: &dyn Runtime, id: &str, path: &Path) -> runtime::Result<()> {
    let rotated = rotated_name(path, Timestamp::now());
    if let Err(error) = std::fs::rename(path, &rotated) {
        tracing::warn!(path = %path.display(), %error, "cannot rotate");
        return Ok(());
    }
    if let Err(error) = runtime.reopen_log(id).await {
        // The runtime still writes to the old file: give it its name back.
        if let Err(error) = std::fs::rename(&rotated, path) {
            tracing::warn!(path = %path.display(), %error, "cannot undo a rotation");
        }
        return Err(error);
    }
    let old = rotated_files(path);
    for surplus in old.iter().rev().skip(LOG_FILES_MAX - 1) {
        if let Err(error) = std::fs::remove_file(surplus) {
            tracing::warn!(path = %surplus.display(), %error, "cannot remove an old log");
        }
    }
    Ok(())
}

fn rotated_name(path: &Path, now: Timestamp) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", now.strftime("%Y%m%d-%H%M%S%.3f")));
    PathBuf::from(name)
}

/// The rotated files of a log, the oldest first.
pub fn rotated_files(path: &Path) -> Vec<PathBuf> {
    let Some((folder, name)) = path.parent().zip(path.file_name()) else { return Vec::new() };
    let prefix = [name.as_encoded_bytes(), b"."].concat();
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect();
    files.sort();
    files
}

/// Removes a log with all its rotated files.
pub fn remove_all(path: &Path) {
    for file in rotated_files(path).iter().map(PathBuf::as_path).chain([path]) {
        if let Err(error) = std::fs::remove_file(file)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::debug!(path = %file.display(), %error, "an old log stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_files_sort_by_age() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("0.log");
        for second in [30, 10, 20] {
            let name = rotated_name(&log, Timestamp::from_second(1_000_000_000 + second).unwrap());
            std::fs::write(name, second.to_string()).unwrap();
        }
        std::fs::write(&log, "now").unwrap();
        let read = |path: &PathBuf| std::fs::read_to_string(path).unwrap();
        assert_eq!(rotated_files(&log).iter().map(read).collect::<Vec<_>>(), ["10", "20", "30"]);
        remove_all(&log);
        assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());
    }
}
