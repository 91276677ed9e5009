//! The hub itself: apply publishes, the dispatcher marks, watchers read.

use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use pintle_mvcc::{Reader, RevisionEvents};
use pintle_store_api::KeyRange;
use tokio::sync::{Semaphore, watch};
use tokio::time::MissedTickBehavior;

use super::history::History;
use super::narrow::Narrow;
use super::registry::{Registry, Slot, Wake};
use super::ring::{Read, Revised, Ring};
use crate::MemoryLimit;

/// Watchers that read history at the same time, at most. Each read holds a blocking thread and up to a
/// mebibyte of events; more of them would only compete for the same disk.
const CATCH_UPS_MAX: usize = 4;

/// Half of the processors: the rest is left to those who write.
fn catch_ups() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    (processors / 2).clamp(1, CATCH_UPS_MAX)
}

/// Bytes of events that the ring holds,
const RING_BYTES_MAX: usize = 64 << 20;
/// of the log's blocks that were read for those who are behind,
const HISTORY_BYTES_MAX: usize = 48 << 20;
/// and of narrow ranges that were gathered for them.
const NARROW_BYTES_MAX: usize = 64 << 20;

/// History that was read and that nobody has looked at for this long is given up.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Hub {
    reader: Reader,
    ring: RwLock<Ring>,
    registry: Mutex<Registry>,
    /// The newest revision in the ring.
    published: watch::Sender<i64>,
    /// Everybody whom a revision up to this one concerns has been marked.
    dispatched: watch::Sender<i64>,
    pub(super) catch_ups: Arc<Semaphore>,
    pub(super) history: History,
    pub(super) narrow: Narrow,
    events: AtomicU64,
    /// Watchers that are not in the registry, because another one looks for them.
    joined: AtomicUsize,
}

impl Hub {
    pub(crate) fn new(reader: Reader, memory: MemoryLimit) -> Arc<Self> {
        let head = reader.current_revision().0;
        Arc::new(Self {
            reader,
            ring: RwLock::new(Ring::new(head, memory.share(RING_BYTES_MAX, 32))),
            registry: Mutex::default(),
            published: watch::Sender::new(head),
            dispatched: watch::Sender::new(head),
            catch_ups: Arc::new(Semaphore::new(catch_ups())),
            history: History::new(memory.share(HISTORY_BYTES_MAX, 64)),
            narrow: Narrow::new(memory.share(NARROW_BYTES_MAX, 64)),
            events: AtomicU64::new(0),
            joined: AtomicUsize::new(0),
        })
    }

    /// Called by apply, after the state was written.
    pub(crate) fn publish(&self, revisions: Vec<RevisionEvents>) {
        if revisions.is_empty() {
            return;
        }
        let head = {
            let mut ring = self.ring.write();
            for events in revisions {
                #[cfg(feature = "simulation")]
                let events = drop_deliberately(events);
                ring.push(events);
            }
            ring.head()
        };
        self.published.send_replace(head);
    }

    /// The state was replaced by a snapshot: watchers have to look at history.
    pub(crate) fn reset(&self) {
        let head = self.reader.current_revision().0;
        self.history.clear();
        self.narrow.clear();
        self.ring.write().reset(head);
        self.published.send_replace(head);
    }

    /// Marks watchers as revisions are published, until the hub is dropped by its owner.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut published = self.published.subscribe();
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.dispatch();
            tokio::select! {
                changed = published.changed() => if changed.is_err() {
                    return;
                },
                _ = sweep.tick() => {
                    self.narrow.sweep();
                    self.history.sweep();
                }
            }
        }
    }

    /// Marks the watchers whom what was published since the last call concerns.
    pub(crate) fn dispatch(&self) {
        loop {
            let registry = self.registry.lock();
            let from = *self.dispatched.borrow() + 1;
            let (through, more) = match self.ring.read().read(from, DISPATCH_BYTES) {
                Read::Revisions { found, through, more } => {
                    mark(&registry, &found);
                    (through, more)
                }
                Read::TooOld { head } => {
                    registry.mark_everybody(from);
                    (head, false)
                }
            };
            // Under the registry's lock, so that a new watcher knows from where on it is marked.
            if through >= from {
                self.dispatched.send_replace(through);
            }
            drop(registry);
            if !more {
                return;
            }
        }
    }

    pub(crate) fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The newest revision that watchers can see.
    pub(crate) fn head(&self) -> i64 {
        self.ring.read().head()
    }

    pub(crate) fn dispatched(&self) -> watch::Receiver<i64> {
        self.dispatched.subscribe()
    }

    /// How many watchers there are, and how many have not looked at what concerns them.
    pub(crate) fn watchers_and_slow(&self) -> (usize, usize) {
        let registry = self.registry.lock();
        (registry.len() + self.joined.load(Ordering::Relaxed), registry.marked())
    }

    /// How many events watchers were given.
    pub(crate) fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    pub(super) fn count_events(&self, events: usize) {
        self.events.fetch_add(events as u64, Ordering::Relaxed);
    }

    /// Registers a watcher; the answer is its place and the revision after which it is marked.
    pub(super) fn register(&self, range: &KeyRange, slot: &Arc<Slot>) -> (u64, i64) {
        let mut registry = self.registry.lock();
        let id = registry.insert(range, Arc::clone(slot));
        (id, *self.dispatched.borrow())
    }

    /// The key of a watcher of `range` that wakes `wake` already.
    pub(crate) fn find(&self, range: &KeyRange, wake: &Arc<Wake>) -> Option<i64> {
        self.registry.lock().find(range, wake)
    }

    /// `slot` looks for one watcher more.
    pub(super) fn join(&self, slot: &Slot) {
        slot.watchers.fetch_add(1, Ordering::Relaxed);
        self.joined.fetch_add(1, Ordering::Relaxed);
    }

    /// And for so many less.
    pub(super) fn leave(&self, slot: &Slot, watchers: usize) {
        slot.watchers.fetch_sub(watchers, Ordering::Relaxed);
        self.joined.fetch_sub(watchers, Ordering::Relaxed);
    }

    pub(super) fn unregister(&self, range: &KeyRange, id: u64) {
        self.registry.lock().remove(range, id);
    }

    pub(super) fn read(&self, from: i64, bytes_max: usize) -> Read {
        self.ring.read().read(from, bytes_max)
    }
}

/// What a wrong hub makes of some revisions.
#[cfg(feature = "simulation")]
fn drop_deliberately(events: RevisionEvents) -> RevisionEvents {
    use crate::simulation::{Broken, is_broken};
    if is_broken(Broken::DroppedEvent) && events.revision.0 % 23 == 0 {
        return RevisionEvents { events: Vec::new(), ..events };
    }
    events
}

/// How much the dispatcher marks before it lets new watchers in.
const DISPATCH_BYTES: usize = 1 << 20;

fn mark(registry: &Registry, revisions: &[Arc<Revised>]) {
    for revised in revisions {
        for event in revised.events(true).iter() {
            if let Some(kv) = &event.kv {
                registry.mark(&kv.key, revised.revision);
            }
        }
    }
}
