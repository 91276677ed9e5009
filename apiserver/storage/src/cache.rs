//! The watch cache of one resource: the newest objects, and the changes that led to them.
//!
//! Owned by the feed, which is the only writer. Readers take a [`Snapshot`] (a pointer to a
//! persistent map) and hold no lock while they walk it. Watchers take events from the ring by
//! sequence number; the ring never waits for them.

mod event;
mod snapshot;
mod state;
mod watcher;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use imbl::OrdMap;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::limits::{PAGED_SNAPSHOTS_MAX, PENDING_EVENTS_MAX};
use crate::object::Decoder;
use crate::ring::Ring;
use crate::{CacheSpec, Error, Object};
use state::{Phase, State};

pub use event::{CacheEvent, Encoding};
pub use snapshot::Snapshot;
pub use state::Scope;
pub use watcher::{WatchEnd, Watcher};

/// A stored change before it is decoded.
#[derive(Clone, Debug)]
pub(crate) struct RawEvent {
    /// Key below the resource's prefix.
    pub(crate) key: Arc<str>,
    pub(crate) revision: i64,
    /// `None`: deleted.
    pub(crate) value: Option<Bytes>,
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
            all: Ring::new(0),
            narrow: HashMap::new(),
            paged: VecDeque::new(),
        };
        Self {
            decoder: Decoder::new(&spec.fields),
            spec,
            state: Mutex::new(state),
            snapshot: ArcSwap::default(),
            generation: AtomicU64::new(0),
            ready: watch::Sender::new(false),
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
    pub fn watch_from(self: &Arc<Self>, scope: Scope, revision: i64) -> Result<Watcher, Error> {
        let mut state = self.state.lock();
        let expired = |floor: i64| {
            let message = format!("too old resource version: {revision} ({floor})");
            Error::Expired { message }
        };
        if matches!(state.phase, Phase::Loading { .. }) {
            return Err(expired(state.all.floor()));
        }
        let epoch = state.epoch;
        let ring = state.join(&scope, &self.spec.index);
        let (next, end, floor) = (ring.position_after(revision), ring.subscribe(), ring.floor());
        let Some(next) = next else {
            state.leave(&scope);
            return Err(expired(floor));
        };
        Ok(Watcher { cache: self.clone(), scope, next, epoch, end })
    }

    /// The objects now, and all changes from then on.
    pub fn watch_with_snapshot(self: &Arc<Self>) -> (Arc<Snapshot>, i64, Watcher) {
        self.watch_scope_with_snapshot(Scope::All)
    }

    /// The objects now, and the changes of `scope` from then on.
    pub fn watch_scope_with_snapshot(
        self: &Arc<Self>,
        scope: Scope,
    ) -> (Arc<Snapshot>, i64, Watcher) {
        let mut state = self.state.lock();
        let (snapshot, revision) = self.current();
        let epoch = state.epoch;
        let ring = state.join(&scope, &self.spec.index);
        let (next, end) = (ring.end(), ring.subscribe());
        (snapshot, revision, Watcher { cache: self.clone(), scope, next, epoch, end })
    }

    /// Forgets everything; watchers are closed. The feed lost its place.
    pub(crate) fn reset(&self) {
        let mut state = self.state.lock();
        state.phase = Phase::Loading { pending: Vec::new(), overflowed: false };
        state.epoch += 1;
        // Whoever waits on an old ring is woken by its end.
        state.all = Ring::new(0);
        state.narrow.clear();
        state.paged.clear();
        self.ready.send_replace(false);
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
        state.all = Ring::new(revision);
        state.narrow.clear();
        state.epoch += 1;
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
        let before = state.all.end();
        for raw in events {
            // A list may be ahead of the feed: what it already holds is not news.
            if raw.revision <= state.all.floor() {
                continue;
            }
            match self.event(&mut snapshot, &raw) {
                Ok(Some(event)) => state.push(Arc::new(event), &self.spec.index),
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(prefix = %self.spec.prefix, %error, "a stored object cannot be read");
                }
            }
            snapshot.revision = snapshot.revision.max(raw.revision);
        }
        self.snapshot.store(Arc::new(snapshot));
        if state.all.end() != before {
            self.generation.fetch_add(1, Ordering::AcqRel);
            state.all.publish();
            state.narrow.values().for_each(|narrow| narrow.ring.publish());
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
