//! What was read of the past and is kept for the next who wants it, the longest unused going first.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

/// Pieces of the past by what they are of.
#[derive(Debug)]
pub(super) struct Kept<K, T> {
    places: Mutex<HashMap<K, Arc<Place<T>>>>,
    uses: AtomicU64,
    /// The uses up to the last sweep.
    swept: AtomicU64,
    count_max: usize,
    /// A piece that is in use is not given up for this.
    bytes_max: usize,
}

/// A piece that is read by the first who needs it, while others wait.
#[derive(Debug)]
pub(super) struct Place<T> {
    pub(super) piece: Mutex<Option<Arc<T>>>,
    bytes: AtomicUsize,
    /// When it was used last, counted in uses of all.
    used: AtomicU64,
}

impl<T> Place<T> {
    /// The piece takes so many bytes.
    pub(super) fn weigh(&self, bytes: usize) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// And so many more.
    pub(super) fn note(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

impl<K: Clone + Eq + Hash, T> Kept<K, T> {
    pub(super) fn new(count_max: usize, bytes_max: usize) -> Self {
        let (places, uses, swept) = Default::default();
        Self { places, uses, swept, count_max, bytes_max }
    }

    /// Forgets everything: the state was replaced.
    pub(super) fn clear(&self) {
        self.places.lock().clear();
    }

    /// Forgets what nobody has used since this was called last.
    pub(super) fn sweep(&self) {
        let mut places = self.places.lock();
        let since = self.swept.swap(self.uses.load(Ordering::Relaxed), Ordering::Relaxed);
        places.retain(|_, place| place.used() > since);
    }

    /// The place of a piece that somebody has asked for before.
    pub(super) fn known(&self, key: &K) -> Option<Arc<Place<T>>> {
        let places = self.places.lock();
        let place = places.get(key)?;
        self.note_use(place);
        Some(Arc::clone(place))
    }

    fn note_use(&self, place: &Place<T>) {
        let now = self.uses.fetch_add(1, Ordering::Relaxed) + 1;
        place.used.store(now, Ordering::Relaxed);
    }

    /// The place of a piece, which may still be empty. Others make room for it.
    pub(super) fn place(&self, key: &K) -> Arc<Place<T>> {
        let mut places = self.places.lock();
        let place = places.remove(key).unwrap_or_else(|| {
            let (bytes, used) = Default::default();
            Arc::new(Place { piece: Mutex::new(None), bytes, used })
        });
        self.note_use(&place);
        let mut bytes: usize = places.values().map(|place| place.bytes()).sum();
        while bytes > self.bytes_max || places.len() >= self.count_max {
            let oldest = places.iter().min_by_key(|(_, place)| place.used());
            let Some((oldest, gone)) = oldest.map(|(key, place)| (key.clone(), place.bytes()))
            else {
                break;
            };
            places.remove(&oldest);
            bytes = bytes.saturating_sub(gone);
        }
        places.insert(key.clone(), Arc::clone(&place));
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT_MAX: usize = 100;
    const BYTES_MAX: usize = 1 << 20;

    fn numbers(kept: &Kept<usize, ()>) -> Vec<usize> {
        let mut numbers: Vec<usize> = kept.places.lock().keys().copied().collect();
        numbers.sort_unstable();
        numbers
    }

    #[test]
    fn what_is_not_used_makes_room() {
        let kept = Kept::new(COUNT_MAX, BYTES_MAX);
        (0..COUNT_MAX).for_each(|number| drop(kept.place(&number)));
        kept.place(&0).note(7);
        kept.place(&COUNT_MAX);
        let known = numbers(&kept);
        assert_eq!(known.len(), COUNT_MAX);
        assert!(known.contains(&0) && known.contains(&COUNT_MAX) && !known.contains(&1));
        kept.place(&2).weigh(BYTES_MAX);
        kept.place(&2).note(1);
        kept.place(&3);
        assert_eq!(numbers(&kept), [3], "alone too large");
        kept.place(&4).weigh(BYTES_MAX);
        kept.place(&5);
        assert_eq!(numbers(&kept), [3, 4, 5], "as much as there may be");
    }

    #[test]
    fn what_nobody_has_used_between_two_sweeps_goes() {
        let kept = Kept::new(COUNT_MAX, BYTES_MAX);
        kept.place(&1);
        kept.place(&2);
        kept.sweep();
        assert_eq!(numbers(&kept), [1, 2]);
        kept.place(&2);
        kept.sweep();
        assert_eq!(numbers(&kept), [2]);
        kept.clear();
        assert!(numbers(&kept).is_empty());
    }
}
