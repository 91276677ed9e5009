//! Restart and pull backoff: 10 s, doubling to 300 s, forgotten after 10 quiet minutes.

use std::collections::HashMap;
use std::hash::Hash;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// The first wait.
const INITIAL: SignedDuration = SignedDuration::from_secs(10);
/// The longest wait.
const MAX: SignedDuration = SignedDuration::from_secs(300);
/// Twice the longest wait without trouble makes an entry void.
const RESET_AFTER: SignedDuration = SignedDuration::from_secs(600);

#[derive(Debug, Clone, Copy)]
struct Entry {
    delay: SignedDuration,
    updated: Timestamp,
}

/// Waits by key. Time is passed in.
#[derive(Debug, Clone)]
pub struct Backoff<K> {
    entries: HashMap<K, Entry>,
}

impl<K> Default for Backoff<K> {
    fn default() -> Self {
        Self { entries: HashMap::new() }
    }
}

impl<K: Hash + Eq + Clone> Backoff<K> {
    /// The rest of the wait that began at `event`, and the length of the whole wait.
    pub fn remaining(&self, key: &K, event: Timestamp, now: Timestamp) -> Option<Wait> {
        let entry = self.entries.get(key)?;
        if event.duration_since(entry.updated) > RESET_AFTER {
            return None;
        }
        let until = event.saturating_add(entry.delay).unwrap_or(Timestamp::MAX);
        (now < until).then_some(Wait { until, delay: entry.delay })
    }

    /// An attempt is made now, for an event at `event`: the next wait is longer.
    pub fn attempted(&mut self, key: K, event: Timestamp, now: Timestamp) {
        let delay = match self.entries.get(&key) {
            Some(entry) if event.duration_since(entry.updated) <= RESET_AFTER => {
                (entry.delay * 2).min(MAX)
            }
            _ => INITIAL,
        };
        self.entries.insert(key, Entry { delay, updated: now });
    }

    /// Forgets a key.
    pub fn reset(&mut self, key: &K) {
        self.entries.remove(key);
    }
}

/// A wait that is not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// When it is over.
    pub until: Timestamp,
    /// How long it is in all.
    pub delay: SignedDuration,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    #[test]
    fn waits_double_up_to_five_minutes() {
        let mut backoff = Backoff::default();
        let mut now = 0;
        let mut waits = Vec::new();
        for _ in 0..8 {
            let crash = at(now);
            if let Some(wait) = backoff.remaining(&"a", crash, crash) {
                now += wait.delay.as_secs();
                waits.push(wait.delay.as_secs());
            } else {
                waits.push(0);
            }
            backoff.attempted("a", crash, at(now));
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn ten_quiet_minutes_forgive() {
        let mut backoff = Backoff::default();
        backoff.attempted("a", at(0), at(0));
        backoff.attempted("a", at(15), at(15));
        assert!(backoff.remaining(&"a", at(600), at(600)).is_some());
        assert!(backoff.remaining(&"a", at(616), at(616)).is_none());
        backoff.attempted("a", at(616), at(616));
        assert_eq!(backoff.remaining(&"a", at(620), at(620)).unwrap().delay.as_secs(), 10);
    }
}
