//! The watch protocol on the wire, and what watchers may rely on under load.

use std::collections::HashMap;

use futures::StreamExt;
use pintle_proto::etcdserverpb::watch_client::WatchClient;
use pintle_store::Config;
use pintle_store_api::pb::watch_request::RequestUnion;
use pintle_store_api::{Store, WatchItem, pb};
use pintle_testing::free_port;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::cluster::metric;
use crate::support::{Cluster, delete, put};

struct Stream {
    requests: mpsc::Sender<pb::WatchRequest>,
    responses: Streaming<pb::WatchResponse>,
}

impl Stream {
    async fn open(url: String) -> Self {
        let (requests, queue) = mpsc::channel(16);
        let mut client = WatchClient::connect(url).await.expect("connects");
        let responses = client.watch(ReceiverStream::new(queue)).await.expect("opens");
        Self { requests, responses: responses.into_inner() }
    }

    async fn send(&self, union: RequestUnion) {
        let request = pb::WatchRequest { request_union: Some(union) };
        self.requests.send(request).await.expect("open");
    }

    async fn create(&self, key: &str, create: pb::WatchCreateRequest) {
        let key = key.to_owned().into();
        self.send(RequestUnion::CreateRequest(pb::WatchCreateRequest { key, ..create })).await;
    }

    async fn next(&mut self) -> pb::WatchResponse {
        let wait =
            tokio::time::timeout(std::time::Duration::from_secs(20), self.responses.message());
        wait.await.expect("in time").expect("no error").expect("not ended")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_are_given_from_zero_and_may_be_chosen_once() {
    let cluster = Cluster::found(1, |_| {}).await;
    let mut stream = Stream::open(cluster.client_url(0)).await;
    stream.create("a", Default::default()).await;
    let created = stream.next().await;
    assert_eq!((created.watch_id, created.created), (0, true));
    stream.create("b", pb::WatchCreateRequest { watch_id: 1, ..Default::default() }).await;
    assert_eq!(stream.next().await.watch_id, 1);
    stream.create("c", Default::default()).await;
    assert_eq!(stream.next().await.watch_id, 2, "1 is taken");
    stream.create("d", pb::WatchCreateRequest { watch_id: 1, ..Default::default() }).await;
    let refused = stream.next().await;
    assert!(refused.created && refused.canceled);
    assert_eq!(refused.watch_id, -1);
    assert_eq!(refused.cancel_reason, "mvcc: duplicate watch ID provided on the WatchStream");
    let empty = pb::WatchCreateRequest { range_end: "a".into(), ..Default::default() };
    stream.create("b", empty).await;
    assert_eq!(stream.next().await.cancel_reason, "mvcc: watcher range is empty");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canceled_watcher_is_silent_and_the_others_go_on() {
    let cluster = Cluster::found(1, |_| {}).await;
    let handle = cluster.handle(0);
    let mut stream = Stream::open(cluster.client_url(0)).await;
    for _ in 0..2 {
        stream.create("a", Default::default()).await;
        assert!(stream.next().await.created);
    }
    stream.send(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 0 })).await;
    let canceled = stream.next().await;
    assert_eq!((canceled.watch_id, canceled.canceled), (0, true));
    put(&*handle, "a", "1").await.expect("written");
    let event = stream.next().await;
    assert_eq!((event.watch_id, event.events.len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_of_the_same_are_told_the_same_each_from_where_it_began() {
    const ROUNDS: usize = 40;
    let cluster = Cluster::found(1, |_| {}).await;
    let handle = cluster.handle(0);
    let mut stream = Stream::open(cluster.client_url(0)).await;
    let writer = {
        let handle = handle.clone();
        tokio::spawn(async move {
            for i in 0..10 * ROUNDS {
                put(&*handle, &format!("a{}", i % 7), &i.to_string()).await.expect("written");
            }
        })
    };
    // Watchers come and go while others write; half of them begin at the first revision of all.
    let mut began = HashMap::new();
    let mut told: HashMap<i64, Vec<i64>> = HashMap::new();
    let mut gone = Vec::new();
    for round in 0..ROUNDS {
        let start_revision = if round % 2 == 0 { 0 } else { 2 };
        let fragment = round % 3 == 0;
        let range_end = "b".into();
        let create =
            pb::WatchCreateRequest { range_end, start_revision, fragment, ..Default::default() };
        stream.create("a", create).await;
        if round % 5 == 4 {
            let watch_id = i64::try_from(round).expect("small") - 4;
            stream.send(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id })).await;
            gone.push(watch_id);
        }
        loop {
            let response = stream.next().await;
            let revision = response.header.as_ref().expect("header").revision;
            if response.created {
                let from = if start_revision == 0 { revision + 1 } else { start_revision };
                assert!(began.insert(response.watch_id, from).is_none(), "ids are their own");
                break;
            }
            take(&mut told, response);
        }
    }
    writer.await.expect("wrote");
    let last = put(&*handle, "a", "last").await.expect("written");
    let left = began.keys().filter(|id| !gone.contains(id)).count();
    while told.values().filter(|told| told.last() == Some(&last)).count() < left {
        take(&mut told, stream.next().await);
    }
    let everything = i64::try_from(10 * ROUNDS).expect("small") + 2;
    assert_eq!(last, everything);
    for (id, from) in began {
        let told = told.remove(&id).unwrap_or_default();
        let end =
            if gone.contains(&id) { told.last().map_or(from, |last| last + 1) } else { last + 1 };
        assert_eq!(told, (from..end).collect::<Vec<_>>(), "watcher {id}");
    }
}

fn take(told: &mut HashMap<i64, Vec<i64>>, response: pb::WatchResponse) {
    let revisions = response.events.iter().filter_map(|event| event.kv.as_ref());
    let told = told.entry(response.watch_id).or_default();
    told.extend(revisions.map(|kv| kv.mod_revision));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chosen_id_may_be_one_whose_watcher_others_have_joined() {
    let with_metrics = |config: &mut Config| {
        config.metrics_listen = Some(([127, 0, 0, 1], free_port()).into());
    };
    let cluster = Cluster::found(1, with_metrics).await;
    let handle = cluster.handle(0);
    let mut stream = Stream::open(cluster.client_url(0)).await;
    let chosen = || pb::WatchCreateRequest { watch_id: 5, ..Default::default() };
    let cancel = |watch_id| RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id });
    for (create, id) in [(chosen(), 5), (Default::default(), 0), (Default::default(), 1)] {
        stream.create("a", create).await;
        assert_eq!(stream.next().await.watch_id, id);
    }
    for id in [5, 0] {
        stream.send(cancel(id)).await;
        assert!(stream.next().await.canceled);
    }
    stream.create("b", chosen()).await;
    assert_eq!(stream.next().await.watch_id, 5);
    for (key, id) in [("b", 5), ("a", 1)] {
        put(&*handle, key, "1").await.expect("written");
        let told = stream.next().await;
        assert_eq!((told.watch_id, told.events.len()), (id, 1));
    }
    assert_eq!(metric(&cluster, 0, "etcd_debugging_mvcc_watcher_total").await, 2);
    stream.send(cancel(1)).await;
    assert!(stream.next().await.canceled);
    put(&*handle, "a", "2").await.expect("written");
    put(&*handle, "b", "2").await.expect("written");
    assert_eq!(stream.next().await.watch_id, 5, "nobody watches the other any more");
    assert_eq!(metric(&cluster, 0, "etcd_debugging_mvcc_watcher_total").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compacted_start_is_canceled_with_the_floor() {
    let cluster = Cluster::found(1, |_| {}).await;
    let handle = cluster.handle(0);
    for i in 0..10 {
        put(&*handle, "a", &i.to_string()).await.expect("written");
    }
    handle.compact(pb::CompactionRequest { revision: 8, physical: false }).await.expect("done");
    let mut stream = Stream::open(cluster.client_url(0)).await;
    stream.create("a", pb::WatchCreateRequest { start_revision: 3, ..Default::default() }).await;
    assert!(stream.next().await.created);
    let canceled = stream.next().await;
    assert!(canceled.canceled);
    assert_eq!(canceled.compact_revision, 8);
    assert_eq!(canceled.header.expect("header").revision, 0, "as in etcd");
    assert_eq!(canceled.cancel_reason, "");

    // At the floor itself, what was before the event is gone.
    let at_floor =
        pb::WatchCreateRequest { start_revision: 8, prev_kv: true, ..Default::default() };
    stream.create("a", at_floor).await;
    assert!(stream.next().await.created);
    let events = stream.next().await.events;
    let known: Vec<bool> = events.iter().map(|event| event.prev_kv.is_some()).collect();
    assert_eq!(known, [false, true, true, true]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_on_request_covers_the_whole_stream() {
    let cluster = Cluster::found(1, |_| {}).await;
    let handle = cluster.handle(0);
    let mut stream = Stream::open(cluster.client_url(0)).await;
    stream.create("a", Default::default()).await;
    assert!(stream.next().await.created);
    let revision = put(&*handle, "b", "1").await.expect("written");
    stream.send(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
    let progress = stream.next().await;
    assert_eq!(progress.watch_id, -1);
    assert!(progress.events.is_empty());
    assert!(progress.header.expect("header").revision >= revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_revisions_are_fragmented_on_request() {
    let cluster = Cluster::found(1, |config| config.max_request_bytes = 1 << 20).await;
    let handle = cluster.handle(0);
    let mut stream = Stream::open(cluster.client_url(0)).await;
    let create = pb::WatchCreateRequest {
        range_end: "b".into(),
        fragment: true,
        prev_kv: true,
        ..Default::default()
    };
    stream.create("a", create).await;
    assert!(stream.next().await.created);
    let value = "x".repeat(240 << 10);
    // Twice, so that the second revision also carries the previous values.
    for _ in 0..2 {
        let ops = (0..4).map(|i| {
            let put = crate::support::put_request(&format!("a{i}"), &value);
            pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) }
        });
        let txn = pb::TxnRequest { success: ops.collect(), ..Default::default() };
        handle.txn(txn).await.expect("written");
    }
    let mut responses = Vec::new();
    let mut events = 0;
    while events < 8 {
        let response = stream.next().await;
        events += response.events.len();
        responses.push(response);
    }
    assert!(responses.iter().any(|response| response.fragment), "nothing was fragmented");
    assert!(!responses.last().expect("some").fragment, "the last part says so");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_watcher_sees_every_event_of_its_range_once_and_in_order() {
    let cluster = Cluster::found(3, |_| {}).await;
    let writer = cluster.handle(cluster.leader().await);
    let first = put(&*writer, "load/0/start", "x").await.expect("written");
    let watchers: Vec<_> = (0..12)
        .map(|n| {
            let handle = cluster.handle(n % 3);
            // Some from the start, some later; some of everything, some of one prefix.
            let prefix = if n % 2 == 0 { "load/".to_owned() } else { format!("load/{}/", n % 4) };
            let start = if n < 6 { first } else { first + 50 };
            tokio::spawn(async move {
                let range = crate::support::prefix_request(&prefix);
                let request = pb::WatchCreateRequest {
                    key: range.key,
                    range_end: range.range_end,
                    start_revision: start,
                    ..Default::default()
                };
                let mut stream = handle.watch(request).await.expect("watches");
                let mut seen = Vec::new();
                while let Some(item) = stream.next().await {
                    let WatchItem::Events { events, .. } = item.expect("no error") else {
                        continue;
                    };
                    for event in events.iter() {
                        let kv = event.kv.as_ref().expect("key");
                        if kv.value == "end" {
                            return (prefix, start, seen);
                        }
                        seen.push((kv.mod_revision, kv.key.clone()));
                    }
                }
                panic!("ended early");
            })
        })
        .collect();
    let mut written = vec![(first, "load/0/start".to_owned())];
    let writers: Vec<_> = (0..4)
        .map(|n| {
            let handle = cluster.handle(n % 3);
            tokio::spawn(async move {
                let mut written = Vec::new();
                for i in 0..100 {
                    let key = format!("load/{n}/{i}");
                    let revision = put(&*handle, &key, "v").await.expect("written");
                    written.push((revision, key.clone()));
                    if i % 10 == 0 {
                        written.push((delete(&*handle, &key).await, key));
                    }
                }
                written
            })
        })
        .collect();
    for writer in writers {
        written.extend(writer.await.expect("writer"));
    }
    written.sort();
    for n in 0..4 {
        put(&*writer, &format!("load/{n}/~"), "end").await.expect("written");
    }
    let mut by_watcher: HashMap<String, usize> = HashMap::new();
    for watcher in watchers {
        let (prefix, start, seen) = watcher.await.expect("watcher");
        let expected: Vec<(i64, bytes::Bytes)> = written
            .iter()
            .filter(|(revision, key)| *revision >= start && key.starts_with(&prefix))
            .map(|(revision, key)| (*revision, key.clone().into()))
            .collect();
        assert_eq!(seen, expected, "{prefix} from {start}");
        *by_watcher.entry(prefix).or_default() += seen.len();
    }
    assert!(by_watcher.values().all(|count| *count > 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_have_the_words_of_etcd() {
    let cluster = Cluster::found(1, |_| {}).await;
    let mut stream = Stream::open(cluster.client_url(0)).await;
    stream.create("a", pb::WatchCreateRequest { start_revision: -1, ..Default::default() }).await;
    let refused = stream.next().await;
    assert!(refused.created && refused.canceled);
    assert_eq!(refused.watch_id, -1);
    let reason = "etcdserver: mvcc: required revision has been compacted";
    assert_eq!(refused.cancel_reason, reason);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_compressed_requests_is_refused() {
    let cluster = Cluster::found(1, |_| {}).await;
    let mut client = WatchClient::connect(cluster.client_url(0)).await.expect("connects");
    let mut request = tonic::Request::new(tokio_stream::pending::<pb::WatchRequest>());
    request.metadata_mut().insert("grpc-encoding", "gzip".parse().expect("ASCII"));
    let refusal = client.watch(request).await.expect_err("refused");
    assert_eq!(refusal.code(), tonic::Code::Unimplemented);
    assert!(refusal.message().contains("gzip"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_asks_no_more_still_listens() {
    let cluster = Cluster::found(1, |_| {}).await;
    let handle = cluster.handle(0);
    let Stream { requests, responses } = Stream::open(cluster.client_url(0)).await;
    let mut stream = Stream { requests, responses };
    stream.create("a", Default::default()).await;
    assert!(stream.next().await.created);
    let (closed, _) = mpsc::channel(1);
    stream.requests = closed;
    put(&*handle, "a", "1").await.expect("written");
    assert_eq!(stream.next().await.events.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_speaks_of_watchers_only() {
    let cluster = Cluster::found(1, |_| {}).await;
    let mut stream = Stream::open(cluster.client_url(0)).await;
    stream.send(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
    stream.create("a", Default::default()).await;
    assert!(stream.next().await.created, "there was nobody to speak of");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_holds_up_nobody_and_misses_nothing() {
    let cluster = Cluster::found(1, |_| {}).await;
    let handle = cluster.handle(0);
    let mut slow = Stream::open(cluster.client_url(0)).await;
    slow.create("a", Default::default()).await;
    assert!(slow.next().await.created);
    // More than connection and server hold together: the rest waits in the store's history.
    let value = "x".repeat(1 << 20);
    let mut written = Vec::new();
    for _ in 0..96 {
        written.push(put(&*handle, "a", &value).await.expect("written"));
    }
    let mut quick = Stream::open(cluster.client_url(0)).await;
    quick.create("a", Default::default()).await;
    assert!(quick.next().await.created);
    written.push(put(&*handle, "a", "last").await.expect("written"));
    assert_eq!(quick.next().await.events.len(), 1, "others are served meanwhile");
    let mut seen = Vec::new();
    while seen.len() < written.len() {
        let response = slow.next().await;
        seen.extend(
            response.events.iter().map(|event| event.kv.as_ref().expect("kv").mod_revision),
        );
    }
    assert_eq!(seen, written);
}
