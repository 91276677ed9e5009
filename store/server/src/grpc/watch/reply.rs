//! What the sequencer says: a response, or a response whose events are encoded already.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use pintle_store_api::mvccpb::Event;
use pintle_store_api::pb::{ResponseHeader, WatchResponse};
use prost::Message;
use prost::encoding;
use tonic::Status;

use super::Parcel;
use crate::watch::Events;

/// The flag and the length before a message.
const PREFIX: usize = 5;
/// The number of `WatchResponse.watch_id`.
const WATCH_ID: u32 = 2;
/// A header, an id and a prefix on the wire: about as much as there can be.
const HEAD_BYTES: usize = 64;

/// One response, or the same for several watchers.
#[derive(Debug)]
pub(super) enum Reply {
    One(Box<WatchResponse>),
    /// Events, which may be shared with watchers of other streams, too.
    Events {
        header: ResponseHeader,
        ids: Vec<i64>,
        events: Arc<[Events]>,
    },
}

impl From<WatchResponse> for Reply {
    fn from(response: WatchResponse) -> Self {
        Self::One(Box::new(response))
    }
}

impl Reply {
    /// The same events for each of `ids`.
    pub(super) fn events(header: ResponseHeader, ids: Vec<i64>, events: Arc<[Events]>) -> Self {
        Self::Events { header, ids, events }
    }

    /// About how many bytes it has on the wire.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::One(response) => HEAD_BYTES + response.encoded_len(),
            Self::Events { ids, events, .. } => {
                ids.len() * (HEAD_BYTES + events.iter().map(Events::size).sum::<usize>())
            }
        }
    }

    fn into_responses(self) -> Vec<WatchResponse> {
        match self {
            Self::One(response) => vec![*response],
            Self::Events { header, ids, events } => {
                let events = events.iter().map(Events::events);
                let events: Vec<Event> = events.flat_map(|events| events.to_vec()).collect();
                let response = |watch_id| WatchResponse {
                    header: Some(header),
                    watch_id,
                    events: events.clone(),
                    ..Default::default()
                };
                ids.into_iter().map(response).collect()
            }
        }
    }

    /// Writes its messages as they go onto the wire, each behind its length. What is merged is one
    /// after the other.
    pub(super) fn frame(&self, out: &mut BytesMut) -> Result<(), Status> {
        match self {
            Self::One(response) => {
                frame(out, |out| response.encode(out).expect("the buffer grows"))
            }
            Self::Events { header, ids, events } => {
                let header = WatchResponse { header: Some(*header), ..Default::default() };
                let header = header.encode_to_vec();
                for id in ids {
                    frame(out, |out| {
                        out.put_slice(&header);
                        if *id != 0 {
                            encoding::int64::encode(WATCH_ID, id, out);
                        }
                        events.iter().for_each(|events| events.encode(out));
                    })?;
                }
                Ok(())
            }
        }
    }
}

fn frame(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) -> Result<(), Status> {
    let at = out.len();
    out.put_bytes(0, PREFIX);
    write(out);
    let Ok(length) = u32::try_from(out.len() - at - PREFIX) else {
        out.truncate(at);
        return Err(Status::out_of_range("a reply is larger than 4 GiB"));
    };
    out[at + 1..at + PREFIX].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// The responses of a parcel, as messages.
pub(super) fn responses(parcel: Parcel) -> Vec<Result<WatchResponse, Status>> {
    let mut responses = Vec::new();
    for reply in parcel {
        match reply {
            Ok(reply) => responses.extend(reply.into_responses().into_iter().map(Ok)),
            Err(status) => responses.push(Err(status)),
        }
    }
    responses
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
    use bytes::Buf;
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

    fn sent(reply: &Reply) -> Vec<WatchResponse> {
        let mut out = BytesMut::new();
        reply.frame(&mut out).expect("small");
        assert!(reply.size() >= out.len(), "{} for {}", reply.size(), out.len());
        let mut sent = Vec::new();
        while out.has_remaining() {
            assert_eq!(out.get_u8(), 0);
            let length = out.get_u32() as usize;
            sent.push(WatchResponse::decode(out.split_to(length)).expect("decodes"));
        }
        sent
    }

    #[test]
    fn a_reply_on_the_wire_is_its_responses() {
        let header = ResponseHeader {
            cluster_id: u64::MAX,
            member_id: u64::MAX,
            revision: i64::MAX,
            raft_term: u64::MAX,
        };
        for ids in [vec![0], vec![-7, 0, i64::MAX]] {
            let reply = Reply::events(header, ids.clone(), events().into());
            let sent = sent(&reply);
            let told: Vec<i64> = sent.iter().map(|response| response.watch_id).collect();
            assert_eq!(told, ids);
            assert!(sent.iter().all(|response| response.events.len() == 4));
            let responses = responses(vec![Ok(reply)]);
            assert_eq!(sent, responses.into_iter().collect::<Result<Vec<_>, _>>().expect("told"));
        }
        let canceled = WatchResponse { canceled: true, watch_id: 9, ..Default::default() };
        assert_eq!(sent(&canceled.clone().into()), [canceled]);
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
