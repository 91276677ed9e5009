//! Many watchers, and what they receive.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::{Buf, Bytes};
use pintle_proto::etcdserverpb as pb;
use pintle_proto::etcdserverpb::watch_request::RequestUnion;
use prost::Message;
use prost::encoding::{self, DecodeContext};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::recorder::Recorder;
use crate::client::{Call, Connection, Messages, Pieces, Requests, encode};
use crate::system::Running;

/// As in etcd's own benchmark: a proxy or a cache puts many watchers on one stream.
const WATCHERS_PER_STREAM: usize = 100;
const STREAMS_PER_CONNECTION: usize = 10;
/// Creations that one stream has under way.
const CREATIONS_AHEAD: usize = 50;
/// Everything is delivered by then, or the measurement has failed.
const DELIVERY_MAX: Duration = Duration::from_secs(180);

/// Who is told of arrivals.
#[derive(Default)]
pub(super) struct Arrivals {
    /// Events received by all watchers together.
    pub(super) events: Cell<u64>,
    /// Whoever waits for events wants to be told at this many.
    wanted: Cell<u64>,
    changed: Notify,
    /// When each timed put was sent: its value begins with its place here.
    sent: RefCell<Vec<Instant>>,
    delays: RefCell<Option<Recorder>>,
    failure: RefCell<Option<String>>,
}

impl Arrivals {
    /// On one thread nobody can start to wait between looking and waiting.
    fn wake(&self) {
        self.wanted.set(u64::MAX);
        self.changed.notify_waiters();
    }

    /// Resolves when all watchers together have received `events`.
    pub(super) async fn reach(&self, events: u64) -> anyhow::Result<()> {
        let reached = async {
            while self.events.get() < events {
                if let Some(failure) = self.failure.borrow().clone() {
                    bail!("a watcher ended: {failure}");
                }
                self.wanted.set(self.wanted.get().min(events));
                self.changed.notified().await;
            }
            Ok(())
        };
        let reached = tokio::time::timeout(DELIVERY_MAX, reached).await;
        reached
            .with_context(|| format!("{} of {events} events arrived in time", self.events.get()))?
    }

    fn received(&self, events: u64) {
        self.events.set(self.events.get() + events);
        if events > 0 && self.events.get() >= self.wanted.get() {
            self.wake();
        }
    }

    /// Delays are recorded from now on.
    pub(super) fn time_delays(&self) {
        let mut recorder = Recorder::new();
        recorder.start();
        *self.delays.borrow_mut() = Some(recorder);
    }

    pub(super) fn take_delays(&self) -> anyhow::Result<Recorder> {
        self.delays.borrow_mut().take().context("delays were not recorded")
    }

    /// The value of a put that is sent now, and whose delay is to be known.
    pub(super) fn timed_value(&self, length: usize) -> Bytes {
        let mut sent = self.sent.borrow_mut();
        let mut value = (sent.len() as u64).to_be_bytes().to_vec();
        value.resize(length.max(value.len()), 0);
        sent.push(Instant::now());
        value.into()
    }

    fn sent(&self, value: &[u8]) -> Option<Instant> {
        let place = u64::from_be_bytes(*value.first_chunk()?);
        self.sent.borrow().get(usize::try_from(place).ok()?).copied()
    }
}

/// Watchers at work; dropping them ends their streams.
pub(super) struct Watchers {
    pub(super) arrivals: Rc<Arrivals>,
    _tasks: JoinSet<()>,
    _open: Vec<Requests>,
}

/// What one watcher watches.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    pub(super) key: Bytes,
    pub(super) range_end: Bytes,
    pub(super) start_revision: i64,
}

impl Watch {
    fn request(self) -> Bytes {
        let create = pb::WatchCreateRequest {
            key: self.key,
            range_end: self.range_end,
            start_revision: self.start_revision,
            ..Default::default()
        };
        encode(&pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) })
    }
}

impl Watchers {
    /// Creates all watchers, spread over the members, and returns when all are created.
    pub(super) async fn start(
        running: &Running,
        watches: impl IntoIterator<Item = Watch>,
    ) -> anyhow::Result<Self> {
        let arrivals = Rc::new(Arrivals::default());
        let requests: Vec<Bytes> = watches.into_iter().map(Watch::request).collect();
        let mut connections: Vec<Connection> = Vec::new();
        let (mut tasks, mut open) = (JoinSet::new(), Vec::new());
        let mut creating = Vec::new();
        for (index, requests) in requests.chunks(WATCHERS_PER_STREAM).enumerate() {
            if index.is_multiple_of(STREAMS_PER_CONNECTION) {
                connections.push(running.connect(index / STREAMS_PER_CONNECTION).await?);
            }
            let connection = connections.last_mut().context("just connected")?;
            creating.push(create(connection.clone(), requests.to_vec(), Rc::clone(&arrivals)));
        }
        for stream in futures::future::try_join_all(creating).await? {
            open.push(stream.requests);
            tasks.spawn_local(receive(stream.messages, Rc::clone(&arrivals)));
        }
        Ok(Self { arrivals, _tasks: tasks, _open: open })
    }
}

struct Created {
    requests: Requests,
    messages: Messages,
}

async fn create(
    mut connection: Connection,
    watches: Vec<Bytes>,
    arrivals: Rc<Arrivals>,
) -> anyhow::Result<Created> {
    let mut watches = watches.into_iter();
    let first = watches.next().context("a stream without watchers")?;
    let (mut requests, mut messages) = connection.stream(Call::Watch, first).await?;
    let mut waiting = 1;
    while waiting > 0 {
        while waiting < CREATIONS_AHEAD
            && let Some(watch) = watches.next()
        {
            requests.send(watch)?;
            waiting += 1;
        }
        let message = messages.next().await?.context("the stream ended")?;
        if let Some(events) = count(&message) {
            arrivals.received(events);
            continue;
        }
        let response = pb::WatchResponse::decode(message)?;
        if response.canceled {
            bail!("a watcher was refused: {}", response.cancel_reason);
        }
        if response.created {
            waiting -= 1;
        }
        take(&arrivals, &response);
    }
    Ok(Created { requests, messages })
}

async fn receive(mut messages: Messages, arrivals: Rc<Arrivals>) {
    let failure = loop {
        let message = match messages.next().await {
            Ok(Some(message)) => message,
            Ok(None) => break "the stream ended".to_owned(),
            Err(failure) => break failure.to_string(),
        };
        if arrivals.delays.borrow().is_none()
            && let Some(events) = count(&message)
        {
            arrivals.received(events);
            continue;
        }
        match pb::WatchResponse::decode(message) {
            Ok(response) if response.canceled => break response.cancel_reason,
            Ok(response) => take(&arrivals, &response),
            Err(error) => break error.to_string(),
        }
    };
    arrivals.failure.borrow_mut().get_or_insert(failure);
    arrivals.wake();
}

fn count(message: &Pieces) -> Option<u64> {
    match message.one() {
        Some(response) => count_events(response),
        None => count_events(message.clone()),
    }
}

/// The events of an encoded response that neither creates nor cancels: all that is wanted to know of
/// most, and less work than taking them apart.
fn count_events(mut response: impl Buf) -> Option<u64> {
    const CREATED: u32 = 3;
    const CANCELED: u32 = 4;
    const EVENTS: u32 = 11;
    let mut events = 0;
    while response.has_remaining() {
        let (tag, wire) = encoding::decode_key(&mut response).ok()?;
        if matches!(tag, CREATED | CANCELED) {
            return None;
        }
        events += u64::from(tag == EVENTS);
        encoding::skip_field(wire, tag, &mut response, DecodeContext::default()).ok()?;
    }
    Some(events)
}

fn take(arrivals: &Arrivals, response: &pb::WatchResponse) {
    if let Some(delays) = arrivals.delays.borrow_mut().as_mut() {
        for event in &response.events {
            let value = event.kv.as_ref().map(|kv| kv.value.as_ref());
            if let Some(sent) = value.and_then(|value| arrivals.sent(value)) {
                delays.done(sent.elapsed());
            }
        }
    }
    arrivals.received(response.events.len() as u64);
}

#[cfg(test)]
mod tests {
    use pintle_proto::mvccpb::Event;

    use super::*;

    #[test]
    fn events_are_counted_without_taking_them_apart() {
        let header = Some(pb::ResponseHeader { revision: 7, ..Default::default() });
        let events = vec![Event::default(); 3];
        let response = pb::WatchResponse { header, watch_id: 2, events, ..Default::default() };
        assert_eq!(count_events(response.encode_to_vec().as_slice()), Some(3));
        let empty = pb::WatchResponse::default();
        assert_eq!(count_events(empty.encode_to_vec().as_slice()), Some(0));
        let created = pb::WatchResponse { created: true, ..response.clone() };
        assert_eq!(count_events(created.encode_to_vec().as_slice()), None);
        let canceled = pb::WatchResponse { canceled: true, ..response };
        assert_eq!(count_events(canceled.encode_to_vec().as_slice()), None);
        assert_eq!(count_events([0xff].as_slice()), None);
    }
}
