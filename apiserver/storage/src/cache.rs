//! The watch cache of one resource: the newest objects, and the changes that led to them.
//!
//! Owned by the feed, which is the only writer. Readers take a [`Snapshot`] (a pointer to a
//! persistent map) and hold no lock while they walk it. Watchers take events from the ring by
//! sequence number; the ring never waits for them.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use imbl::OrdMap;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::limits::{
    PAGED_SNAPSHOTS_MAX, PENDING_EVENTS_MAX, RING_BYTES_MAX, RING_EVENTS_MAX, WATCH_BATCH_EVENTS,
};
use crate::object::Decoder;
use crate::{CacheSpec, Error, Object};

/// The objects of a resource at one revision.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    objects: OrdMap<Arc<str>, Arc<Object>>,
    revision: i64,
}

impl Snapshot {
    /// At least the revision of the newest object in it.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// One object; `namespace` is empty for cluster-scoped resources.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        if namespace.is_empty() {
            self.objects.get(name)
        } else {
            self.objects.get(format!("{namespace}/{name}").as_str())
        }
    }

    /// All objects in key order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.values()
    }

    /// The objects of a namespace (all, when it is empty), from the key `start` on.
    pub fn range<'a>(
        &'a self,
        namespace: &str,
        start: &str,
    ) -> impl Iterator<Item = &'a Arc<Object>> {
        let prefix = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
        let from = if start > prefix.as_str() { start } else { prefix.as_str() };
        self.objects
            .range::<_, str>((Bound::Included(from), Bound::Unbounded))
            .map(|(_, object)| object)
            .take_while(move |object| object.key().starts_with(&*prefix))
    }
}

/// A form that events are encoded in, beside plain JSON: chosen by the server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Encoding(pub Arc<str>);

/// One change of one object.
#[derive(Debug)]
pub struct CacheEvent {
    /// The revision of the change.
    pub revision: i64,
    /// The object after the change; for a deletion, as it was, under the revision of the deletion.
    pub object: Arc<Object>,
    /// The object before; `None` for a creation.
    pub previous: Option<Arc<Object>>,
    /// Whether the object is gone.
    pub deleted: bool,
    encoded: Mutex<Vec<(Encoding, Bytes)>>,
}

impl CacheEvent {
    /// The event in some encoding, made by the first watcher that asks and shared by the others.
    pub fn encoded(&self, encoding: &Encoding, make: impl FnOnce(&Self) -> Bytes) -> Bytes {
        let mut encoded = self.encoded.lock();
        if let Some((_, bytes)) = encoded.iter().find(|(known, _)| known == encoding) {
            return bytes.clone();
        }
        let bytes = make(self);
        encoded.push((encoding.clone(), bytes.clone()));
        bytes
    }

    fn size(&self) -> usize {
        self.object.bytes().len()
    }
}

/// A stored change before it is decoded.
#[derive(Clone, Debug)]
pub(crate) struct RawEvent {
    /// Key below the resource's prefix.
    pub(crate) key: Arc<str>,
    pub(crate) revision: i64,
    /// `None`: deleted.
    pub(crate) value: Option<Bytes>,
}

#[derive(Debug)]
enum Phase {
    /// The first list is under way; changes are collected. `overflowed`: some were dropped.
    Loading {
        pending: Vec<RawEvent>,
        overflowed: bool,
    },
    Ready,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Raised when the cache starts anew: watchers of an older epoch are closed.
    epoch: u64,
    ring: VecDeque<Arc<CacheEvent>>,
    ring_bytes: usize,
    /// Sequence number of the first event in the ring.
    ring_start: u64,
    /// Every change above this revision is in the ring.
    floor: i64,
    paged: VecDeque<Snapshot>,
}

/// The cache of one resource.
#[derive(Debug)]
pub struct Cache {
    spec: CacheSpec,
    decoder: Decoder,
    state: Mutex<State>,
    snapshot: ArcSwap<Snapshot>,
    generation: AtomicU64,
    ready: watch::Sender<bool>,
    /// The sequence number after the last event; changes wake watchers.
    end: watch::Sender<u64>,
    /// The feed's revision: every change up to it has been applied.
    fed: watch::Receiver<i64>,
    /// The resource is no longer served.
    retired: CancellationToken,
}

impl Cache {
    pub(crate) fn new(spec: CacheSpec, fed: watch::Receiver<i64>) -> Self {
        let state = State {
            phase: Phase::Loading { pending: Vec::new(), overflowed: false },
            epoch: 0,
            ring: VecDeque::new(),
            ring_bytes: 0,
            ring_start: 0,
            floor: 0,
            paged: VecDeque::new(),
        };
        Self {
            decoder: Decoder::new(&spec.fields),
            spec,
            state: Mutex::new(state),
            snapshot: ArcSwap::default(),
            generation: AtomicU64::new(0),
            ready: watch::Sender::new(false),
            end: watch::Sender::new(0),
            fed,
            retired: CancellationToken::new(),
        }
    }

    /// Ends with the resource.
    pub(crate) fn retired(&self) -> &CancellationToken {
        &self.retired
    }

    /// What is cached.
    pub fn spec(&self) -> &CacheSpec {
        &self.spec
    }

    /// The newest objects. Empty until [`Self::wait_ready`] has returned.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Changes whenever any object does.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether the first list is done.
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Returns when the first list is done.
    pub async fn wait_ready(&self) {
        let mut ready = self.ready.subscribe();
        // The sender lives in `self`: the wait cannot fail.
        let _ready = ready.wait_for(|ready| *ready).await;
    }

    /// The revision up to which this cache knows everything.
    pub fn revision(&self) -> i64 {
        let fed = *self.fed.borrow();
        fed.max(self.snapshot.load().revision)
    }

    /// The snapshot and the revision that it stands for.
    pub(crate) fn current(&self) -> (Arc<Snapshot>, i64) {
        // In this order: whatever the feed had announced is in the snapshot loaded afterwards.
        let fed = *self.fed.borrow();
        let snapshot = self.snapshot.load_full();
        let revision = fed.max(snapshot.revision);
        (snapshot, revision)
    }

    pub(crate) fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// Remembers a snapshot for the next pages of a list.
    pub(crate) fn remember(&self, snapshot: &Snapshot, revision: i64) {
        let mut state = self.state.lock();
        if state.paged.iter().any(|known| known.revision == revision) {
            return;
        }
        state.paged.push_back(Snapshot { revision, ..snapshot.clone() });
        if state.paged.len() > PAGED_SNAPSHOTS_MAX {
            state.paged.pop_front();
        }
    }

    /// A snapshot that an earlier page was cut from.
    pub(crate) fn remembered(&self, revision: i64) -> Option<Snapshot> {
        let state = self.state.lock();
        state.paged.iter().find(|known| known.revision == revision).cloned()
    }

    /// Changes after `revision`.
    pub fn watch_from(self: &Arc<Self>, revision: i64) -> Result<Watcher, Error> {
        let state = self.state.lock();
        if matches!(state.phase, Phase::Loading { .. }) || revision < state.floor {
            let message = format!("too old resource version: {revision} ({})", state.floor);
            return Err(Error::Expired { message });
        }
        let skip = state.ring.partition_point(|event| event.revision <= revision);
        Ok(self.watcher(&state, state.ring_start + skip as u64))
    }

    /// The objects now, and the changes from then on.
    pub fn watch_with_snapshot(self: &Arc<Self>) -> (Arc<Snapshot>, i64, Watcher) {
        let state = self.state.lock();
        let (snapshot, revision) = self.current();
        let end = state.ring_start + state.ring.len() as u64;
        (snapshot, revision, self.watcher(&state, end))
    }

    fn watcher(self: &Arc<Self>, state: &State, next: u64) -> Watcher {
        Watcher { cache: self.clone(), next, epoch: state.epoch, end: self.end.subscribe() }
    }

    /// Forgets everything; watchers are closed. The feed lost its place.
    pub(crate) fn reset(&self) {
        let mut state = self.state.lock();
        state.phase = Phase::Loading { pending: Vec::new(), overflowed: false };
        state.epoch += 1;
        state.ring_start += state.ring.len() as u64;
        state.ring.clear();
        state.ring_bytes = 0;
        state.paged.clear();
        self.ready.send_replace(false);
        self.end.send_modify(|_| {});
    }

    /// Takes the result of a list at `revision`. `false`: changes were lost meanwhile, list again.
    pub(crate) fn fill(&self, objects: OrdMap<Arc<str>, Arc<Object>>, revision: i64) -> bool {
        let mut state = self.state.lock();
        let Phase::Loading { pending, overflowed } = &mut state.phase else { return true };
        let pending = std::mem::take(pending);
        if std::mem::take(overflowed) {
            return false;
        }
        state.phase = Phase::Ready;
        state.floor = revision;
        self.snapshot.store(Arc::new(Snapshot { objects, revision }));
        let newer = pending.into_iter().filter(|event| event.revision > revision).collect();
        self.apply_ready(&mut state, newer);
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.ready.send_replace(true);
        true
    }

    /// Changes in revision order.
    pub(crate) fn apply(&self, events: Vec<RawEvent>) {
        let mut state = self.state.lock();
        if let Phase::Loading { pending, overflowed } = &mut state.phase {
            if pending.len() + events.len() > PENDING_EVENTS_MAX {
                pending.clear();
                *overflowed = true;
            } else if !*overflowed {
                pending.extend(events);
            }
            return;
        }
        self.apply_ready(&mut state, events);
    }

    fn apply_ready(&self, state: &mut State, events: Vec<RawEvent>) {
        let mut snapshot = Snapshot::clone(&self.snapshot.load());
        let before = state.ring_start + state.ring.len() as u64;
        for raw in events {
            // A list may be ahead of the feed: what it already holds is not news.
            if raw.revision <= state.floor {
                continue;
            }
            match self.event(&mut snapshot, &raw) {
                Ok(Some(event)) => push(state, Arc::new(event)),
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(prefix = %self.spec.prefix, %error, "a stored object cannot be read");
                }
            }
            snapshot.revision = snapshot.revision.max(raw.revision);
        }
        self.snapshot.store(Arc::new(snapshot));
        let end = state.ring_start + state.ring.len() as u64;
        if end != before {
            self.generation.fetch_add(1, Ordering::AcqRel);
            self.end.send_replace(end);
        }
    }

    fn event(&self, snapshot: &mut Snapshot, raw: &RawEvent) -> Result<Option<CacheEvent>, Error> {
        let (object, previous) = match &raw.value {
            Some(value) => {
                let object = Arc::new(self.decoder.object(&raw.key, value, raw.revision)?);
                let previous = snapshot.objects.insert(raw.key.clone(), object.clone());
                (object, previous)
            }
            None => {
                let Some(previous) = snapshot.objects.remove(&*raw.key) else { return Ok(None) };
                (Arc::new(previous.at(raw.revision)?), Some(previous))
            }
        };
        Ok(Some(CacheEvent {
            revision: raw.revision,
            object,
            previous,
            deleted: raw.value.is_none(),
            encoded: Mutex::default(),
        }))
    }
}

fn push(state: &mut State, event: Arc<CacheEvent>) {
    state.ring_bytes += event.size();
    state.ring.push_back(event);
    while state.ring.len() > RING_EVENTS_MAX
        || (state.ring_bytes > RING_BYTES_MAX && state.ring.len() > 1)
    {
        if let Some(oldest) = state.ring.pop_front() {
            state.ring_bytes -= oldest.size();
            state.ring_start += 1;
            state.floor = oldest.revision;
        }
    }
}

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
    cache: Arc<Cache>,
    next: u64,
    epoch: u64,
    end: watch::Receiver<u64>,
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
            self.end.changed().await.map_err(|_| WatchEnd::Reset)?;
        }
    }

    /// The revision up to which this watcher has been given everything, unless changes are waiting.
    pub fn progress(&self) -> Option<i64> {
        let fed = *self.cache.fed.borrow();
        let state = self.cache.state.lock();
        let end = state.ring_start + state.ring.len() as u64;
        let revision = fed.max(self.cache.snapshot.load().revision);
        (state.epoch == self.epoch && end == self.next).then_some(revision)
    }

    fn take(&mut self) -> Result<Vec<Arc<CacheEvent>>, WatchEnd> {
        let state = self.cache.state.lock();
        if state.epoch != self.epoch {
            return Err(WatchEnd::Reset);
        }
        let Some(skip) = self.next.checked_sub(state.ring_start) else {
            return Err(WatchEnd::Lagged);
        };
        let skip = usize::try_from(skip).expect("a position in the ring fits into usize");
        let events: Vec<_> =
            state.ring.iter().skip(skip).take(WATCH_BATCH_EVENTS).cloned().collect();
        self.next += events.len() as u64;
        Ok(events)
    }
}
