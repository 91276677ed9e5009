//! Events from history: what a watcher reads until it has caught up with the ring of new ones.

use bytes::Bytes;
use pintle_store_api::mvccpb::{Event, KeyValue, event::EventType};
use pintle_store_api::{Rejection, Revision};
use prost::Message;
use rocksdb::DBRawIterator;

use crate::keyspace::log::{self, Change};
use crate::keyspace::{Family, RecordRef, history};
use crate::view::View;
use crate::{CatchUp, EventQuery, Fault, QueryError, batch};

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
    let mut entries = view.iterate(Family::Log, Some(log::key(last + 1, 0).to_vec()));
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

struct Reading<'a> {
    view: &'a View<'a>,
    query: &'a EventQuery,
    /// One iterator for all look-ups: hot keys are found in history, not in `current`.
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
        let key = Bytes::copy_from_slice(key);
        let (r#type, kv) = match change {
            Change::Create | Change::Update => (EventType::Put, self.put(key.clone())?),
            Change::Delete => (EventType::Delete, batch::deleted(key.clone(), self.revision)),
        };
        let prev_kv = self.previous(key)?;
        let event = Event { r#type: r#type.into(), kv: Some(kv), prev_kv };
        self.bytes += event.encoded_len();
        self.events.push(event);
        Ok(())
    }

    /// The record that the revision under way made: it is still current, or it is the first in
    /// history that ended later.
    fn put(&mut self, key: Bytes) -> Result<KeyValue, Fault> {
        let revision = self.revision;
        if let Some(record) = self.view.get(&key)?
            && record.modified == revision
        {
            return Ok(record.into_kv(key));
        }
        let view = self.view;
        let stored = self.history.get_or_insert_with(|| view.iterate(Family::History, None));
        stored.seek(history::key(&key, revision + 1));
        if let Some((encoded, value)) = stored.item()
            && history::split(encoded)?.0 == history::prefix(&key).as_slice()
        {
            let record = RecordRef::decode(value)?;
            if record.modified == revision {
                return Ok(record.to_record().into_kv(key));
            }
        }
        stored.status()?;
        Err(Fault::Corrupt { what: "log: an event without its record" })
    }

    /// The state one revision before, if that may still be read.
    fn previous(&self, key: Bytes) -> Result<Option<KeyValue>, Fault> {
        if !self.query.prev_kv || self.revision <= self.view.head.floor {
            return Ok(None);
        }
        let record = self.view.ended_at(&key, self.revision)?;
        Ok(record.map(|record| record.into_kv(key)))
    }
}
