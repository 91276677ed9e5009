//! Large ranges on the wire: streams in chunks, and one message at a time within a budget.

use pintle_proto::etcdserverpb::kv_client::KvClient;
use pintle_store_api::pb::range_request::{SortOrder, SortTarget};
use pintle_store_api::pb::request_op::Request;
use pintle_store_api::{Store, pb};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::{Cluster, prefix_request, put, put_request};

const VALUE_BYTES: usize = 10_000;
const KEYS: usize = 300;

async fn client(cluster: &Cluster) -> KvClient<Channel> {
    let client = KvClient::connect(cluster.client_url(0)).await.expect("connects");
    client.max_decoding_message_size(usize::MAX)
}

/// 300 keys of 10 kB: a dozen segments.
async fn fill(store: &dyn Store) -> i64 {
    let value = "v".repeat(VALUE_BYTES);
    let mut revision = 0;
    for batch in 0..KEYS / 100 {
        let ops = (0..100).map(|i| {
            let key = format!("list/{:04}", batch * 100 + i);
            pb::RequestOp { request: Some(Request::RequestPut(put_request(&key, &value))) }
        });
        let txn = pb::TxnRequest { success: ops.collect(), ..Default::default() };
        revision = store.txn(txn).await.expect("written").header.expect("header").revision;
    }
    revision
}

/// All chunks of a stream.
async fn chunks(
    client: &mut KvClient<Channel>,
    request: pb::RangeRequest,
) -> Result<Vec<pb::RangeResponse>, Status> {
    let mut stream = client.range_stream(request).await?.into_inner();
    let mut chunks = Vec::new();
    while let Some(chunk) = stream.message().await? {
        chunks.push(chunk.range_response.expect("never empty"));
    }
    Ok(chunks)
}

/// The answer that chunks add up to. Everything but keys is on the last one.
fn merged(chunks: Vec<pb::RangeResponse>) -> pb::RangeResponse {
    let (last, before) = chunks.split_last().expect("one at least");
    assert!(last.header.is_some());
    for chunk in before {
        assert!(chunk.header.is_none() && !chunk.more && chunk.count == 0);
        assert!(!chunk.kvs.is_empty());
    }
    let kvs = chunks.iter().flat_map(|chunk| chunk.kvs.clone()).collect();
    pb::RangeResponse { kvs, ..last.clone() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_adds_up_to_the_answer() {
    let cluster = Cluster::found(1, |_| {}).await;
    let store = cluster.handle(0);
    let revision = fill(&*store).await;
    put(&*store, "list/0007", "changed").await.expect("written");
    let mut client = client(&cluster).await;
    let all = prefix_request("list/");
    let point = pb::RangeRequest { key: "list/0001".into(), ..Default::default() };
    for request in [
        all.clone(),
        pb::RangeRequest { limit: 100, ..all.clone() },
        pb::RangeRequest { limit: 300, ..all.clone() },
        pb::RangeRequest { limit: 7, revision, ..all.clone() },
        pb::RangeRequest { revision, ..all.clone() },
        pb::RangeRequest { keys_only: true, ..all.clone() },
        pb::RangeRequest { count_only: true, ..all.clone() },
        pb::RangeRequest { serializable: true, ..all.clone() },
        pb::RangeRequest { sort_target: SortTarget::Mod.into(), limit: 3, ..all.clone() },
        prefix_request("nothing/"),
        point,
    ] {
        let mut expected = request.clone();
        // Without an order, a stream is in the order of the keys whatever the target.
        expected.sort_target = SortTarget::Key.into();
        let in_process = store.range(expected.clone()).await.expect("answered");
        let unary = client.range(expected).await.expect("answered").into_inner();
        assert_eq!(unary, in_process, "{request:?}");
        let chunks = chunks(&mut client, request.clone()).await.expect("streamed");
        let long = !request.keys_only && !request.count_only && unary.kvs.len() >= 100;
        assert_eq!(chunks.len() > 1, long, "{request:?}");
        assert_eq!(merged(chunks), unary, "{request:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_stays_at_the_revision_at_which_it_began() {
    let cluster = Cluster::found(1, |_| {}).await;
    let store = cluster.handle(0);
    let revision = fill(&*store).await;
    let mut stream =
        client(&cluster).await.range_stream(prefix_request("list/")).await.expect("opens");
    let first = stream.get_mut().message().await.expect("read").expect("a chunk");
    let mut kvs = first.range_response.expect("filled").kvs;
    put(&*store, "list/0299", "later").await.expect("written");
    put(&*store, "list/0299x", "later").await.expect("written");
    let mut last = None;
    while let Some(chunk) = stream.get_mut().message().await.expect("read") {
        let chunk = chunk.range_response.expect("filled");
        kvs.extend(chunk.kvs.clone());
        last = Some(chunk);
    }
    assert_eq!(kvs.len(), KEYS);
    assert!(kvs.iter().all(|kv| kv.mod_revision <= revision));
    assert_eq!(last.expect("some").header.expect("header").revision, revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stream_cannot_do_is_said_in_the_words_of_etcd() {
    let cluster = Cluster::found(1, |_| {}).await;
    let mut client = client(&cluster).await;
    let all = || prefix_request("list/");
    let descending = pb::RangeRequest { sort_order: SortOrder::Descend.into(), ..all() };
    for (request, code, message) in [
        (descending, Code::Unimplemented, "RangeStream does not support custom sort orders"),
        (
            pb::RangeRequest { min_mod_revision: 2, ..all() },
            Code::Unimplemented,
            "RangeStream does not support revision filters",
        ),
        (pb::RangeRequest::default(), Code::InvalidArgument, "etcdserver: key is not provided"),
        (
            pb::RangeRequest { sort_order: 9, ..all() },
            Code::InvalidArgument,
            "etcdserver: invalid sort option",
        ),
        (
            pb::RangeRequest { revision: 1000, ..all() },
            Code::OutOfRange,
            "etcdserver: mvcc: required revision is a future revision",
        ),
    ] {
        let error = chunks(&mut client, request).await.expect_err(message);
        assert_eq!((error.code(), error.message()), (code, message));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_answer_over_the_budget_is_refused_and_a_stream_is_not() {
    let cluster = Cluster::found(1, |config| config.range_bytes_in_flight_max = 1 << 20).await;
    fill(&*cluster.handle(0)).await;
    let mut client = client(&cluster).await;
    let error = client.range(prefix_request("list/")).await.expect_err("3 MB");
    let refusal = (Code::ResourceExhausted, "etcdserver: too many requests");
    assert_eq!((error.code(), error.message()), refusal);
    // Two streams that nobody reads hold a few segments of the budget and no more.
    let mut idle = Vec::new();
    for _ in 0..2 {
        idle.push(client.range_stream(prefix_request("list/")).await.expect("opens"));
    }
    let chunks = chunks(&mut client, prefix_request("list/")).await.expect("streamed");
    assert_eq!(merged(chunks).kvs.len(), KEYS);
    let few = pb::RangeRequest { limit: 20, ..prefix_request("list/") };
    crate::support::eventually("what was sent is given back", || {
        let (mut client, few) = (client.clone(), few.clone());
        async move { client.range(few).await.ok() }
    })
    .await;
    drop(idle);
}

/// A line of `/proc/self/status`, in KiB.
fn kib(name: &str) -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("readable");
    let line = status.lines().find(|line| line.starts_with(name)).expect("there");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

/// Calls a method for everything below `list/` and drops what comes; the bytes that came.
async fn drain(url: &str, method: &str) -> usize {
    use http_body_util::BodyExt;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use prost::Message;
    let message = prefix_request("list/").encode_to_vec();
    let length = u32::try_from(message.len()).expect("small").to_be_bytes();
    let body = [&[0], length.as_slice(), &message].concat();
    let body = http_body_util::Full::new(bytes::Bytes::from(body));
    let request = http::Request::post(format!("{url}/etcdserverpb.KV/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .expect("a request");
    let stream = tokio::net::TcpStream::connect(url.trim_start_matches("http://")).await;
    let io = TokioIo::new(stream.expect("connects"));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("speaks");
    tokio::spawn(connection);
    let mut body = sender.send_request(request).await.expect("answered").into_body();
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame.expect("no error").data_ref().map_or(0, bytes::Bytes::len);
    }
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures the memory of the whole process: run it alone, with --nocapture"]
async fn memory_of_a_list_of_100_000_keys() {
    let cluster = Cluster::found(1, |_| {}).await;
    let store = cluster.handle(0);
    let value = "v".repeat(256);
    for batch in 0..1000 {
        let ops = (0..100).map(|i| {
            let put = put_request(&format!("list/{:08}", batch * 100 + i), &value);
            pb::RequestOp { request: Some(Request::RequestPut(put)) }
        });
        let txn = pb::TxnRequest { success: ops.collect(), ..Default::default() };
        store.txn(txn).await.expect("written");
    }
    for method in ["RangeStream", "RangeStream", "Range", "Range"] {
        std::fs::write("/proc/self/clear_refs", "5").expect("resets the peak");
        let before = kib("VmRSS");
        let bytes = drain(&cluster.client_url(0), method).await;
        println!("{method}: {} KiB, peak {} KiB above before", bytes >> 10, kib("VmHWM") - before);
    }
}
