//! The newest revisions with their events, shared by all watchers.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use pintle_mvcc::RevisionEvents;
use pintle_store_api::mvccpb::Event;
use prost::Message;

/// Revisions kept: a watcher that is behind by more than this reads history instead.
const REVISIONS_MAX: usize = 16_384;
/// Bytes of events kept, whichever is reached first.
const BYTES_MAX: usize = 64 << 20;

/// One revision. Its events are shared by everybody who reads them.
#[derive(Debug)]
pub(super) struct Revised {
    pub(super) revision: i64,
    with_prev: Arc<[Event]>,
    plain: OnceLock<Arc<[Event]>>,
    bytes: usize,
}

impl Revised {
    fn new(events: RevisionEvents) -> Self {
        let bytes = events.events.iter().map(Message::encoded_len).sum();
        Self {
            revision: events.revision.0,
            with_prev: events.events.into(),
            plain: OnceLock::new(),
            bytes,
        }
    }

    /// All events, with the previous values only for those who asked.
    pub(super) fn events(&self, prev_kv: bool) -> &Arc<[Event]> {
        if prev_kv || self.with_prev.iter().all(|event| event.prev_kv.is_none()) {
            return &self.with_prev;
        }
        let strip = |event: &Event| Event { prev_kv: None, ..event.clone() };
        self.plain.get_or_init(|| self.with_prev.iter().map(strip).collect())
    }
}

/// What a read of the ring found.
pub(super) enum Read {
    /// Everything from the asked revision up to `through`, and whether more follows at once.
    Revisions { found: Vec<Arc<Revised>>, through: i64, more: bool },
    /// The ring no longer holds the asked revision; history up to `head` does.
    TooOld { head: i64 },
}

#[derive(Debug)]
pub(super) struct Ring {
    items: VecDeque<Arc<Revised>>,
    bytes: usize,
    /// The newest published revision.
    head: i64,
    /// The ring misses nothing above this revision.
    floor: i64,
}

impl Ring {
    pub(super) fn new(head: i64) -> Self {
        Self { items: VecDeque::new(), bytes: 0, head, floor: head }
    }

    pub(super) fn head(&self) -> i64 {
        self.head
    }

    pub(super) fn push(&mut self, events: RevisionEvents) {
        let revised = Revised::new(events);
        self.head = revised.revision;
        self.bytes += revised.bytes;
        self.items.push_back(Arc::new(revised));
        while self.items.len() > REVISIONS_MAX || (self.bytes > BYTES_MAX && self.items.len() > 1) {
            let Some(oldest) = self.items.pop_front() else { break };
            self.bytes -= oldest.bytes;
            self.floor = oldest.revision;
        }
    }

    /// Forgets everything: the state was replaced and is at `head` now.
    pub(super) fn reset(&mut self, head: i64) {
        *self = Self::new(head);
    }

    /// The revisions from `from` on, until `bytes_max` is exceeded.
    pub(super) fn read(&self, from: i64, bytes_max: usize) -> Read {
        if from > self.head {
            return Read::Revisions { found: Vec::new(), through: from - 1, more: false };
        }
        if from <= self.floor {
            return Read::TooOld { head: self.head };
        }
        let start = self.items.partition_point(|item| item.revision < from);
        let mut found = Vec::new();
        let mut bytes = 0;
        for item in self.items.range(start..) {
            if bytes > bytes_max {
                let through = item.revision - 1;
                return Read::Revisions { found, through, more: true };
            }
            bytes += item.bytes;
            found.push(Arc::clone(item));
        }
        Read::Revisions { found, through: self.head, more: false }
    }
}
