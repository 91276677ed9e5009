//! What every implementation of the seam must do, run on all of them: the handle of a member, the
//! remote adapter over a member, the one in memory, and the remote adapter over a real etcd.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use pintle_store::remote::Remote;
use pintle_store_api::mvccpb::event::EventType;
use pintle_store_api::pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pintle_store_api::pb::request_op::Request;
use pintle_store_api::pb::watch_create_request::FilterType;
use pintle_store_api::{
    LeaseId, ReadError, Rejection, Revision, Store, WatchError, WatchItem, WatchStream, WriteError,
    pb,
};
use pintle_testing::free_port;

use crate::support::{
    Cluster, delete, eventually, get, one, prefix_request, put, put_request, range_request,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_handle_conforms() {
    let cluster = Cluster::found(1, |_| {}).await;
    suite(&*cluster.handle(0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_handle_of_a_follower_conforms() {
    let cluster = Cluster::found(3, |_| {}).await;
    suite(&*cluster.handle(cluster.follower().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_remote_adapter_conforms() {
    let cluster = Cluster::found(1, |_| {}).await;
    suite(&Remote::connect(&[cluster.client_url(0)], None).expect("valid endpoint")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_in_memory_conforms() {
    suite(&*pintle_store_api::memory::Memory::new()).await;
}

/// Keeps the suite honest: what it demands is what etcd does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_etcd_conforms() {
    let Some(etcd) = Etcd::start() else {
        println!("etcd is not installed: not compared");
        return;
    };
    let store = Remote::connect(std::slice::from_ref(&etcd.url), None).expect("valid endpoint");
    eventually("etcd answers", || async { store.read_index().await.ok() }).await;
    suite(&store).await;
}

struct Etcd {
    child: Child,
    url: String,
    _dir: tempfile::TempDir,
}

impl Etcd {
    fn start() -> Option<Self> {
        let dir = tempfile::tempdir().expect("temporary folder");
        let url = format!("http://127.0.0.1:{}", free_port());
        let peer = format!("http://127.0.0.1:{}", free_port());
        let child = Command::new("etcd")
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        Some(Self { child, url, _dir: dir })
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.child.kill().expect("still running");
        self.child.wait().expect("ends");
    }
}

/// All cases, on a store that nothing else uses. Each works below a prefix of its own.
async fn suite(store: &dyn Store) {
    a_put_is_read_back_with_its_revisions(store).await;
    a_transaction_compares_and_takes_one_path(store).await;
    reads_inside_a_transaction_see_its_writes(store).await;
    a_range_is_limited_counted_and_sorted(store).await;
    old_revisions_stay_readable_and_future_ones_are_refused(store).await;
    requests_without_sense_are_refused(store).await;
    a_watch_gives_events_in_order_from_its_start(store).await;
    a_watch_filters_and_shows_previous_values(store).await;
    a_watch_reports_progress(store).await;
    a_lease_takes_its_keys_along(store).await;
    an_unknown_lease_is_not_found(store).await;
    the_read_index_follows_writes(store).await;
    status_and_members_are_there(store).await;
    // Last: it moves the floor.
    compacted_revisions_are_gone(store).await;
}

fn compare(key: &str, target: CompareTarget, union: TargetUnion) -> pb::Compare {
    pb::Compare {
        result: CompareResult::Equal.into(),
        target: target.into(),
        key: key.to_owned().into(),
        target_union: Some(union),
        ..Default::default()
    }
}

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

async fn a_put_is_read_back_with_its_revisions(store: &dyn Store) {
    let created = put(store, "put/a", "1").await.expect("written");
    let changed = put(store, "put/a", "2").await.expect("written");
    assert_eq!(changed, created + 1);
    let read = store.range(range_request("put/a")).await.expect("readable");
    let kv = &read.kvs[0];
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (created, changed, 2));
    assert_eq!(kv.value, "2");
    assert_eq!((read.count, read.more), (1, false));
    assert!(read.header.expect("header").revision >= changed);
    delete(store, "put/a").await;
    assert_eq!(get(store, "put/a").await, None);
    put(store, "put/a", "3").await.expect("written");
    let read = store.range(range_request("put/a")).await.expect("readable");
    assert_eq!(read.kvs[0].version, 1, "counted afresh after a delete");
}

async fn a_transaction_compares_and_takes_one_path(store: &dyn Store) {
    let absent = compare("txn/a", CompareTarget::Mod, TargetUnion::ModRevision(0));
    let create = |value: &str| pb::TxnRequest {
        compare: vec![absent.clone()],
        success: vec![op(Request::RequestPut(put_request("txn/a", value)))],
        failure: vec![op(Request::RequestRange(range_request("txn/a")))],
    };
    let first = store.txn(create("1")).await.expect("answered");
    assert!(first.succeeded);
    let second = store.txn(create("2")).await.expect("answered");
    assert!(!second.succeeded);
    let Some(pb::response_op::Response::ResponseRange(read)) = &second.responses[0].response else {
        panic!("the other path reads");
    };
    assert_eq!(read.kvs[0].value, "1");
    let missing = compare("txn/none", CompareTarget::Value, TargetUnion::Value("".into()));
    let txn = pb::TxnRequest { compare: vec![missing], ..Default::default() };
    let answer = store.txn(txn).await.expect("answered");
    assert!(!answer.succeeded, "a missing key has no value");
}

async fn reads_inside_a_transaction_see_its_writes(store: &dyn Store) {
    let txn = pb::TxnRequest {
        success: vec![
            op(Request::RequestPut(put_request("inner/a", "1"))),
            op(Request::RequestRange(prefix_request("inner/"))),
        ],
        ..Default::default()
    };
    let answer = store.txn(txn).await.expect("answered");
    let Some(pb::response_op::Response::ResponseRange(read)) = &answer.responses[1].response else {
        panic!("the second operation reads");
    };
    assert_eq!(read.kvs.len(), 1);
    let revision = answer.header.expect("header").revision;
    assert_eq!(read.kvs[0].mod_revision, revision);
}

async fn a_range_is_limited_counted_and_sorted(store: &dyn Store) {
    for (key, value) in [("range/a", "3"), ("range/b", "1"), ("range/c", "2")] {
        put(store, key, value).await.expect("written");
    }
    let keys = |response: &pb::RangeResponse| -> Vec<String> {
        let text = |kv: &pintle_store_api::mvccpb::KeyValue| {
            String::from_utf8(kv.key.to_vec()).expect("text")
        };
        response.kvs.iter().map(text).collect()
    };
    let limited = pb::RangeRequest { limit: 2, ..prefix_request("range/") };
    let read = store.range(limited).await.expect("readable");
    assert_eq!(keys(&read), ["range/a", "range/b"]);
    assert_eq!((read.count, read.more), (3, true));
    let by_value = pb::RangeRequest {
        sort_order: pb::range_request::SortOrder::Descend.into(),
        sort_target: pb::range_request::SortTarget::Value.into(),
        ..prefix_request("range/")
    };
    let read = store.range(by_value).await.expect("readable");
    assert_eq!(keys(&read), ["range/a", "range/c", "range/b"]);
    let count = pb::RangeRequest { count_only: true, ..prefix_request("range/") };
    let read = store.range(count).await.expect("readable");
    assert_eq!((read.count, read.kvs.len()), (3, 0));
    let names = pb::RangeRequest { keys_only: true, ..prefix_request("range/") };
    let read = store.range(names).await.expect("readable");
    assert!(read.kvs.iter().all(|kv| kv.value.is_empty() && !kv.key.is_empty()));
}

async fn old_revisions_stay_readable_and_future_ones_are_refused(store: &dyn Store) {
    let first = put(store, "old/a", "1").await.expect("written");
    put(store, "old/a", "2").await.expect("written");
    let gone = delete(store, "old/a").await;
    let at = |revision| pb::RangeRequest { revision, ..range_request("old/a") };
    let read = store.range(at(first)).await.expect("readable");
    assert_eq!(read.kvs[0].value, "1");
    assert_eq!(
        read.header.expect("header").revision,
        gone,
        "the store's revision, not the asked one"
    );
    assert!(store.range(at(gone)).await.expect("readable").kvs.is_empty());
    let future = store.range(at(gone + 1000)).await;
    assert_eq!(future, Err(ReadError::Rejected(Rejection::FutureRevision)));
}

async fn requests_without_sense_are_refused(store: &dyn Store) {
    let empty = store.range(range_request("")).await;
    assert_eq!(empty, Err(ReadError::Rejected(Rejection::EmptyKey)));
    let twice = pb::TxnRequest {
        success: vec![
            op(Request::RequestPut(put_request("twice", "1"))),
            op(Request::RequestPut(put_request("twice", "2"))),
        ],
        ..Default::default()
    };
    let refused = store.txn(twice).await;
    assert_eq!(refused.err(), Some(WriteError::Rejected(Rejection::DuplicateKey)));
    let put = pb::PutRequest { ignore_value: true, ..put_request("senseless", "") };
    let refused = store.txn(one(Request::RequestPut(put))).await;
    assert_eq!(refused.err(), Some(WriteError::Rejected(Rejection::KeyNotFound)));
    let put = pb::PutRequest { lease: 4711, ..put_request("senseless", "") };
    let refused = store.txn(one(Request::RequestPut(put))).await;
    assert_eq!(refused.err(), Some(WriteError::Rejected(Rejection::LeaseNotFound)));
}

fn watch_request(prefix: &str, start_revision: i64) -> pb::WatchCreateRequest {
    let range = prefix_request(prefix);
    pb::WatchCreateRequest {
        key: range.key,
        range_end: range.range_end,
        start_revision,
        ..Default::default()
    }
}

async fn next(stream: &mut WatchStream) -> WatchItem {
    let item = tokio::time::timeout(Duration::from_secs(20), stream.next()).await;
    item.expect("in time").expect("not ended").expect("no error")
}

/// The next `count` events as "revision type key value previous".
async fn events(stream: &mut WatchStream, count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    while lines.len() < count {
        let WatchItem::Events { events, .. } = next(stream).await else { continue };
        for event in events.iter() {
            let kv = event.kv.as_ref().expect("key");
            let text = |bytes: &bytes::Bytes| String::from_utf8(bytes.to_vec()).expect("text");
            let kind = if event.r#type() == EventType::Put { "put" } else { "delete" };
            let previous = event.prev_kv.as_ref().map_or("-".to_owned(), |kv| text(&kv.value));
            let (key, value) = (text(&kv.key), text(&kv.value));
            lines.push(format!("{} {kind} {key} {value} {previous}", kv.mod_revision));
        }
    }
    lines
}

async fn a_watch_gives_events_in_order_from_its_start(store: &dyn Store) {
    let first = put(store, "watch/a", "1").await.expect("written");
    let second = put(store, "watch/b", "2").await.expect("written");
    let mut late = store.watch(watch_request("watch/", first)).await.expect("watches");
    let mut live = store.watch(watch_request("watch/", 0)).await.expect("watches");
    assert!(matches!(next(&mut late).await, WatchItem::Created(_)));
    assert!(matches!(next(&mut live).await, WatchItem::Created(_)));
    put(store, "elsewhere/watch/", "x").await.expect("written");
    let third = delete(store, "watch/a").await;
    let all = [
        format!("{first} put watch/a 1 -"),
        format!("{second} put watch/b 2 -"),
        format!("{third} delete watch/a  -"),
    ];
    assert_eq!(events(&mut late, 3).await, all);
    assert_eq!(events(&mut live, 1).await, all[2..]);
}

async fn a_watch_filters_and_shows_previous_values(store: &dyn Store) {
    let mut deletes = watch_request("filter/", 0);
    deletes.filters = vec![FilterType::Noput.into()];
    deletes.prev_kv = true;
    let mut deletes = store.watch(deletes).await.expect("watches");
    let mut puts = watch_request("filter/", 0);
    puts.filters = vec![FilterType::Nodelete.into()];
    puts.prev_kv = true;
    let mut puts = store.watch(puts).await.expect("watches");
    let first = put(store, "filter/a", "1").await.expect("written");
    let second = put(store, "filter/a", "2").await.expect("written");
    let third = delete(store, "filter/a").await;
    assert_eq!(
        events(&mut puts, 2).await,
        [format!("{first} put filter/a 1 -"), format!("{second} put filter/a 2 1")]
    );
    assert_eq!(events(&mut deletes, 1).await, [format!("{third} delete filter/a  2")]);
}

async fn a_watch_reports_progress(store: &dyn Store) {
    let mut request = watch_request("progress/", 0);
    request.progress_notify = true;
    let mut watch = store.watch(request).await.expect("watches");
    let revision = put(store, "unwatched", "1").await.expect("written");
    loop {
        match next(&mut watch).await {
            WatchItem::Progress(through) if through.0 >= revision => break,
            WatchItem::Events { .. } => panic!("nothing happened in the range"),
            WatchItem::Created(_) | WatchItem::Progress(_) => {}
        }
    }
}

async fn a_lease_takes_its_keys_along(store: &dyn Store) {
    let request = pb::LeaseGrantRequest { ttl: 100, id: 0 };
    let lease = store.lease_grant(request).await.expect("granted");
    assert!(lease.id > 0 && lease.ttl == 100);
    let put = pb::PutRequest { lease: lease.id, ..put_request("lease/a", "1") };
    store.txn(one(Request::RequestPut(put))).await.expect("written");
    let alive = store.lease_keep_alive(LeaseId(lease.id)).await.expect("renewed");
    assert_eq!(alive.ttl, 100);
    store.lease_revoke(LeaseId(lease.id)).await.expect("revoked");
    assert_eq!(get(store, "lease/a").await, None);
    let alive = store.lease_keep_alive(LeaseId(lease.id)).await.expect("answered");
    assert_eq!(alive.ttl, 0, "there is no such lease any more");
    let request = pb::LeaseGrantRequest { ttl: 100, id: 4242 };
    store.lease_grant(request).await.expect("granted");
    let again = store.lease_grant(request).await;
    assert_eq!(again.err(), Some(WriteError::Rejected(Rejection::LeaseExists)));
    store.lease_revoke(LeaseId(4242)).await.expect("revoked");
}

async fn an_unknown_lease_is_not_found(store: &dyn Store) {
    let revoked = store.lease_revoke(LeaseId(99)).await;
    assert_eq!(revoked.err(), Some(WriteError::Rejected(Rejection::LeaseNotFound)));
    let request = pb::LeaseGrantRequest { ttl: 9_000_000_001, id: 0 };
    let granted = store.lease_grant(request).await;
    assert_eq!(granted.err(), Some(WriteError::Rejected(Rejection::LeaseTtlTooLarge)));
}

async fn the_read_index_follows_writes(store: &dyn Store) {
    let written = put(store, "index/a", "1").await.expect("written");
    assert!(store.read_index().await.expect("answered") >= Revision(written));
}

async fn status_and_members_are_there(store: &dyn Store) {
    let status = store.status().await.expect("answered");
    assert!(!status.version.is_empty());
    assert_ne!(status.leader, 0);
    let members = store.member_list().await.expect("answered").members;
    assert!(!members.is_empty());
}

async fn compacted_revisions_are_gone(store: &dyn Store) {
    let first = put(store, "compact/a", "1").await.expect("written");
    let second = put(store, "compact/a", "2").await.expect("written");
    let compact = |revision| pb::CompactionRequest { revision, physical: true };
    store.compact(compact(second)).await.expect("compacted");
    let again = store.compact(compact(second)).await;
    assert!(matches!(again.err(), Some(WriteError::Rejected(Rejection::Compacted(_)))));
    let future = store.compact(compact(second + 1000)).await;
    assert_eq!(future.err(), Some(WriteError::Rejected(Rejection::FutureRevision)));
    let at = |revision| pb::RangeRequest { revision, ..range_request("compact/a") };
    let read = store.range(at(first)).await;
    assert!(matches!(read, Err(ReadError::Rejected(Rejection::Compacted(_)))));
    assert_eq!(store.range(at(second)).await.expect("readable").kvs[0].value, "2");
    let ended = match store.watch(watch_request("compact/", first)).await {
        Err(error) => error,
        Ok(mut stream) => loop {
            let item = tokio::time::timeout(Duration::from_secs(20), stream.next()).await;
            match item.expect("in time").expect("not ended silently") {
                Ok(WatchItem::Created(_)) => {}
                Ok(other) => panic!("{other:?}"),
                Err(error) => break error,
            }
        },
    };
    assert!(
        matches!(ended, WatchError::Compacted(floor) if floor == Revision(second)),
        "{ended:?}"
    );
}

#[test]
fn the_trait_is_usable_behind_a_pointer() {
    let memory: Arc<dyn Store> = pintle_store_api::memory::Memory::new();
    drop(memory);
}
