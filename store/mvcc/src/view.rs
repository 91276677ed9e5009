//! One consistent state: the database, perhaps at a snapshot, with a batch's own writes on top.
//! Point reads here, ranges in [`scan`].

mod cursor;
mod scan;

use std::ops::Bound;

use bytes::Bytes;
use pintle_store_api::{KeyRange, Rejection, Revision};
use rocksdb::{DB, DBRawIterator, ReadOptions, SnapshotWithThreadMode};

use crate::database::Database;
use crate::keyspace::{Family, Head, Record, RecordRef, history, lease, log};
use crate::overlay::{Overlay, Written};
use crate::pending::Asker;
use crate::{Fault, census};
use cursor::Cursor;
pub(crate) use scan::Scan;

pub(crate) type Snapshot<'a> = SnapshotWithThreadMode<'a, DB>;

/// What reads read from.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) database: &'a Database,
    /// `None` reads the newest, which is consistent only on the thread that writes; what is in order
    /// must be written for that first.
    pub(crate) snapshot: Option<&'a Snapshot<'a>>,
    pub(crate) overlay: Option<&'a Overlay>,
    pub(crate) head: Head,
    /// The newest revision that can be read: the head's, or one more while a command writes.
    pub(crate) revision: i64,
}

impl<'a> View<'a> {
    /// The state as of a snapshot.
    pub(crate) fn at_snapshot(
        database: &'a Database,
        snapshot: &'a Snapshot<'a>,
        head: Head,
    ) -> Self {
        let (overlay, revision) = (None, head.revision);
        Self { database, snapshot: Some(snapshot), overlay, head, revision }
    }

    /// The revision that a request's `revision` means: 0 and below mean the newest.
    pub(crate) fn resolve(&self, requested: i64) -> Result<i64, Rejection> {
        if requested > self.revision {
            return Err(Rejection::FutureRevision);
        }
        let revision = if requested <= 0 { self.revision } else { requested };
        if revision < self.head.floor {
            return Err(Rejection::Compacted(Revision(self.head.floor)));
        }
        Ok(revision)
    }

    /// The newest record of a key.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Record>, Fault> {
        if let Some(written) = self.written(Family::Current).and_then(|map| map.get(key)) {
            return Ok(written.clone());
        }
        if self.snapshot.is_none()
            && let Some(known) = self.database.recent().get(key)
        {
            return Ok(known);
        }
        let family = self.database.family(Family::Current);
        let stored = self.database.db().get_pinned_cf_opt(family, key, &self.read_options())?;
        stored.map(|stored| RecordRef::decode(&stored).map(RecordRef::to_record)).transpose()
    }

    /// The record of a key as of a [`resolve`](Self::resolve)d revision.
    pub(crate) fn get_at(&self, key: &[u8], revision: i64) -> Result<Option<Record>, Fault> {
        match self.get(key)? {
            Some(record) if record.modified <= revision => Ok(Some(record)),
            // A key that never changed after `revision` has no later end in history either.
            None if revision == self.revision => Ok(None),
            _ => self.superseded(key, revision),
        }
    }

    /// The record that a later revision ended, if it was there at `revision`.
    fn superseded(&self, key: &[u8], revision: i64) -> Result<Option<Record>, Fault> {
        let first = history::key(key, revision + 1);
        let last = history::key(key, i64::MAX);
        let mut cursor = self.cursor(Family::History, &first, Some(last))?;
        let record = cursor.record()?.filter(|record| record.modified <= revision);
        Ok(record.map(RecordRef::to_record))
    }

    /// The keys that the database has attached to a lease, in key order; not the batch's.
    pub(crate) fn lease_keys(&self, id: i64) -> Result<Vec<Bytes>, Fault> {
        let prefix = lease::key(id);
        let end = id.checked_add(1).map(|next| lease::key(next).to_vec());
        let mut stored = self.iterate(Family::LeaseKeys, end)?;
        stored.seek(prefix);
        let mut keys = Vec::new();
        while let Some(key) = stored.key() {
            keys.push(Bytes::copy_from_slice(lease::attached(key)?));
            stored.next();
        }
        stored.status()?;
        Ok(keys)
    }

    /// Goes over a range, in key order, as of a [`resolve`](Self::resolve)d revision.
    pub(crate) fn scan(&self, range: &KeyRange, revision: i64) -> Result<Scan<'a>, Fault> {
        Scan::open(self, range, revision)
    }

    /// The number of keys in a range, as of a [`resolve`](Self::resolve)d revision.
    pub(crate) fn count(&self, range: &KeyRange, revision: i64) -> Result<i64, Fault> {
        if self.overlay.is_some() {
            return self.scan(range, revision)?.count_rest();
        }
        let now = census::count(self, range)?;
        // Going back over the log costs by the changes since, going over the range by its keys.
        if self.revision - revision > now {
            return self.scan(range, revision)?.count_rest();
        }
        Ok(now - self.population_since(range, revision)?)
    }

    /// By how much the number of keys in a range has changed after `revision`.
    fn population_since(&self, range: &KeyRange, revision: i64) -> Result<i64, Fault> {
        let mut change = 0;
        if revision < self.revision {
            let mut entries = self.iterate(Family::Log, None)?;
            entries.seek(log::key(revision + 1, 0));
            while let Some(value) = entries.value() {
                let (what, key) = log::decode(value)?;
                if range.contains(key) {
                    change += what.population();
                }
                entries.next();
            }
            entries.status()?;
        }
        Ok(change)
    }

    /// An iterator over one family of the database alone.
    pub(crate) fn iterate(
        &self,
        family: Family,
        end: Option<Vec<u8>>,
    ) -> Result<DBRawIterator<'a>, Fault> {
        if self.snapshot.is_none() {
            self.database.settle(Asker::Writer)?;
        }
        let mut options = self.read_options();
        if let Some(end) = end {
            options.set_iterate_upper_bound(end);
        }
        Ok(self.database.db().raw_iterator_cf_opt(self.database.family(family), options))
    }

    /// An iterator that also sees the batch's writes.
    fn cursor(
        &self,
        family: Family,
        start: &[u8],
        end: Option<Vec<u8>>,
    ) -> Result<Cursor<'a>, Fault> {
        let upper = match &end {
            Some(end) => Bound::Excluded(end.as_slice().max(start)),
            None => Bound::Unbounded,
        };
        let written = self.written(family);
        let written = written.map(|map| map.range::<[u8], _>((Bound::Included(start), upper)));
        let mut stored = self.iterate(family, end)?;
        stored.seek(start);
        Cursor::new(stored, written)
    }

    fn written(&self, family: Family) -> Option<&'a Written> {
        let overlay = self.overlay?;
        match family {
            Family::Current => Some(&overlay.current),
            Family::History => Some(overlay.history()),
            Family::Log
            | Family::Lease
            | Family::LeaseKeys
            | Family::Meta
            | Family::Census
            | Family::Auth => None,
        }
    }

    fn read_options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        if let Some(snapshot) = self.snapshot {
            options.set_snapshot(snapshot);
        }
        options
    }
}

/// The bounds of a range as the `current` family has them; an empty range stays well-formed.
pub(crate) fn bounds(range: &KeyRange) -> (&Bytes, Option<&Bytes>) {
    let end = range.end().map(|end| if range.is_empty() { range.start() } else { end });
    (range.start(), end)
}
