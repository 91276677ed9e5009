//! The past of narrow ranges: gathered from the records of their own keys, once for all watchers of
//! the same range that come by, and encoded as it goes onto the wire.
//!
//! A watcher of a few keys that starts far back would have to pass everything that happened to all others.
//! [`Reader::events_by_key`] looks at its keys alone. Where these are so many, or changed so often, that the
//! log is the shorter way, that is remembered, too.

use std::sync::Arc;

use bytes::Bytes;
use pintle_mvcc::{CatchUp, EventQuery, QueryError, Reader};
use pintle_store_api::mvccpb::Event;
use pintle_store_api::{KeyRange, Rejection, Revision};
use prost::Message;

use super::kept::Kept;
use super::ring::{decode, encode};

/// Ranges that are remembered.
const RANGES_MAX: usize = 1_024;
/// Events of one range that are gathered at once.
const GATHERED_BYTES_MAX: usize = 4 << 20;
/// Records that are looked at in any case, however short the way through the log is.
const RECORDS_MIN: usize = 1_000;

/// The ranges that were gathered last.
#[derive(Debug)]
pub(super) struct Narrow(Kept<What, Gathered>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct What {
    range: KeyRange,
    prev_kv: bool,
}

#[derive(Debug)]
struct Gathered {
    /// What the parts are of, without a gap.
    from: i64,
    through: i64,
    /// `None`: the log is the shorter way.
    parts: Option<Vec<Part>>,
}

/// Some revisions, complete and in order.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// The revision of the first event; that after `through` when there is none.
    first: i64,
    /// Nothing up to here is missing.
    pub(super) through: i64,
    pub(super) count: usize,
    /// As the end of a `WatchResponse`.
    pub(super) encoded: Bytes,
}

/// What a watcher is given.
#[derive(Debug)]
pub(super) enum Found {
    /// The same for all who come here.
    Part(Part),
    /// The watcher began in the middle of a part.
    Rest { events: Vec<Event>, through: i64 },
}

impl Narrow {
    /// With about so many bytes of events.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self(Kept::new(RANGES_MAX, bytes_max))
    }

    /// Forgets everything: the state was replaced.
    pub(super) fn clear(&self) {
        self.0.clear();
    }

    /// Forgets what nobody has used since this was called last.
    pub(super) fn sweep(&self) {
        self.0.sweep();
    }

    /// What [`read`](Self::read) would give without reading: what was gathered for another watcher.
    /// `None` when it is not there.
    pub(super) fn known(
        &self,
        reader: &Reader,
        query: &EventQuery,
    ) -> Result<Option<Part>, QueryError> {
        let (from, floor) = (query.from.0, reader.compact_revision().0);
        let Some(place) = self.0.known(&What::of(query)) else { return Ok(None) };
        let Some(gathered) = place.piece.try_lock() else { return Ok(None) };
        let parts = gathered.as_ref().filter(|known| known.covers(from, floor));
        let parts = parts.and_then(|known| known.parts.as_ref());
        Ok(parts.and_then(|parts| whole_part(parts, from)).cloned())
    }

    /// What happened in the range from `query.from` on, a part of about `query.budget_bytes`; `None`
    /// when that is better looked up in the log. Blocks on I/O.
    pub(super) fn read(
        &self,
        reader: &Reader,
        query: &EventQuery,
    ) -> Result<Option<Found>, QueryError> {
        let (from, floor) = (query.from.0, reader.compact_revision().0);
        if from < floor {
            return Err(QueryError::Rejected(Rejection::Compacted(Revision(floor))));
        }
        let place = self.0.place(&What::of(query));
        let gathered = {
            let mut gathered = place.piece.lock();
            match &*gathered {
                Some(known) if known.covers(from, floor) => Arc::clone(known),
                _ => {
                    let new = Arc::new(Gathered::new(reader, query)?);
                    place.weigh(new.bytes());
                    Arc::clone(gathered.insert(new))
                }
            }
        };
        Ok(gathered.parts.as_ref().map(|parts| find(parts, from)))
    }
}

impl What {
    fn of(query: &EventQuery) -> Self {
        Self { range: query.range.clone(), prev_kv: query.prev_kv }
    }
}

impl Gathered {
    /// What was gathered before a compaction may hold previous values that are gone now.
    fn covers(&self, from: i64, floor: i64) -> bool {
        self.from >= floor && (self.from..=self.through).contains(&from)
    }

    fn new(reader: &Reader, query: &EventQuery) -> Result<Self, QueryError> {
        let (from, to) = (query.from.0, query.to.0);
        let entries = usize::try_from(to - from).unwrap_or(0);
        let whole = EventQuery { budget_bytes: GATHERED_BYTES_MAX, ..query.clone() };
        let found = reader.events_by_key(&whole, entries.max(RECORDS_MIN))?;
        let Some(CatchUp { events, through: Revision(through) }) = found else {
            return Ok(Self { from, through: to, parts: None });
        };
        let parts = Some(split(&events, through, query.budget_bytes));
        Ok(Self { from, through, parts })
    }

    fn bytes(&self) -> usize {
        self.parts.iter().flatten().map(|part| part.encoded.len() + size_of::<Part>()).sum()
    }
}

fn revision(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

/// Cuts between revisions, where `part_bytes` are exceeded.
fn split(events: &[Event], through: i64, part_bytes: usize) -> Vec<Part> {
    let (mut parts, mut start, mut bytes) = (Vec::new(), 0, 0);
    let part = |events: &[Event], through| Part {
        first: events.first().map_or(through + 1, revision),
        through,
        count: events.len(),
        encoded: encode(events),
    };
    for (at, event) in events.iter().enumerate() {
        if bytes >= part_bytes && revision(event) != revision(&events[at - 1]) {
            parts.push(part(&events[start..at], revision(&events[at - 1])));
            (start, bytes) = (at, 0);
        }
        bytes += event.encoded_len();
    }
    parts.push(part(&events[start..], through));
    parts
}

/// The part that `from` lies in.
fn part_of(parts: &[Part], from: i64) -> Option<&Part> {
    parts.get(parts.partition_point(|part| part.through < from))
}

/// The part that `from` lies in, if it has nothing before that.
fn whole_part(parts: &[Part], from: i64) -> Option<&Part> {
    part_of(parts, from).filter(|part| part.first >= from)
}

/// The part that `from` lies in; nothing beyond the last.
fn find(parts: &[Part], from: i64) -> Found {
    let Some(part) = part_of(parts, from) else {
        return Found::Rest { events: Vec::new(), through: from - 1 };
    };
    if part.first >= from {
        return Found::Part(part.clone());
    }
    let mut events = decode(&part.encoded);
    events.retain(|event| revision(event) >= from);
    Found::Rest { events, through: part.through }
}

#[cfg(test)]
mod tests {
    use pintle_mvcc::Mvcc;

    use super::*;
    use crate::watch::fixture::{compact, filled, ranges};

    const BYTES_MAX: usize = 1 << 20;

    fn query(range: &KeyRange, from: i64, mvcc: &Mvcc, budget_bytes: usize) -> EventQuery {
        let (from, to) = (Revision(from), mvcc.reader().current_revision());
        EventQuery { range: range.clone(), from, to, budget_bytes, prev_kv: true }
    }

    fn events(found: Found) -> (Vec<Event>, i64) {
        match found {
            Found::Part(part) => {
                let events = decode(&part.encoded);
                assert_eq!(events.len(), part.count);
                (events, part.through)
            }
            Found::Rest { events, through } => (events, through),
        }
    }

    #[test]
    fn parts_hold_what_the_log_holds() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let mvcc = filled(dir.path(), 900);
        let reader = mvcc.reader();
        let narrow = Narrow::new(BYTES_MAX);
        for range in ranges() {
            // The second finds parts that were cut for the first.
            for (from, budget) in [(2, 1_000), (77, 1_000), (1, usize::MAX), (900, 1)] {
                let (mut next, mut all) = (from, Vec::new());
                while next <= 900 {
                    let query = query(&range, next, &mvcc, budget);
                    let found = narrow.read(&reader, &query).expect("readable");
                    let (some, through) = events(found.expect("few records"));
                    assert!(through >= next, "it moves on");
                    next = through + 1;
                    all.extend(some);
                }
                let expected = query(&range, from, &mvcc, usize::MAX);
                assert_eq!(all, reader.events(&expected).expect("events").events, "{range:?}");
            }
        }
    }

    #[test]
    fn watchers_of_one_range_share_the_bytes() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let mvcc = filled(dir.path(), 900);
        let narrow = Narrow::new(BYTES_MAX);
        let read = || {
            let query = query(&ranges()[1], 2, &mvcc, usize::MAX);
            match narrow.read(&mvcc.reader(), &query).expect("readable") {
                Some(Found::Part(part)) => part.encoded,
                other => panic!("{other:?}"),
            }
        };
        let known = |range: &KeyRange, from| {
            let query = query(range, from, &mvcc, usize::MAX);
            narrow.known(&mvcc.reader(), &query).expect("readable")
        };
        assert!(known(&ranges()[1], 2).is_none(), "nobody has read it");
        let bytes = read().as_ptr();
        assert_eq!(read().as_ptr(), bytes);
        assert_eq!(known(&ranges()[1], 2).map(|part| part.encoded.as_ptr()), Some(bytes));
        assert!(known(&ranges()[0], 2).is_none(), "another range");
        assert!(known(&ranges()[1], 1).is_none(), "an earlier revision");
    }

    #[test]
    fn many_records_are_left_to_the_log() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let mvcc = filled(dir.path(), 3_000);
        let narrow = Narrow::new(BYTES_MAX);
        // More than a thousand versions, and only a few revisions to go.
        let found = narrow.read(&mvcc.reader(), &query(&ranges()[0], 2_990, &mvcc, 1));
        assert!(found.expect("readable").is_some(), "old versions are passed over");
        let found = narrow.read(&mvcc.reader(), &query(&ranges()[0], 1_500, &mvcc, 1));
        assert!(found.expect("readable").is_some(), "as many records as revisions");
        let key = &ranges()[1];
        let whole = EventQuery { budget_bytes: 500, ..query(key, 2, &mvcc, 1) };
        let too_much = mvcc.reader().events_by_key(&whole, 10_000).expect("readable");
        assert_eq!(too_much, None, "more events than the budget");
        let whole = EventQuery { budget_bytes: usize::MAX, ..whole };
        let too_many = mvcc.reader().events_by_key(&whole, 100).expect("readable");
        assert_eq!(too_many, None, "more records than wanted");
    }

    #[test]
    fn a_watcher_below_the_floor_is_told_though_its_range_is_known() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let mut mvcc = filled(dir.path(), 900);
        let narrow = Narrow::new(BYTES_MAX);
        let range = &ranges()[1];
        assert!(narrow.read(&mvcc.reader(), &query(range, 5, &mvcc, 1)).is_ok());
        compact(&mut mvcc, 50);
        let refused = narrow.read(&mvcc.reader(), &query(range, 5, &mvcc, 1));
        let compacted = Rejection::Compacted(Revision(50));
        assert!(matches!(refused, Err(QueryError::Rejected(found)) if found == compacted));
        let at_floor = query(range, 50, &mvcc, usize::MAX);
        let found = narrow.read(&mvcc.reader(), &at_floor).expect("readable");
        let expected = mvcc.reader().events(&at_floor).expect("events").events;
        assert_eq!(events(found.expect("few records")).0, expected);
    }
}
