//! The Watch service: many watchers on one stream, served by one sequencer, so that what the client
//! reads is in the order in which it was true.

mod codec;
mod cursors;
mod reply;

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use pintle_proto::etcdserverpb::watch_server::Watch;
use pintle_store_api::pb::watch_request::RequestUnion;
use pintle_store_api::{WatchError, pb};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

pub(super) use self::codec::encoded;
use self::cursors::{Cursors, Member};
use self::reply::Reply;
use super::OVERHEAD_BYTES;
use crate::core::Core;
use crate::errors;
use crate::handle::{Handle, check_watch};
use crate::watch::{Events, Spec, Step, Wake, Watcher};

/// Parcels of responses that wait for the client. A slow one is a cursor that stands still, not a
/// buffer.
const PARCELS_AHEAD: usize = 4;
/// A parcel is sent when it holds this much, or when there is nothing to add at once.
const PARCEL_BYTES: usize = 64 << 10;
/// The id of responses that concern no watcher.
const NO_WATCHER: i64 = -1;

#[derive(Clone)]
pub(super) struct Service(pub(super) Arc<Handle>);

type Responses = Pin<Box<dyn Stream<Item = Result<pb::WatchResponse, Status>> + Send>>;
/// Responses that go out together.
type Parcel = Vec<Result<Reply, Status>>;

#[tonic::async_trait]
impl Watch for Service {
    type WatchStream = Responses;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let parcels = ReceiverStream::new(self.parcels(request)?);
        let responses = parcels.map(reply::responses).map(futures::stream::iter).flatten();
        Ok(Response::new(responses.boxed()))
    }
}

impl Service {
    /// Starts the sequencer of a stream.
    fn parcels(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<mpsc::Receiver<Parcel>, Status> {
        self.0.core().check_voter().map_err(|refusal| errors::rejected(&refusal))?;
        let needs_leader =
            request.metadata().get("hasleader").is_some_and(|value| value.as_bytes() == b"true");
        let (sender, parcels) = mpsc::channel(PARCELS_AHEAD);
        let sequencer = Sequencer::new(self.0.on_behalf(&request), sender, needs_leader);
        tokio::spawn(sequencer.run(request.into_inner()));
        Ok(parcels)
    }
}

/// The stream is over: the client is gone, or was told why.
struct Closed;

struct Sequencer {
    /// Of whoever opened the stream.
    handle: Handle,
    core: Arc<Core>,
    sender: mpsc::Sender<Parcel>,
    parcel: Parcel,
    parcel_bytes: usize,
    watchers: Cursors,
    /// Ids of watchers that the store has ended and the client has not canceled yet.
    ended: HashSet<i64>,
    next_id: i64,
    wake: Arc<Wake>,
    /// The client asked how far the whole stream is, when the store was at this revision.
    progress_asked: Option<i64>,
    progress: Interval,
    needs_leader: bool,
}

/// What the loop reacts to.
enum Turn {
    Request(Result<pb::WatchRequest, Status>),
    Ready,
    Progress,
    NoLeader,
    Stopped,
}

impl Sequencer {
    fn new(handle: Handle, sender: mpsc::Sender<Parcel>, needs_leader: bool) -> Self {
        let core = Arc::clone(handle.core());
        let interval = core.config.watch_progress_interval;
        // Spread over a tenth, so that the streams of a restarted client do not report together.
        let first = Instant::now() + interval.mul_f64(rand::random_range(1.0..1.1));
        let mut progress = tokio::time::interval_at(first, interval);
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            handle,
            core,
            sender,
            parcel: Vec::new(),
            parcel_bytes: 0,
            watchers: Cursors::default(),
            ended: HashSet::new(),
            next_id: 0,
            wake: Arc::default(),
            progress_asked: None,
            progress,
            needs_leader,
        }
    }

    async fn run(mut self, mut requests: Streaming<pb::WatchRequest>) {
        let mut dispatched = self.core.hub.dispatched();
        let mut has_leader = self.core.has_leader.subscribe();
        let shutdown = self.core.clients_stop.clone();
        // A client that asks for nothing more still listens.
        let mut asks = true;
        loop {
            dispatched.borrow_and_update();
            if self.answer_progress().await.is_err() || self.flush().await.is_err() {
                return;
            }
            let turn = tokio::select! {
                request = requests.next(), if asks => match request {
                    Some(request) => Turn::Request(request),
                    None => {
                        asks = false;
                        continue;
                    }
                },
                () = self.wake.wait() => Turn::Ready,
                _ = self.progress.tick() => Turn::Progress,
                _ = dispatched.changed(), if self.progress_asked.is_some() => continue,
                _ = has_leader.wait_for(|has| !has), if self.needs_leader => Turn::NoLeader,
                () = self.sender.closed() => return,
                () = shutdown.cancelled() => Turn::Stopped,
            };
            if self.handle(turn).await.is_err() {
                // What it ends with is still to be said, to whoever listens.
                let _: Result<(), Closed> = self.flush().await;
                return;
            }
        }
    }

    async fn handle(&mut self, turn: Turn) -> Result<(), Closed> {
        match turn {
            Turn::Request(Ok(request)) => match request.request_union {
                Some(RequestUnion::CreateRequest(request)) => self.create(request).await,
                Some(RequestUnion::CancelRequest(request)) => self.cancel(request.watch_id).await,
                Some(RequestUnion::ProgressRequest(_)) => {
                    // Without a watcher there is nobody to speak of.
                    let head = (!self.watchers.is_empty()).then(|| self.core.hub.head());
                    self.progress_asked = head.or(self.progress_asked);
                    Ok(())
                }
                None => Ok(()),
            },
            Turn::Request(Err(_)) => Err(Closed),
            Turn::Ready => self.ready().await,
            Turn::Progress => self.tick().await,
            Turn::NoLeader => self.fail(errors::NO_LEADER),
            Turn::Stopped => self.fail(errors::STOPPED),
        }
    }

    async fn send(&mut self, reply: impl Into<Reply>) -> Result<(), Closed> {
        let reply = reply.into();
        self.parcel_bytes += reply.size();
        self.parcel.push(Ok(reply));
        if self.parcel_bytes >= PARCEL_BYTES { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), Closed> {
        if self.parcel.is_empty() {
            return Ok(());
        }
        self.parcel_bytes = 0;
        let parcel = std::mem::take(&mut self.parcel);
        self.sender.send(parcel).await.map_err(|_| Closed)
    }

    /// Ends the stream with an error.
    fn fail(&mut self, reason: &str) -> Result<(), Closed> {
        self.parcel.push(Err(errors::transient(reason)));
        Err(Closed)
    }

    fn response(&self, watch_id: i64) -> pb::WatchResponse {
        self.response_at(watch_id, self.core.reader().current_revision().0)
    }

    fn response_at(&self, watch_id: i64, revision: i64) -> pb::WatchResponse {
        let header = Some(self.core.header_at(revision));
        pb::WatchResponse { header, watch_id, ..Default::default() }
    }

    async fn create(&mut self, mut request: pb::WatchCreateRequest) -> Result<(), Closed> {
        if request.key.is_empty() {
            request.key = Bytes::from_static(&[0]);
        }
        let spec = Spec::new(&request);
        let refusal = match self.check(&request, &spec).await {
            Err(error) => Some(errors::cancel_reason(&error)),
            Ok(()) if request.watch_id != 0 && self.is_taken(request.watch_id) => {
                Some("mvcc: duplicate watch ID provided on the WatchStream".to_owned())
            }
            Ok(()) => None,
        };
        if let Some(cancel_reason) = refusal {
            let response = self.response(NO_WATCHER);
            let created = true;
            let canceled = true;
            return self
                .send(pb::WatchResponse { created, canceled, cancel_reason, ..response })
                .await;
        }
        let id = self.choose_id(request.watch_id);
        let member = Member::new(id, request.progress_notify, request.fragment);
        if let Some((key, from)) = self.joined(&spec) {
            self.watchers.join(key, from, member);
            return self
                .send(pb::WatchResponse { created: true, ..self.response_at(id, from - 1) })
                .await;
        }
        let key = self.watchers.free_key(id);
        let watcher = Watcher::new(Arc::clone(&self.core.hub), spec, Arc::clone(&self.wake), key);
        self.send(pb::WatchResponse { created: true, ..self.response(id) }).await?;
        match watcher {
            Ok(watcher) => {
                if watcher.has_more() {
                    self.wake.push(key);
                }
                self.watchers.insert(key, watcher, member);
                Ok(())
            }
            Err(error) => self.end(id, &error).await,
        }
    }

    /// The cursor that another watcher of the same has already, and from where on it serves a new one.
    fn joined(&self, spec: &Spec) -> Option<(i64, i64)> {
        let key = self.core.hub.find(&spec.range, &self.wake)?;
        let from = self.watchers.get(key)?.watcher.join(spec)?;
        Some((key, from))
    }

    async fn check(&self, request: &pb::WatchCreateRequest, spec: &Spec) -> Result<(), WatchError> {
        if request.start_revision >= 0 {
            self.handle.check_watch_permitted(request).await?;
        }
        check_watch(&spec.range, request.start_revision)
    }

    fn is_taken(&self, id: i64) -> bool {
        self.watchers.contains(id) || self.ended.contains(&id)
    }

    fn choose_id(&mut self, asked: i64) -> i64 {
        if asked != 0 {
            return asked;
        }
        while self.is_taken(self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    async fn cancel(&mut self, id: i64) -> Result<(), Closed> {
        if !self.watchers.remove(id) && !self.ended.remove(&id) {
            return Ok(());
        }
        self.send(pb::WatchResponse { canceled: true, ..self.response(id) }).await
    }

    /// Ends a watcher for a reason of the store. Its id stays taken until the client cancels it, too.
    async fn end(&mut self, id: i64, error: &WatchError) -> Result<(), Closed> {
        self.ended.insert(id);
        let mut response = pb::WatchResponse { canceled: true, ..self.response(id) };
        match error {
            // The floor is the reason, and as in etcd the only revision that is told.
            WatchError::Compacted(floor) => {
                response.compact_revision = floor.0;
                response.header = Some(self.core.header_at(0));
            }
            _ => response.cancel_reason = error.to_string(),
        }
        self.send(response).await
    }

    /// Serves every watcher that has something, each one step, so that none starves the others.
    async fn ready(&mut self) -> Result<(), Closed> {
        let mut keys = self.wake.take();
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            let Some(cursor) = self.watchers.get_mut(key) else { continue };
            let events = match cursor.watcher.step() {
                Step::Events(events) => events,
                Step::Idle => continue,
                Step::Behind => match cursor.watcher.catch_up().await {
                    Ok(events) => events,
                    Err(error) => {
                        for id in self.watchers.remove_all(key) {
                            self.end(id, &error).await?;
                        }
                        continue;
                    }
                },
            };
            if cursor.watcher.has_more() {
                self.wake.push(key);
            }
            if !events.is_empty() {
                self.tell(key, events).await?;
            }
        }
        Ok(())
    }

    /// Tells all watchers of a cursor what has happened.
    async fn tell(&mut self, key: i64, events: Vec<Events>) -> Result<(), Closed> {
        let Some(cursor) = self.watchers.get_mut(key) else { return Ok(()) };
        let mut together = Vec::with_capacity(cursor.members.len());
        let mut alone = Vec::new();
        for member in &mut cursor.members {
            match member.wanted(&events) {
                Some(wanted) if wanted.is_empty() => continue,
                Some(wanted) => alone.push((member.id, wanted, member.fragment)),
                None if member.fragment => alone.push((member.id, events.clone(), true)),
                None => together.push(member.id),
            }
            member.told = true;
        }
        let revision = |events: &[Events]| events.last().map_or(0, |last| last.revision);
        let limit = self.core.config.max_request_bytes + OVERHEAD_BYTES;
        for (watch_id, wanted, fragment) in alone {
            let header = self.core.header_at(revision(&wanted));
            if !fragment {
                self.send(Reply::events(header, vec![watch_id], wanted.into())).await?;
                continue;
            }
            let header = Some(header);
            let head = pb::WatchResponse { header, watch_id, ..Default::default() };
            for part in reply::fragments(&head, wanted, limit) {
                self.send(part).await?;
            }
        }
        let header = self.core.header_at(revision(&events));
        let bytes: usize = events.iter().map(Events::size).sum();
        let events: Arc<[Events]> = events.into();
        for ids in together.chunks((PARCEL_BYTES / bytes.max(1)).max(1)) {
            self.send(Reply::events(header, ids.to_vec(), Arc::clone(&events))).await?;
        }
        Ok(())
    }

    /// The regular progress of watchers that asked for it and heard nothing lately.
    async fn tick(&mut self) -> Result<(), Closed> {
        let mut due = Vec::new();
        for cursor in self.watchers.values_mut() {
            for member in &mut cursor.members {
                let told = std::mem::take(&mut member.told);
                if let (true, false, Some(through)) =
                    (member.progress_notify, told, cursor.watcher.synced_through())
                {
                    due.push((member.id, through));
                }
            }
        }
        for (watch_id, through) in due {
            let header = Some(self.core.header_at(through));
            self.send(pb::WatchResponse { header, watch_id, ..Default::default() }).await?;
        }
        Ok(())
    }

    /// The progress of the whole stream, once every watcher has come to where the store was when
    /// the client asked.
    async fn answer_progress(&mut self) -> Result<(), Closed> {
        let Some(asked) = self.progress_asked else { return Ok(()) };
        let mut through = (*self.core.hub.dispatched().borrow()).max(asked);
        for cursor in self.watchers.values() {
            match cursor.watcher.synced_through() {
                Some(synced) if synced >= asked => through = through.min(synced),
                _ => return Ok(()),
            }
        }
        self.progress_asked = None;
        if self.watchers.is_empty() {
            return Ok(());
        }
        let header = Some(self.core.header_at(through));
        self.send(pb::WatchResponse { header, watch_id: NO_WATCHER, ..Default::default() }).await
    }
}
