//! What the sequencer says: a response, or a response whose events are encoded already.

use bytes::BufMut;
use pintle_store_api::mvccpb::Event;
use pintle_store_api::pb::WatchResponse;
use prost::Message;

use crate::watch::Events;

/// A response whose events may be shared with other watchers.
#[derive(Debug)]
pub(crate) struct Reply {
    head: WatchResponse,
    events: Vec<Events>,
}

impl From<WatchResponse> for Reply {
    fn from(head: WatchResponse) -> Self {
        Self { head, events: Vec::new() }
    }
}

impl Reply {
    /// `head` with events behind its own.
    pub(super) fn events(head: WatchResponse, events: Vec<Events>) -> Self {
        Self { head, events }
    }

    /// About how many bytes it has.
    pub(super) fn size(&self) -> usize {
        self.head.encoded_len() + self.events.iter().map(Events::size).sum::<usize>()
    }

    pub(super) fn into_response(self) -> WatchResponse {
        let mut response = self.head;
        for events in &self.events {
            response.events.extend(events.events().iter().cloned());
        }
        response
    }

    /// Writes it as it goes onto the wire: messages merge by being put one after the other.
    pub(super) fn encode(&self, out: &mut impl BufMut) {
        self.head.encode(out).expect("the buffer grows");
        self.events.iter().for_each(|events| events.encode(out));
    }
}

/// Cuts events into responses of at most `limit` bytes of them, but at least one event each. All but
/// the last say that they are fragments.
pub(super) fn fragments(
    head: &WatchResponse,
    events: Vec<Events>,
    limit: usize,
) -> Vec<WatchResponse> {
    let all: Vec<_> = events.iter().map(Events::events).collect();
    let mut parts = split(all.iter().flat_map(|events| events.iter().cloned()), limit);
    let last = parts.pop().unwrap_or_default();
    let part = |events, fragment| WatchResponse { events, fragment, ..head.clone() };
    parts.into_iter().map(|events| part(events, true)).chain([part(last, false)]).collect()
}

fn split(events: impl Iterator<Item = Event>, limit: usize) -> Vec<Vec<Event>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = 0;
    for event in events {
        let size = event.encoded_len();
        if bytes + size > limit && bytes > 0 {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(part) = parts.last_mut() {
            part.push(event);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use pintle_store_api::mvccpb::KeyValue;

    use super::*;

    fn event(revision: i64, bytes: usize) -> Event {
        let kv =
            KeyValue { mod_revision: revision, value: vec![1; bytes].into(), ..Default::default() };
        Event { kv: Some(kv), ..Default::default() }
    }

    fn head() -> WatchResponse {
        WatchResponse { watch_id: 3, ..Default::default() }
    }

    fn events() -> Vec<Events> {
        let of = |revision| Events::own(revision, [event(revision, 10), event(revision, 200)]);
        vec![of(5), of(6)]
    }

    #[test]
    fn a_reply_on_the_wire_is_its_response() {
        let reply = Reply::events(head(), events());
        let mut encoded = Vec::new();
        reply.encode(&mut encoded);
        let sent = WatchResponse::decode(encoded.as_slice()).expect("decodes");
        assert_eq!(sent.events.len(), 4);
        assert!(reply.size() > 400, "{}", reply.size());
        assert_eq!(sent, reply.into_response());
    }

    #[test]
    fn fragments_hold_all_events_and_the_last_says_so() {
        let parts = fragments(&head(), events(), 100);
        let flags: Vec<bool> = parts.iter().map(|part| part.fragment).collect();
        assert_eq!(flags, [true, true, true, false]);
        assert!(parts.iter().all(|part| part.watch_id == 3));
        assert_eq!(parts.iter().map(|part| part.events.len()).sum::<usize>(), 4);
        assert_eq!(fragments(&head(), events(), 10_000).len(), 1);
    }
}
