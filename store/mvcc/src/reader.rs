//! Reads of the state, concurrent with apply.
//!
//! Every read but that of one key's newest record has everything written to RocksDB that was applied, then
//! takes a snapshot and the head that was written with it, so what it answers is the state after some whole
//! batch. Reads of old revisions look at the flushed floor once more when they are done: only what lay above
//! it is certain to have been there throughout.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use pintle_store_api::{AuthError, KeyRange, LeaseId, Rejection, Revision, mvccpb, pb};

use crate::auth::{Auth, Authorizer, Caller, LeaseKeys, Permit, Published};
use crate::batch::Batch;
use crate::database::Database;
use crate::keyspace::{Family, Head, head, lease};
use crate::pending::Asker;
use crate::view::{Snapshot, View};
use crate::{Fault, QueryError, events, hash, pages, range, validate};

/// Reads a consistent state while apply goes on. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader {
    database: Arc<ArcSwap<Database>>,
    auth: Arc<Published>,
}

/// A lease as it is replicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its name.
    pub id: LeaseId,
    /// Seconds, as granted.
    pub granted_ttl: i64,
    /// Seconds that were left at the last checkpoint; 0 when there was none since the last renewal.
    pub remaining_ttl: i64,
}

/// What a watcher that has fallen behind asks for.
#[derive(Clone, Debug)]
pub struct EventQuery {
    /// The keys.
    pub range: KeyRange,
    /// The first revision.
    pub from: Revision,
    /// The last revision; clamped to the current one.
    pub to: Revision,
    /// Stop after the revision that exceeds this many bytes of events.
    pub budget_bytes: usize,
    /// Fill `prev_kv` (where the key existed before and the revision before is not compacted).
    pub prev_kv: bool,
}

/// A stretch of history without gaps.
#[derive(Clone, Debug, PartialEq)]
pub struct CatchUp {
    /// In revision order, only complete revisions.
    pub events: Vec<mvccpb::Event>,
    /// Nothing of the range up to here is missing; continue at the next one. It always moves on,
    /// also when no event of the range was met.
    pub through: Revision,
}

/// What a checkpoint holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointInfo {
    /// The `applied` bytes of the last apply in it.
    pub applied: Bytes,
    /// Its current revision.
    pub revision: Revision,
    /// Its compact floor; −1 when nothing was ever compacted.
    pub compact_revision: Revision,
    /// Living keys.
    pub keys: u64,
    /// Bytes of living keys and values.
    pub live_bytes: u64,
}

impl Reader {
    pub(crate) fn new(database: Arc<Database>, auth: Arc<Auth>) -> Self {
        let database = Arc::new(ArcSwap::new(database));
        Self { database, auth: Arc::new(Published::new(auth)) }
    }

    pub(crate) fn published_auth(&self) -> &Published {
        &self.auth
    }

    pub(crate) fn replace(&self, database: Arc<Database>) {
        self.database.store(database);
    }

    /// The newest applied revision; 1 on a fresh state.
    pub fn current_revision(&self) -> Revision {
        Revision(self.database.load().published().revision())
    }

    /// The compact floor: revisions below it are gone. −1 when nothing was ever compacted, as in etcd.
    pub fn compact_revision(&self) -> Revision {
        Revision(self.database.load().published().floor())
    }

    /// Answers a range request from one consistent state. `header.revision` is filled.
    pub fn range(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, QueryError> {
        if request.range_end.is_empty()
            && request.revision <= 0
            && let Some(answer) = self.newest_of_key(request)
        {
            return answer;
        }
        self.at_snapshot(|database, snapshot, head| {
            let view = View::at_snapshot(database, snapshot, head);
            let answer = range::range(&view, request)?;
            still_there(database, request.revision)?;
            Ok(answer)
        })
    }

    /// The answer to a request for one key as it is now, if memory alone can give it. Never blocks on I/O.
    pub fn range_of_known(&self, request: &pb::RangeRequest) -> Option<pb::RangeResponse> {
        let newest_of_one = request.range_end.is_empty() && request.revision <= 0;
        newest_of_one.then(|| known(&self.database.load(), request)).flatten()
    }

    /// Answers a range request that has neither order nor filters in pages of about `page_bytes`, as
    /// `take` wants them: all from one consistent state, which is held meanwhile. Their merge is the
    /// answer of [`Reader::range`]; header, `more` and `count` are on the last. Blocks on I/O.
    pub fn range_pages(
        &self,
        request: &pb::RangeRequest,
        page_bytes: usize,
        mut take: impl FnMut(pb::RangeResponse) -> ControlFlow<()>,
    ) -> Result<(), QueryError> {
        self.at_snapshot(|database, snapshot, head| {
            let view = View::at_snapshot(database, snapshot, head);
            pages::pages(&view, request, page_bytes, &mut |page| {
                still_there(database, request.revision)?;
                Ok(take(page))
            })
        })
    }

    /// Answers a transaction without writes ([`crate::validate::is_read_only`]); one with
    /// writes is refused.
    pub fn txn(&self, request: &pb::TxnRequest) -> Result<pb::TxnResponse, QueryError> {
        if !validate::is_read_only(request) {
            return Err(not_read_only().into());
        }
        self.at_snapshot(|database, snapshot, head| {
            let answer = Batch::at_snapshot(database, snapshot, head).txn(request)?;
            oldest_read(request, &answer).map_or(Ok(()), |oldest| still_there(database, oldest))?;
            Ok(answer)
        })
    }

    /// Events of a range from history, for a watcher that is behind the hub's ring.
    /// [`Rejection::Compacted`] when `from` is below the floor.
    pub fn events(&self, query: &EventQuery) -> Result<CatchUp, QueryError> {
        self.at_snapshot(|database, snapshot, head| {
            let view = View::at_snapshot(database, snapshot, head);
            let result = events::catch_up(&view, query);
            // A refusal names the newest floor; what is flushed may be older.
            if !matches!(result, Err(QueryError::Rejected(_))) {
                // Also explains a record that was not found.
                still_there(database, query.from.0)?;
            }
            result
        })
    }

    /// The same from the records of the range's own keys, up to `query.to` at once: as cheap as the range
    /// is narrow, however long ago `from` is. `None` when more than `records_max` records have to be looked
    /// at for it, or the events exceed the budget.
    pub fn events_by_key(
        &self,
        query: &EventQuery,
        records_max: usize,
    ) -> Result<Option<CatchUp>, QueryError> {
        self.at_snapshot(|database, snapshot, head| {
            let view = View::at_snapshot(database, snapshot, head);
            let result = events::by_key(&view, query, records_max);
            // What the oldest revision ended may have gone meanwhile: one more than others need.
            let needed = query.from.0.max(head.floor + 1);
            if needed <= database.flushed_floor() {
                return still_there(database, query.from.0).map(|()| None).map_err(Into::into);
            }
            result
        })
    }

    /// What happened from one revision to another, for many watchers that are behind: without values.
    /// [`Rejection::Compacted`] when `from` is below the floor.
    pub fn changes(
        &self,
        from: Revision,
        to: Revision,
    ) -> Result<Vec<events::LoggedChange>, QueryError> {
        self.at_snapshot(|database, snapshot, head| {
            let result = events::changes(&View::at_snapshot(database, snapshot, head), from, to);
            still_there(database, from.0)?;
            result
        })
    }

    /// The events of some of these changes, in the same order. [`Rejection::Compacted`] when one of
    /// them is below the floor by now.
    pub fn events_of(
        &self,
        changes: &[&events::LoggedChange],
        prev_kv: bool,
    ) -> Result<Vec<mvccpb::Event>, QueryError> {
        self.at_snapshot(|database, snapshot, head| {
            let view = View::at_snapshot(database, snapshot, head);
            let result = events::of_changes(&view, changes, prev_kv);
            let oldest = changes.iter().map(|one| one.revision.0).min().unwrap_or(0);
            still_there(database, oldest)?;
            Ok(result?)
        })
    }

    /// Users, roles and permissions as they are now.
    pub fn auth(&self) -> Arc<Auth> {
        self.auth.current()
    }

    /// Whether requests need a user now.
    pub fn auth_enabled(&self) -> bool {
        self.auth.is_enabled()
    }

    /// Asks `check` whether `caller` may go on, unless authentication is off. What is read then
    /// may only be given out once the permit is confirmed.
    pub fn authorize<E>(
        &self,
        caller: Caller<'_>,
        check: impl FnOnce(&Authorizer<'_>) -> Result<(), E>,
    ) -> Result<Permit, E> {
        self.auth.authorize(caller, check)
    }

    /// Whether nothing has changed since [`Reader::authorize`] that would have forbidden it.
    pub fn confirm<E: From<AuthError>>(
        &self,
        permit: Permit,
        caller: Caller<'_>,
        check: impl FnOnce(&Authorizer<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.auth.confirm(permit, caller, check)
    }

    /// One lease.
    pub fn lease(&self, id: LeaseId) -> Result<Option<Lease>, Fault> {
        let known = self.database.load().lease(id.0)?;
        Ok(known.map(|record| Lease::new(id.0, record)))
    }

    /// All leases, by id.
    pub fn leases(&self) -> Result<Vec<Lease>, Fault> {
        let database = self.database.load();
        database.settle(Asker::Reader)?;
        let mut stored = database.db().raw_iterator_cf(database.family(Family::Lease));
        stored.seek_to_first();
        let mut leases = Vec::new();
        while let Some((key, value)) = stored.item() {
            leases.push(Lease::new(lease::id(key)?, lease::decode(value)?));
            stored.next();
        }
        stored.status()?;
        Ok(leases)
    }

    /// The keys that go when the lease goes, in key order.
    pub fn lease_keys(&self, id: LeaseId) -> Result<Vec<Bytes>, Fault> {
        let database = self.database.load();
        database.settle(Asker::Reader)?;
        let snapshot = database.db().snapshot();
        View::at_snapshot(&database, &snapshot, Head::default()).lease_keys(id.0)
    }

    /// A hash of everything readable between the floor and `revision` (0: the current one). Equal
    /// on all members that have the same floor. Reads the whole state: call it off the hot paths.
    pub fn hash_kv(&self, revision: Revision) -> Result<pb::HashKvResponse, QueryError> {
        loop {
            let answer = self.at_snapshot(|database, snapshot, head| {
                let view = View::at_snapshot(database, snapshot, head);
                hash::hash_kv(&view, revision.0)
            })?;
            if let Some(answer) = answer {
                return Ok(answer);
            }
        }
    }

    /// Bytes that the database takes: files and unflushed buffers.
    pub fn db_size(&self) -> Result<u64, Fault> {
        self.database.load().size()
    }

    /// Bytes of living keys and values: what a quota should count. The same on every member.
    pub fn live_bytes(&self) -> u64 {
        self.database.load().published().bytes().unsigned_abs()
    }

    /// The raised alarms, by kind and member.
    pub fn alarms(&self) -> Vec<pb::AlarmMember> {
        self.database.load().alarms()
    }

    /// The number of living keys.
    pub fn key_count(&self) -> u64 {
        self.database.load().published().keys().unsigned_abs()
    }

    /// Writes what is only in memory to disk. Blocks on I/O; apply goes on meanwhile.
    pub fn flush(&self) -> Result<(), Fault> {
        self.database.load().flush()
    }

    /// Ends flushes and compactions, waiting for those under way: the member is stopping, and the
    /// process may end with readers left over. Reads go on, writes do not.
    pub fn stop_background_work(&self) {
        let database = self.database.load_full();
        // What comes later could not be written, so no reader of ranges may find that it waits.
        if let Err(fault) = database.settle(Asker::Writer) {
            tracing::warn!(%fault, "what was applied last could not be written");
        }
        database.db().cancel_all_background_work(true);
    }

    /// The `applied` bytes that a crash now would come back to; `None` before the first flush.
    pub fn flushed_meta(&self) -> Result<Option<Bytes>, Fault> {
        let (_, applied) = self.database.load().flushed()?;
        Ok(applied)
    }

    /// Removes what lies below the floor from disk, and returns when that is done: for
    /// `CompactionRequest.physical` and for a background task after each compaction. Blocks on I/O.
    pub fn compact_physically(&self) -> Result<(), Fault> {
        self.database.load_full().remove_below_floor()
    }

    /// Writes a complete copy of the state into the new folder `dir`, by hard links where it can.
    /// Apply goes on meanwhile; the answer says what the copy holds.
    pub fn checkpoint(&self, dir: &Path) -> Result<CheckpointInfo, Fault> {
        self.database.load_full().checkpoint(dir)
    }

    /// Whether reads of ranges and of the past start at once, or nearly. Else they first wait until what was applied
    /// is in RocksDB, some 20 ms after many writes and longer on busy processors: [`Reader::settle`] does that alone.
    pub fn is_nearly_settled(&self) -> bool {
        self.database.load().is_nearly_settled()
    }

    /// Brings what was applied to RocksDB. Blocks.
    pub fn settle(&self) -> Result<(), Fault> {
        self.database.load_full().settle(Asker::Reader)
    }

    /// One key's newest state needs no snapshot, only that nothing is written meanwhile; and not even that
    /// if the key is remembered.
    fn newest_of_key(
        &self,
        request: &pb::RangeRequest,
    ) -> Option<Result<pb::RangeResponse, QueryError>> {
        let database = &**self.database.load();
        if let Some(answer) = known(database, request) {
            return Some(Ok(answer));
        }
        let (published, recent) = (database.published(), database.recent());
        let look = |head: Head, moment| {
            let (snapshot, overlay, revision) = (None, None, head.revision);
            let view = View { database, snapshot, overlay, head, revision };
            let record = view.get(&request.key)?;
            recent.found(&request.key, record.as_ref(), || published.is_still(moment));
            Ok(range::of_record(revision, request, record))
        };
        // A snapshot would have everything that waits written first.
        published.undisturbed(look).or_else(|| published.alone(look))
    }

    fn at_snapshot<T>(
        &self,
        read: impl FnOnce(&Database, &Snapshot<'_>, Head) -> Result<T, QueryError>,
    ) -> Result<T, QueryError> {
        let database = self.database.load();
        database.settle(Asker::Reader)?;
        let snapshot = database.db().snapshot();
        let stored = snapshot.get_pinned_cf(database.family(Family::Meta), head::KEY)?;
        let head = match &stored {
            Some(stored) => Head::decode(stored)?.0,
            None => Head::default(),
        };
        read(&database, &snapshot, head)
    }
}

impl LeaseKeys for Reader {
    fn lease_keys(&self, id: LeaseId) -> Result<Vec<Bytes>, Fault> {
        Self::lease_keys(self, id)
    }
}

impl Lease {
    pub(crate) fn new(id: i64, record: lease::LeaseRecord) -> Self {
        let lease::LeaseRecord { granted_ttl, remaining_ttl } = record;
        Self { id: LeaseId(id), granted_ttl, remaining_ttl }
    }
}

/// Whether everything that a read at `revision` needed was there until now.
fn still_there(database: &Database, revision: i64) -> Result<(), Rejection> {
    let floor = database.flushed_floor();
    if revision > 0 && revision < floor {
        return Err(Rejection::Compacted(Revision(floor)));
    }
    Ok(())
}

/// The oldest revision that was read: what stands in the branches not taken does not count.
fn oldest_read(request: &pb::TxnRequest, answer: &pb::TxnResponse) -> Option<i64> {
    use pb::request_op::Request;
    use pb::response_op::Response;
    let taken = if answer.succeeded { &request.success } else { &request.failure };
    let answered = taken.iter().zip(&answer.responses);
    let revisions = answered.filter_map(|(op, answer)| match (&op.request, &answer.response) {
        (Some(Request::RequestRange(range)), _) => {
            Some(range.revision).filter(|revision| *revision > 0)
        }
        (Some(Request::RequestTxn(nested)), Some(Response::ResponseTxn(answer))) => {
            oldest_read(nested, answer)
        }
        _ => None,
    });
    revisions.min()
}

/// The answer to a request for the newest record of one key, if that is remembered.
fn known(database: &Database, request: &pb::RangeRequest) -> Option<pb::RangeResponse> {
    let look = |head: Head| Some((head.revision, database.recent().get(&request.key)?));
    let (revision, record) = database.published().unturned(look).flatten()?;
    Some(range::of_record(revision, request, record))
}

fn not_read_only() -> Rejection {
    const INVALID_ARGUMENT: i32 = 3;
    let message = "etcdserver: a transaction with writes is not a read".to_owned();
    Rejection::Other { code: INVALID_ARGUMENT, message }
}
