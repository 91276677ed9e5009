//! One watcher: a cursor over the ring and, when it is behind, over history.

use std::sync::Arc;

use bytes::Bytes;
use pintle_mvcc::{CatchUp, EventQuery, QueryError};
use pintle_store_api::mvccpb::Event;
use pintle_store_api::mvccpb::event::EventType;
use pintle_store_api::pb::WatchCreateRequest;
use pintle_store_api::pb::watch_create_request::FilterType;
use pintle_store_api::{KeyRange, Rejection, Revision, WatchError};
use prost::Message;

use super::hub::Hub;
use super::registry::{Slot, Wake};
use super::ring::{Read, Revised, encode};
use crate::host::blocking;

/// One step reads about this many bytes of events: what one response may carry.
const STEP_BYTES: usize = 1 << 20;
/// And goes through as much history, also when it finds nothing of its range there.
const STEP_BLOCKS: usize = 64;

/// What is watched, and how.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) range: KeyRange,
    /// 0: from the next revision on.
    pub(crate) start: i64,
    pub(crate) prev_kv: bool,
    pub(crate) no_put: bool,
    pub(crate) no_delete: bool,
}

impl Spec {
    pub(crate) fn new(request: &WatchCreateRequest) -> Self {
        let filtered = |filter| request.filters().any(|one| one == filter);
        // Copies: what arrived in one piece with other requests would stay as long as the watcher.
        let copy = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
        Self {
            range: KeyRange::from_request(copy(&request.key), copy(&request.range_end)),
            start: request.start_revision,
            prev_kv: request.prev_kv,
            no_put: filtered(FilterType::Noput),
            no_delete: filtered(FilterType::Nodelete),
        }
    }

    fn wants(&self, event: &Event) -> bool {
        let filtered = match event.r#type() {
            EventType::Put => self.no_put,
            EventType::Delete => self.no_delete,
        };
        !filtered && event.kv.as_ref().is_some_and(|kv| self.range.contains(&kv.key))
    }
}

/// Complete revisions, in order.
#[derive(Debug)]
pub(crate) struct Events {
    /// The store was at this revision or a later one when the last of these happened.
    pub(crate) revision: i64,
    pub(crate) events: Arc<[Event]>,
    /// Where they lie encoded already, when they are all of a revision.
    shared: Option<Arc<Revised>>,
    prev_kv: bool,
}

impl Events {
    #[cfg(test)]
    pub(crate) fn alone(revision: i64, events: Vec<Event>) -> Self {
        Self { revision, events: events.into(), shared: None, prev_kv: false }
    }

    /// About how many bytes they have.
    pub(crate) fn size(&self) -> usize {
        match &self.shared {
            Some(revised) => revised.bytes(),
            None => self.events.iter().map(Message::encoded_len).sum(),
        }
    }

    /// As the end of a `WatchResponse`.
    pub(crate) fn encoded(&self) -> Bytes {
        match &self.shared {
            Some(revised) => revised.encoded(self.prev_kv).clone(),
            None => encode(&self.events),
        }
    }
}

/// What a look at the store's history gave.
#[derive(Debug)]
pub(crate) enum Step {
    /// At least one, and perhaps more at once.
    Events(Vec<Events>),
    /// Nothing until the next wake.
    Idle,
    /// History has to be read ([`Watcher::catch_up`]).
    Behind,
}

#[derive(Debug)]
pub(crate) struct Watcher {
    hub: Arc<Hub>,
    slot: Arc<Slot>,
    id: u64,
    spec: Spec,
    /// The first revision that has not been looked at.
    next: i64,
    /// The compact floor when it was registered: what was at the revision before is not told.
    floor: i64,
    /// Whether `next..` holds something to look at without being woken.
    behind: bool,
}

impl Watcher {
    /// Registers a watcher that wakes `wake` under `key`. Refused when its start is compacted.
    pub(crate) fn new(
        hub: Arc<Hub>,
        spec: Spec,
        wake: Arc<Wake>,
        key: i64,
    ) -> Result<Self, WatchError> {
        let floor = hub.reader().compact_revision();
        let floor = floor.map_err(|fault| WatchError::Unavailable(fault.to_string()))?;
        if spec.start > 0 && spec.start < floor.0 {
            return Err(WatchError::Compacted(floor));
        }
        let slot = Arc::new(Slot::new(wake, key));
        let (id, marked_after) = hub.register(&spec.range, &slot);
        let next = if spec.start > 0 { spec.start } else { hub.head() + 1 };
        let behind = next <= marked_after;
        Ok(Self { hub, slot, id, spec, next, floor: floor.0, behind })
    }

    /// The revision to which nothing is missing, if the watcher has seen everything up to now.
    pub(crate) fn synced_through(&self) -> Option<i64> {
        let dispatched = *self.hub.dispatched().borrow();
        if self.behind || self.slot.is_marked() || self.next > self.hub.head() + 1 {
            return None;
        }
        Some(dispatched.max(self.next - 1))
    }

    /// Reads on from the cursor.
    pub(crate) fn step(&mut self) -> Step {
        loop {
            let marked = self.slot.take();
            if marked != 0 && !self.behind {
                self.next = self.next.max(marked);
                self.behind = true;
            }
            if !self.behind {
                return Step::Idle;
            }
            let Read::Revisions { found, through, more } = self.hub.read(self.next, STEP_BYTES)
            else {
                return Step::Behind;
            };
            self.next = through + 1;
            self.behind = more;
            let events: Vec<Events> =
                found.iter().filter_map(|revised| self.select(revised)).collect();
            if !events.is_empty() {
                self.hub.count_events(events.iter().map(|events| events.events.len()).sum());
                return Step::Events(events);
            }
        }
    }

    /// Whether the next step may give something without a wake.
    pub(crate) fn has_more(&self) -> bool {
        self.behind || self.slot.is_marked()
    }

    fn select(&self, revised: &Arc<Revised>) -> Option<Events> {
        let prev_kv = self.spec.prev_kv && revised.revision > self.floor;
        let all = revised.events(prev_kv);
        let wanted = all.iter().filter(|event| self.spec.wants(event)).count();
        let (events, shared) = match wanted {
            0 => return None,
            n if n == all.len() => (Arc::clone(all), Some(Arc::clone(revised))),
            _ => (all.iter().filter(|event| self.spec.wants(event)).cloned().collect(), None),
        };
        Some(Events { revision: revised.revision, events, shared, prev_kv })
    }

    /// Reads a stretch of history, off the async threads. Empty when the stretch held nothing.
    pub(crate) async fn catch_up(&mut self) -> Result<Vec<Events>, WatchError> {
        let query = EventQuery {
            range: self.spec.range.clone(),
            from: Revision(self.next),
            to: Revision(self.hub.head()),
            budget_bytes: STEP_BYTES,
            prev_kv: self.spec.prev_kv,
        };
        let hub = Arc::clone(&self.hub);
        let permit = Arc::clone(&self.hub.catch_ups).acquire_owned().await;
        let read = blocking(move || {
            let found = stretch(&hub, &query);
            drop(permit);
            found
        });
        let unavailable =
            |error: &dyn std::fmt::Display| WatchError::Unavailable(error.to_string());
        let CatchUp { events, through } = match read.await.map_err(|error| unavailable(&error))? {
            Ok(found) => found,
            Err(QueryError::Rejected(Rejection::Compacted(floor))) => {
                return Err(WatchError::Compacted(floor));
            }
            Err(QueryError::Rejected(rejection)) => return Err(WatchError::Rejected(rejection)),
            Err(QueryError::Fault(fault)) => return Err(unavailable(&fault)),
        };
        self.next = self.next.max(through.0 + 1);
        let events: Arc<[Event]> =
            events.into_iter().filter(|event| self.spec.wants(event)).collect();
        if events.is_empty() {
            return Ok(Vec::new());
        }
        self.hub.count_events(events.len());
        let prev_kv = self.spec.prev_kv;
        Ok(vec![Events { revision: through.0, events, shared: None, prev_kv }])
    }
}

/// Reads what is shared with others that are behind; the end of history, which is still growing, alone.
fn stretch(hub: &Hub, query: &EventQuery) -> Result<CatchUp, QueryError> {
    let (mut events, mut bytes, mut next) = (Vec::new(), 0, query.from.0);
    let EventQuery { range, to, prev_kv, .. } = query;
    for _ in 0..STEP_BLOCKS {
        let budget = query.budget_bytes.saturating_sub(bytes);
        if budget == 0 {
            break;
        }
        let found = hub.history.read(hub.reader(), range, next, to.0, budget, *prev_kv)?;
        let Some(found) = found else { break };
        bytes += found.events.iter().map(Message::encoded_len).sum::<usize>();
        events.extend(found.events);
        next = found.through + 1;
    }
    if next == query.from.0 {
        return hub.reader().events(query);
    }
    Ok(CatchUp { events, through: Revision(next - 1) })
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.hub.unregister(&self.spec.range, self.id);
    }
}
