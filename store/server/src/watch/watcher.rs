//! One watcher: a cursor over the ring and, when it is behind, over history.

use std::sync::Arc;
use std::sync::atomic::Ordering;

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

    /// Whether who wants `other` is told the same.
    fn serves(&self, other: &Self) -> bool {
        let options = |spec: &Self| (spec.prev_kv, spec.no_put, spec.no_delete);
        self.range == other.range && options(self) == options(other)
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
#[derive(Clone, Debug)]
pub(crate) struct Events {
    /// The store was at this revision or a later one when the last of these happened.
    pub(crate) revision: i64,
    body: Body,
}

#[derive(Clone, Debug)]
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

    /// Those of `from` and later, if there are any.
    pub(crate) fn since(&self, from: i64) -> Option<Self> {
        let revision = |event: &Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
        let all = self.events();
        match all.iter().filter(|event| revision(event) >= from).count() {
            0 => None,
            n if n == all.len() => Some(self.clone()),
            _ => {
                let later = all.iter().filter(|event| revision(event) >= from).cloned();
                Some(Self::own(self.revision, later))
            }
        }
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

    /// About how many bytes they have, each behind its tag and length.
    pub(crate) fn size(&self) -> usize {
        const BEFORE: usize = 4;
        match &self.body {
            Body::Own(events) => events.iter().map(|event| BEFORE + event.encoded_len()).sum(),
            Body::Revised(revised, prev_kv) => {
                revised.bytes() + BEFORE * revised.events(*prev_kv).len()
            }
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

    /// Looks for one watcher more, who wants `spec`: from which revision on. `None` when that needs a
    /// watcher of its own.
    pub(crate) fn join(&self, spec: &Spec) -> Option<i64> {
        let from = self.hub.head() + 1;
        let joins = spec.start == 0 && !self.behind && self.next <= from && self.spec.serves(spec);
        joins.then(|| {
            self.hub.join(&self.slot);
            from
        })
    }

    /// Looks for one watcher less, but still for another.
    pub(crate) fn leave(&self) {
        self.hub.leave(&self.slot, 1);
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
                self.count(events.iter().map(Events::count).sum());
                return Step::Events(events);
            }
        }
    }

    fn count(&self, events: usize) {
        self.hub.count_events(events * self.slot.watchers.load(Ordering::Relaxed));
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
        let found = match self.known(&query) {
            Some(part) => Past::Narrow(Found::Part(part)),
            None => self.read_past(query).await?,
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
        self.count(events.count());
        Ok(vec![events])
    }

    /// What was read for another watcher already. Whatever is wrong is told by the way of reading it.
    fn known(&self, query: &EventQuery) -> Option<Part> {
        if self.wide {
            return None;
        }
        self.hub.narrow.known(self.hub.reader(), query).ok().flatten()
    }

    async fn read_past(&self, query: EventQuery) -> Result<Past, WatchError> {
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
        match read.await.map_err(|error| unavailable(&error))? {
            Ok(found) => Ok(found),
            Err(QueryError::Rejected(Rejection::Compacted(floor))) => {
                Err(WatchError::Compacted(floor))
            }
            Err(QueryError::Rejected(rejection)) => Err(WatchError::Rejected(rejection)),
            Err(QueryError::Fault(fault)) => Err(unavailable(&fault)),
        }
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
        let watchers = self.slot.watchers.load(Ordering::Relaxed);
        self.hub.leave(&self.slot, watchers.saturating_sub(1));
        self.hub.unregister(&self.spec.range, self.id);
    }
}
