//! Keeps the log from growing without bound. openraft cuts it by entries; but an entry may be a
//! single write or a megabyte of them, so this also cuts it by bytes.

use std::sync::Arc;
use std::time::Duration;

use crate::core::Core;

/// The log is cut when it has grown by this much. A replay after a crash and the disk both have to
/// bear it.
const BYTES_MAX: u64 = 512 << 20;
/// Entries that stay for followers that are a little behind; a megabyte each, at the most.
const ENTRIES_KEPT: u64 = 128;
/// How often the size is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Runs while the member does.
pub(crate) async fn run(core: Arc<Core>) {
    let mut cut_at = 0;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let appended = core.log.appended_bytes();
        if appended - cut_at < BYTES_MAX {
            continue;
        }
        let before = core.leadership.snapshot_index();
        if core.raft.trigger().snapshot().await.is_err() {
            return;
        }
        cut(&core, before).await;
        cut_at = appended;
    }
}

/// Waits for the state to be flushed, then drops what is below.
async fn cut(core: &Core, before: u64) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let flushed = core.leadership.snapshot_index();
        if flushed > before {
            let upto = flushed.saturating_sub(ENTRIES_KEPT);
            if core.raft.trigger().purge_log(upto).await.is_err() {
                tracing::debug!("consensus has stopped; the log stays as it is");
            }
            return;
        }
    }
}
