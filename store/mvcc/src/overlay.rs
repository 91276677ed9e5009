//! What a batch has written and the database does not hold yet, ordered like the database, so
//! that later commands of the batch read through it.

use std::collections::BTreeMap;

use bytes::Bytes;
use rocksdb::WriteBatch;

use crate::database::Database;
use crate::keyspace::lease::LeaseRecord;
use crate::keyspace::log::Change;
use crate::keyspace::{Family, Record, lease, log};

/// `None` is a key that the batch deleted.
pub(crate) type Written = BTreeMap<Bytes, Option<Record>>;

#[derive(Debug, Default)]
pub(crate) struct Overlay {
    /// By user key.
    pub(crate) current: Written,
    /// By encoded history key; never `None`.
    pub(crate) history: Written,
    pub(crate) log: Vec<(i64, u32, Change, Bytes)>,
    pub(crate) leases: BTreeMap<i64, Option<LeaseRecord>>,
    /// Whether the key is attached to the lease.
    pub(crate) lease_keys: BTreeMap<(i64, Bytes), bool>,
}

/// What a write batch adds to a key and a value: a tag, a column family, two lengths; and a record's
/// numbers.
const PUT_BYTES: usize = 40;

impl Overlay {
    /// About what [`Overlay::write_to`] adds, so that the batch is made large enough at once.
    pub(crate) fn encoded_bytes(&self) -> usize {
        let records = self.current.iter().chain(&self.history).map(|(key, record)| {
            PUT_BYTES + key.len() + record.as_ref().map_or(0, |record| record.value.len())
        });
        let log = self.log.iter().map(|(_, _, _, key)| PUT_BYTES + log::KEY_BYTES + key.len());
        records.sum::<usize>() + log.sum::<usize>()
    }

    /// Adds everything to `batch`.
    pub(crate) fn write_to(&self, database: &Database, batch: &mut WriteBatch) {
        let mut buffer = Vec::new();
        for (family, written) in
            [(Family::Current, &self.current), (Family::History, &self.history)]
        {
            let family = database.family(family);
            for (key, record) in written {
                match record {
                    None => batch.delete_cf(family, key),
                    Some(record) => {
                        record.as_ref().encode(&mut buffer);
                        batch.put_cf(family, key, &buffer);
                    }
                }
            }
        }
        let family = database.family(Family::Log);
        for (revision, sub, change, key) in &self.log {
            log::encode(*change, key, &mut buffer);
            batch.put_cf(family, log::key(*revision, *sub), &buffer);
        }
        self.write_leases(database, batch);
    }

    fn write_leases(&self, database: &Database, batch: &mut WriteBatch) {
        let family = database.family(Family::Lease);
        for (id, record) in &self.leases {
            match record {
                None => batch.delete_cf(family, lease::key(*id)),
                Some(record) => batch.put_cf(family, lease::key(*id), lease::encode(*record)),
            }
        }
        let family = database.family(Family::LeaseKeys);
        for ((id, key), attached) in &self.lease_keys {
            let entry = lease::attachment(*id, key);
            if *attached {
                batch.put_cf(family, entry, b"");
            } else {
                batch.delete_cf(family, entry);
            }
        }
    }
}
