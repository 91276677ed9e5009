//! The newest records of keys that were written or read lately.
//!
//! Whatever changes a key first needs the record that it replaces, and most reads want the newest
//! record of one key. The database finds it by a walk through a skip list (or a file) that no
//! processor cache holds, which costs as much as the write itself; hot keys are found here instead. Two
//! generations bound the memory: what was neither written nor read from the database again
//! while a whole generation filled up is forgotten.
//!
//! The one writer takes over what it has written ([`Recent::remember`]) while
//! [`Published`](crate::database::Published) says so; readers add what they had to look for
//! ([`Recent::found`]) only while it says that nothing is being written. So what is known here is the
//! state of the published head, and readers check that it was the same before and after they looked.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;
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

type Records = HashMap<Bytes, Option<Record>>;

/// A cache between the database and those who want the newest record of one key.
pub(crate) struct Recent {
    hasher: RandomState,
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
        let (hasher, shards) = Default::default();
        Self { hasher, shards, bytes_max: bytes_max / 2 / SHARDS }
    }

    fn shard(&self, key: &[u8]) -> &RwLock<Shard> {
        let hash = self.hasher.hash_one(key);
        &self.shards[usize::try_from(hash % SHARDS as u64).expect("less than SHARDS")]
    }

    /// The newest record of a key (`Some(None)`: there is none), if that is known at all.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Option<Record>> {
        let shard = self.shard(key).read();
        shard.young.get(key).or_else(|| shard.old.get(key)).cloned()
    }

    /// Takes over what a batch has written: all of it, since what is known must be the newest.
    pub(crate) fn remember(&self, written: &Written) {
        for (key, record) in written {
            let mut shard = self.shard(key).write();
            if is_large(record.as_ref()) {
                shard.forget(key);
            } else {
                shard.insert(key, record.as_ref().map(own), self.bytes_max);
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
        let record = record.cloned();
        let mut shard = self.shard(key).write();
        if is_newest() {
            shard.insert(key, record, self.bytes_max);
        }
    }
}

impl Shard {
    fn forget(&mut self, key: &[u8]) {
        if let Some(known) = self.young.remove(key) {
            self.young_bytes -= cost(key, known.as_ref());
        }
        self.old.remove(key);
    }

    /// An entry of the young generation hides that of the old one.
    fn insert(&mut self, key: &[u8], record: Option<Record>, bytes_max: usize) {
        self.young_bytes += cost(key, record.as_ref());
        if let Some(known) = self.young.get_mut(key) {
            let replaced = std::mem::replace(known, record);
            self.young_bytes -= cost(key, replaced.as_ref());
        } else {
            self.young.insert(Bytes::copy_from_slice(key), record);
        }
        if self.young_bytes > bytes_max {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }
}

fn is_large(record: Option<&Record>) -> bool {
    record.is_some_and(|record| record.value.len() > VALUE_BYTES_MAX)
}

fn cost(key: &[u8], record: Option<&Record>) -> usize {
    ENTRY_BYTES + key.len() + record.map_or(0, |record| record.value.len())
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
                recent.remember(&written);
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

    #[test]
    fn memory_is_bounded_and_hot_keys_stay() {
        // Several times what all shards hold.
        const ROUNDS: u32 = 10_000;
        let recent = Recent::new(100 * SHARDS * (ENTRY_BYTES + 200));
        for round in 0..ROUNDS {
            let cold = Bytes::copy_from_slice(&round.to_be_bytes());
            let hot = Bytes::from_static(b"hot");
            let written = [cold, hot].map(|key| (key, Some(record(i64::from(round), 200))));
            recent.remember(&Written::from(written));
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
        recent.remember(&small);
        recent.remember(&large);
        assert_eq!(recent.get(&key(1)), None);
        recent.found(&key(1), large[&key(1)].as_ref(), || true);
        assert_eq!(recent.get(&key(1)), None);
    }
}
