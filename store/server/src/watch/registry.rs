//! Who watches what: an index from keys to watchers.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use pintle_store_api::KeyRange;
use tokio::sync::Notify;

/// Wakes the owner of one or many watchers and says which of them have something to read.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    ready: Mutex<Vec<i64>>,
    notify: Notify,
}

impl Wake {
    /// The watchers (by the key they were registered under) that became ready since the last call.
    pub(crate) fn take(&self) -> Vec<i64> {
        std::mem::take(&mut *self.ready.lock())
    }

    /// Puts a watcher back that has more to read.
    pub(crate) fn push(&self, key: i64) {
        self.ready.lock().push(key);
        self.notify.notify_one();
    }

    /// Resolves when there may be something to take.
    pub(crate) async fn wait(&self) {
        self.notify.notified().await;
    }
}

/// A watcher's place in the index.
#[derive(Debug)]
pub(super) struct Slot {
    /// The first revision that concerns the watcher since it last looked; 0 when there is none.
    pending: AtomicI64,
    wake: Arc<Wake>,
    key: i64,
    /// For how many it looks.
    pub(super) watchers: AtomicUsize,
}

impl Slot {
    pub(super) fn new(wake: Arc<Wake>, key: i64) -> Self {
        Self { pending: AtomicI64::new(0), wake, key, watchers: AtomicUsize::new(1) }
    }

    pub(super) fn mark(&self, revision: i64) {
        let first = self.pending.compare_exchange(0, revision, Ordering::AcqRel, Ordering::Acquire);
        if first.is_ok() {
            self.wake.push(self.key);
        }
    }

    pub(super) fn take(&self) -> i64 {
        self.pending.swap(0, Ordering::AcqRel)
    }

    pub(super) fn is_marked(&self) -> bool {
        self.pending.load(Ordering::Acquire) != 0
    }
}

/// How many watchers of a range are looked at to find one of the same owner.
const LOOKED_AT_MAX: usize = 64;

/// The watchers of one range, by id. Ids only grow, so the newest goes to the end; most ranges have
/// one watcher, for which nothing smaller would do.
#[derive(Debug, Default)]
struct Slots(Vec<(u64, Arc<Slot>)>);

impl Slots {
    fn insert(&mut self, id: u64, slot: Arc<Slot>) {
        if self.0.is_empty() {
            self.0.reserve_exact(1);
        }
        self.0.push((id, slot));
    }

    fn remove(&mut self, id: u64) {
        if let Ok(at) = self.0.binary_search_by_key(&id, |one| one.0) {
            self.0.remove(at);
        }
    }

    fn marked(&self) -> usize {
        let marked = self.0.iter().filter(|(_, slot)| slot.is_marked());
        marked.map(|(_, slot)| slot.watchers.load(Ordering::Relaxed)).sum()
    }

    /// The key of one that wakes `wake`.
    fn of(&self, wake: &Arc<Wake>) -> Option<i64> {
        let newest = self.0.iter().rev().take(LOOKED_AT_MAX);
        newest.map(|(_, slot)| slot).find(|slot| Arc::ptr_eq(&slot.wake, wake)).map(|slot| slot.key)
    }

    fn mark(&self, revision: i64) {
        self.0.iter().for_each(|(_, slot)| slot.mark(revision));
    }
}

#[derive(Debug, Default)]
pub(super) struct Registry {
    points: HashMap<Bytes, Slots>,
    /// Ranges that are "every key with this prefix", by length of the prefix.
    prefixes: BTreeMap<usize, HashMap<Bytes, Slots>>,
    /// All other ranges.
    others: HashMap<KeyRange, Slots>,
    next_id: u64,
    len: usize,
}

enum Shape {
    Point,
    Prefix,
    Other,
}

fn shape(range: &KeyRange) -> Shape {
    let point = KeyRange::point(range.start().clone());
    if *range == point {
        Shape::Point
    } else if *range == KeyRange::prefix(range.start().clone()) {
        Shape::Prefix
    } else {
        Shape::Other
    }
}

impl Registry {
    /// Without those for whom another one looks.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The key of a watcher of `range` that wakes `wake`, if one of the newest does.
    pub(super) fn find(&self, range: &KeyRange, wake: &Arc<Wake>) -> Option<i64> {
        let start = range.start();
        let slots = match shape(range) {
            Shape::Point => self.points.get(start),
            Shape::Prefix => self.prefixes.get(&start.len()).and_then(|same| same.get(start)),
            Shape::Other => self.others.get(range),
        };
        slots.and_then(|slots| slots.of(wake))
    }

    /// How many are marked.
    pub(super) fn marked(&self) -> usize {
        let prefixes = self.prefixes.values().flat_map(HashMap::values);
        let all = self.points.values().chain(prefixes).chain(self.others.values());
        all.map(Slots::marked).sum()
    }

    pub(super) fn insert(&mut self, range: &KeyRange, slot: Arc<Slot>) -> u64 {
        self.next_id += 1;
        self.len += 1;
        let start = range.start();
        let slots = match shape(range) {
            Shape::Point => self.points.entry(start.clone()).or_default(),
            Shape::Prefix => {
                let same_length = self.prefixes.entry(start.len()).or_default();
                same_length.entry(start.clone()).or_default()
            }
            Shape::Other => self.others.entry(range.clone()).or_default(),
        };
        slots.insert(self.next_id, slot);
        self.next_id
    }

    pub(super) fn remove(&mut self, range: &KeyRange, id: u64) {
        self.len -= 1;
        let start = range.start();
        match shape(range) {
            Shape::Point => remove_from(&mut self.points, start, id),
            Shape::Prefix => {
                if let Some(same_length) = self.prefixes.get_mut(&start.len()) {
                    remove_from(same_length, start, id);
                    if same_length.is_empty() {
                        self.prefixes.remove(&start.len());
                    }
                }
            }
            Shape::Other => remove_from(&mut self.others, range, id),
        }
    }

    /// Marks everybody who watches `key`.
    pub(super) fn mark(&self, key: &[u8], revision: i64) {
        if let Some(slots) = self.points.get(key) {
            slots.mark(revision);
        }
        for (length, same_length) in self.prefixes.range(..=key.len()) {
            if let Some(slots) = same_length.get(&key[..*length]) {
                slots.mark(revision);
            }
        }
        for (range, slots) in &self.others {
            if range.contains(key) {
                slots.mark(revision);
            }
        }
    }

    pub(super) fn mark_everybody(&self, revision: i64) {
        let prefixes = self.prefixes.values().flat_map(HashMap::values);
        for slots in self.points.values().chain(prefixes).chain(self.others.values()) {
            slots.mark(revision);
        }
    }
}

fn remove_from<K, Q>(map: &mut HashMap<K, Slots>, key: &Q, id: u64)
where
    K: std::borrow::Borrow<Q> + Eq + std::hash::Hash,
    Q: Eq + std::hash::Hash + ?Sized,
{
    if let Some(slots) = map.get_mut(key) {
        slots.remove(id);
        if slots.0.is_empty() {
            map.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Watched {
        registry: Registry,
        wake: Arc<Wake>,
    }

    impl Watched {
        fn new(ranges: &[(i64, KeyRange)]) -> (Self, Vec<(u64, Arc<Slot>)>) {
            let mut watched = Self { registry: Registry::default(), wake: Arc::default() };
            let mut slots = Vec::new();
            for (key, range) in ranges {
                let slot = Arc::new(Slot::new(Arc::clone(&watched.wake), *key));
                slots.push((watched.registry.insert(range, Arc::clone(&slot)), slot));
            }
            (watched, slots)
        }

        fn woken_by(&self, key: &str, revision: i64) -> Vec<i64> {
            self.registry.mark(key.as_bytes(), revision);
            let mut woken = self.wake.take();
            woken.sort_unstable();
            woken
        }
    }

    fn ranges() -> Vec<(i64, KeyRange)> {
        let text = |text: &'static str| Bytes::from_static(text.as_bytes());
        vec![
            (1, KeyRange::point(text("/a/b"))),
            (2, KeyRange::prefix(text("/a/"))),
            (3, KeyRange::prefix(text("/"))),
            (4, KeyRange::from_request(text("/a/a"), text("/a/c"))),
            (5, KeyRange::from_request(text("\0"), text("\0"))),
        ]
    }

    #[test]
    fn a_write_wakes_whom_it_concerns_and_nobody_else() {
        for (key, expected) in [
            ("/a/b", vec![1, 2, 3, 4, 5]),
            ("/a/bb", vec![2, 3, 4, 5]),
            ("/a/c", vec![2, 3, 5]),
            ("/b", vec![3, 5]),
            ("x", vec![5]),
            ("", vec![5]),
        ] {
            let (watched, _slots) = Watched::new(&ranges());
            assert_eq!(watched.woken_by(key, 7), expected, "{key}");
        }
    }

    #[test]
    fn a_watcher_is_woken_once_until_it_looks() {
        let (watched, slots) = Watched::new(&ranges()[..1]);
        assert_eq!(watched.woken_by("/a/b", 7), [1]);
        assert!(watched.woken_by("/a/b", 8).is_empty());
        assert_eq!(slots[0].1.take(), 7, "the first revision that concerns it");
        assert_eq!(watched.woken_by("/a/b", 9), [1]);
    }

    #[test]
    fn one_of_the_same_range_and_owner_is_found() {
        let (watched, _slots) = Watched::new(&ranges());
        for (key, range) in ranges() {
            assert_eq!(watched.registry.find(&range, &watched.wake), Some(key));
            assert_eq!(watched.registry.find(&range, &Arc::default()), None, "another owner");
        }
        let other = KeyRange::point(Bytes::from_static(b"/a"));
        assert_eq!(watched.registry.find(&other, &watched.wake), None, "another range");
    }

    #[test]
    fn nothing_is_left_of_watchers_that_are_gone() {
        let (mut watched, slots) = Watched::new(&ranges());
        for ((_, range), (id, _)) in ranges().iter().zip(&slots) {
            watched.registry.remove(range, *id);
        }
        assert!(watched.woken_by("/a/b", 7).is_empty());
        assert_eq!(watched.registry.len(), 0);
        let Registry { points, prefixes, others, .. } = &watched.registry;
        assert!(points.is_empty() && prefixes.is_empty() && others.is_empty());
    }
}
