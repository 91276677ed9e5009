//! The work queue of one controller: deduplicating, delaying, rate-limited per key.
//!
//! A key is in the queue at most once and with at most one worker; what arrives for a key that is being worked on waits
//! until that is done. So the length is bounded by the number of distinct objects. A closed queue (a standby member's)
//! takes nothing: the manager fills it from the cache when this member begins to lead.

use crate::object::ObjectKey;
use parking_lot::Mutex;
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet, VecDeque},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// First delay after a failure.
const BACKOFF_MIN: Duration = Duration::from_millis(5);
/// Upstream waits up to 1000 s. A key that fails that long is mostly waiting for a person, who should not wait for us.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// A queue of object keys.
pub struct Queue {
    inner: Mutex<Inner>,
    wake: Notify,
}

#[derive(Default)]
struct Inner {
    open: bool,
    ready: VecDeque<ObjectKey>,
    dirty: HashSet<ObjectKey>,
    processing: HashSet<ObjectKey>,
    /// When a delayed key is due; the heap may hold older entries for it, which are skipped.
    due: HashMap<ObjectKey, Instant>,
    timers: BinaryHeap<Reverse<(Instant, ObjectKey)>>,
    failures: HashMap<ObjectKey, u32>,
}

impl Default for Queue {
    fn default() -> Self {
        Self { inner: Mutex::default(), wake: Notify::new() }
    }
}

impl Queue {
    /// Asks for `key` to be worked on.
    pub fn add(&self, key: ObjectKey) {
        if self.inner.lock().add(key) {
            self.wake.notify_one();
        }
    }

    /// Asks for `key` to be worked on after `delay`; the earliest of several delays counts.
    pub fn add_after(&self, key: ObjectKey, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        if self.inner.lock().delay(key, Instant::now() + delay) {
            self.wake.notify_one();
        }
    }

    /// Asks for `key` again after a failure: 5 ms, doubling.
    pub fn retry(&self, key: ObjectKey) {
        let delay = self.inner.lock().next_backoff(&key);
        self.add_after(key, delay);
    }

    /// Forgets the failures of `key`.
    pub fn forget(&self, key: &ObjectKey) {
        self.inner.lock().failures.remove(key);
    }

    /// How often `key` has failed in a row.
    pub fn failures(&self, key: &ObjectKey) -> u32 {
        self.inner.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// Waits for a key. The caller owns it until [`Queue::done`].
    pub async fn next(&self) -> ObjectKey {
        loop {
            let notified = self.wake.notified();
            let (key, more, timer) = self.inner.lock().take(Instant::now());
            if more {
                self.wake.notify_one();
            }
            if let Some(key) = key {
                return key;
            }
            match timer {
                Some(at) => {
                    tokio::select! {
                        () = notified => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => notified.await,
            }
        }
    }

    /// Gives a key back; it is queued again if something arrived for it meanwhile.
    pub fn done(&self, key: &ObjectKey) {
        if self.inner.lock().done(key) {
            self.wake.notify_one();
        }
    }

    /// Begins to take keys.
    pub(super) fn open(&self) {
        self.inner.lock().open = true;
    }

    /// Stops taking keys and drops those it has.
    pub(super) fn close(&self) {
        *self.inner.lock() = Inner::default();
    }

    /// Keys that wait for a worker now.
    pub fn len(&self) -> usize {
        self.inner.lock().ready.len()
    }

    /// Whether no key waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Inner {
    fn add(&mut self, key: ObjectKey) -> bool {
        if !self.open || !self.dirty.insert(key.clone()) {
            return false;
        }
        self.due.remove(&key);
        if self.processing.contains(&key) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    fn delay(&mut self, key: ObjectKey, at: Instant) -> bool {
        if !self.open
            || self.dirty.contains(&key)
            || self.due.get(&key).is_some_and(|due| *due <= at)
        {
            return false;
        }
        self.due.insert(key.clone(), at);
        self.timers.push(Reverse((at, key)));
        true
    }

    fn next_backoff(&mut self, key: &ObjectKey) -> Duration {
        let failures = self.failures.entry(key.clone()).or_default();
        let delay = BACKOFF_MIN
            .saturating_mul(1u32.checked_shl(*failures).unwrap_or(u32::MAX))
            .min(BACKOFF_MAX);
        *failures = failures.saturating_add(1).min(31);
        delay
    }

    /// A ready key, whether more are ready, and the next timer.
    fn take(&mut self, now: Instant) -> (Option<ObjectKey>, bool, Option<Instant>) {
        self.promote(now);
        let key = self.ready.pop_front();
        if let Some(key) = &key {
            self.dirty.remove(key);
            self.processing.insert(key.clone());
        }
        (key, !self.ready.is_empty(), self.timers.peek().map(|Reverse((at, _))| *at))
    }

    fn promote(&mut self, now: Instant) {
        while let Some(Reverse((at, key))) = self.timers.pop_if_due(now) {
            if self.due.get(&key) == Some(&at) {
                self.due.remove(&key);
                self.add(key);
            }
        }
    }

    fn done(&mut self, key: &ObjectKey) -> bool {
        self.processing.remove(key);
        let again = self.dirty.contains(key);
        if again {
            self.ready.push_back(key.clone());
        }
        again
    }
}

trait PopIfDue {
    fn pop_if_due(&mut self, now: Instant) -> Option<Reverse<(Instant, ObjectKey)>>;
}

impl PopIfDue for BinaryHeap<Reverse<(Instant, ObjectKey)>> {
    fn pop_if_due(&mut self, now: Instant) -> Option<Reverse<(Instant, ObjectKey)>> {
        if self.peek().is_some_and(|Reverse((at, _))| *at <= now) { self.pop() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("ns", name)
    }

    fn open() -> Queue {
        let queue = Queue::default();
        queue.open();
        queue
    }

    #[tokio::test]
    async fn key_is_queued_once_and_worked_on_by_one() {
        let queue = open();
        queue.add(key("a"));
        queue.add(key("a"));
        assert_eq!(queue.next().await, key("a"));
        queue.add(key("a"));
        assert!(queue.next().now_or_never().is_none(), "a second worker must not get it");
        queue.done(&key("a"));
        assert_eq!(queue.next().await, key("a"));
        queue.done(&key("a"));
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn earliest_delay_wins_and_fires_once() {
        let queue = open();
        let start = Instant::now();
        queue.add_after(key("a"), Duration::from_secs(9));
        queue.add_after(key("a"), Duration::from_secs(2));
        queue.add_after(key("a"), Duration::from_secs(5));
        queue.next().await;
        assert_eq!(start.elapsed().as_secs(), 2);
        queue.done(&key("a"));
        let silent = tokio::time::timeout(Duration::from_secs(60), queue.next()).await;
        assert!(silent.is_err(), "later delays of the same key are void");
    }

    #[tokio::test(start_paused = true)]
    async fn retries_double_until_forgotten() {
        let queue = open();
        let mut waits = Vec::new();
        for _ in 0..4 {
            let start = Instant::now();
            queue.retry(key("a"));
            queue.next().await;
            queue.done(&key("a"));
            waits.push(start.elapsed().as_millis());
        }
        assert_eq!(waits, [5, 10, 20, 40]);
        queue.forget(&key("a"));
        assert_eq!(queue.failures(&key("a")), 0);
    }

    #[tokio::test]
    async fn closed_queue_takes_nothing() {
        let queue = Queue::default();
        queue.add(key("a"));
        queue.add_after(key("b"), Duration::from_secs(1));
        queue.open();
        assert!(queue.next().now_or_never().is_none());
    }

    #[tokio::test]
    async fn every_waiting_worker_is_woken() {
        let queue = open();
        for name in ["a", "b", "c"] {
            queue.add(key(name));
        }
        let (a, b, c) = tokio::join!(queue.next(), queue.next(), queue.next());
        assert_eq!(HashSet::from([a, b, c]).len(), 3);
    }
}
