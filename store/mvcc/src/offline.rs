//! A state that no member is using: read without changing a byte, walked against its invariants
//! ([`check`]), or told entry by entry for people who debug.

mod auth;
mod check;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use pintle_store_api::{KeyRange, Revision, mvccpb, pb};
use rocksdb::{ColumnFamily, DB, DBRawIterator};

use crate::database::Generations;
use crate::keyspace::{Family, Head, RecordRef, alarm, head, history, lease, log};
use crate::{Fault, Lease};

pub use auth::Accounts;
pub use check::{Problem, Report};

/// A database opened for reading.
#[derive(Debug)]
pub struct Offline {
    db: DB,
    head: Head,
    applied: Option<Bytes>,
}

/// Where a state stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The newest revision.
    pub revision: Revision,
    /// The compact floor; −1 when nothing was ever compacted.
    pub compact_revision: Revision,
    /// Living keys.
    pub keys: i64,
    /// Bytes of living keys and values.
    pub bytes: i64,
}

/// One entry of the log of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When.
    pub revision: Revision,
    /// Which one of that revision.
    pub position: u32,
    /// Whether the key is gone.
    pub deleted: bool,
    /// Whose.
    pub key: Bytes,
    /// What it holds from then on; `None` for a deletion, and where compaction has removed it.
    pub record: Option<mvccpb::KeyValue>,
}

/// The folder of the database that is in use under the root of a member's state.
pub fn active_folder(root: &Path) -> Result<PathBuf, Fault> {
    Generations::peek(root)
}

impl Offline {
    /// Opens one database: [`active_folder`] of a member, or an unpacked snapshot.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        let names = Family::ALL.map(Family::name);
        let db = DB::open_cf_for_read_only(&rocksdb::Options::default(), path, names, false)?;
        let meta = db.cf_handle(Family::Meta.name()).expect("opened by this name");
        let (head, applied) = match db.get_cf(meta, head::KEY)? {
            None => (Head::default(), None),
            Some(stored) => {
                let (head, applied) = Head::decode(&stored)?;
                (head, Some(Bytes::copy_from_slice(applied)))
            }
        };
        Ok(Self { db, head, applied })
    }

    /// Revision, floor and sizes.
    pub fn standing(&self) -> Standing {
        let Head { revision, floor, keys, bytes } = self.head;
        let (revision, compact_revision) = (Revision(revision), Revision(floor));
        Standing { revision, compact_revision, keys, bytes }
    }

    /// The server's bytes.
    pub fn applied_meta(&self) -> Option<Bytes> {
        self.applied.clone()
    }

    /// Compares everything with everything; see [`Report`].
    pub fn check(&self) -> Result<Report, Fault> {
        check::run(self)
    }

    /// Tells the living keys of a range, in order, until `tell` says `false`.
    pub fn keys(
        &self,
        range: &KeyRange,
        mut tell: impl FnMut(mvccpb::KeyValue) -> bool,
    ) -> Result<(), Fault> {
        let mut stored = self.iterate(Family::Current);
        stored.seek(range.start());
        while let Some((key, value)) = stored.item() {
            if !range.contains(key) || !tell(RecordRef::decode(value)?.to_kv(key, true)) {
                break;
            }
            stored.next();
        }
        Ok(stored.status()?)
    }

    /// Tells the changes of a range between two revisions, both included, until `tell` says `false`.
    pub fn changes(
        &self,
        range: &KeyRange,
        from: Revision,
        to: Revision,
        mut tell: impl FnMut(Change) -> bool,
    ) -> Result<(), Fault> {
        let mut stored = self.iterate(Family::Log);
        stored.seek(log::key(from.0.max(0), 0));
        while let Some((key, value)) = stored.item() {
            let (revision, position) = log::split(key)?;
            let (change, user_key) = log::decode(value)?;
            if revision > to.0 {
                break;
            }
            if range.contains(user_key) {
                let deleted = change == log::Change::Delete;
                let record = if deleted { None } else { self.record_of(user_key, revision)? };
                let key = Bytes::copy_from_slice(user_key);
                let revision = Revision(revision);
                if !tell(Change { revision, position, deleted, key, record }) {
                    break;
                }
            }
            stored.next();
        }
        Ok(stored.status()?)
    }

    /// The leases, by id, with their keys.
    pub fn leases(&self) -> Result<Vec<(Lease, Vec<Bytes>)>, Fault> {
        let mut leases = Vec::new();
        let mut stored = self.iterate(Family::Lease);
        stored.seek_to_first();
        while let Some((key, value)) = stored.item() {
            let id = lease::id(key)?;
            leases.push((Lease::new(id, lease::decode(value)?), self.attached(id)?));
            stored.next();
        }
        stored.status()?;
        Ok(leases)
    }

    /// The raised alarms.
    pub fn alarms(&self) -> Result<Vec<pb::AlarmMember>, Fault> {
        let mut alarms = Vec::new();
        let mut stored = self.iterate(Family::Meta);
        stored.seek(alarm::PREFIX);
        while let Some(key) = stored.key().filter(|key| key.starts_with(alarm::PREFIX)) {
            let (alarm, member_id) = alarm::split(key)?;
            alarms.push(pb::AlarmMember { member_id, alarm });
            stored.next();
        }
        stored.status()?;
        Ok(alarms)
    }

    fn attached(&self, id: i64) -> Result<Vec<Bytes>, Fault> {
        let mut keys = Vec::new();
        let mut stored = self.iterate(Family::LeaseKeys);
        let prefix = lease::key(id);
        stored.seek(prefix);
        while let Some(key) = stored.key().filter(|key| key.starts_with(&prefix)) {
            keys.push(Bytes::copy_from_slice(lease::attached(key)?));
            stored.next();
        }
        stored.status()?;
        Ok(keys)
    }

    /// The version of a key that began at `revision`, wherever it is filed.
    fn record_of(&self, key: &[u8], revision: i64) -> Result<Option<mvccpb::KeyValue>, Fault> {
        if let Some(stored) = self.db.get_cf(self.family(Family::Current), key)? {
            let record = RecordRef::decode(&stored)?;
            if record.modified == revision {
                return Ok(Some(record.to_kv(key, true)));
            }
        }
        let mut stored = self.iterate(Family::History);
        stored.seek(history::key(key, revision + 1));
        let Some((encoded, value)) = stored.item() else {
            stored.status()?;
            return Ok(None);
        };
        let record = RecordRef::decode(value)?;
        let found = encoded.starts_with(&history::prefix(key)) && record.modified == revision;
        Ok(found.then(|| record.to_kv(key, true)))
    }

    fn family(&self, family: Family) -> &ColumnFamily {
        self.db.cf_handle(family.name()).expect("open opens every family")
    }

    fn iterate(&self, family: Family) -> DBRawIterator<'_> {
        self.db.raw_iterator_cf(self.family(family))
    }
}
