//! One watcher: a cursor over the ring and, when it is behind, over history.

use std::sync::Arc;

use bytes::{BufMut, Bytes};
use pintle_mvcc::{CatchUp, EventQuery, QueryError};
use pintle_store_api::mvccpb::Event;
use pintle_store_api::mvccpb::event::EventType;
use pintle_store_api::pb::WatchCreateRequest;
use pintle_store_api::pb::watch_create_request::FilterType;
use pintle_store_api::{KeyRange, Rejection, Revision, WatchError};
use prost::Message;

use super::hub::Hub;
use super::narrow::{Found, Part};
use super::registry::{Slot, Wake};
use super::ring::{Read, Revised, decode, encode};
use crate::host::blocking;

/// One step reads about this many bytes of events: what one response may carry.
const STEP_BYTES: usize = 1 << 20;
/// And goes through as much history, also when it finds nothing of its range there.
const STEP_BLOCKS: usize = 64;
/// A new watcher that starts this many revisions back looks at its own keys first.
const FAR_BEHIND: i64 = 1_024;

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

    fn filters(&self) -> bool {
        self.no_put || self.no_delete
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
    body: Body,
}

#[derive(Debug)]
enum Body {
    /// This watcher's own.
    Own(Arc<[Event]>),
    /// All of a revision, with or without previous values.
    Revised(Arc<Revised>, bool),
    /// As they go onto the wire, and how many.
    Encoded(Bytes, usize),
}

impl Events {
    pub(crate) fn own(revision: i64, events: impl IntoIterator<Item = Event>) -> Self {
        Self { revision, body: Body::Own(events.into_iter().collect()) }
    }

    pub(crate) fn count(&self) -> usize {
        match &self.body {
            Body::Own(events) => events.len(),
            Body::Revised(revised, prev_kv) => revised.events(*prev_kv).len(),
            Body::Encoded(_, count) => *count,
        }
    }

    pub(crate) fn events(&self) -> Arc<[Event]> {
        match &self.body {
            Body::Own(events) => Arc::clone(events),
            Body::Revised(revised, prev_kv) => Arc::clone(revised.events(*prev_kv)),
            Body::Encoded(encoded, _) => decode(encoded).into(),
        }
    }

    /// About how many bytes they have.
    pub(crate) fn size(&self) -> usize {
        match &self.body {
            Body::Own(events) => events.iter().map(Message::encoded_len).sum(),
            Body::Revised(revised, _) => revised.bytes(),
            Body::Encoded(encoded, _) => encoded.len(),
        }
    }

    /// Writes them as the end of a `WatchResponse`.
    pub(crate) fn encode(&self, out: &mut impl BufMut) {
        match &self.body {
            Body::Own(events) => out.put(encode(events)),
            Body::Revised(revised, prev_kv) => out.put_slice(revised.encoded(*prev_kv)),
            Body::Encoded(encoded, _) => out.put_slice(encoded),
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
    /// It is marked for whatever concerns it after this revision.
    marked_after: i64,
    /// Its keys are so many that the log is the shorter way to the past.
    wide: bool,
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
        let (floor, wide) = (floor.0, false);
        Ok(Self { hub, slot, id, spec, next, floor, behind, marked_after, wide })
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
            if self.is_far_behind() {
                return Step::Behind;
            }
            let Read::Revisions { found, through, more } = self.hub.read(self.next, STEP_BYTES)
            else {
                return Step::Behind;
            };
            self.next = through + 1;
            self.behind = more;
            let mut events = Vec::with_capacity(found.len());
            events.extend(found.iter().filter_map(|revised| self.select(revised)));
            if !events.is_empty() {
                self.hub.count_events(events.iter().map(Events::count).sum());
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
        let revision = revised.revision;
        match wanted {
            0 => None,
            n if n == all.len() => {
                Some(Events { revision, body: Body::Revised(Arc::clone(revised), prev_kv) })
            }
            _ => {
                let wanted = all.iter().filter(|event| self.spec.wants(event)).cloned();
                Some(Events::own(revision, wanted))
            }
        }
    }

    /// Whether its own keys are likely a shorter way to the past than what happened to all.
    fn is_far_behind(&self) -> bool {
        !self.wide && self.next <= self.marked_after && self.hub.head() - self.next >= FAR_BEHIND
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
        let wide = self.wide;
        let read = blocking(move || {
            let found = past(&hub, &query, wide);
            drop(permit);
            found
        });
        let unavailable =
            |error: &dyn std::fmt::Display| WatchError::Unavailable(error.to_string());
        let found = match read.await.map_err(|error| unavailable(&error))? {
            Ok(found) => found,
            Err(QueryError::Rejected(Rejection::Compacted(floor))) => {
                return Err(WatchError::Compacted(floor));
            }
            Err(QueryError::Rejected(rejection)) => return Err(WatchError::Rejected(rejection)),
            Err(QueryError::Fault(fault)) => return Err(unavailable(&fault)),
        };
        let events = match found {
            Past::Narrow(Found::Part(part)) => {
                self.advance(part.through);
                self.part(part)
            }
            Past::Narrow(Found::Rest { events, through }) => {
                self.advance(through);
                self.wanted(events, through)
            }
            Past::Wide(CatchUp { events, through }) => {
                self.wide = true;
                self.next = self.next.max(through.0 + 1);
                self.wanted(events, through.0)
            }
        };
        if events.count() == 0 {
            return Ok(Vec::new());
        }
        self.hub.count_events(events.count());
        Ok(vec![events])
    }

    /// The cursor moves on after everything of its range up to `through` was gathered. Once that
    /// reaches to where it is marked, only a mark says that there is more.
    fn advance(&mut self, through: i64) {
        self.next = self.next.max(through + 1);
        if through >= self.marked_after {
            let marked = self.slot.take();
            self.next = self.next.max(marked);
            self.behind = marked != 0;
        }
    }

    fn part(&self, part: Part) -> Events {
        if self.spec.filters() {
            return self.wanted(decode(&part.encoded), part.through);
        }
        Events { revision: part.through, body: Body::Encoded(part.encoded, part.count) }
    }

    fn wanted(&self, events: Vec<Event>, through: i64) -> Events {
        Events::own(through, events.into_iter().filter(|event| self.spec.wants(event)))
    }
}

/// Where the past was found.
enum Past {
    /// Among the records of the range.
    Narrow(Found),
    /// In the log of everything.
    Wide(CatchUp),
}

fn past(hub: &Hub, query: &EventQuery, wide: bool) -> Result<Past, QueryError> {
    if !wide && let Some(found) = hub.narrow.read(hub.reader(), query)? {
        return Ok(Past::Narrow(found));
    }
    stretch(hub, query).map(Past::Wide)
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
