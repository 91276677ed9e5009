//! Keys with all their versions, leases, and the log that watchers read.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{KeyRange, Rejection, Revision, mvccpb, pb};

/// One version of a key; a deletion has no value.
/// Seconds; etcd's limit.
const LEASE_TTL_MAX: i64 = 9_000_000_000;

#[derive(Clone, Debug)]
struct Version {
    modified: i64,
    created: i64,
    version: i64,
    value: Option<Bytes>,
    lease: i64,
}

#[derive(Debug)]
struct Lease {
    ttl: i64,
    deadline: Instant,
    keys: BTreeSet<Bytes>,
}

/// The events of every revision above the floor.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) revision: i64,
    pub(super) compacted: i64,
    pub(super) entries: BTreeMap<i64, Vec<mvccpb::Event>>,
}

/// The whole state.
#[derive(Debug)]
pub(super) struct Keyspace {
    pub(super) revision: i64,
    pub(super) compacted: i64,
    pub(super) log: Arc<Mutex<Log>>,
    keys: BTreeMap<Bytes, Vec<Version>>,
    leases: BTreeMap<i64, Lease>,
    lease_next: i64,
}

impl Default for Keyspace {
    fn default() -> Self {
        Self {
            revision: 1,
            compacted: 0,
            log: Arc::new(Mutex::new(Log { revision: 1, ..Log::default() })),
            keys: BTreeMap::new(),
            leases: BTreeMap::new(),
            lease_next: 1,
        }
    }
}

impl Keyspace {
    pub(super) fn range(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, Rejection> {
        if request.key.is_empty() {
            return Err(Rejection::EmptyKey);
        }
        let at = self.readable(request.revision)?;
        let range = KeyRange::from_request(request.key.clone(), request.range_end.clone());
        let mut kvs: Vec<_> =
            self.keys_in(&range).filter_map(|(key, versions)| live(key, versions, at)).collect();
        let count = i64::try_from(kvs.len()).expect("a length fits into i64");
        if request.count_only {
            return Ok(pb::RangeResponse { count, ..pb::RangeResponse::default() });
        }
        kvs.retain(|kv| {
            bounded(kv.mod_revision, request.min_mod_revision, request.max_mod_revision)
                && bounded(
                    kv.create_revision,
                    request.min_create_revision,
                    request.max_create_revision,
                )
        });
        sort(&mut kvs, request);
        let limit = usize::try_from(request.limit).unwrap_or(0);
        let more = limit > 0 && kvs.len() > limit;
        if more {
            kvs.truncate(limit);
        }
        if request.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
        Ok(pb::RangeResponse { header: None, kvs, more, count })
    }

    /// The newest version of a key, if it is there.
    pub(super) fn current(&self, key: &Bytes) -> Option<mvccpb::KeyValue> {
        live(key, self.keys.get(key)?, i64::MAX)
    }

    /// All live pairs of a range, newest versions.
    pub(super) fn current_in(&self, range: &KeyRange) -> Vec<mvccpb::KeyValue> {
        self.keys_in(range).filter_map(|(key, versions)| live(key, versions, i64::MAX)).collect()
    }

    pub(super) fn put(
        &mut self,
        revision: i64,
        request: &pb::PutRequest,
    ) -> Result<mvccpb::Event, Rejection> {
        if request.key.is_empty() {
            return Err(Rejection::EmptyKey);
        }
        let previous = self.current(&request.key);
        if previous.is_none() && (request.ignore_value || request.ignore_lease) {
            return Err(Rejection::KeyNotFound);
        }
        let kept = |pick: bool| previous.as_ref().filter(|_| pick);
        let lease = kept(request.ignore_lease).map_or(request.lease, |kv| kv.lease);
        let value = kept(request.ignore_value).map_or(&request.value, |kv| &kv.value).clone();
        if lease != 0 && !self.leases.contains_key(&lease) {
            return Err(Rejection::LeaseNotFound);
        }
        self.detach(&request.key, previous.as_ref());
        if let Some(lease) = self.leases.get_mut(&lease) {
            lease.keys.insert(request.key.clone());
        }
        let version = Version {
            modified: revision,
            created: previous.as_ref().map_or(revision, |kv| kv.create_revision),
            version: previous.as_ref().map_or(1, |kv| kv.version + 1),
            value: Some(value),
            lease,
        };
        self.push(&request.key, version);
        Ok(event(mvccpb::event::EventType::Put, self.current(&request.key), previous))
    }

    pub(super) fn delete(&mut self, revision: i64, range: &KeyRange) -> Vec<mvccpb::Event> {
        let doomed = self.current_in(range);
        doomed
            .into_iter()
            .map(|previous| {
                self.detach(&previous.key, Some(&previous));
                let tombstone =
                    Version { modified: revision, created: 0, version: 0, value: None, lease: 0 };
                let key = previous.key.clone();
                self.push(&key, tombstone);
                let kv =
                    mvccpb::KeyValue { key, mod_revision: revision, ..mvccpb::KeyValue::default() };
                event(mvccpb::event::EventType::Delete, Some(kv), Some(previous))
            })
            .collect()
    }

    /// Makes `events` revision `self.revision + 1`; no events make no revision.
    pub(super) fn commit(&mut self, events: Vec<mvccpb::Event>) {
        if events.is_empty() {
            return;
        }
        self.revision += 1;
        let mut log = self.log.lock();
        log.entries.insert(self.revision, events);
        log.revision = self.revision;
    }

    pub(super) fn compact(&mut self, revision: i64) -> Result<(), Rejection> {
        if revision <= self.compacted {
            return Err(Rejection::Compacted(Revision(self.compacted)));
        }
        if revision > self.revision {
            return Err(Rejection::FutureRevision);
        }
        self.compacted = revision;
        for versions in self.keys.values_mut() {
            let newest = versions.iter().rposition(|version| version.modified <= revision);
            versions.drain(..newest.unwrap_or(0));
        }
        self.keys.retain(|_, versions| {
            versions.iter().any(|version| version.value.is_some() || version.modified > revision)
        });
        let mut log = self.log.lock();
        log.compacted = revision;
        log.entries = log.entries.split_off(&revision);
        Ok(())
    }

    pub(super) fn grant(&mut self, id: i64, ttl: i64, now: Instant) -> Result<i64, Rejection> {
        if ttl > LEASE_TTL_MAX {
            return Err(Rejection::LeaseTtlTooLarge);
        }
        if self.leases.contains_key(&id) {
            return Err(Rejection::LeaseExists);
        }
        let id = if id == 0 { self.free_lease_id() } else { id };
        let lease = Lease { ttl, deadline: now + seconds(ttl), keys: BTreeSet::new() };
        self.leases.insert(id, lease);
        Ok(id)
    }

    pub(super) fn has_lease(&self, id: i64) -> bool {
        self.leases.contains_key(&id)
    }

    /// The TTL, or 0 when there is no such lease.
    pub(super) fn keep_alive(&mut self, id: i64, now: Instant) -> i64 {
        self.leases.get_mut(&id).map_or(0, |lease| {
            lease.deadline = now + seconds(lease.ttl);
            lease.ttl
        })
    }

    pub(super) fn revoke(&mut self, id: i64) -> Result<(), Rejection> {
        let lease = self.leases.remove(&id).ok_or(Rejection::LeaseNotFound)?;
        let revision = self.revision + 1;
        let mut events = Vec::new();
        for key in lease.keys {
            events.extend(self.delete(revision, &KeyRange::point(key)));
        }
        self.commit(events);
        Ok(())
    }

    pub(super) fn revoke_expired(&mut self, now: Instant) {
        let expired: Vec<i64> = self
            .leases
            .iter()
            .filter(|(_, lease)| lease.deadline <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in expired {
            self.revoke(id).expect("the lease was found a line above");
        }
    }

    fn readable(&self, revision: i64) -> Result<i64, Rejection> {
        if revision <= 0 {
            Ok(i64::MAX)
        } else if revision > self.revision {
            Err(Rejection::FutureRevision)
        } else if revision < self.compacted {
            Err(Rejection::Compacted(Revision(self.compacted)))
        } else {
            Ok(revision)
        }
    }

    fn keys_in<'a>(
        &'a self,
        range: &'a KeyRange,
    ) -> impl Iterator<Item = (&'a Bytes, &'a Vec<Version>)> {
        let bounds = (Bound::Included(range.start().clone()), Bound::<Bytes>::Unbounded);
        self.keys.range(bounds).take_while(|(key, _)| range.contains(key))
    }

    fn push(&mut self, key: &Bytes, version: Version) {
        self.keys.entry(key.clone()).or_default().push(version);
    }

    fn detach(&mut self, key: &Bytes, previous: Option<&mvccpb::KeyValue>) {
        if let Some(lease) = previous.and_then(|kv| self.leases.get_mut(&kv.lease)) {
            lease.keys.remove(key);
        }
    }

    fn free_lease_id(&mut self) -> i64 {
        while self.leases.contains_key(&self.lease_next) {
            self.lease_next += 1;
        }
        self.lease_next
    }
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0))
}

fn live(key: &Bytes, versions: &[Version], at: i64) -> Option<mvccpb::KeyValue> {
    let version = versions.iter().rev().find(|version| version.modified <= at)?;
    let value = version.value.clone()?;
    Some(mvccpb::KeyValue {
        key: key.clone(),
        create_revision: version.created,
        mod_revision: version.modified,
        version: version.version,
        value,
        lease: version.lease,
    })
}

fn bounded(value: i64, min: i64, max: i64) -> bool {
    (min == 0 || value >= min) && (max == 0 || value <= max)
}

fn sort(kvs: &mut [mvccpb::KeyValue], request: &pb::RangeRequest) {
    use pb::range_request::{SortOrder, SortTarget};
    match request.sort_target() {
        SortTarget::Key => {}
        SortTarget::Version => kvs.sort_by_key(|kv| kv.version),
        SortTarget::Create => kvs.sort_by_key(|kv| kv.create_revision),
        SortTarget::Mod => kvs.sort_by_key(|kv| kv.mod_revision),
        SortTarget::Value => kvs.sort_by(|a, b| a.value.cmp(&b.value)),
    }
    if request.sort_order() == SortOrder::Descend {
        kvs.reverse();
    }
}

fn event(
    kind: mvccpb::event::EventType,
    kv: Option<mvccpb::KeyValue>,
    prev_kv: Option<mvccpb::KeyValue>,
) -> mvccpb::Event {
    mvccpb::Event { r#type: kind.into(), kv, prev_kv }
}
