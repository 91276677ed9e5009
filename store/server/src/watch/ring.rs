//! The newest revisions with their events, shared by all watchers.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use pintle_mvcc::RevisionEvents;
use pintle_store_api::mvccpb::Event;
use pintle_store_api::pb::WatchResponse;
use prost::Message;

/// Revisions kept: a watcher that is behind by more than this reads history instead.
const REVISIONS_MAX: usize = 16_384;
/// Revisions that a read makes room for at once.
const FOUND_AHEAD: usize = 64;

/// One revision. Its events are shared by everybody who reads them.
#[derive(Debug)]
pub(super) struct Revised {
    pub(super) revision: i64,
    with_prev: Arc<[Event]>,
    plain: OnceLock<Arc<[Event]>>,
    /// As they go onto the wire, without and with previous values; made for the first who sends them.
    encoded: [OnceLock<Bytes>; 2],
    bytes: usize,
}

/// Events as a `WatchResponse` holds them, to be put behind its other fields.
pub(super) fn encode(events: &[Event]) -> Bytes {
    WatchResponse { events: events.to_vec(), ..Default::default() }.encode_to_vec().into()
}

/// What [`encode`] has encoded. The events share its memory.
pub(super) fn decode(encoded: &Bytes) -> Vec<Event> {
    WatchResponse::decode(encoded.clone()).map(|response| response.events).expect("encoded here")
}

impl Revised {
    fn new(events: RevisionEvents) -> Self {
        let bytes = events.events.iter().map(Message::encoded_len).sum();
        Self {
            revision: events.revision.0,
            with_prev: events.events.into(),
            plain: OnceLock::new(),
            encoded: Default::default(),
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

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// [`Revised::events`], encoded once for everybody.
    pub(super) fn encoded(&self, prev_kv: bool) -> &Bytes {
        self.encoded[usize::from(prev_kv)].get_or_init(|| encode(self.events(prev_kv)))
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
    /// Bytes of events kept, where they come before [`REVISIONS_MAX`].
    bytes_max: usize,
}

impl Ring {
    pub(super) fn new(head: i64, bytes_max: usize) -> Self {
        Self { items: VecDeque::new(), bytes: 0, head, floor: head, bytes_max }
    }

    pub(super) fn head(&self) -> i64 {
        self.head
    }

    pub(super) fn push(&mut self, events: RevisionEvents) {
        let revised = Revised::new(events);
        self.head = revised.revision;
        self.bytes += revised.bytes;
        self.items.push_back(Arc::new(revised));
        while self.items.len() > REVISIONS_MAX
            || (self.bytes > self.bytes_max && self.items.len() > 1)
        {
            let Some(oldest) = self.items.pop_front() else { break };
            self.bytes -= oldest.bytes;
            self.floor = oldest.revision;
        }
    }

    /// Forgets everything: the state was replaced and is at `head` now.
    pub(super) fn reset(&mut self, head: i64) {
        *self = Self::new(head, self.bytes_max);
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
        let mut found = Vec::with_capacity((self.items.len() - start).min(FOUND_AHEAD));
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

#[cfg(test)]
mod tests {
    use pintle_store_api::Revision;
    use pintle_store_api::mvccpb::KeyValue;

    use super::*;

    const BYTES_MAX: usize = 64 << 20;

    fn events(revision: i64, bytes: usize) -> RevisionEvents {
        let kv = KeyValue { value: vec![0; bytes].into(), ..Default::default() };
        let prev_kv = Some(kv.clone());
        let event = Event { kv: Some(kv), prev_kv, ..Default::default() };
        RevisionEvents { revision: Revision(revision), events: vec![event] }
    }

    /// First and last revision found, where the read ends, and whether more follows.
    fn read(ring: &Ring, from: i64, bytes_max: usize) -> Option<(Option<i64>, usize, i64, bool)> {
        match ring.read(from, bytes_max) {
            Read::Revisions { found, through, more } => {
                Some((found.first().map(|item| item.revision), found.len(), through, more))
            }
            Read::TooOld { .. } => None,
        }
    }

    #[test]
    fn a_read_begins_where_it_is_asked_to_and_ends_at_the_head() {
        let mut ring = Ring::new(4, BYTES_MAX);
        (5..=9).for_each(|revision| ring.push(events(revision, 1)));
        assert_eq!(read(&ring, 7, usize::MAX), Some((Some(7), 3, 9, false)));
        assert_eq!(read(&ring, 10, usize::MAX), Some((None, 0, 9, false)));
        assert_eq!(read(&ring, 4, usize::MAX), None, "older than the ring");
        assert_eq!(read(&ring, 5, 1), Some((Some(5), 1, 5, true)), "one at least");
    }

    #[test]
    fn the_ring_forgets_the_oldest_by_count_and_by_bytes() {
        let mut ring = Ring::new(0, BYTES_MAX);
        let count = i64::try_from(REVISIONS_MAX).expect("small");
        (1..=count + 1).for_each(|revision| ring.push(events(revision, 1)));
        assert_eq!(read(&ring, 1, 0), None);
        assert!(read(&ring, 2, 0).is_some());
        ring.push(events(count + 2, BYTES_MAX));
        assert_eq!(read(&ring, count + 2, 0).map(|found| found.1), Some(1), "one is always kept");
        assert_eq!(read(&ring, count + 1, 0), None);
    }

    #[test]
    fn a_reset_ring_sends_everybody_to_history() {
        let mut ring = Ring::new(4, BYTES_MAX);
        ring.push(events(5, 1));
        ring.reset(8);
        assert_eq!(read(&ring, 5, usize::MAX), None);
        assert_eq!(read(&ring, 8, usize::MAX), None);
        assert_eq!(read(&ring, 9, usize::MAX), Some((None, 0, 8, false)));
    }

    #[test]
    fn encoded_events_are_the_end_of_a_response() {
        let revised = Revised::new(events(7, 3));
        for prev_kv in [false, true] {
            let head = WatchResponse { watch_id: 5, ..Default::default() };
            let whole = [head.encode_to_vec(), revised.encoded(prev_kv).to_vec()].concat();
            let expected = WatchResponse { events: revised.events(prev_kv).to_vec(), ..head };
            assert_eq!(WatchResponse::decode(whole.as_slice()), Ok(expected));
        }
    }

    #[test]
    fn previous_values_are_only_for_those_who_asked() {
        let mut ring = Ring::new(0, BYTES_MAX);
        ring.push(events(1, 1));
        let Read::Revisions { found, .. } = ring.read(1, usize::MAX) else { panic!("held") };
        assert!(found[0].events(true)[0].prev_kv.is_some());
        assert!(found[0].events(false)[0].prev_kv.is_none());
        assert!(Arc::ptr_eq(found[0].events(false), found[0].events(false)), "stripped once");
    }
}
