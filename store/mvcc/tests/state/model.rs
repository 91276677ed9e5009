//! etcd's semantics in the plainest way: a whole copy of the keyspace for every revision.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use pintle_mvcc::{Outcome, Response, RevisionEvents, validate};
use pintle_proto::raft::{Command, LeaseRevoke, command::Kind};
use pintle_store_api::mvccpb::{Event, KeyValue, event::EventType};
use pintle_store_api::pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pintle_store_api::pb::{request_op::Request, response_op};
use pintle_store_api::{Rejection, Revision, pb};

type Keyspace = BTreeMap<Bytes, KeyValue>;

/// What every member should hold.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    /// By revision; nothing at 0, empty at 1.
    states: Vec<Keyspace>,
    events: Vec<Vec<Event>>,
    pub(crate) floor: i64,
    /// Granted and remaining seconds.
    pub(crate) leases: BTreeMap<i64, (i64, i64)>,
}

/// The revision that a command is making.
struct Work {
    state: Keyspace,
    revision: i64,
    events: Vec<Event>,
}

fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, ..Default::default() })
}

fn in_range(key: &[u8], start: &[u8], range_end: &[u8]) -> bool {
    match range_end {
        [] => key == start,
        [0] => key >= start || start == [0],
        end => key >= start && key < end,
    }
}

impl Model {
    pub(crate) fn new() -> Self {
        Self {
            states: vec![Keyspace::new(); 2],
            events: vec![Vec::new(); 2],
            floor: -1,
            leases: BTreeMap::new(),
        }
    }

    pub(crate) fn revision(&self) -> i64 {
        self.states.len() as i64 - 1
    }

    pub(crate) fn newest(&self) -> &Keyspace {
        self.states.last().expect("never empty")
    }

    pub(crate) fn lease_keys(&self, id: i64) -> Vec<Bytes> {
        self.newest().values().filter(|kv| kv.lease == id).map(|kv| kv.key.clone()).collect()
    }

    pub(crate) fn apply(&mut self, command: &Command, term: u64) -> (Outcome, Vec<RevisionEvents>) {
        let before = self.revision();
        let outcome = self.command(command, term);
        let events = (before + 1..=self.revision())
            .map(|revision| RevisionEvents {
                revision: Revision(revision),
                events: self.events[revision as usize].clone(),
            })
            .collect();
        (outcome, events)
    }

    fn command(&mut self, command: &Command, term: u64) -> Outcome {
        match command.kind.as_ref().expect("strategies give a kind") {
            Kind::Put(put) => {
                validate::put(put)?;
                self.check_put(put)?;
                let mut work = self.begin();
                let response = work.put(put);
                self.commit(work);
                Ok(Response::Put(response))
            }
            Kind::DeleteRange(delete) => {
                validate::delete_range(delete)?;
                let mut work = self.begin();
                let response = work.delete(delete);
                self.commit(work);
                Ok(Response::DeleteRange(response))
            }
            Kind::Txn(txn) => self.txn(txn).map(Response::Txn),
            Kind::Compact(compact) => {
                if compact.revision <= self.floor {
                    return Err(Rejection::Compacted(Revision(self.floor)));
                }
                if compact.revision > self.revision() {
                    return Err(Rejection::FutureRevision);
                }
                self.floor = compact.revision;
                Ok(Response::Compact(pb::CompactionResponse { header: header(self.revision()) }))
            }
            Kind::LeaseGrant(grant) => {
                if grant.id == 0 {
                    return Err(Rejection::LeaseNotFound);
                }
                if self.leases.contains_key(&grant.id) {
                    return Err(Rejection::LeaseExists);
                }
                self.leases.insert(grant.id, (grant.ttl, 0));
                let (header, id, ttl) = (header(self.revision()), grant.id, grant.ttl);
                let response = pb::LeaseGrantResponse { header, id, ttl, ..Default::default() };
                Ok(Response::LeaseGrant(response))
            }
            Kind::LeaseRevoke(revoke) => self.revoke(revoke, term),
            Kind::LeaseCheckpoint(checkpoint) => {
                for remaining in &checkpoint.remaining {
                    if let Some((_, left)) = self.leases.get_mut(&remaining.id) {
                        *left = remaining.ttl;
                    }
                }
                let header = header(self.revision());
                Ok(Response::LeaseCheckpoint(pb::LeaseCheckpointResponse { header }))
            }
            Kind::Alarm(_) => unreachable!("the strategy raises no alarms"),
            Kind::Auth(_) => unreachable!("the strategy changes no users"),
        }
    }

    fn revoke(&mut self, revoke: &LeaseRevoke, term: u64) -> Outcome {
        let mut any = false;
        if revoke.expired_in_term == 0 || revoke.expired_in_term == term {
            for id in &revoke.ids {
                if self.leases.remove(id).is_some() {
                    any = true;
                    let mut work = self.begin();
                    for key in self.lease_keys(*id) {
                        work.remove(&key);
                    }
                    self.commit(work);
                }
            }
        }
        if !any && revoke.expired_in_term == 0 {
            return Err(Rejection::LeaseNotFound);
        }
        Ok(Response::LeaseRevoke(pb::LeaseRevokeResponse { header: header(self.revision()) }))
    }

    pub(crate) fn range(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, Rejection> {
        if request.revision > self.revision() {
            return Err(Rejection::FutureRevision);
        }
        let revision = if request.revision > 0 { request.revision } else { self.revision() };
        if revision < self.floor {
            return Err(Rejection::Compacted(Revision(self.floor)));
        }
        Ok(range(&self.states[revision as usize], request, self.revision()))
    }

    /// All events of `from..=to`, as a watcher that catches up sees them.
    pub(crate) fn events(
        &self,
        start: &[u8],
        range_end: &[u8],
        from: i64,
        to: i64,
        prev_kv: bool,
    ) -> Vec<Event> {
        let mut out = Vec::new();
        for revision in from.max(0)..=to.min(self.revision()) {
            for event in &self.events[revision as usize] {
                let mut event = event.clone();
                if !prev_kv || revision <= self.floor {
                    event.prev_kv = None;
                }
                if in_range(&event.kv.as_ref().expect("has kv").key, start, range_end) {
                    out.push(event);
                }
            }
        }
        out
    }

    pub(crate) fn txn(&mut self, request: &pb::TxnRequest) -> Result<pb::TxnResponse, Rejection> {
        validate::txn(request, usize::MAX)?;
        self.check(request)?;
        let mut work = self.begin();
        let mut response = self.execute(request, &mut work);
        response.header = header(work.visible());
        self.commit(work);
        Ok(response)
    }

    fn check(&self, request: &pb::TxnRequest) -> Result<(), Rejection> {
        for op in self.branch(request) {
            match op.request.as_ref().expect("validated") {
                Request::RequestRange(range) if range.revision > self.revision() => {
                    return Err(Rejection::FutureRevision);
                }
                Request::RequestRange(range)
                    if range.revision != 0 && range.revision < self.floor =>
                {
                    return Err(Rejection::Compacted(Revision(self.floor)));
                }
                Request::RequestPut(put) => self.check_put(put)?,
                Request::RequestTxn(nested) => self.check(nested)?,
                Request::RequestRange(_) | Request::RequestDeleteRange(_) => {}
            }
        }
        Ok(())
    }

    fn check_put(&self, put: &pb::PutRequest) -> Result<(), Rejection> {
        if put.lease != 0 && !self.leases.contains_key(&put.lease) {
            return Err(Rejection::LeaseNotFound);
        }
        let keeps = put.ignore_lease || put.ignore_value;
        if keeps && !self.newest().contains_key(&put.key) {
            return Err(Rejection::KeyNotFound);
        }
        Ok(())
    }

    fn succeeds(&self, request: &pb::TxnRequest) -> bool {
        request.compare.iter().all(|compare| {
            let mut keys = self
                .newest()
                .values()
                .filter(|kv| in_range(&kv.key, &compare.key, &compare.range_end))
                .peekable();
            if keys.peek().is_none() {
                return compare.target() != CompareTarget::Value
                    && holds(compare, &KeyValue::default());
            }
            keys.all(|kv| holds(compare, kv))
        })
    }

    fn branch<'r>(&self, request: &'r pb::TxnRequest) -> &'r [pb::RequestOp] {
        if self.succeeds(request) { &request.success } else { &request.failure }
    }

    fn execute(&self, request: &pb::TxnRequest, work: &mut Work) -> pb::TxnResponse {
        let responses = self.branch(request).iter().map(|op| {
            let response = match op.request.as_ref().expect("validated") {
                Request::RequestRange(read) => {
                    let old = read.revision > 0 && read.revision < work.visible();
                    let state =
                        if old { &self.states[read.revision as usize] } else { &work.state };
                    response_op::Response::ResponseRange(range(state, read, work.visible()))
                }
                Request::RequestPut(put) => response_op::Response::ResponsePut(work.put(put)),
                Request::RequestDeleteRange(delete) => {
                    response_op::Response::ResponseDeleteRange(work.delete(delete))
                }
                Request::RequestTxn(nested) => {
                    response_op::Response::ResponseTxn(self.execute(nested, work))
                }
            };
            pb::ResponseOp { response: Some(response) }
        });
        let responses = responses.collect();
        pb::TxnResponse {
            header: Some(Default::default()),
            succeeded: self.succeeds(request),
            responses,
        }
    }

    fn begin(&self) -> Work {
        Work { state: self.newest().clone(), revision: self.revision() + 1, events: Vec::new() }
    }

    fn commit(&mut self, work: Work) {
        if !work.events.is_empty() {
            self.states.push(work.state);
            self.events.push(work.events);
        }
    }
}

impl Work {
    fn visible(&self) -> i64 {
        if self.events.is_empty() { self.revision - 1 } else { self.revision }
    }

    fn put(&mut self, put: &pb::PutRequest) -> pb::PutResponse {
        let previous = self.state.get(&put.key).cloned();
        let base = previous
            .clone()
            .unwrap_or(KeyValue { create_revision: self.revision, ..Default::default() });
        let kv = KeyValue {
            key: put.key.clone(),
            create_revision: base.create_revision,
            mod_revision: self.revision,
            version: base.version + 1,
            value: if put.ignore_value { base.value } else { put.value.clone() },
            lease: if put.ignore_lease { base.lease } else { put.lease },
        };
        self.state.insert(put.key.clone(), kv.clone());
        let prev_kv = previous.clone().filter(|_| put.prev_kv);
        self.events.push(Event { r#type: EventType::Put.into(), kv: Some(kv), prev_kv: previous });
        pb::PutResponse { header: header(self.revision), prev_kv }
    }

    fn delete(&mut self, delete: &pb::DeleteRangeRequest) -> pb::DeleteRangeResponse {
        let doomed: Vec<KeyValue> = self
            .state
            .values()
            .filter(|kv| in_range(&kv.key, &delete.key, &delete.range_end))
            .cloned()
            .collect();
        doomed.iter().for_each(|kv| self.remove(&kv.key));
        let deleted = doomed.len() as i64;
        let prev_kvs = if delete.prev_kv { doomed } else { Vec::new() };
        pb::DeleteRangeResponse { header: header(self.visible()), deleted, prev_kvs }
    }

    fn remove(&mut self, key: &Bytes) {
        let prev_kv = self.state.remove(key);
        let kv = KeyValue { key: key.clone(), mod_revision: self.revision, ..Default::default() };
        self.events.push(Event { r#type: EventType::Delete.into(), kv: Some(kv), prev_kv });
    }
}

fn range(state: &Keyspace, request: &pb::RangeRequest, revision: i64) -> pb::RangeResponse {
    use pb::range_request::{SortOrder, SortTarget};
    let all = state.values().filter(|kv| in_range(&kv.key, &request.key, &request.range_end));
    let count = all.clone().count() as i64;
    let mut kvs: Vec<KeyValue> = all
        .filter(|_| !request.count_only)
        .filter(|kv| request.min_mod_revision == 0 || kv.mod_revision >= request.min_mod_revision)
        .filter(|kv| request.max_mod_revision == 0 || kv.mod_revision <= request.max_mod_revision)
        .filter(|kv| {
            request.min_create_revision == 0 || kv.create_revision >= request.min_create_revision
        })
        .filter(|kv| {
            request.max_create_revision == 0 || kv.create_revision <= request.max_create_revision
        })
        .cloned()
        .collect();
    let limit = if request.limit > 0 { request.limit as usize } else { usize::MAX };
    let filtered = request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0;
    if request.sort_order() == SortOrder::None && !filtered {
        // What is sorted then, as in etcd, is only the beginning of the range.
        kvs.truncate(limit.saturating_add(1));
    }
    let descend = request.sort_order() == SortOrder::Descend;
    match request.sort_target() {
        SortTarget::Key if descend => kvs.reverse(),
        SortTarget::Key => {}
        target => kvs.sort_by(|a, b| {
            let (a, b) = if descend { (b, a) } else { (a, b) };
            match target {
                SortTarget::Version => a.version.cmp(&b.version),
                SortTarget::Create => a.create_revision.cmp(&b.create_revision),
                SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
                _ => a.value.cmp(&b.value),
            }
        }),
    }
    let more = kvs.len() > limit;
    kvs.truncate(limit);
    if request.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value.clear());
    }
    pb::RangeResponse { header: header(revision), kvs, more, count }
}

fn holds(compare: &pb::Compare, kv: &KeyValue) -> bool {
    let number = |have: i64, want: i64| have.cmp(&want);
    let ordering =
        match (compare.target(), compare.target_union.as_ref().expect("strategies give one")) {
            (CompareTarget::Version, TargetUnion::Version(want)) => number(kv.version, *want),
            (CompareTarget::Create, TargetUnion::CreateRevision(want)) => {
                number(kv.create_revision, *want)
            }
            (CompareTarget::Mod, TargetUnion::ModRevision(want)) => number(kv.mod_revision, *want),
            (CompareTarget::Lease, TargetUnion::Lease(want)) => number(kv.lease, *want),
            (CompareTarget::Value, TargetUnion::Value(want)) => kv.value.cmp(want),
            other => panic!("mismatched compare {other:?}"),
        };
    match compare.result() {
        CompareResult::Equal => ordering.is_eq(),
        CompareResult::NotEqual => ordering.is_ne(),
        CompareResult::Greater => ordering.is_gt(),
        CompareResult::Less => ordering.is_lt(),
    }
}

/// The sizes that the state accounts for.
pub(crate) fn sizes(model: &Model) -> (u64, u64) {
    let keys: BTreeSet<_> = model.newest().keys().collect();
    let bytes = model.newest().values().map(|kv| (kv.key.len() + kv.value.len()) as u64).sum();
    (keys.len() as u64, bytes)
}
