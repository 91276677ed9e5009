//! A store in memory: one process, no durability, the whole semantic that this workspace relies on.
//!
//! For tests of whatever stands on the seam. Everything happens under one lock, so every read is
//! linearizable. Expired leases are revoked when the next request comes in.

mod keyspace;
mod txn;

use std::sync::Arc;
use std::time::Instant;

use futures::stream;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    KeyRange, LeaseId, ReadError, Rejection, Revision, Store, WatchError, WatchItem, WatchStream,
    WriteError, mvccpb, pb,
};
use keyspace::Keyspace;

/// The store. Share it behind an `Arc`; tests may hold it beside the server under test.
#[derive(Debug)]
pub struct Memory {
    keyspace: Mutex<Keyspace>,
    revision: watch::Sender<i64>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { keyspace: Mutex::new(Keyspace::default()), revision: watch::Sender::new(1) }
    }
}

impl Memory {
    /// An empty store at revision 1.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    fn write<T>(
        &self,
        act: impl FnOnce(&mut Keyspace) -> Result<T, Rejection>,
    ) -> Result<T, WriteError> {
        let mut keyspace = self.keyspace.lock();
        keyspace.revoke_expired(Instant::now());
        let result = act(&mut keyspace);
        // Published under the lock: a watcher never learns of revision N after N + 1.
        self.revision.send_replace(keyspace.revision);
        Ok(result?)
    }
}

fn header(keyspace: &Keyspace) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader {
        cluster_id: 1,
        member_id: 1,
        revision: keyspace.revision,
        raft_term: 1,
    })
}

#[async_trait::async_trait]
impl Store for Memory {
    async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, ReadError> {
        let mut keyspace = self.keyspace.lock();
        keyspace.revoke_expired(Instant::now());
        self.revision.send_replace(keyspace.revision);
        let mut response = keyspace.range(&request)?;
        response.header = header(&keyspace);
        Ok(response)
    }

    async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, WriteError> {
        self.write(|keyspace| {
            let mut response = txn::apply(keyspace, &request)?;
            response.header = header(keyspace);
            Ok(response)
        })
    }

    async fn compact(
        &self,
        request: pb::CompactionRequest,
    ) -> Result<pb::CompactionResponse, WriteError> {
        self.write(|keyspace| {
            keyspace.compact(request.revision)?;
            Ok(pb::CompactionResponse { header: header(keyspace) })
        })
    }

    async fn watch(&self, request: pb::WatchCreateRequest) -> Result<WatchStream, WatchError> {
        let range = KeyRange::from_request(request.key.clone(), request.range_end.clone());
        let (current, floor) = {
            let keyspace = self.keyspace.lock();
            (keyspace.revision, keyspace.compacted)
        };
        let next = if request.start_revision > 0 { request.start_revision } else { current + 1 };
        if next < floor {
            return Err(WatchError::Compacted(Revision(floor)));
        }
        let cursor = Cursor { range, request, next, changed: self.revision.subscribe() };
        Ok(cursor.into_stream(current, self.reader()))
    }

    async fn read_index(&self) -> Result<Revision, ReadError> {
        Ok(Revision(self.keyspace.lock().revision))
    }

    async fn lease_grant(
        &self,
        request: pb::LeaseGrantRequest,
    ) -> Result<pb::LeaseGrantResponse, WriteError> {
        self.write(|keyspace| {
            let id = keyspace.grant(request.id, request.ttl, Instant::now())?;
            Ok(pb::LeaseGrantResponse {
                header: header(keyspace),
                id,
                ttl: request.ttl,
                error: String::new(),
            })
        })
    }

    async fn lease_keep_alive(
        &self,
        id: LeaseId,
    ) -> Result<pb::LeaseKeepAliveResponse, WriteError> {
        self.write(|keyspace| {
            let ttl = keyspace.keep_alive(id.0, Instant::now());
            Ok(pb::LeaseKeepAliveResponse { header: header(keyspace), id: id.0, ttl })
        })
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<pb::LeaseRevokeResponse, WriteError> {
        self.write(|keyspace| {
            keyspace.revoke(id.0)?;
            Ok(pb::LeaseRevokeResponse { header: header(keyspace) })
        })
    }

    async fn status(&self) -> Result<pb::StatusResponse, ReadError> {
        let keyspace = self.keyspace.lock();
        Ok(pb::StatusResponse {
            header: header(&keyspace),
            version: "3.7.1".to_owned(),
            leader: 1,
            raft_term: 1,
            ..pb::StatusResponse::default()
        })
    }

    async fn member_list(&self) -> Result<pb::MemberListResponse, ReadError> {
        let keyspace = self.keyspace.lock();
        let member = pb::Member { id: 1, name: "memory".to_owned(), ..pb::Member::default() };
        Ok(pb::MemberListResponse { header: header(&keyspace), members: vec![member] })
    }
}

/// One watcher: a position in the log of revisions.
struct Cursor {
    range: KeyRange,
    request: pb::WatchCreateRequest,
    next: i64,
    changed: watch::Receiver<i64>,
}

type Reader = Arc<dyn Fn(&mut Cursor) -> Option<Result<WatchItem, WatchError>> + Send + Sync>;

impl Cursor {
    fn into_stream(self, current: i64, read: Reader) -> WatchStream {
        let created = Ok(WatchItem::Created(Revision(current)));
        let events = stream::unfold(Some(self), move |cursor| {
            let read = read.clone();
            async move {
                let mut cursor = cursor?;
                loop {
                    // Marked as seen before looking: a write in between wakes the wait below.
                    cursor.changed.borrow_and_update();
                    match read(&mut cursor) {
                        Some(Ok(item)) => return Some((Ok(item), Some(cursor))),
                        Some(Err(error)) => return Some((Err(error), None)),
                        None => cursor.changed.changed().await.ok()?,
                    }
                }
            }
        });
        Box::pin(futures::StreamExt::chain(stream::iter([created]), events))
    }
}

impl Memory {
    /// Reads on behalf of a cursor without keeping the store alive: the shared state is in the log.
    fn reader(&self) -> Reader {
        let log = self.keyspace.lock().log.clone();
        Arc::new(move |cursor| {
            let log = log.lock();
            if cursor.next < log.compacted {
                return Some(Err(WatchError::Compacted(Revision(log.compacted))));
            }
            if log.revision < cursor.next {
                return None;
            }
            let events: Vec<mvccpb::Event> = log
                .entries
                .range(cursor.next..)
                .flat_map(|(_, events)| events)
                .filter(|event| wanted(cursor, event))
                .map(|event| shaped(cursor, event))
                .collect();
            cursor.next = log.revision + 1;
            let revision = Revision(log.revision);
            if !events.is_empty() {
                Some(Ok(WatchItem::Events { revision, events: events.into() }))
            } else if cursor.request.progress_notify {
                Some(Ok(WatchItem::Progress(revision)))
            } else {
                None
            }
        })
    }
}

fn wanted(cursor: &Cursor, event: &mvccpb::Event) -> bool {
    use pb::watch_create_request::FilterType;
    let filtered = match event.r#type() {
        mvccpb::event::EventType::Put => FilterType::Noput,
        mvccpb::event::EventType::Delete => FilterType::Nodelete,
    };
    event.kv.as_ref().is_some_and(|kv| cursor.range.contains(&kv.key))
        && !cursor.request.filters.contains(&i32::from(filtered))
}

fn shaped(cursor: &Cursor, event: &mvccpb::Event) -> mvccpb::Event {
    let mut event = event.clone();
    if !cursor.request.prev_kv {
        event.prev_kv = None;
    }
    event
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::StreamExt;

    use super::*;

    fn put(key: &'static str, value: &'static str, if_modified_at: i64) -> pb::TxnRequest {
        let compare = pb::Compare {
            result: pb::compare::CompareResult::Equal.into(),
            target: pb::compare::CompareTarget::Mod.into(),
            key: Bytes::from_static(key.as_bytes()),
            target_union: Some(pb::compare::TargetUnion::ModRevision(if_modified_at)),
            range_end: Bytes::new(),
        };
        let put = pb::PutRequest {
            key: Bytes::from_static(key.as_bytes()),
            value: Bytes::from_static(value.as_bytes()),
            ..pb::PutRequest::default()
        };
        pb::TxnRequest {
            compare: vec![compare],
            success: vec![pb::RequestOp {
                request: Some(pb::request_op::Request::RequestPut(put)),
            }],
            failure: Vec::new(),
        }
    }

    fn get(key: &'static str, revision: i64) -> pb::RangeRequest {
        pb::RangeRequest {
            key: Bytes::from_static(key.as_bytes()),
            revision,
            ..pb::RangeRequest::default()
        }
    }

    #[tokio::test]
    async fn compare_and_put_succeeds_once() {
        let store = Memory::new();
        assert!(store.txn(put("a", "1", 0)).await.expect("a txn").succeeded);
        assert!(!store.txn(put("a", "2", 0)).await.expect("a txn").succeeded);
        let response = store.range(get("a", 0)).await.expect("a range");
        assert_eq!((response.kvs[0].value.as_ref(), response.kvs[0].mod_revision), (&b"1"[..], 2));
    }

    #[tokio::test]
    async fn old_revisions_are_readable_until_compacted() {
        let store = Memory::new();
        store.txn(put("a", "1", 0)).await.expect("a txn");
        store.txn(put("a", "2", 2)).await.expect("a txn");
        let old = store.range(get("a", 2)).await.expect("a range at 2");
        assert_eq!(old.kvs[0].value.as_ref(), b"1");
        store
            .compact(pb::CompactionRequest { revision: 3, physical: false })
            .await
            .expect("compacts");
        let error = store.range(get("a", 2)).await.expect_err("2 is gone");
        assert_eq!(error, ReadError::Rejected(Rejection::Compacted(Revision(3))));
    }

    #[tokio::test]
    async fn watch_replays_then_follows_and_is_told_of_compaction() {
        let store = Memory::new();
        store.txn(put("a", "1", 0)).await.expect("a txn");
        let request = pb::WatchCreateRequest {
            key: Bytes::from_static(b"a"),
            start_revision: 2,
            ..pb::WatchCreateRequest::default()
        };
        let mut watch = store.watch(request.clone()).await.expect("a watch");
        assert!(matches!(watch.next().await, Some(Ok(WatchItem::Created(Revision(2))))));
        assert!(matches!(
            watch.next().await,
            Some(Ok(WatchItem::Events { revision: Revision(2), .. }))
        ));
        store.txn(put("a", "2", 2)).await.expect("a txn");
        assert!(matches!(
            watch.next().await,
            Some(Ok(WatchItem::Events { revision: Revision(3), .. }))
        ));
        store
            .compact(pb::CompactionRequest { revision: 3, physical: false })
            .await
            .expect("compacts");
        let error = store.watch(request).await.err().expect("2 is compacted");
        assert_eq!(error, WatchError::Compacted(Revision(3)));
    }

    #[tokio::test]
    async fn revoking_a_lease_deletes_its_keys_in_one_revision() {
        let store = Memory::new();
        let grant = pb::LeaseGrantRequest { ttl: 60, id: 0 };
        let lease = store.lease_grant(grant).await.expect("a lease").id;
        for key in ["a", "b"] {
            let mut request = put(key, "1", 0);
            let Some(pb::request_op::Request::RequestPut(put)) = &mut request.success[0].request
            else {
                panic!("a put");
            };
            put.lease = lease;
            store.txn(request).await.expect("a txn");
        }
        store.lease_revoke(LeaseId(lease)).await.expect("revokes");
        let response = store.range(get("a", 0)).await.expect("a range");
        assert_eq!((response.kvs.len(), response.header.expect("a header").revision), (0, 4));
    }
}
