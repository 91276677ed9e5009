//! The past, for watchers that are behind: read once and shared by all who pass.
//!
//! History is cut into blocks of as many revisions. A block holds what happened, sorted by key, so that a
//! watcher finds its part without looking at the rest; the events themselves are read for the first
//! watcher that wants them. Nothing here changes any more: a block is only made of revisions that
//! the state has left behind.

use std::sync::{Arc, OnceLock};

use pintle_mvcc::{LoggedChange, QueryError, Reader};
use pintle_store_api::mvccpb::Event;
use pintle_store_api::{KeyRange, Revision};
use prost::Message;

use super::kept::{Kept, Place};

/// Revisions of a block.
const BLOCK_REVISIONS: i64 = 1_024;
/// Blocks that are kept.
const BLOCKS_MAX: usize = 128;

/// The blocks that were used last.
#[derive(Debug)]
pub(super) struct History(Kept<i64, Block>);

#[derive(Debug)]
struct Block {
    /// In the order in which they happened.
    changes: Vec<LoggedChange>,
    /// Places in `changes`, by key.
    by_key: Vec<u32>,
    /// The event of each change, without and with the previous value.
    events: [Box<[OnceLock<Event>]>; 2],
}

/// The part of a block that a watcher wants.
#[derive(Debug)]
pub(super) struct Found {
    /// Complete revisions, in order.
    pub(super) events: Vec<Event>,
    /// Nothing up to here is missing.
    pub(super) through: i64,
}

impl History {
    /// With about so many bytes of keys and events.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self(Kept::new(BLOCKS_MAX, bytes_max))
    }

    /// Forgets everything: the state was replaced.
    pub(super) fn clear(&self) {
        self.0.clear();
    }

    /// Forgets what nobody has used since this was called last.
    pub(super) fn sweep(&self) {
        self.0.sweep();
    }

    /// The events of `range` from `from` to the end of its block, or until `budget_bytes` are exceeded.
    /// `None` when the block reaches beyond `head`. Blocks on I/O.
    pub(super) fn read(
        &self,
        reader: &Reader,
        range: &KeyRange,
        from: i64,
        head: i64,
        budget_bytes: usize,
        prev_kv: bool,
    ) -> Result<Option<Found>, QueryError> {
        let number = from / BLOCK_REVISIONS;
        let last = (number + 1) * BLOCK_REVISIONS - 1;
        if last > head {
            return Ok(None);
        }
        let place = self.0.place(&number);
        let block = load(&place, number, reader, from)?;
        let wanted = block.select(range, from);
        place.note(block.fill(reader, &wanted, prev_kv)?);
        Ok(Some(block.take(&wanted, last, budget_bytes, prev_kv)))
    }
}

/// A block, at least from `from` on: its beginning may be compacted already.
fn load(
    place: &Place<Block>,
    number: i64,
    reader: &Reader,
    from: i64,
) -> Result<Arc<Block>, QueryError> {
    let floor = reader.compact_revision().0;
    if from < floor {
        let floor = pintle_store_api::Rejection::Compacted(Revision(floor));
        return Err(QueryError::Rejected(floor));
    }
    let mut block = place.piece.lock();
    if let Some(block) = &*block {
        return Ok(Arc::clone(block));
    }
    let first = (number * BLOCK_REVISIONS).max(floor).max(0);
    let last = (number + 1) * BLOCK_REVISIONS - 1;
    let loaded = Block::new(reader.changes(Revision(first), Revision(last))?);
    place.note(loaded.changes.iter().map(|one| one.key.len() + size_of::<LoggedChange>()).sum());
    Ok(Arc::clone(block.insert(Arc::new(loaded))))
}

impl Block {
    fn new(changes: Vec<LoggedChange>) -> Self {
        let count = u32::try_from(changes.len()).expect("a block fits in memory");
        let mut by_key: Vec<u32> = (0..count).collect();
        by_key.sort_by(|a, b| changes[*a as usize].key.cmp(&changes[*b as usize].key));
        let empty = || changes.iter().map(|_| OnceLock::new()).collect();
        Self { events: [empty(), empty()], by_key, changes }
    }

    fn change(&self, at: u32) -> &LoggedChange {
        &self.changes[at as usize]
    }

    /// The places of what concerns `range` from `from` on, in order.
    fn select(&self, range: &KeyRange, from: i64) -> Vec<u32> {
        let before = |at: &u32| self.change(*at).key < *range.start();
        let first = self.by_key.partition_point(before);
        let inside = |at: &u32| range.contains(&self.change(*at).key);
        let length = self.by_key[first..].partition_point(inside);
        let mut found: Vec<u32> = self.by_key[first..first + length].to_vec();
        found.retain(|at| self.change(*at).revision.0 >= from);
        found.sort_unstable();
        found
    }

    /// Reads the events that nobody has wanted before; returns how many bytes they take.
    fn fill(&self, reader: &Reader, wanted: &[u32], prev_kv: bool) -> Result<usize, QueryError> {
        let events = &self.events[usize::from(prev_kv)];
        let missing: Vec<u32> =
            wanted.iter().copied().filter(|at| events[*at as usize].get().is_none()).collect();
        if missing.is_empty() {
            return Ok(0);
        }
        let changes: Vec<&LoggedChange> = missing.iter().map(|at| self.change(*at)).collect();
        let mut bytes = 0;
        for (at, event) in missing.iter().zip(reader.events_of(&changes, prev_kv)?) {
            bytes += event.encoded_len() + size_of::<Event>();
            // Another watcher may have been quicker, with the same.
            events[*at as usize].get_or_init(|| event);
        }
        Ok(bytes)
    }

    fn take(&self, wanted: &[u32], last: i64, budget_bytes: usize, prev_kv: bool) -> Found {
        let events = &self.events[usize::from(prev_kv)];
        let mut found = Found { events: Vec::with_capacity(wanted.len()), through: last };
        let (mut bytes, mut revision) = (0, 0);
        for at in wanted {
            let change = self.change(*at);
            if change.revision.0 != revision && bytes >= budget_bytes {
                found.through = change.revision.0 - 1;
                break;
            }
            revision = change.revision.0;
            let event = events[*at as usize].get().expect("filled before");
            bytes += event.encoded_len();
            found.events.push(event.clone());
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use pintle_mvcc::EventQuery;
    use pintle_store_api::Rejection;

    use super::*;
    use crate::watch::fixture::{compact, filled, ranges};

    const BYTES_MAX: usize = 48 << 20;

    fn through_blocks(
        history: &History,
        reader: &Reader,
        range: &KeyRange,
        from: i64,
        budget: usize,
    ) -> (Vec<Event>, i64) {
        let head = reader.current_revision().0;
        let (mut next, mut events) = (from, Vec::new());
        while let Some(found) =
            history.read(reader, range, next, head, budget, true).expect("readable")
        {
            assert!(found.through >= next, "it moves on");
            next = found.through + 1;
            events.extend(found.events);
        }
        (events, next)
    }

    #[test]
    fn blocks_hold_what_the_log_holds() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let mvcc = filled(dir.path(), 2 * BLOCK_REVISIONS + 100);
        let reader = mvcc.reader();
        let history = History::new(BYTES_MAX);
        for range in ranges() {
            for (from, budget) in [(2, usize::MAX), (2, 1), (777, 500), (BLOCK_REVISIONS, 1 << 20)]
            {
                let (events, next) = through_blocks(&history, &reader, &range, from, budget);
                assert_eq!(next, 2 * BLOCK_REVISIONS, "the last block is not complete");
                let (from, to) = (Revision(from), Revision(next - 1));
                let query = EventQuery {
                    range: range.clone(),
                    from,
                    to,
                    budget_bytes: usize::MAX,
                    prev_kv: true,
                };
                assert_eq!(events, reader.events(&query).expect("events").events, "{range:?}");
            }
        }
    }

    #[test]
    fn a_watcher_below_the_floor_is_told_though_the_block_is_there() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let mut mvcc = filled(dir.path(), BLOCK_REVISIONS + 1);
        let history = History::new(BYTES_MAX);
        let all = &ranges()[0];
        let read = |reader: &Reader, from| {
            history.read(reader, all, from, BLOCK_REVISIONS, usize::MAX, false)
        };
        assert!(read(&mvcc.reader(), 5).is_ok());
        compact(&mut mvcc, 50);
        let refused = read(&mvcc.reader(), 5);
        let compacted = Rejection::Compacted(Revision(50));
        assert!(matches!(refused, Err(QueryError::Rejected(found)) if found == compacted));
        let found = read(&mvcc.reader(), 50).expect("readable").expect("a whole block");
        assert_eq!(
            found.events.first().map(|e| e.kv.as_ref().map(|kv| kv.mod_revision)),
            Some(Some(50))
        );
    }
}
