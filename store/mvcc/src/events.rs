//! Events from history: what a watcher reads until it has caught up with the ring of new ones.

mod by_key;

use bytes::Bytes;
use pintle_store_api::mvccpb::{Event, KeyValue, event::EventType};
use pintle_store_api::{Rejection, Revision};
use prost::Message;
use rocksdb::DBRawIterator;

use crate::keyspace::log::{self, Change};
use crate::keyspace::{Family, RecordRef, history};
use crate::view::View;
use crate::{CatchUp, EventQuery, Fault, QueryError, batch};

pub(crate) use by_key::by_key;

/// Log entries looked at in one call, so that a watcher of few keys does not hold on to a
/// snapshot while it passes over the changes of all others.
const ENTRIES_MAX: usize = 100_000;

/// Reads on from `query.from` until the budget is spent or `query.to` is reached.
pub(crate) fn catch_up(view: &View<'_>, query: &EventQuery) -> Result<CatchUp, QueryError> {
    if query.from.0 < view.head.floor {
        return Err(Rejection::Compacted(Revision(view.head.floor)).into());
    }
    let last = query.to.0.min(view.revision);
    let mut reading = Reading::new(view, query);
    let mut entries = view.iterate(Family::Log, Some(log::key(last + 1, 0).to_vec()))?;
    entries.seek(log::key(query.from.0, 0));
    while let Some((key, value)) = entries.item() {
        let revision = log::revision(key).ok_or(Fault::Corrupt { what: "log key" })?;
        if revision != reading.revision {
            if reading.is_full() {
                let through = Revision(reading.revision);
                return Ok(CatchUp { events: reading.events, through });
            }
            reading.revision = revision;
        }
        reading.entry(value)?;
        entries.next();
    }
    entries.status().map_err(Fault::from)?;
    let through = Revision(last.max(query.from.0 - 1));
    Ok(CatchUp { events: reading.events, through })
}

/// One change of one key, as the log has it: where its event can be made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedChange {
    /// The revision that it is part of.
    pub revision: Revision,
    /// The key.
    pub key: Bytes,
    change: Change,
}

/// Everything that happened from `from` to `to`, in order.
pub(crate) fn changes(
    view: &View<'_>,
    from: Revision,
    to: Revision,
) -> Result<Vec<LoggedChange>, QueryError> {
    if from.0 < view.head.floor {
        return Err(Rejection::Compacted(Revision(view.head.floor)).into());
    }
    // All keys lie in one piece of memory.
    let (mut keys, mut places) = (Vec::new(), Vec::new());
    let mut entries = view.iterate(Family::Log, Some(log::key(to.0 + 1, 0).to_vec()))?;
    entries.seek(log::key(from.0, 0));
    while let Some((key, value)) = entries.item() {
        let revision = log::revision(key).ok_or(Fault::Corrupt { what: "log key" })?;
        let (change, key) = log::decode(value)?;
        places.push((Revision(revision), change, keys.len()));
        keys.extend_from_slice(key);
        entries.next();
    }
    entries.status().map_err(Fault::from)?;
    let keys = Bytes::from(keys);
    let ends = places.iter().skip(1).map(|place| place.2).chain([keys.len()]);
    let found = places.iter().zip(ends).map(|((revision, change, start), end)| LoggedChange {
        revision: *revision,
        key: keys.slice(*start..end),
        change: *change,
    });
    Ok(found.collect())
}

/// The events of some changes.
pub(crate) fn of_changes(
    view: &View<'_>,
    changes: &[&LoggedChange],
    prev_kv: bool,
) -> Result<Vec<Event>, Fault> {
    let range = pintle_store_api::KeyRange::between(Bytes::new(), None);
    let (from, to) = (Revision(0), Revision(i64::MAX));
    let query = EventQuery { range, from, to, budget_bytes: usize::MAX, prev_kv };
    let mut reading = Reading::new(view, &query);
    let event = |one: &&LoggedChange| {
        reading.revision = one.revision.0;
        reading.event(one.change, one.key.clone())
    };
    changes.iter().map(event).collect()
}

struct Reading<'a> {
    view: &'a View<'a>,
    query: &'a EventQuery,
    /// One iterator for all look-ups.
    history: Option<DBRawIterator<'a>>,
    /// The revision under way; 0 before the first.
    revision: i64,
    events: Vec<Event>,
    bytes: usize,
    entries: usize,
}

impl<'a> Reading<'a> {
    fn new(view: &'a View<'a>, query: &'a EventQuery) -> Self {
        Self { view, query, history: None, revision: 0, events: Vec::new(), bytes: 0, entries: 0 }
    }

    fn is_full(&self) -> bool {
        let spent = self.bytes >= self.query.budget_bytes || self.entries >= ENTRIES_MAX;
        spent && self.revision > 0
    }

    fn entry(&mut self, value: &[u8]) -> Result<(), Fault> {
        self.entries += 1;
        let (change, key) = log::decode(value)?;
        if !self.query.range.contains(key) {
            return Ok(());
        }
        let event = self.event(change, Bytes::copy_from_slice(key))?;
        self.bytes += event.encoded_len();
        self.events.push(event);
        Ok(())
    }

    fn event(&mut self, change: Change, key: Bytes) -> Result<Event, Fault> {
        match change {
            Change::Delete => self.delete(key),
            Change::Create | Change::Update => self.put(key, change),
        }
    }

    fn delete(&mut self, key: Bytes) -> Result<Event, Fault> {
        let mut prev_kv = None;
        if self.wants_previous() {
            self.seek(&key, self.revision)?;
            prev_kv = self.take_ended(&key)?;
        }
        let kv = batch::deleted(key, self.revision);
        Ok(Event { r#type: EventType::Delete.into(), kv: Some(kv), prev_kv })
    }

    /// The version that the revision made is current, or in history right after the one that the
    /// revision ended.
    fn put(&mut self, key: Bytes, change: Change) -> Result<Event, Fault> {
        let mut prev_kv = None;
        let mut kv = None;
        if change == Change::Update && self.wants_previous() {
            self.seek(&key, self.revision)?;
            prev_kv = self.take_ended(&key)?;
            kv = self.made_in_history(&key)?;
        }
        if kv.is_none() {
            let record = self.view.get(&key)?.filter(|record| record.modified == self.revision);
            kv = record.map(|record| record.into_kv(key.clone()));
        }
        if kv.is_none() {
            self.seek(&key, self.revision + 1)?;
            kv = self.made_in_history(&key)?;
        }
        if kv.is_none() {
            return Err(Fault::Corrupt { what: "log: an event without its record" });
        }
        Ok(Event { r#type: EventType::Put.into(), kv, prev_kv })
    }

    /// The state one revision before may only be read above the floor.
    fn wants_previous(&self) -> bool {
        self.query.prev_kv && self.revision > self.view.head.floor
    }

    fn seek(&mut self, key: &[u8], ended: i64) -> Result<(), Fault> {
        let history = match &mut self.history {
            Some(history) => history,
            none => none.insert(self.view.iterate(Family::History, None)?),
        };
        history.seek(history::key(key, ended));
        Ok(())
    }

    /// The version that the history stands on, if it is one of `key` and fits.
    fn version(
        &self,
        key: &Bytes,
        fits: impl Fn(i64, &RecordRef<'_>) -> bool,
    ) -> Result<Option<KeyValue>, Fault> {
        let Some(history) = &self.history else { return Ok(None) };
        let Some((encoded, value)) = history.item() else {
            history.status()?;
            return Ok(None);
        };
        let (prefix, ended) = history::split(encoded)?;
        let record = RecordRef::decode(value)?;
        let found = fits(ended, &record) && history::user_key(prefix)?.as_ref() == key.as_ref();
        Ok(found.then(|| record.to_record().into_kv(key.clone())))
    }

    /// The version that the revision ended; the history goes on to the next.
    fn take_ended(&mut self, key: &Bytes) -> Result<Option<KeyValue>, Fault> {
        let revision = self.revision;
        let found = self.version(key, |ended, _| ended == revision)?;
        if found.is_some()
            && let Some(history) = &mut self.history
        {
            history.next();
        }
        Ok(found)
    }

    fn made_in_history(&self, key: &Bytes) -> Result<Option<KeyValue>, Fault> {
        self.version(key, |_, record| record.modified == self.revision)
    }
}
