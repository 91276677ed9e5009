//! One watcher: a place in a ring.

use std::sync::Arc;

use tokio::sync::watch;

use super::{Cache, CacheEvent, Scope};
use crate::ring::Lagged;

/// Why a watcher gets nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchEnd {
    /// It was too slow: the ring has moved on.
    Lagged,
    /// The cache started anew.
    Reset,
}

/// A cursor into a cache's ring.
#[derive(Debug)]
pub struct Watcher {
    pub(super) cache: Arc<Cache>,
    pub(super) scope: Scope,
    pub(super) next: u64,
    pub(super) epoch: u64,
    pub(super) end: watch::Receiver<u64>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut state = self.cache.state.lock();
        if state.epoch == self.epoch {
            state.leave(&self.scope);
        }
    }
}

impl Watcher {
    /// Waits for changes; never an empty list. Cancel safe.
    pub async fn next(&mut self) -> Result<Vec<Arc<CacheEvent>>, WatchEnd> {
        loop {
            self.end.borrow_and_update();
            let events = self.take()?;
            if !events.is_empty() {
                return Ok(events);
            }
            tokio::select! {
                changed = self.end.changed() => changed.map_err(|_| WatchEnd::Reset)?,
                () = self.cache.retired().cancelled() => {
                    // What happened before the end is still given.
                    let rest = self.take()?;
                    return if rest.is_empty() { Err(WatchEnd::Reset) } else { Ok(rest) };
                }
            }
        }
    }

    /// The revision up to which this watcher has been given everything, unless changes are waiting.
    pub fn progress(&self) -> Option<i64> {
        // In this order: what the feed had announced is in the ring looked at afterwards.
        let fed = *self.cache.fed.borrow();
        let state = self.cache.state.lock();
        let revision = fed.max(self.cache.snapshot.load().revision);
        let complete = state.epoch == self.epoch
            && state.ring(&self.scope).is_some_and(|ring| ring.end() == self.next);
        complete.then_some(revision)
    }

    fn take(&mut self) -> Result<Vec<Arc<CacheEvent>>, WatchEnd> {
        let state = self.cache.state.lock();
        if state.epoch != self.epoch {
            return Err(WatchEnd::Reset);
        }
        let ring = state.ring(&self.scope).ok_or(WatchEnd::Reset)?;
        let events = ring.take(self.next).map_err(|Lagged| WatchEnd::Lagged)?;
        self.next += events.len() as u64;
        Ok(events)
    }
}
