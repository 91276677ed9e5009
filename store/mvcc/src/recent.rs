//! The newest records of keys that were written lately, for the thread that writes.
//!
//! Whatever changes a key first needs the record that it replaces. The database finds it by a walk
//! through a skip list (or a file) that no processor cache holds, which costs as much as the write
//! itself; hot keys, which most writes go to, are found here instead. Two generations bound the
//! memory: what was not written again while a whole generation filled up is forgotten.

use std::collections::HashMap;

use bytes::Bytes;

use crate::keyspace::Record;
use crate::overlay::Written;

/// What one entry costs beside its key and value: the map's slots, two headers of shared bytes, and
/// the allocations' own.
const ENTRY_BYTES: usize = 192;
/// Larger values are cheap to find beside what they cost otherwise.
const VALUE_BYTES_MAX: usize = 16 << 10;

type Records = HashMap<Bytes, Option<Record>>;

/// A cache that knows only what was written through it.
#[derive(Debug)]
pub(crate) struct Recent {
    young: Records,
    old: Records,
    young_bytes: usize,
    /// Of one generation.
    bytes_max: usize,
}

impl Recent {
    /// Holds about `bytes_max` bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let (young, old) = Default::default();
        Self { young, old, young_bytes: 0, bytes_max: bytes_max / 2 }
    }

    /// The newest record of a key (`None`: it was deleted), if it is remembered at all.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Option<Record>> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    /// Takes over what a batch has written.
    pub(crate) fn remember(&mut self, written: &Written) {
        for (key, record) in written {
            let value_bytes = record.as_ref().map_or(0, |record| record.value.len());
            if value_bytes > VALUE_BYTES_MAX {
                self.forget(key);
                continue;
            }
            self.insert(key, record.as_ref().map(own));
        }
    }

    pub(crate) fn clear(&mut self) {
        self.young = HashMap::new();
        self.old = HashMap::new();
        self.young_bytes = 0;
    }

    fn forget(&mut self, key: &[u8]) {
        if let Some(known) = self.young.remove(key) {
            self.young_bytes -= cost(key, known.as_ref());
        }
        self.old.remove(key);
    }

    /// An entry of the young generation hides that of the old one.
    fn insert(&mut self, key: &Bytes, record: Option<Record>) {
        self.young_bytes += cost(key, record.as_ref());
        if let Some(known) = self.young.get_mut(key) {
            let replaced = std::mem::replace(known, record);
            self.young_bytes -= cost(key, replaced.as_ref());
        } else {
            self.young.insert(Bytes::copy_from_slice(key), record);
        }
        if self.young_bytes > self.bytes_max {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }
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

    fn steps() -> impl Strategy<Value = Vec<Vec<Step>>> {
        let size = prop_oneof![4 => 0usize..200, 1 => Just(VALUE_BYTES_MAX + 1)];
        let step = prop_oneof![
            3 => (0u8..20, size).prop_map(|(key, size)| Step::Write(key, size)),
            1 => (0u8..20).prop_map(Step::Delete),
        ];
        proptest::collection::vec(proptest::collection::vec(step, 0..6), 0..40)
    }

    proptest! {
        #[test]
        fn what_is_remembered_is_the_newest(batches in steps()) {
            let mut recent = Recent::new(2_000);
            let mut model: BTreeMap<Bytes, Option<Record>> = BTreeMap::new();
            let mut revision = 1;
            for batch in batches {
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
                for number in 0..20 {
                    if let Some(known) = recent.get(&key(number)) {
                        prop_assert_eq!(Some(known), model.get(&key(number)));
                    }
                }
            }
        }
    }

    #[test]
    fn memory_is_bounded_and_hot_keys_stay() {
        let mut recent = Recent::new(100 * (ENTRY_BYTES + 200));
        for round in 0..1_000u32 {
            let cold = Bytes::copy_from_slice(&round.to_be_bytes());
            let hot = Bytes::from_static(b"hot");
            let written = [cold, hot].map(|key| (key, Some(record(i64::from(round), 200))));
            recent.remember(&Written::from(written));
            assert!(recent.young.len() + recent.old.len() <= 104);
            let known = recent.get(b"hot").expect("written all the time").as_ref();
            assert_eq!(known.map(|record| record.modified), Some(i64::from(round)));
        }
        recent.clear();
        assert!(recent.get(b"hot").is_none());
    }
}
