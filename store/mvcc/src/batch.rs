//! Executes commands in order, each on the writes of those before it, and gathers everything for
//! one write to the database.
//!
//! A command is refused before it has changed anything, or it changes everything it should:
//! whatever can be refused is checked first ([`txn`]), so nothing has to be undone. Only a
//! [`Fault`] can strike midway, and then the whole batch is thrown away.

mod auth;
mod leases;
mod txn;

use std::sync::Arc;

use bytes::Bytes;
use pintle_proto::raft::{Command, command::Kind};
use pintle_store_api::mvccpb::{Event, KeyValue, event::EventType};
use pintle_store_api::{KeyRange, Rejection, Revision, pb};

use crate::alarms::Alarms;
use crate::auth::{Auth, Rows};
use crate::database::Database;
use crate::keyspace::{Head, Record};
use crate::outcome::{Outcome, Response, RevisionEvents, header};
use crate::overlay::{Changed, Overlay};
use crate::view::{Snapshot, View};
use crate::{Fault, QueryError, validate};

/// Commands on their way into one write.
pub(crate) struct Batch<'a> {
    database: &'a Database,
    snapshot: Option<&'a Snapshot<'a>>,
    overlay: Overlay,
    /// Those before the batch, then those after it.
    pub(crate) alarms: Alarms,
    /// Users, roles and permissions before the batch, then after it;
    pub(crate) auth: Arc<Auth>,
    /// and what of them the batch has changed.
    pub(crate) auth_rows: Rows,
    head: Head,
    sealed: Vec<RevisionEvents>,
    /// What the command under way has changed: the events of the revision that it makes.
    open: Vec<Event>,
}

impl<'a> Batch<'a> {
    /// On the newest state: for the thread that writes.
    pub(crate) fn new(database: &'a Database, head: Head) -> Self {
        let (overlay, alarms, auth, auth_rows, sealed, open) = Default::default();
        let snapshot = None;
        Self { database, snapshot, overlay, alarms, auth, auth_rows, head, sealed, open }
    }

    /// On a snapshot: for transactions that only read.
    pub(crate) fn at_snapshot(
        database: &'a Database,
        snapshot: &'a Snapshot<'a>,
        head: Head,
    ) -> Self {
        Self { snapshot: Some(snapshot), ..Self::new(database, head) }
    }

    /// One command; all its changes get one revision (a revoke of several leases: one for each).
    pub(crate) fn command(&mut self, command: &Command, term: u64) -> Result<Outcome, Fault> {
        let refusal = command.kind.as_ref().and_then(|kind| self.alarms.refusal(kind));
        if let Some(refusal) = refusal {
            return Ok(Err(refusal));
        }
        let result = self.authorize(command).and_then(|()| self.execute_command(command, term));
        self.seal();
        match result {
            Ok(response) => Ok(Ok(response)),
            Err(QueryError::Rejected(rejection)) => Ok(Err(rejection)),
            Err(QueryError::Fault(fault)) => Err(fault),
        }
    }

    fn execute_command(&mut self, command: &Command, term: u64) -> Result<Response, QueryError> {
        match &command.kind {
            Some(Kind::Put(put)) => self.put_alone(put).map(Response::Put),
            Some(Kind::DeleteRange(delete)) => self.delete_alone(delete).map(Response::DeleteRange),
            Some(Kind::Txn(txn)) => self.txn(txn).map(Response::Txn),
            Some(Kind::Compact(compact)) => self.compact(compact).map(Response::Compact),
            Some(Kind::LeaseGrant(grant)) => self.lease_grant(grant).map(Response::LeaseGrant),
            Some(Kind::LeaseRevoke(revoke)) => {
                self.lease_revoke(revoke, term).map(Response::LeaseRevoke)
            }
            Some(Kind::LeaseCheckpoint(checkpoint)) => {
                self.lease_checkpoint(checkpoint).map(Response::LeaseCheckpoint)
            }
            Some(Kind::Alarm(request)) => {
                let mut response = self.alarms.command(request);
                response.header = header(self.head.revision);
                Ok(Response::Alarm(response))
            }
            Some(Kind::Auth(command)) => self.auth_command(command),
            None => Err(unknown_command().into()),
        }
    }

    /// The keys that came (1) and went (−1), in order.
    pub(crate) fn population(&self) -> impl Iterator<Item = (&Bytes, i64)> {
        let changes =
            self.overlay.changes().iter().map(|one| (&one.key, one.change().population()));
        changes.filter(|(_, change)| *change != 0)
    }

    /// Users and roles, if the batch has changed them.
    pub(crate) fn changed_auth(&self) -> Option<Arc<Auth>> {
        (!self.auth_rows.is_empty()).then(|| Arc::clone(&self.auth))
    }

    /// What has changed, rows of users and roles, the new head and the events.
    pub(crate) fn finish(self) -> (Overlay, Rows, Head, Vec<RevisionEvents>) {
        (self.overlay, self.auth_rows, self.head, self.sealed)
    }

    /// The database with everything that the batch has written so far.
    pub(crate) fn view(&self) -> View<'_> {
        View {
            database: self.database,
            snapshot: self.snapshot,
            overlay: Some(&self.overlay),
            head: self.head,
            revision: self.revision(),
        }
    }

    /// What a read now sees: one more than the head once the command has changed something.
    fn revision(&self) -> i64 {
        if self.open.is_empty() { self.head.revision } else { self.head.revision + 1 }
    }

    fn seal(&mut self) {
        if !self.open.is_empty() {
            self.head.revision += 1;
            let revision = Revision(self.head.revision);
            self.sealed.push(RevisionEvents { revision, events: std::mem::take(&mut self.open) });
        }
    }

    fn put_alone(&mut self, request: &pb::PutRequest) -> Result<pb::PutResponse, QueryError> {
        validate::put(request)?;
        self.check_put(request)?;
        self.put(request)
    }

    fn delete_alone(
        &mut self,
        request: &pb::DeleteRangeRequest,
    ) -> Result<pb::DeleteRangeResponse, QueryError> {
        validate::delete_range(request)?;
        self.delete_range(request)
    }

    /// Whether the put can be done: its lease exists, and so does what it wants to keep.
    fn check_put(&self, request: &pb::PutRequest) -> Result<(), QueryError> {
        if request.lease != 0 && self.lease(request.lease)?.is_none() {
            return Err(Rejection::LeaseNotFound.into());
        }
        let keeps = request.ignore_value || request.ignore_lease;
        if keeps && self.view().get(&request.key)?.is_none() {
            return Err(Rejection::KeyNotFound.into());
        }
        Ok(())
    }

    /// A put that was checked.
    fn put(&mut self, request: &pb::PutRequest) -> Result<pb::PutResponse, QueryError> {
        let previous = self.view().get(&request.key)?;
        let kept = previous.as_ref();
        let revision = self.head.revision + 1;
        let record = Record {
            create: kept.map_or(revision, |kept| kept.create),
            modified: revision,
            version: kept.map_or(1, |kept| kept.version + 1),
            lease: match kept {
                Some(kept) if request.ignore_lease => kept.lease,
                _ => request.lease,
            },
            value: match kept {
                Some(kept) if request.ignore_value => kept.value.clone(),
                _ => request.value.clone(),
            },
        };
        let prev_kv = self.change(request.key.clone(), previous, Some(record));
        let prev_kv = prev_kv.filter(|_| request.prev_kv);
        Ok(pb::PutResponse { header: header(revision), prev_kv })
    }

    fn delete_range(
        &mut self,
        request: &pb::DeleteRangeRequest,
    ) -> Result<pb::DeleteRangeResponse, QueryError> {
        let doomed = self.collect(&request.key, &request.range_end)?;
        let deleted = doomed.len() as i64;
        let mut prev_kvs = Vec::new();
        for (key, record) in doomed {
            let previous = self.change(key, Some(record), None);
            prev_kvs.extend(previous.filter(|_| request.prev_kv));
        }
        Ok(pb::DeleteRangeResponse { header: header(self.revision()), deleted, prev_kvs })
    }

    /// The living records of a range.
    fn collect(&self, key: &Bytes, range_end: &Bytes) -> Result<Vec<(Bytes, Record)>, Fault> {
        let view = self.view();
        if range_end.is_empty() {
            let record = view.get(key)?;
            return Ok(record.map(|record| (key.clone(), record)).into_iter().collect());
        }
        let range = KeyRange::from_request(key.clone(), range_end.clone());
        let mut scan = view.scan(&range, view.revision)?;
        let mut records = Vec::new();
        while let Some((key, record)) = scan.item()? {
            records.push((Bytes::copy_from_slice(key), record.to_record()));
            scan.advance()?;
        }
        Ok(records)
    }

    /// Replaces a key's record in the revision under way; returns what was there, as a message.
    fn change(
        &mut self,
        key: Bytes,
        previous: Option<Record>,
        next: Option<Record>,
    ) -> Option<KeyValue> {
        let revision = self.head.revision + 1;
        self.account(&key, previous.as_ref(), next.as_ref());
        self.move_lease(&key, previous.as_ref(), next.as_ref());
        let sub = u32::try_from(self.open.len()).expect("a revision fits in memory");
        let prev_kv = previous.clone().map(|previous| previous.into_kv(key.clone()));
        let (r#type, kv) = match &next {
            Some(next) => (EventType::Put, next.clone().into_kv(key.clone())),
            None => (EventType::Delete, deleted(key.clone(), revision)),
        };
        let event = Event { r#type: r#type.into(), kv: Some(kv), prev_kv: prev_kv.clone() };
        self.open.push(event);
        self.overlay.change(Changed { key, revision, sub, previous, next });
        prev_kv
    }

    fn account(&mut self, key: &Bytes, previous: Option<&Record>, next: Option<&Record>) {
        let bytes = |record: &Record| (key.len() + record.value.len()) as i64;
        self.head.keys += i64::from(next.is_some()) - i64::from(previous.is_some());
        self.head.bytes += next.map_or(0, bytes) - previous.map_or(0, bytes);
    }

    fn compact(
        &mut self,
        request: &pb::CompactionRequest,
    ) -> Result<pb::CompactionResponse, QueryError> {
        if request.revision <= self.head.floor {
            return Err(Rejection::Compacted(Revision(self.head.floor)).into());
        }
        if request.revision > self.head.revision {
            return Err(Rejection::FutureRevision.into());
        }
        self.head.floor = request.revision;
        Ok(pb::CompactionResponse { header: header(self.head.revision) })
    }
}

/// What a delete event says of its key.
pub(crate) fn deleted(key: Bytes, revision: i64) -> KeyValue {
    KeyValue { key, mod_revision: revision, ..Default::default() }
}

/// A newer member proposed what this version does not know. Refusing it here while others
/// execute it would part the members, so such commands are gated by the cluster's version.
fn unknown_command() -> Rejection {
    const UNIMPLEMENTED: i32 = 12;
    Rejection::Other { code: UNIMPLEMENTED, message: "etcdserver: unknown command".to_owned() }
}
