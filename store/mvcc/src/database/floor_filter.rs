//! Removal below the compact floor, while RocksDB rewrites its files anyway.
//!
//! A filter goes by the floor that is *flushed*. The floor in memory may be ahead of it; a crash
//! would undo that, and replay would then read at revisions that the filter had emptied.
//! Filters do not respect RocksDB snapshots; readers of old revisions check the floor after reading.

use std::ffi::CStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use rocksdb::CompactionDecision;
use rocksdb::compaction_filter::CompactionFilter;
use rocksdb::compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory};

use crate::keyspace::{Family, history, log};

/// Whether the entry under a key is only needed below the floor.
type Obsolete = fn(key: &[u8], floor: i64) -> bool;

/// A version is needed by readers before the revision that ended it.
fn obsolete_history(key: &[u8], floor: i64) -> bool {
    history::ended(key).is_some_and(|ended| ended <= floor)
}

/// A watcher may start at the floor itself.
fn obsolete_log(key: &[u8], floor: i64) -> bool {
    log::revision(key).is_some_and(|revision| revision < floor)
}

/// Gives each compaction a filter with the floor as flushed when it begins.
pub(super) struct FloorFilterFactory {
    flushed_floor: Arc<AtomicI64>,
    obsolete: Obsolete,
}

impl FloorFilterFactory {
    /// `None` for families that hold nothing of the past.
    pub(super) fn for_family(family: Family, flushed_floor: &Arc<AtomicI64>) -> Option<Self> {
        let obsolete: Obsolete = match family {
            Family::History => obsolete_history,
            Family::Log => obsolete_log,
            Family::Current
            | Family::Lease
            | Family::LeaseKeys
            | Family::Meta
            | Family::Census
            | Family::Auth => return None,
        };
        Some(Self { flushed_floor: Arc::clone(flushed_floor), obsolete })
    }
}

impl CompactionFilterFactory for FloorFilterFactory {
    type Filter = FloorFilter;

    fn create(&mut self, _context: CompactionFilterContext) -> FloorFilter {
        let floor = self.flushed_floor.load(Ordering::Acquire);
        FloorFilter { floor, obsolete: self.obsolete }
    }

    fn name(&self) -> &CStr {
        c"pintle.floor"
    }
}

pub(super) struct FloorFilter {
    floor: i64,
    obsolete: Obsolete,
}

impl CompactionFilter for FloorFilter {
    fn filter(&mut self, _level: u32, key: &[u8], _value: &[u8]) -> CompactionDecision {
        if (self.obsolete)(key, self.floor) {
            CompactionDecision::Remove
        } else {
            CompactionDecision::Keep
        }
    }

    fn name(&self) -> &CStr {
        c"pintle.floor"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_ended_at_the_floor_is_obsolete() {
        assert!(obsolete_history(&history::key(b"a", 5), 5));
        assert!(!obsolete_history(&history::key(b"a", 6), 5));
    }

    #[test]
    fn events_at_the_floor_are_kept() {
        assert!(obsolete_log(&log::key(4, 9), 5));
        assert!(!obsolete_log(&log::key(5, 0), 5));
    }

    #[test]
    fn nothing_is_obsolete_before_the_first_compaction() {
        assert!(!obsolete_history(&history::key(b"a", 2), -1));
        assert!(!obsolete_log(&log::key(2, 0), -1));
    }
}
