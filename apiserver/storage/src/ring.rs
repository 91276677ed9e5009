//! The recent changes of a resource, or of the part of it that some watchers care about.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;

use crate::CacheEvent;
use crate::limits::{RING_BYTES_MAX, RING_EVENTS_MAX, WATCH_BATCH_EVENTS};

/// A bounded list of events. Watchers hold a sequence number in it, never a place in a queue.
#[derive(Debug)]
pub(crate) struct Ring {
    events: VecDeque<Arc<CacheEvent>>,
    bytes: usize,
    /// Sequence number of the first event.
    start: u64,
    /// Every change above this revision is here.
    floor: i64,
    /// The sequence number after the last event; changes wake watchers.
    end: watch::Sender<u64>,
}

/// The ring has moved past what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lagged;

impl Ring {
    /// With nothing in it, complete above `floor`.
    pub(crate) fn new(floor: i64) -> Self {
        let end = watch::Sender::new(0);
        Self { events: VecDeque::new(), bytes: 0, start: 0, floor, end }
    }

    /// A ring of the events here that `wanted` picks.
    pub(crate) fn filtered(&self, wanted: impl Fn(&CacheEvent) -> bool) -> Self {
        let mut ring = Self::new(self.floor);
        for event in self.events.iter().filter(|event| wanted(event)) {
            ring.push(event.clone());
        }
        ring
    }

    pub(crate) fn floor(&self) -> i64 {
        self.floor
    }

    /// The sequence number after the last event.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.events.len() as u64
    }

    /// Notices that there are new events.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.end.subscribe()
    }

    /// Adds an event; watchers learn of it through [`Self::publish`].
    pub(crate) fn push(&mut self, event: Arc<CacheEvent>) {
        self.bytes += event.size();
        self.events.push_back(event);
        while self.events.len() > RING_EVENTS_MAX
            || (self.bytes > RING_BYTES_MAX && self.events.len() > 1)
        {
            if let Some(oldest) = self.events.pop_front() {
                self.bytes -= oldest.size();
                self.start += 1;
                self.floor = oldest.revision;
            }
        }
    }

    /// Wakes watchers, if there is something new.
    pub(crate) fn publish(&self) {
        let end = self.end();
        self.end.send_if_modified(|known| std::mem::replace(known, end) != end);
    }

    /// The sequence number of the first event after `revision`; `None`: some are gone.
    pub(crate) fn position_after(&self, revision: i64) -> Option<u64> {
        if revision < self.floor {
            return None;
        }
        let skipped = self.events.partition_point(|event| event.revision <= revision);
        Some(self.start + skipped as u64)
    }

    /// A batch of events from `next` on.
    pub(crate) fn take(&self, next: u64) -> Result<Vec<Arc<CacheEvent>>, Lagged> {
        let skip = next.checked_sub(self.start).ok_or(Lagged)?;
        let skip = usize::try_from(skip).expect("a position in the ring fits into usize");
        Ok(self.events.iter().skip(skip).take(WATCH_BATCH_EVENTS).cloned().collect())
    }
}
