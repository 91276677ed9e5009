//! What the write path and the cache do when the store's connection misbehaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use pintle_apiserver_storage::{
    CacheSpec, Caches, Error, Freshness, ListQuery, Outcome, Storage, WatchEnd,
};
use pintle_store_api::memory::Memory;
use pintle_store_api::{
    LeaseId, ReadError, Revision, Store, WatchError, WatchStream, WriteError, pb,
};
use tokio_util::sync::CancellationToken;

/// A store whose answers get lost.
struct Flaky {
    memory: Arc<Memory>,
    /// So many transactions are applied, but reported as unknown.
    lost_answers: AtomicU32,
    /// So many are refused without being applied.
    refused: AtomicU32,
    /// Watches end after so many items; 0 = never.
    watch_items: AtomicU32,
}

impl Flaky {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            memory: Memory::new(),
            lost_answers: AtomicU32::new(0),
            refused: AtomicU32::new(0),
            watch_items: AtomicU32::new(0),
        })
    }
}

fn spend(counter: &AtomicU32) -> bool {
    counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

#[async_trait::async_trait]
impl Store for Flaky {
    async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, ReadError> {
        self.memory.range(request).await
    }

    async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, WriteError> {
        if spend(&self.refused) {
            return Err(WriteError::NotApplied("etcdserver: no leader".to_owned()));
        }
        let response = self.memory.txn(request).await?;
        if spend(&self.lost_answers) {
            return Err(WriteError::Unknown("etcdserver: request timed out".to_owned()));
        }
        Ok(response)
    }

    async fn compact(
        &self,
        request: pb::CompactionRequest,
    ) -> Result<pb::CompactionResponse, WriteError> {
        self.memory.compact(request).await
    }

    async fn watch(&self, request: pb::WatchCreateRequest) -> Result<WatchStream, WatchError> {
        let stream = self.memory.watch(request).await?;
        let items = self.watch_items.load(Ordering::SeqCst);
        if items == 0 {
            return Ok(stream);
        }
        let cut = futures::stream::iter([Err(WatchError::Unavailable("cut".to_owned()))]);
        Ok(Box::pin(stream.take(items as usize).chain(cut)))
    }

    async fn read_index(&self) -> Result<Revision, ReadError> {
        self.memory.read_index().await
    }

    async fn lease_grant(
        &self,
        request: pb::LeaseGrantRequest,
    ) -> Result<pb::LeaseGrantResponse, WriteError> {
        self.memory.lease_grant(request).await
    }

    async fn lease_keep_alive(
        &self,
        id: LeaseId,
    ) -> Result<pb::LeaseKeepAliveResponse, WriteError> {
        self.memory.lease_keep_alive(id).await
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<pb::LeaseRevokeResponse, WriteError> {
        self.memory.lease_revoke(id).await
    }

    async fn status(&self) -> Result<pb::StatusResponse, ReadError> {
        self.memory.status().await
    }

    async fn member_list(&self) -> Result<pb::MemberListResponse, ReadError> {
        self.memory.member_list().await
    }
}

fn config(name: &str) -> Bytes {
    format!(r#"{{"metadata":{{"name":"{name}","uid":"u-{name}"}}}}"#).into()
}

#[tokio::test]
async fn a_create_whose_answer_was_lost_succeeds_once() {
    let store = Flaky::new();
    let storage = Storage::new(store.clone());
    store.lost_answers.store(1, Ordering::SeqCst);
    let revision = storage.create("/registry/c/a", config("a"), None).await.expect("creates");
    assert_eq!(revision, 2, "the first attempt was the one");
    let other = storage.create("/registry/c/a", config("other"), None).await;
    assert_eq!(other, Err(Error::Exists));
}

#[tokio::test]
async fn a_lost_answer_does_not_hide_a_conflict() {
    let store = Flaky::new();
    let storage = Storage::new(store.clone());
    let revision = storage.create("/registry/c/a", config("a"), None).await.expect("creates");
    let newer = storage.put("/registry/c/a", revision, config("b"), None).await.expect("puts");
    assert_eq!(newer, Outcome::Done(3));
    store.lost_answers.store(1, Ordering::SeqCst);
    let stale = storage.put("/registry/c/a", revision, config("c"), None).await.expect("answers");
    assert!(matches!(stale, Outcome::Changed(Some(current)) if current.bytes == config("b")));
}

#[tokio::test]
async fn a_delete_whose_answer_was_lost_is_done() {
    let store = Flaky::new();
    let storage = Storage::new(store.clone());
    let revision = storage.create("/registry/c/a", config("a"), None).await.expect("creates");
    store.lost_answers.store(1, Ordering::SeqCst);
    let deleted = storage.delete("/registry/c/a", revision).await.expect("deletes");
    assert!(matches!(deleted, Outcome::Done(_)));
}

#[tokio::test]
async fn writes_wait_for_a_leader() {
    let store = Flaky::new();
    let storage = Storage::new(store.clone());
    store.refused.store(5, Ordering::SeqCst);
    storage.create("/registry/c/a", config("a"), None).await.expect("creates in the end");
}

fn spec() -> CacheSpec {
    CacheSpec { prefix: "/registry/c/".to_owned(), fields: Vec::new(), index: Vec::new() }
}

#[tokio::test]
async fn a_cut_watch_resumes_without_loss_or_repetition() {
    let store = Flaky::new();
    store.watch_items.store(3, Ordering::SeqCst);
    let storage = Storage::new(store.clone());
    let caches = Caches::start(storage.clone(), CancellationToken::new());
    let cache = caches.cache(spec());
    caches.wait(&cache, Freshness::Consistent).await.expect("is ready");
    let (_, _, mut watcher) = cache.watch_with_snapshot();
    for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        storage.create(&format!("/registry/c/{name}"), config(name), None).await.expect("creates");
        tokio::task::yield_now().await;
    }
    let mut seen = Vec::new();
    while seen.len() < 8 {
        let events = tokio::time::timeout(Duration::from_secs(10), watcher.next()).await;
        let events = events.expect("events in time").expect("an open watch");
        seen.extend(events.iter().map(|event| event.object.name().to_owned()));
    }
    assert_eq!(seen, ["a", "b", "c", "d", "e", "f", "g", "h"]);
}

#[tokio::test]
async fn a_compaction_past_the_feed_starts_the_caches_anew() {
    let store = Flaky::new();
    // Created, the first event, then the connection is cut.
    store.watch_items.store(2, Ordering::SeqCst);
    let storage = Storage::new(store.clone());
    let caches = Caches::start(storage.clone(), CancellationToken::new());
    let cache = caches.cache(spec());
    caches.wait(&cache, Freshness::Consistent).await.expect("is ready");
    let (_, _, mut watcher) = cache.watch_with_snapshot();
    let mut last = 0;
    for name in ["a", "b", "c"] {
        let key = format!("/registry/c/{name}");
        last = storage.create(&key, config(name), None).await.expect("creates");
    }
    let floor = pb::CompactionRequest { revision: last, physical: false };
    store.compact(floor).await.expect("compacts");
    store.watch_items.store(0, Ordering::SeqCst);
    storage.create("/registry/c/d", config("d"), None).await.expect("creates");
    let query = ListQuery {
        namespace: "",
        limit: 0,
        continuation: "",
        freshness: Freshness::Consistent,
        matches: None,
    };
    let listing = caches.list(&cache, &query).await.expect("lists");
    assert_eq!(listing.objects.len(), 4);
    // The watcher was either given everything or told that it lost its place; never a gap.
    let mut seen = Vec::new();
    let end = loop {
        match tokio::time::timeout(Duration::from_secs(10), watcher.next()).await {
            Ok(Ok(events)) => {
                seen.extend(events.iter().map(|event| event.object.name().to_owned()))
            }
            Ok(Err(end)) => break Some(end),
            Err(_) => panic!("neither events nor an end; seen {seen:?}"),
        }
        if seen.len() == 4 {
            break None;
        }
    };
    let complete = ["a", "b", "c", "d"];
    assert_eq!(seen, complete[..seen.len()]);
    assert!(end == Some(WatchEnd::Reset) || seen.len() == 4, "{end:?} {seen:?}");
}
