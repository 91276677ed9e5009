//! What was applied and is not in RocksDB yet.
//!
//! RocksDB's memtables are skip lists. A put writes `current` and `history` at a random place each, and
//! looking for the places was a fifth of all that a put cost. So changes are gathered here, in the order in
//! which they happen, and go to RocksDB together, sorted, in one atomic write: then each place is next to the one before,
//! which the processor's caches hold. A key that changed several times is written to `current` once.
//!
//! Nothing here can be read in ranges. Whoever needs that brings everything over first
//! ([`Database::settle`]); the newest records of single keys are known to [`Recent`](crate::recent::Recent), which forgets
//! none before it is in RocksDB.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rocksdb::{WriteBatch, WriteOptions};

use crate::Fault;
use crate::database::Database;
use crate::keyspace::lease::LeaseRecord;
use crate::keyspace::{Family, Head, Record, head, history, lease, log};
use crate::overlay::{Changed, Overlay};

/// What an entry of RocksDB costs beside its key and value, about.
const ENTRY_BYTES: usize = 40;
/// When a reader had to wait for a write, the next write is made when so much has come together; and
/// a quarter more after each write that nobody asked for. So a reader now and then does not wait long.
const BYTES_MIN: usize = 128 << 10;

/// So much is written in less than a millisecond.
const NEARLY_SETTLED: usize = 64 << 10;

/// Changes in the order in which they happened.
#[derive(Default)]
pub(crate) struct Pending {
    changes: Vec<Changed>,
    leases: BTreeMap<i64, Option<LeaseRecord>>,
    /// Whether the key is attached to the lease.
    lease_keys: BTreeMap<(i64, Bytes), bool>,
    /// Rows of the other families, as they will be written; `None` removes one.
    rows: BTreeMap<(Family, Vec<u8>), Option<Vec<u8>>>,
    /// The entry of `meta`; none while there is nothing.
    head: Option<(Head, Vec<u8>)>,
    bytes: usize,
}

/// What waits, and what is being written.
pub(crate) struct Backlog {
    /// Held by whoever writes to RocksDB.
    writing: Mutex<()>,
    queue: Mutex<Queue>,
    /// How much may come together, unless readers want it sooner.
    bytes_max: usize,
}

struct Queue {
    waiting: Pending,
    under_way: Option<Arc<Pending>>,
    /// Why nothing can be written any more.
    failed: Option<rocksdb::Error>,
    /// How much comes together before it is written.
    bytes_wanted: usize,
}

/// Whether to write now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// Everything is in RocksDB.
    Settled,
    /// More should come together.
    CanWait,
    /// Somebody should write it.
    Due,
    /// Too much has come together: nothing may be added before it is written.
    Overdue,
}

/// Who wants a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// The one writer, whether it is time or it needs to read ranges.
    Writer,
    /// A reader, who waits for it.
    Reader,
}

impl Pending {
    /// Takes over a batch's changes, and the head after it.
    pub(crate) fn absorb(&mut self, overlay: &mut Overlay, head: Head, applied: &[u8]) {
        let mut changes = overlay.take_changes();
        self.bytes += changes.iter().map(bytes).sum::<usize>();
        self.changes.append(&mut changes);
        self.bytes += (overlay.leases.len() + overlay.lease_keys.len()) * 2 * ENTRY_BYTES;
        self.leases.append(&mut overlay.leases);
        self.lease_keys.append(&mut overlay.lease_keys);
        self.head = Some((head, head.encode(applied)));
    }

    /// Sets or removes a row of a family that is not among a batch's changes.
    pub(crate) fn row(&mut self, family: Family, key: &[u8], value: Option<&[u8]>) {
        self.bytes += ENTRY_BYTES + key.len() + value.map_or(0, <[u8]>::len);
        self.rows.insert((family, key.to_vec()), value.map(<[u8]>::to_vec));
    }

    /// All of it as one write.
    fn encode(&self, database: &Database, head: &[u8]) -> WriteBatch {
        let mut batch = WriteBatch::with_capacity_bytes(self.bytes + head.len() + ENTRY_BYTES);
        batch.put_cf(database.family(Family::Meta), head::KEY, head);
        for ((family, key), value) in &self.rows {
            let family = database.family(*family);
            match value {
                Some(value) => batch.put_cf(family, key, value),
                None => batch.delete_cf(family, key),
            }
        }
        self.encode_records(database, &mut batch);
        let (family, mut value) = (database.family(Family::Log), Vec::new());
        for one in &self.changes {
            log::encode(one.change(), &one.key, &mut value);
            batch.put_cf(family, log::key(one.revision, one.sub), &value);
        }
        self.encode_leases(database, &mut batch);
        batch
    }

    /// The last record of each key, and those that ended.
    fn encode_records(&self, database: &Database, batch: &mut WriteBatch) {
        let (current, history) =
            (database.family(Family::Current), database.family(Family::History));
        let (mut encoded, mut value) = (Vec::new(), Vec::new());
        let order = in_order(&self.changes);
        for (place, (number, index)) in order.iter().enumerate() {
            let Changed { key, revision, previous, next, .. } = &self.changes[*index];
            if let Some(previous) = previous {
                history::encode(key, *revision, &mut encoded);
                previous.as_ref().encode(&mut value);
                batch.put_cf(history, &encoded, &value);
            }
            let follows =
                |(other, next): &(u64, usize)| other == number && self.changes[*next].key == *key;
            match next {
                _ if order.get(place + 1).is_some_and(follows) => {}
                None => batch.delete_cf(current, key),
                Some(next) => {
                    next.as_ref().encode(&mut value);
                    batch.put_cf(current, key, &value);
                }
            }
        }
    }

    fn encode_leases(&self, database: &Database, batch: &mut WriteBatch) {
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

/// About what a change becomes in the database.
fn bytes(change: &Changed) -> usize {
    let key = ENTRY_BYTES + change.key.len();
    let record =
        |record: &Option<Record>| record.as_ref().map_or(0, |record| key + record.value.len());
    record(&change.previous) + record(&change.next) + key + log::KEY_BYTES
}

/// The places of changes in the order of their keys; those of equal keys in the order in which they are. The
/// number before is the same for equal keys, and seldom for others.
fn in_order(changes: &[Changed]) -> Vec<(u64, usize)> {
    let Some(first) = changes.first() else { return Vec::new() };
    let common = changes.iter().fold(first.key.len(), |length, one| {
        if one.key.starts_with(&first.key[..length]) {
            return length;
        }
        let same = first.key.iter().zip(&one.key).take(length);
        same.take_while(|(one, other)| one == other).count()
    });
    // Most keys differ in the first bytes in which any do.
    let numbered = changes.iter().enumerate();
    let mut order: Vec<(u64, usize)> =
        numbered.map(|(place, one)| (number(&one.key[common..]), place)).collect();
    order.sort_unstable_by(|(one, place), (other, later)| {
        let keys = || changes[*place].key.cmp(&changes[*later].key);
        one.cmp(other).then_with(keys).then(place.cmp(later))
    });
    order
}

/// The first eight bytes as a number: its order is theirs, as far as they go.
fn number(bytes: &[u8]) -> u64 {
    match bytes.first_chunk::<8>() {
        Some(first) => u64::from_be_bytes(*first),
        None => {
            let mut first = [0; 8];
            first[..bytes.len()].copy_from_slice(bytes);
            u64::from_be_bytes(first)
        }
    }
}

impl Backlog {
    /// Lets about `bytes_max` bytes come together.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let (writing, waiting) = Default::default();
        let queue = Queue { waiting, under_way: None, failed: None, bytes_wanted: bytes_max };
        Self { writing, queue: Mutex::new(queue), bytes_max }
    }

    /// Adds one batch's changes as a whole.
    pub(crate) fn add(&self, change: impl FnOnce(&mut Pending)) -> Result<(), Fault> {
        let mut queue = self.queue.lock();
        if let Some(failed) = &queue.failed {
            return Err(failed.clone().into());
        }
        change(&mut queue.waiting);
        Ok(())
    }

    /// What should be done about what waits.
    pub(crate) fn urgency(&self) -> Urgency {
        let queue = self.queue.lock();
        let (waiting, wanted) = (queue.waiting.bytes, queue.bytes_wanted);
        match &queue.under_way {
            None if queue.waiting.head.is_none() => Urgency::Settled,
            None if waiting >= wanted => Urgency::Due,
            // More came together while the write before was made: it is behind.
            Some(_) if waiting >= 2 * wanted => Urgency::Overdue,
            _ => Urgency::CanWait,
        }
    }

    /// Whether to bring everything to RocksDB takes next to no time.
    pub(crate) fn is_nearly_settled(&self) -> bool {
        let queue = self.queue.lock();
        queue.under_way.is_none() && queue.waiting.bytes <= NEARLY_SETTLED
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.queue.lock().waiting.bytes
    }

    /// What is known of a lease here: `Some(None)` says that it is gone.
    pub(crate) fn lease(&self, id: i64) -> Option<Option<LeaseRecord>> {
        let queue = self.queue.lock();
        let waiting = queue.waiting.leases.get(&id);
        let under_way = || queue.under_way.as_ref().and_then(|pending| pending.leases.get(&id));
        waiting.or_else(under_way).copied()
    }

    /// Writes everything that was added before, or waits until somebody else has. After a fault nothing is written
    /// any more.
    pub(crate) fn settle(&self, database: &Database, asker: Asker) -> Result<(), Fault> {
        let _turn = self.writing.lock();
        let Some((pending, head, encoded)) = self.take(asker)? else { return Ok(()) };
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        let written = database.db().write_opt(pending.encode(database, &encoded), &options);
        if written.is_ok() {
            database.recent().settled(head.revision);
        }
        let mut queue = self.queue.lock();
        match written {
            Ok(()) => {
                queue.under_way = None;
                Ok(())
            }
            Err(error) => {
                queue.failed = Some(error.clone());
                Err(error.into())
            }
        }
    }

    fn take(&self, asker: Asker) -> Result<Option<(Arc<Pending>, Head, Vec<u8>)>, Fault> {
        let mut queue = self.queue.lock();
        if let Some(failed) = &queue.failed {
            return Err(failed.clone().into());
        }
        let Some((head, encoded)) = queue.waiting.head.take() else { return Ok(None) };
        // The next will be about as large.
        let changes = Vec::with_capacity(queue.waiting.changes.len());
        let next = Pending { changes, ..Pending::default() };
        let pending = Arc::new(std::mem::replace(&mut queue.waiting, next));
        queue.under_way = Some(Arc::clone(&pending));
        queue.bytes_wanted = match asker {
            Asker::Reader => BYTES_MIN.min(self.bytes_max),
            Asker::Writer => (queue.bytes_wanted * 5 / 4).min(self.bytes_max),
        };
        Ok(Some((pending, head, encoded)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Keys that have much in common, or are each other's beginning.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        let byte = || prop_oneof![Just(0u8), Just(1), Just(0xff), any::<u8>()];
        let long =
            vec(byte(), 0..12).prop_map(|end| [b"/registry/pods/".as_slice(), &end].concat());
        prop_oneof![long, vec(byte(), 0..4)]
    }

    fn changed(key: Vec<u8>) -> Changed {
        Changed { key: key.into(), revision: 2, sub: 0, previous: None, next: None }
    }

    proptest! {
        #[test]
        fn changes_are_sorted_by_key_and_keep_their_order(keys in vec(key(), 0..40)) {
            let mut expected: Vec<usize> = (0..keys.len()).collect();
            expected.sort_by_key(|place| &keys[*place]);
            let changes: Vec<Changed> = keys.iter().cloned().map(changed).collect();
            let order = in_order(&changes);
            prop_assert_eq!(order.iter().map(|(_, place)| *place).collect::<Vec<_>>(), expected);
            for pair in order.windows(2) {
                let same_key = changes[pair[0].1].key == changes[pair[1].1].key;
                prop_assert!(!same_key || pair[0].0 == pair[1].0);
            }
        }
    }

    #[test]
    fn a_reader_makes_writes_small_for_a_while() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = crate::Options { pending_bytes: 1 << 20, ..crate::Options::default() };
        let database = Database::open(folder.path(), &options).expect("open");
        let write = |asker| {
            let head = Head { revision: 2, ..Head::default() };
            database.write(Overlay::default(), &head, b"", |_| ()).expect("written");
            database.settle(asker).expect("settled");
            database.backlog().queue.lock().bytes_wanted
        };
        assert_eq!(write(Asker::Writer), 1 << 20);
        assert_eq!(write(Asker::Reader), BYTES_MIN);
        assert_eq!(write(Asker::Writer), BYTES_MIN * 5 / 4);
        let grown = (0..20).map(|_| write(Asker::Writer)).max();
        assert_eq!(grown, Some(1 << 20));
    }
}
