//! How much may be stored: a quota on the bytes of living keys and values, where one is set, and
//! always the space that is left on the disk. Either raises NOSPACE, which every member then
//! enforces in apply; what frees space goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pintle_store_api::pb::AlarmType;
use pintle_store_api::{Rejection, WriteError};

use crate::alarms;
use crate::core::Core;
use crate::disk::Space;
use crate::host::blocking;

/// The limit that was set.
#[derive(Debug)]
pub(crate) struct Quota {
    bytes_max: Option<u64>,
    /// Somebody is raising the alarm already: the others are only refused.
    raising: AtomicBool,
}

impl Quota {
    /// 0 and below mean no limit.
    pub(crate) fn new(bytes_max: i64) -> Self {
        let bytes_max = u64::try_from(bytes_max).ok().filter(|bytes| *bytes > 0);
        Self { bytes_max, raising: AtomicBool::new(false) }
    }

    /// The limit as a status tells it; 0 for none.
    pub(crate) fn reported(&self) -> i64 {
        self.bytes_max.map_or(0, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX))
    }

    fn has_room(&self, live_bytes: u64, cost: u64) -> bool {
        cost == 0 || self.bytes_max.is_none_or(|max| live_bytes.saturating_add(cost) < max)
    }
}

/// Refuses what does not fit any more, and tells everybody.
pub(crate) async fn check(core: &Core, cost: u64) -> Result<(), WriteError> {
    let quota = &core.quota;
    if quota.bytes_max.is_none() || quota.has_room(core.reader().live_bytes(), cost) {
        return Ok(());
    }
    if !quota.raising.swap(true, Ordering::AcqRel) {
        alarms::raise(core, AlarmType::Nospace, core.identity.member_id).await;
        quota.raising.store(false, Ordering::Release);
    }
    Err(Rejection::NoSpace.into())
}

/// Looks at the disk while the member runs.
pub(crate) async fn watch_disk(core: Arc<Core>) {
    let config = &core.config.disk;
    loop {
        tokio::time::sleep(config.check_every).await;
        let (probe, dir) = (config.probe.clone(), core.config.data_dir.clone());
        match blocking(move || probe.look(&dir)).await {
            Ok(Ok(space)) if is_nearly_full(&space, config.reserve_bytes) => {
                tracing::warn!(free = space.free, total = space.total, "the disk is nearly full");
                alarms::raise(&core, AlarmType::Nospace, core.identity.member_id).await;
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "free disk space is not known"),
            Err(error) => tracing::warn!(%error, "free disk space is not known"),
        }
    }
}

/// Room for what is under way when the alarm is raised: unflushed writes, the log until it is cut,
/// one compaction. On a small disk it is a twentieth.
const RESERVE_BYTES_MAX: u64 = 512 << 20;

fn is_nearly_full(space: &Space, reserve_bytes: Option<u64>) -> bool {
    space.free < reserve_bytes.unwrap_or_else(|| (space.total / 20).min(RESERVE_BYTES_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quota_counts_what_is_there_and_what_comes() {
        let quota = Quota::new(1_000);
        assert!(quota.has_room(0, 999));
        assert!(!quota.has_room(1, 999));
        assert!(quota.has_room(5_000, 0), "what costs nothing always fits");
        for unlimited in [0, -1] {
            assert!(Quota::new(unlimited).has_room(u64::MAX, 1));
            assert_eq!(Quota::new(unlimited).reported(), 0);
        }
    }

    #[test]
    fn the_reserve_is_a_twentieth_up_to_half_a_gibibyte() {
        let space = |total, free| Space { total, free };
        assert!(is_nearly_full(&space(1_000, 49), None));
        assert!(!is_nearly_full(&space(1_000, 50), None));
        let large = 1 << 40;
        assert!(is_nearly_full(&space(large, RESERVE_BYTES_MAX - 1), None));
        assert!(!is_nearly_full(&space(large, RESERVE_BYTES_MAX), None));
        assert!(is_nearly_full(&space(1_000, 99), Some(100)));
        assert!(!is_nearly_full(&space(1_000, 0), Some(0)));
    }
}
