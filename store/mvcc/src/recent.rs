//! The newest records of keys that were written or read lately.
//!
//! Whatever changes a key first needs the record that it replaces, and most reads want the newest
//! record of one key. The database finds it by a walk through a skip list (or a file) that no
//! processor cache holds, which costs as much as the write itself; hot keys are found here instead. Two
//! generations bound the memory: what was neither written nor read from the database again
//! while a whole generation filled up is forgotten, unless RocksDB does not have it yet.
//!
//! The one writer takes over what it has written ([`Recent::remember`]) while
//! [`Published`](crate::database::Published) says so; readers add what they had to look for
//! ([`Recent::found`]) only while it says that nothing is being written. So what is known here is the
//! state of the published head, and readers check that it was the same before and after they looked.

use std::fmt;
use std::hash::BuildHasher;
use std::hint::black_box;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use hashbrown::DefaultHashBuilder;
use hashbrown::hash_table::{Entry, HashTable};
use parking_lot::RwLock;

use crate::keyspace::Record;
use crate::overlay::Written;

/// What one entry costs beside its key and value: the map's slots, two headers of shared bytes, and
/// the allocations' own.
const ENTRY_BYTES: usize = 192;
/// Larger values are cheap to find beside what they cost otherwise.
const VALUE_BYTES_MAX: usize = 16 << 10;
/// Parts with a lock each, so that readers seldom wait for the writer or for each other.
const SHARDS: usize = 16;

/// The newest record of a key, or that there is none.
#[derive(Debug)]
struct Known {
    key: Box<[u8]>,
    hash: u64,
    record: Option<Record>,
    /// When it was written, or later; 0 where it was found in RocksDB.
    written: i64,
}

type Records = HashTable<Known>;

/// A cache between the database and those who want the newest record of one key.
pub(crate) struct Recent {
    /// The revision up to which RocksDB has everything: what was written later is not forgotten.
    settled: AtomicI64,
    hasher: DefaultHashBuilder,
    shards: [RwLock<Shard>; SHARDS],
    /// Of one generation of one shard.
    bytes_max: usize,
}

#[derive(Default)]
struct Shard {
    young: Records,
    old: Records,
    young_bytes: usize,
}

impl fmt::Debug for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recent").field("bytes_max", &self.bytes_max).finish_non_exhaustive()
    }
}

impl Recent {
    /// Holds about `bytes_max` bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let (settled, hasher, shards) = Default::default();
        Self { settled, hasher, shards, bytes_max: bytes_max / 2 / SHARDS }
    }

    /// RocksDB has everything up to this revision.
    pub(crate) fn settled(&self, revision: i64) {
        self.settled.fetch_max(revision, Ordering::AcqRel);
    }

    fn place(&self, key: &[u8]) -> (u64, &RwLock<Shard>) {
        let hash = self.hasher.hash_one(key);
        (hash, &self.shards[shard_of(hash)])
    }

    /// The newest record of a key (`Some(None)`: there is none), if that is known at all.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Option<Record>> {
        let (hash, shard) = self.place(key);
        shard.read().find(hash, key).map(|known| known.record.clone())
    }

    /// Whether that is known.
    pub(crate) fn knows(&self, key: &[u8]) -> bool {
        let (hash, shard) = self.place(key);
        shard.read().find(hash, key).is_some()
    }

    /// Brings what is known of these keys nearer to the processor. Each is a handful of places in memory, which
    /// the processor waits for at the same time here, and one after the other when they are used in turn.
    pub(crate) fn touch<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) {
        let mut places: [Vec<(u64, &[u8])>; SHARDS] = Default::default();
        for key in keys {
            let hash = self.hasher.hash_one(key);
            places[shard_of(hash)].push((hash, key));
        }
        for (shard, places) in self.shards.iter().zip(places) {
            // A lock for each would end what goes on at the same time.
            let shard = shard.read();
            for (hash, key) in places {
                let record = shard.find(hash, key).and_then(|known| known.record.as_ref());
                black_box(record.and_then(|record| record.value.first().copied()));
            }
        }
    }

    /// Takes over what a batch has written, whose last revision this is: all of it, since what is known must
    /// be the newest. Large records are forgotten at once; the database must have them already.
    pub(crate) fn remember(&self, written: &Written, revision: i64) {
        let settled = self.settled.load(Ordering::Acquire);
        for (key, record) in written {
            let (hash, shard) = self.place(key);
            let mut shard = shard.write();
            if is_large(record.as_ref()) {
                shard.forget(hash, key);
            } else {
                let record = record.as_ref().map(own);
                shard.insert(hash, key, record, revision);
                shard.turn_if_full(self.bytes_max, settled);
            }
        }
    }

    /// Takes over what a reader has found in the database, if it `is_newest` still.
    pub(crate) fn found(
        &self,
        key: &[u8],
        record: Option<&Record>,
        is_newest: impl FnOnce() -> bool,
    ) {
        if is_large(record) {
            return;
        }
        let settled = self.settled.load(Ordering::Acquire);
        let (hash, shard) = self.place(key);
        let mut shard = shard.write();
        // What became known meanwhile may be known here alone.
        if is_newest() && shard.find(hash, key).is_none() {
            shard.insert(hash, key, record.cloned(), 0);
            shard.turn_if_full(self.bytes_max, settled);
        }
    }
}

/// The tables go by the highest and the lowest bits.
fn shard_of(hash: u64) -> usize {
    (hash >> 32) as usize % SHARDS
}

impl Shard {
    fn find(&self, hash: u64, key: &[u8]) -> Option<&Known> {
        let same = |known: &Known| *known.key == *key;
        self.young.find(hash, same).or_else(|| self.old.find(hash, same))
    }

    fn forget(&mut self, hash: u64, key: &[u8]) {
        for (records, is_young) in [(&mut self.young, true), (&mut self.old, false)] {
            if let Ok(entry) = records.find_entry(hash, |known| *known.key == *key) {
                let (known, _) = entry.remove();
                if is_young {
                    self.young_bytes -= known.bytes();
                }
            }
        }
    }

    /// An entry of the young generation hides that of the old one.
    fn insert(&mut self, hash: u64, key: &[u8], record: Option<Record>, written: i64) {
        match self.young.entry(hash, |known| *known.key == *key, |known| known.hash) {
            Entry::Occupied(mut entry) => {
                let known = entry.get_mut();
                self.young_bytes -= known.bytes();
                (known.record, known.written) = (record, written);
                self.young_bytes += known.bytes();
            }
            Entry::Vacant(entry) => {
                let known = Known { key: key.into(), hash, record, written };
                self.young_bytes += known.bytes();
                entry.insert(known);
            }
        }
    }

    /// Forgets the old generation, except what nobody else knows.
    fn turn_if_full(&mut self, bytes_max: usize, settled: i64) {
        if self.young_bytes <= bytes_max {
            return;
        }
        let forgotten = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
        self.young_bytes = 0;
        for known in forgotten {
            let is_hidden = || self.old.find(known.hash, |newer| newer.key == known.key).is_some();
            if known.written > settled && !is_hidden() {
                self.young_bytes += known.bytes();
                self.young.insert_unique(known.hash, known, |known| known.hash);
            }
        }
    }
}

impl Known {
    fn bytes(&self) -> usize {
        let value_bytes = self.record.as_ref().map_or(0, |record| record.value.len());
        ENTRY_BYTES + self.key.len() + value_bytes
    }
}

/// Whether a record is not kept here.
pub(crate) fn is_large(record: Option<&Record>) -> bool {
    record.is_some_and(|record| record.value.len() > VALUE_BYTES_MAX)
}

/// A copy that does not keep the log entry in memory that the value came in.
fn own(record: &Record) -> Record {
    Record { value: Bytes::copy_from_slice(&record.value), ..record.clone() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn record(modified: i64, value_bytes: usize) -> Record {
        let value = Bytes::from(vec![b'v'; value_bytes]);
        Record { create: 1, modified, version: 1, lease: 0, value }
    }

    fn key(number: u8) -> Bytes {
        Bytes::from(vec![number])
    }

    /// The model keeps everything; the cache may forget, but never tell an older record.
    #[derive(Clone, Debug)]
    enum Step {
        Write(u8, usize),
        Delete(u8),
    }

    /// What a reader does after each batch: looks a key up where it is not known, and adds it in time or too late.
    type Look = (u8, bool);

    fn steps() -> impl Strategy<Value = Vec<(Vec<Step>, Look)>> {
        let size = prop_oneof![4 => 0usize..200, 1 => Just(VALUE_BYTES_MAX + 1)];
        let step = prop_oneof![
            3 => (0u8..20, size).prop_map(|(key, size)| Step::Write(key, size)),
            1 => (0u8..20).prop_map(Step::Delete),
        ];
        let look = (0u8..20, any::<bool>());
        proptest::collection::vec((proptest::collection::vec(step, 0..6), look), 0..40)
    }

    proptest! {
        #[test]
        fn what_is_remembered_is_the_newest(batches in steps()) {
            let recent = Recent::new(2_000 * SHARDS);
            let mut model: BTreeMap<Bytes, Option<Record>> = BTreeMap::new();
            let mut revision = 1;
            for (batch, (looked_up, in_time)) in batches {
                let looked_up = key(looked_up);
                let stale = model.get(&looked_up).cloned().flatten();
                let mut written = Written::new();
                for step in batch {
                    revision += 1;
                    match step {
                        Step::Write(number, size) => {
                            written.insert(key(number), Some(record(revision, size)))
                        }
                        Step::Delete(number) => written.insert(key(number), None),
                    };
                }
                recent.remember(&written, revision);
                model.extend(written);
                if in_time {
                    let newest = model.get(&looked_up).cloned().flatten();
                    recent.found(&looked_up, newest.as_ref(), || true);
                } else {
                    recent.found(&looked_up, stale.as_ref(), || false);
                }
                for number in 0..20 {
                    if let Some(known) = recent.get(&key(number)) {
                        prop_assert_eq!(known, model.get(&key(number)).cloned().flatten());
                    }
                }
            }
        }
    }

    /// However little it may hold, it forgets nothing that is not in RocksDB.
    #[test]
    fn what_is_not_settled_stays() {
        let recent = Recent::new(0);
        for revision in 1..2_000i64 {
            let number = |revision: i64| key((revision * 7 % 100) as u8);
            let written = Written::from([(number(revision), Some(record(revision, 10)))]);
            recent.remember(&written, revision);
            let settled = revision / 50 * 50 - 20;
            recent.settled(settled);
            // A reader who came to know it here, late.
            recent.found(&number(revision), Some(&record(revision, 10)), || true);
            for earlier in (settled + 1).max(revision - 99).max(1)..=revision {
                let known = recent.get(&number(earlier)).flatten();
                assert_eq!(known.map(|known| known.modified), Some(earlier), "at {revision}");
            }
        }
        let kept =
            recent.shards.iter().map(|shard| shard.read().old.len() + shard.read().young.len());
        assert!(kept.sum::<usize>() < 100, "what is settled goes");
    }

    #[test]
    fn memory_is_bounded_and_hot_keys_stay() {
        // Several times what all shards hold.
        const ROUNDS: u32 = 10_000;
        let recent = Recent::new(100 * SHARDS * (ENTRY_BYTES + 200));
        for round in 0..ROUNDS {
            let cold = Bytes::copy_from_slice(&round.to_be_bytes());
            let hot = Bytes::from_static(b"hot");
            let written = [cold, hot].map(|key| (key, Some(record(i64::from(round), 200))));
            recent.remember(&Written::from(written), i64::from(round));
            recent.settled(i64::from(round));
            for shard in &recent.shards {
                let shard = shard.read();
                assert!(shard.young.len() + shard.old.len() <= 104);
            }
            let known = recent.get(b"hot").expect("written all the time");
            assert_eq!(known.map(|record| record.modified), Some(i64::from(round)));
        }
        assert_eq!(recent.get(&0u32.to_be_bytes()), None, "the first is forgotten");
        assert!(recent.get(&(ROUNDS - 1).to_be_bytes()).is_some());
    }

    #[test]
    fn what_is_large_is_not_kept_and_hides_nothing() {
        let recent = Recent::new(1 << 20);
        let small = Written::from([(key(1), Some(record(1, 10)))]);
        let large = Written::from([(key(1), Some(record(2, VALUE_BYTES_MAX + 1)))]);
        recent.remember(&small, 1);
        recent.remember(&large, 2);
        assert_eq!(recent.get(&key(1)), None);
        recent.found(&key(1), large[&key(1)].as_ref(), || true);
        assert_eq!(recent.get(&key(1)), None);
    }
}
