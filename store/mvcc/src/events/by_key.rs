//! Events of a range from the records of its keys, without a look at what happened to others.
//!
//! Every event has left a trace under its own key: a put is the record that it made, in `current`
//! or in `history`, and a deletion is the end of a record that no other follows. Going over
//! a narrow range therefore finds all that happened there, however much happened elsewhere since.
//! Only the order within a revision is known to the log alone.

use bytes::Bytes;
use pintle_store_api::mvccpb::{Event, KeyValue, event::EventType};
use pintle_store_api::{KeyRange, Rejection, Revision};
use prost::Message;
use rocksdb::DBRawIterator;

use super::{Reading, catch_up};
use crate::keyspace::{Family, RecordRef, history, log};
use crate::view::{View, bounds};
use crate::{CatchUp, EventQuery, Fault, QueryError, batch};

/// Entries of a key that are passed one by one before its wanted ones are searched for.
const PASSED_MAX: usize = 8;

/// What [`catch_up`] finds up to `query.to` at once, whatever it takes; `None` when that needs a look at more
/// than `records_max` records, or more bytes of events than the budget.
pub(crate) fn by_key(
    view: &View<'_>,
    query: &EventQuery,
    records_max: usize,
) -> Result<Option<CatchUp>, QueryError> {
    let floor = view.head.floor;
    if query.from.0 < floor {
        return Err(Rejection::Compacted(Revision(floor)).into());
    }
    let last = query.to.0.min(view.revision);
    let mut events = Vec::new();
    // What the floor's own revision ended may be gone from history; the log still tells of it.
    if query.from.0 == floor {
        let (budget_bytes, to) = (usize::MAX, Revision(floor.min(last)));
        events = catch_up(view, &EventQuery { budget_bytes, to, ..query.clone() })?.events;
    }
    let bytes = events.iter().map(Message::encoded_len).sum();
    let mut gathered = Gathered {
        from: query.from.0.max(floor + 1),
        last,
        prev_kv: query.prev_kv,
        records_left: records_max,
        bytes_left: query.budget_bytes.saturating_sub(bytes),
        open: None,
        events: Vec::new(),
    };
    if !query.range.is_empty() && !gathered.range(view, &query.range)? {
        return Ok(None);
    }
    events.extend(in_order(view, query, gathered.events)?);
    Ok(Some(CatchUp { events, through: Revision(last.max(query.from.0 - 1)) }))
}

/// Sorts by revision. Where several share one, the log says which came first.
fn in_order(
    view: &View<'_>,
    query: &EventQuery,
    mut found: Vec<(i64, Event)>,
) -> Result<Vec<Event>, Fault> {
    found.sort_by_key(|(revision, _)| *revision);
    if found.windows(2).all(|pair| pair[0].0 != pair[1].0) {
        return Ok(found.into_iter().map(|(_, event)| event).collect());
    }
    let mut entries = view.iterate(Family::Log, None)?;
    let mut reading = Reading::new(view, query);
    let mut found = found.into_iter().peekable();
    while let Some((revision, event)) = found.next() {
        if found.next_if(|(next, _)| *next == revision).is_none() {
            reading.events.push(event);
            continue;
        }
        while found.next_if(|(next, _)| *next == revision).is_some() {}
        reading.revision = revision;
        entries.seek(log::key(revision, 0));
        while let Some((key, value)) = entries.item()
            && log::revision(key) == Some(revision)
        {
            reading.entry(value)?;
            entries.next();
        }
        entries.status()?;
    }
    Ok(reading.events)
}

/// A record that has ended, and when.
struct Ended {
    revision: i64,
    /// The record, where somebody wants it.
    kv: Option<KeyValue>,
}

struct Gathered {
    from: i64,
    last: i64,
    prev_kv: bool,
    records_left: usize,
    bytes_left: usize,
    /// The last version of the key at hand, until it is known what ended it.
    open: Option<Ended>,
    events: Vec<(i64, Event)>,
}

impl Gathered {
    /// Goes over the keys of a range; `false` when that is too much.
    fn range(&mut self, view: &View<'_>, range: &KeyRange) -> Result<bool, Fault> {
        let (start, end) = bounds(range);
        let mut current = view.iterate(Family::Current, end.map(|end| end.to_vec()))?;
        let mut ended = view.iterate(Family::History, end.map(|end| history::prefix(end)))?;
        current.seek(start);
        ended.seek(history::prefix(start));
        while let Some(encoded) = ended.key() {
            let prefix = history::split(encoded)?.0.to_vec();
            let key = history::user_key(&prefix)?;
            if !self.living_before(&mut current, Some(key.as_ref()))?
                || !self.versions(&mut ended, &prefix, &key)?
            {
                return Ok(false);
            }
            if let Some((name, value)) = current.item()
                && name == key.as_ref()
            {
                self.version(&key, RecordRef::decode(value)?, None);
                self.records_left = self.records_left.saturating_sub(1);
                current.next();
            }
            self.close(&key);
        }
        ended.status()?;
        Ok(self.living_before(&mut current, None)? && self.records_left > 0)
    }

    /// Keys that have no history, up to `before`.
    fn living_before(
        &mut self,
        current: &mut DBRawIterator<'_>,
        before: Option<&[u8]>,
    ) -> Result<bool, Fault> {
        while let Some((key, value)) = current.item()
            && before.is_none_or(|before| key < before)
        {
            if self.records_left == 0 || self.bytes_left == 0 {
                return Ok(false);
            }
            self.records_left -= 1;
            self.version(key, RecordRef::decode(value)?, None);
            current.next();
        }
        current.status()?;
        Ok(true)
    }

    /// The versions of a key that have ended, the oldest first.
    fn versions(
        &mut self,
        ended: &mut DBRawIterator<'_>,
        prefix: &[u8],
        key: &[u8],
    ) -> Result<bool, Fault> {
        let mut passed = 0;
        while let Some((encoded, value)) = ended.item() {
            let (other, revision) = history::split(encoded)?;
            if other != prefix {
                break;
            }
            if self.records_left == 0 || self.bytes_left == 0 {
                return Ok(false);
            }
            self.records_left -= 1;
            if revision >= self.from {
                self.version(key, RecordRef::decode(value)?, Some(revision));
            } else {
                passed += 1;
                if passed == PASSED_MAX {
                    ended.seek(history::key(key, self.from));
                    continue;
                }
            }
            ended.next();
        }
        ended.status()?;
        Ok(true)
    }

    /// One version of the key at hand, later than those before.
    fn version(&mut self, key: &[u8], record: RecordRef<'_>, ended: Option<i64>) {
        let modified = record.modified;
        let mut previous = None;
        if self.open.as_ref().is_some_and(|open| open.revision == modified && record.version > 1) {
            previous = self.open.take();
        }
        self.close(key);
        if (self.from..=self.last).contains(&modified) {
            let kv = Some(record.to_kv(key, true));
            let prev_kv = previous.and_then(|previous| previous.kv);
            self.push(modified, Event { r#type: EventType::Put.into(), kv, prev_kv });
        }
        if let Some(revision) = ended
            && revision <= self.last
        {
            let kv = self.prev_kv.then(|| record.to_kv(key, true));
            self.open = Some(Ended { revision, kv });
        }
    }

    /// What ended the last version was no put.
    fn close(&mut self, key: &[u8]) {
        if let Some(open) = self.open.take() {
            let kv = Some(batch::deleted(Bytes::copy_from_slice(key), open.revision));
            let event = Event { r#type: EventType::Delete.into(), kv, prev_kv: open.kv };
            self.push(open.revision, event);
        }
    }

    fn push(&mut self, revision: i64, event: Event) {
        self.bytes_left = self.bytes_left.saturating_sub(event.encoded_len());
        self.events.push((revision, event));
    }
}
