//! Which agent of a network namespace writes its rules: the one that holds the lock.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use tokio_util::sync::CancellationToken;

/// How soon a standby notices that the owner is gone.
const POLL: Duration = Duration::from_millis(500);

/// Held for as long as the rules are ours; the kernel releases it when the process dies.
pub(super) struct Owner {
    _lock: Flock<File>,
}

/// Waits for the lock; `None` when told to stop first, or when the lock file cannot be made.
pub(super) async fn acquire(shutdown: &CancellationToken) -> Option<Owner> {
    let path = lock_path();
    let mut waiting = false;
    loop {
        let file = match open(&path) {
            Ok(file) => file,
            Err(error) => {
                tracing::error!(%error, path = %path.display(), "no service proxy on this node");
                return None;
            }
        };
        if let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            return Some(Owner { _lock: lock });
        }
        if !waiting {
            tracing::info!("another agent owns the service rules of this host; standing by");
            waiting = true;
        }
        tokio::select! {
            () = shutdown.cancelled() => return None,
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

/// One lock for each network namespace, named by its inode.
fn lock_path() -> PathBuf {
    use std::os::unix::fs::MetadataExt;
    let namespace = std::fs::metadata("/proc/self/ns/net").map_or(0, |metadata| metadata.ino());
    PathBuf::from(format!("/run/pintle/proxy-{namespace}.lock"))
}

fn open(path: &PathBuf) -> std::io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    File::options().create(true).truncate(false).write(true).open(path)
}
