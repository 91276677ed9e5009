//! Every entry of a state against every other that it must agree with.
//!
//! What is above the compact floor must be complete; what is below may be there or not, since it is
//! removed when RocksDB gets to it. Damage that does not decode is named and passed over, so that one
//! bad entry does not hide the others.

mod auth;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;

use super::Offline;
use crate::Fault;
use crate::keyspace::{Family, RecordRef, census, history, lease, log};

/// Problems that are told one by one; the rest are only counted.
const TOLD_MAX: usize = 100;

/// Something that does not agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: a column family.
    pub family: &'static str,
    /// Which entry, readably.
    pub entry: String,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.family, self.entry, self.what)
    }
}

/// What a walk has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Entries looked at, by column family.
    pub entries: BTreeMap<&'static str, u64>,
    /// The first problems.
    pub problems: Vec<Problem>,
    /// All problems.
    pub problems_total: u64,
}

impl Report {
    /// Whether everything agrees.
    pub fn is_clean(&self) -> bool {
        self.problems_total == 0
    }

    fn seen(&mut self, family: Family) {
        *self.entries.entry(family.name()).or_default() += 1;
    }

    fn problem(&mut self, family: Family, entry: String, what: impl Into<String>) {
        self.problems_total += 1;
        if self.problems.len() < TOLD_MAX {
            self.problems.push(Problem { family: family.name(), entry, what: what.into() });
        }
    }
}

/// A key for people.
fn shown(key: &[u8]) -> String {
    format!("\"{}\"", key.escape_ascii())
}

pub(super) fn run(state: &Offline) -> Result<Report, Fault> {
    let mut walk = Walk { state, report: Report::default(), leases: BTreeSet::new() };
    walk.head();
    walk.leases()?;
    walk.current()?;
    walk.lease_keys()?;
    walk.history()?;
    walk.log()?;
    walk.census()?;
    walk.auth()?;
    Ok(walk.report)
}

struct Walk<'a> {
    state: &'a Offline,
    report: Report,
    leases: BTreeSet<i64>,
}

impl Walk<'_> {
    fn head(&mut self) {
        self.report.seen(Family::Meta);
        let head = self.state.head;
        let entry = || "head".to_owned();
        if head.revision < 1 {
            self.report.problem(Family::Meta, entry(), format!("revision {}", head.revision));
        }
        if head.floor > head.revision {
            let what = format!("floor {} above revision {}", head.floor, head.revision);
            self.report.problem(Family::Meta, entry(), what);
        }
    }

    fn each(
        &mut self,
        family: Family,
        mut look: impl FnMut(&mut Self, &[u8], &[u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let state = self.state;
        let mut stored = state.iterate(family);
        stored.seek_to_first();
        while let Some((key, value)) = stored.item() {
            self.report.seen(family);
            match look(self, key, value) {
                Err(Fault::Corrupt { what }) => {
                    self.report.problem(family, shown(key), format!("corrupt {what}"));
                }
                other => other?,
            }
            stored.next();
        }
        Ok(stored.status()?)
    }

    fn leases(&mut self) -> Result<(), Fault> {
        self.each(Family::Lease, |walk, key, value| {
            let id = lease::id(key)?;
            lease::decode(value)?;
            walk.leases.insert(id);
            Ok(())
        })
    }

    fn current(&mut self) -> Result<(), Fault> {
        let (mut keys, mut bytes) = (0, 0);
        self.each(Family::Current, |walk, key, value| {
            keys += 1;
            let record = RecordRef::decode(value)?;
            bytes += (key.len() + record.value.len()) as i64;
            walk.record(Family::Current, &shown(key), &record);
            walk.lease_of(key, &record)
        })?;
        let head = self.state.head;
        for (what, found, told) in [("keys", keys, head.keys), ("bytes", bytes, head.bytes)] {
            if found != told {
                let what = format!("{told} {what}, but there are {found}");
                self.report.problem(Family::Meta, "head".to_owned(), what);
            }
        }
        Ok(())
    }

    fn record(&mut self, family: Family, entry: &str, record: &RecordRef<'_>) {
        let RecordRef { create, modified, version, .. } = *record;
        if create < 2 || create > modified || modified > self.state.head.revision {
            let newest = self.state.head.revision;
            let what = format!("created {create}, modified {modified}, newest {newest}");
            self.report.problem(family, entry.to_owned(), what);
        }
        if version < 1 || version > modified - create + 1 {
            self.report.problem(family, entry.to_owned(), format!("version {version}"));
        }
    }

    fn lease_of(&mut self, key: &[u8], record: &RecordRef<'_>) -> Result<(), Fault> {
        if record.lease == 0 {
            return Ok(());
        }
        let id = record.lease;
        if !self.leases.contains(&id) {
            self.report.problem(Family::Current, shown(key), format!("unknown lease {id}"));
        }
        let attachments = self.state.family(Family::LeaseKeys);
        if self.state.db.get_pinned_cf(attachments, lease::attachment(id, key))?.is_none() {
            let what = format!("lease {id} does not know of it");
            self.report.problem(Family::Current, shown(key), what);
        }
        Ok(())
    }

    fn lease_keys(&mut self) -> Result<(), Fault> {
        self.each(Family::LeaseKeys, |walk, entry, _| {
            let (id, key) = (lease::id(entry)?, lease::attached(entry)?);
            let shown = format!("{id} {}", shown(key));
            if !walk.leases.contains(&id) {
                walk.report.problem(Family::LeaseKeys, shown.clone(), "unknown lease");
            }
            let current = walk.state.family(Family::Current);
            let stored = walk.state.db.get_pinned_cf(current, key)?;
            let owner = stored.map(|stored| RecordRef::decode(&stored).map(|record| record.lease));
            match owner.transpose()? {
                Some(owner) if owner == id => {}
                Some(owner) => {
                    let what = format!("the key is attached to {owner}");
                    walk.report.problem(Family::LeaseKeys, shown, what);
                }
                None => walk.report.problem(Family::LeaseKeys, shown, "no such key"),
            }
            Ok(())
        })
    }

    fn history(&mut self) -> Result<(), Fault> {
        let mut before: Option<(Bytes, i64)> = None;
        self.each(Family::History, |walk, encoded, value| {
            let (prefix, ended) = history::split(encoded)?;
            let key = history::user_key(prefix)?;
            let record = RecordRef::decode(value)?;
            let entry = format!("{} ended {ended}", shown(&key));
            walk.record(Family::History, &entry, &record);
            if ended <= record.modified || ended > walk.state.head.revision {
                let what = format!("it began at {}", record.modified);
                walk.report.problem(Family::History, entry.clone(), what);
            }
            if let Some((last, last_ended)) = &before
                && last == key.as_ref()
                && record.modified < *last_ended
            {
                let what = format!("overlaps the version that ended {last_ended}");
                walk.report.problem(Family::History, entry.clone(), what);
            }
            before = Some((Bytes::copy_from_slice(&key), ended));
            walk.superseded(&key, ended, entry)
        })
    }

    /// The newest version of a key begins where or after every other one ended.
    fn superseded(&mut self, key: &[u8], ended: i64, entry: String) -> Result<(), Fault> {
        let current = self.state.family(Family::Current);
        if let Some(stored) = self.state.db.get_pinned_cf(current, key)? {
            let newest = RecordRef::decode(&stored)?;
            if newest.modified < ended {
                let what = format!("the newest version began before that, at {}", newest.modified);
                self.report.problem(Family::History, entry, what);
            }
        }
        Ok(())
    }

    fn log(&mut self) -> Result<(), Fault> {
        let mut expected = (self.state.head.floor.max(2), 0);
        let floor = self.state.head.floor;
        self.each(Family::Log, |walk, key, value| {
            let (revision, position) = log::split(key)?;
            let (change, user_key) = log::decode(value)?;
            if revision < floor {
                return Ok(());
            }
            let entry = format!("{revision}/{position} {}", shown(user_key));
            if (revision, position) != expected && (revision, position) != (expected.0 + 1, 0) {
                let (revision, position) = expected;
                let what = format!("expected {revision}/{position} or the next revision");
                walk.report.problem(Family::Log, entry.clone(), what);
            }
            expected = (revision, position + 1);
            // The floor itself is readable, but what it replaced is not.
            if revision > floor.max(1) && !walk.is_filed(user_key, revision, change)? {
                walk.report.problem(Family::Log, entry, "the version is missing");
            }
            Ok(())
        })?;
        let newest = self.state.head.revision;
        if newest > 1 && newest > floor && expected.0 != newest {
            let what = format!("ends at {}, the newest revision is {newest}", expected.0);
            self.report.problem(Family::Log, "end".to_owned(), what);
        }
        Ok(())
    }

    /// Whether what a change made, or ended, is there.
    fn is_filed(&self, key: &[u8], revision: i64, change: log::Change) -> Result<bool, Fault> {
        if change == log::Change::Delete {
            let history = self.state.family(Family::History);
            let ended = self.state.db.get_pinned_cf(history, history::key(key, revision))?;
            return Ok(ended.is_some());
        }
        Ok(self.state.record_of(key, revision)?.is_some())
    }

    fn census(&mut self) -> Result<(), Fault> {
        let mut buckets = Vec::new();
        self.each(Family::Census, |_, first, count| {
            buckets.push((Bytes::copy_from_slice(first), census::decode(count)?));
            Ok(())
        })?;
        for (index, (first, told)) in buckets.iter().enumerate() {
            let end = buckets.get(index + 1).map(|(next, _)| next.as_ref());
            let found = self.count(first, end)?;
            if found != *told {
                let what = format!("{told} keys, but there are {found}");
                self.report.problem(Family::Census, shown(first), what);
            }
        }
        let first = buckets.first().map(|(first, _)| first.as_ref());
        let before = self.count(b"", first)?;
        if before > 0 {
            let what = format!("{before} keys before the first bucket");
            self.report.problem(Family::Census, "start".to_owned(), what);
        }
        Ok(())
    }

    fn count(&self, start: &[u8], end: Option<&[u8]>) -> Result<i64, Fault> {
        let mut stored = self.state.iterate(Family::Current);
        stored.seek(start);
        let mut count = 0;
        while stored.key().is_some_and(|key| end.is_none_or(|end| key < end)) {
            count += 1;
            stored.next();
        }
        stored.status()?;
        Ok(count)
    }
}
