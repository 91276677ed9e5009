//! Plain HTTP on the client port: the JSON gateway, health, version, and the rules for web pages.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use pintle_store_api::Store;
use serde_json::{Value, json};

use crate::support::{Cluster, get, put};

pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) headers: http::HeaderMap,
    body: Incoming,
}

impl Answer {
    pub(crate) async fn bytes(self) -> Bytes {
        self.body.collect().await.expect("readable").to_bytes()
    }

    pub(crate) async fn text(self) -> String {
        String::from_utf8(self.bytes().await.to_vec()).expect("text")
    }

    async fn json(self) -> Value {
        serde_json::from_str(&self.text().await).expect("JSON")
    }

    /// The next line of a stream.
    async fn line(&mut self, buffer: &mut Vec<u8>) -> Value {
        loop {
            if let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                return serde_json::from_slice(&line).expect("JSON");
            }
            let frame = self.body.frame().await.expect("not ended").expect("no error");
            buffer.extend_from_slice(&frame.into_data().expect("data"));
        }
    }
}

pub(crate) async fn send(url: &str, request: http::Request<Full<Bytes>>) -> Answer {
    let address = url.trim_start_matches("http://");
    let stream = tokio::net::TcpStream::connect(address).await.expect("connects");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("shakes hands");
    tokio::spawn(connection);
    let response = sender.send_request(request).await.expect("answered");
    let (head, body) = response.into_parts();
    Answer { code: head.status.as_u16(), headers: head.headers, body }
}

pub(crate) fn request(method: &str, path: &str) -> http::request::Builder {
    http::Request::builder().method(method).uri(path).header("host", "localhost:2379")
}

pub(crate) async fn fetch(url: &str, path: &str) -> Answer {
    send(url, request("GET", path).body(Full::default()).expect("a request")).await
}

pub(crate) async fn post(url: &str, path: &str, body: &str) -> Answer {
    let body = Full::new(Bytes::from(body.to_owned()));
    send(url, request("POST", path).body(body).expect("a request")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_written_and_read_as_json() {
    let cluster = Cluster::found(1, |_| {}).await;
    let url = cluster.client_url(0);
    let written = post(&url, "/v3/kv/put", r#"{"key":"Zm9v","value":"YmFy","odd":1}"#).await;
    assert_eq!(
        (written.code, &written.headers["content-type"]),
        (200, &"application/json".parse().expect("a value"))
    );
    let revision = written.json().await["header"]["revision"].clone();
    assert!(revision.is_string(), "64-bit numbers are strings");
    assert_eq!(get(&*cluster.handle(0), "foo").await.as_deref(), Some("bar"));
    let read = post(&url, "/v3/kv/range", r#"{"key":"Zm9v"}"#).await.json().await;
    let expected = json!([{
        "key": "Zm9v", "value": "YmFy", "create_revision": revision, "mod_revision": revision, "version": "1",
    }]);
    assert_eq!((&read["kvs"], &read["count"]), (&expected, &json!("1")));
    assert!(read.get("more").is_none(), "defaults are left out");
    let txn = r#"{"compare":[{"target":"VALUE","key":"Zm9v","value":"YmFy"}],
        "success":[{"request_put":{"key":"Zm9v","value":"YmF6","prev_kv":true}}]}"#;
    let done = post(&url, "/v3/kv/txn", txn).await.json().await;
    assert_eq!(done["succeeded"], true);
    assert_eq!(done["responses"][0]["response_put"]["prev_kv"]["value"], "YmFy");
    let old =
        post(&url, "/v3beta/kv/range", r#"{"key":"AA==","range_end":"AA==","count_only":true}"#);
    assert_eq!(old.await.json().await["count"], "1", "the path of old clients");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_has_the_code_and_the_words_of_grpc() {
    let cluster = Cluster::found(1, |_| {}).await;
    let url = cluster.client_url(0);
    for (path, body, code, grpc, message) in [
        ("/v3/kv/range", "{}", 400, 3, "etcdserver: key is not provided"),
        ("/v3/kv/range", "", 400, 3, "etcdserver: key is not provided"),
        ("/v3/lease/revoke", r#"{"ID":"7"}"#, 404, 5, "etcdserver: requested lease not found"),
        (
            "/v3/kv/compaction",
            r#"{"revision":"99"}"#,
            400,
            11,
            "etcdserver: mvcc: required revision is a future revision",
        ),
        ("/v3/kv/nothing", "{}", 404, 5, "Not Found"),
    ] {
        let answer = post(&url, path, body).await;
        assert_eq!(answer.code, code, "{path} {body}");
        let refusal = answer.json().await;
        assert_eq!(refusal, json!({ "error": message, "code": grpc, "message": message }));
    }
    let broken = post(&url, "/v3/kv/range", r#"{"key": "#).await;
    assert_eq!(broken.code, 400);
    assert_eq!(broken.json().await["code"], 3);
    let wrong_method = fetch(&url, "/v3/kv/range").await;
    assert_eq!(wrong_method.code, 501);
    assert_eq!(wrong_method.json().await["code"], 12);
    assert_eq!(fetch(&url, "/nothing").await.code, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_is_a_stream_of_lines_that_outlives_its_request() {
    let cluster = Cluster::found(1, |_| {}).await;
    let handle = cluster.handle(0);
    let url = cluster.client_url(0);
    let mut watch = post(&url, "/v3/watch", r#"{"create_request":{"key":"YQ=="}}"#).await;
    let mut buffer = Vec::new();
    let created = watch.line(&mut buffer).await;
    assert_eq!(created["result"]["created"], true);
    for value in ["1", "2"] {
        put(&*handle, "a", value).await.expect("written");
        let event = watch.line(&mut buffer).await;
        let kv = &event["result"]["events"][0]["kv"];
        assert_eq!(kv["value"], if value == "1" { "MQ==" } else { "Mg==" });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_messages_in_one_body_are_one_stream() {
    let cluster = Cluster::found(1, |_| {}).await;
    let url = cluster.client_url(0);
    let granted = post(&url, "/v3/lease/grant", r#"{"TTL":60}"#).await.json().await;
    let id = granted["ID"].as_str().expect("a number in a string").to_owned();
    let body = format!("{{\"ID\":{id}}}\n{{\"ID\":\"{id}\"}} {{\"ID\":1}}");
    let answers = post(&url, "/v3/lease/keepalive", &body).await.text().await;
    let lines: Vec<Value> =
        answers.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 3, "{answers}");
    assert_eq!(lines[1]["result"]["ID"], id);
    assert_eq!(lines[1]["result"]["TTL"], "60");
    assert!(lines[2]["result"].get("TTL").is_none(), "no such lease");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_other_hosts_and_origins_are_kept_out() {
    let cluster = Cluster::found(1, |config| {
        config.web.host_whitelist = vec!["localhost".to_owned()];
        config.web.cors = vec!["https://console.example".to_owned()];
    })
    .await;
    let url = cluster.client_url(0);
    assert_eq!(fetch(&url, "/version").await.code, 200);
    let rebound = http::Request::get("/version").header("host", "evil.example:2379");
    let rebound = send(&url, rebound.body(Full::default()).expect("a request")).await;
    assert_eq!(rebound.code, 421);
    assert!(rebound.text().await.contains("CVE-2018-5702"));
    for (origin, allowed) in [("https://console.example", true), ("https://other.example", false)] {
        let preflight = request("OPTIONS", "/v3/kv/put").header("origin", origin);
        let answer = send(&url, preflight.body(Full::default()).expect("a request")).await;
        assert_eq!(answer.code, 200);
        let named = answer.headers.get("access-control-allow-origin");
        assert_eq!(named.is_some_and(|named| named == origin), allowed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_switched_off_is_not_there() {
    let cluster = Cluster::found(1, |config| config.web.grpc_gateway = false).await;
    let answer = post(&cluster.client_url(0), "/v3/kv/range", "{}").await;
    assert_eq!(answer.code, 404);
    assert_eq!(answer.text().await, "404 page not found\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_tell_what_they_look_at_and_can_be_left_out() {
    let cluster = Cluster::found(1, |_| {}).await;
    let url = cluster.client_url(0);
    let version = fetch(&url, "/version").await.json().await;
    assert_eq!(
        version,
        json!({ "etcdserver": "3.7.1", "etcdcluster": "3.7.0", "storage": "3.7.0" })
    );
    for (path, expected) in [
        ("/health", r#"{"health":"true","reason":""}"#),
        ("/livez", "ok\n"),
        ("/readyz", "ok\n"),
        ("/readyz/non_learner", "ok\n"),
        ("/livez?verbose", "[+]serializable_read ok\nok\n"),
        (
            "/readyz?verbose&exclude=non_learner&exclude=data_corruption",
            "[+]serializable_read ok\n[+]linearizable_read ok\nok\n",
        ),
        ("/readyz?verbose&allowlist=non_learner", "[+]non_learner ok\nok\n"),
    ] {
        let answer = fetch(&url, path).await;
        assert_eq!(answer.code, 200, "{path}");
        assert_eq!(answer.text().await, expected, "{path}");
    }
    let wrong_method = post(&url, "/health", "").await;
    assert_eq!(
        (wrong_method.code, &wrong_method.headers["allow"]),
        (405, &"GET".parse().expect("a value"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_a_quorum_lives_and_is_not_ready() {
    let mut cluster = Cluster::found(3, |_| {}).await;
    let url = cluster.client_url(0);
    put(&*cluster.handle(0), "a", "1").await.expect("written");
    for other in [1, 2] {
        cluster.kill(other).await;
    }
    // Until then it may still believe in the leader.
    let handle = cluster.handle(0);
    crate::support::eventually("the loss is noticed", || async {
        handle.read_index().await.is_err().then_some(())
    })
    .await;
    assert_eq!(fetch(&url, "/livez").await.code, 200);
    assert_eq!(fetch(&url, "/health?serializable=true").await.code, 200);
    let (health, ready) = tokio::join!(fetch(&url, "/health"), fetch(&url, "/readyz"));
    assert_eq!((health.code, ready.code), (503, 503));
    let health: Value = serde_json::from_str(&health.text().await).expect("JSON");
    assert_eq!(health["health"], "false");
    assert_ne!(health["reason"], "");
    let report = ready.text().await;
    assert!(report.contains("[+]serializable_read ok\n"), "{report}");
    assert!(report.contains("[-]linearizable_read failed: etcdserver: "), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alarms_make_a_member_unhealthy_unless_they_are_left_out() {
    let cluster = Cluster::found(1, |_| {}).await;
    let url = cluster.client_url(0);
    let raise = |action: &str, alarm: &str| {
        let body = format!(r#"{{"action":"{action}","memberID":"7","alarm":"{alarm}"}}"#);
        let url = url.clone();
        async move { assert_eq!(post(&url, "/v3/maintenance/alarm", &body).await.code, 200) }
    };
    raise("ACTIVATE", "NOSPACE").await;
    let health = |query: &str| {
        let (url, path) = (url.clone(), format!("/health{query}"));
        async move {
            let answer = fetch(&url, &path).await;
            (answer.code, answer.text().await)
        }
    };
    let no_space = (503, "{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}\n".to_owned());
    let healthy = (200, r#"{"health":"true","reason":""}"#.to_owned());
    assert_eq!(health("").await, no_space);
    assert_eq!(health("?exclude=CORRUPT&exclude=").await, no_space);
    assert_eq!(health("?exclude=NOSPACE").await, healthy);
    assert_eq!(fetch(&url, "/readyz").await.code, 200, "it still answers");
    raise("ACTIVATE", "CORRUPT").await;
    let corrupt = (503, "{\"health\":\"false\",\"reason\":\"ALARM CORRUPT\"}\n".to_owned());
    assert_eq!(health("?exclude=NOSPACE").await, corrupt);
    assert_eq!(health("?exclude=NOSPACE&exclude=CORRUPT").await, healthy);
    let ready = fetch(&url, "/readyz").await;
    assert_eq!(ready.code, 503);
    let report = ready.text().await;
    assert!(report.contains("[-]data_corruption failed: alarm activated: CORRUPT\n"), "{report}");
    assert_eq!(fetch(&url, "/readyz?exclude=data_corruption").await.code, 200);
    assert_eq!(fetch(&url, "/livez").await.code, 200);
}

/// What the panels and alerts of etcd's own mixin ask for; those on `up` are Prometheus' own.
const ASKED_BY_DASHBOARDS: &[&str] = &[
    "etcd_server_has_leader ",
    "grpc_server_started_total{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} ",
    "grpc_server_handled_total{grpc_code=\"Unavailable\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} ",
    "grpc_server_started_total{grpc_method=\"Watch\",grpc_service=\"etcdserverpb.Watch\",grpc_type=\"bidi_stream\"} ",
    "grpc_server_started_total{grpc_method=\"LeaseKeepAlive\",grpc_service=\"etcdserverpb.Lease\",grpc_type=\"bidi_stream\"} ",
    "grpc_server_handling_seconds_bucket{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\",le=\"0.001\"} ",
    "etcd_mvcc_db_total_size_in_bytes ",
    "etcd_mvcc_db_total_size_in_use_in_bytes ",
    "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.001\"} ",
    "etcd_disk_backend_commit_duration_seconds_bucket{le=\"0.001\"} ",
    "process_resident_memory_bytes ",
    "etcd_network_client_grpc_received_bytes_total ",
    "etcd_network_client_grpc_sent_bytes_total ",
    "etcd_network_peer_received_bytes_total{From=",
    "etcd_network_peer_sent_bytes_total{To=",
    "etcd_network_peer_sent_failures_total{To=",
    "etcd_network_peer_round_trip_time_seconds_bucket{To=",
    "etcd_server_leader_changes_seen_total ",
    "etcd_server_proposals_failed_total ",
    "etcd_server_proposals_pending ",
    "etcd_server_proposals_committed_total ",
    "etcd_server_proposals_applied_total ",
    "etcd_debugging_mvcc_slow_watcher_total ",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dashboards_made_for_etcd_find_their_series() {
    let cluster = Cluster::found(3, |config| config.web.extensive_metrics = true).await;
    let leader = cluster.leader().await;
    let follower = cluster.follower().await;
    put(&*cluster.handle(follower), "a", "1").await.expect("written");
    for member in [leader, follower] {
        let metrics = fetch(&cluster.client_url(member), "/metrics").await.text().await;
        for series in ASKED_BY_DASHBOARDS {
            let of_leader = series.contains("peer_sent_bytes") || series.contains("round_trip");
            let of_follower = series.contains("peer_received_bytes");
            if (of_leader && member != leader) || (of_follower && member == leader) {
                continue;
            }
            let found = metrics.lines().any(|line| line.starts_with(series));
            // Who never failed to reach a member, and never wrote to one, has no series of it.
            assert!(found || series.contains("sent_failures"), "{series} is missing:\n{metrics}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_counted_by_method_and_code() {
    let cluster = Cluster::found(1, |_| {}).await;
    let url = cluster.client_url(0);
    post(&url, "/v3/kv/put", r#"{"key":"YQ=="}"#).await.json().await;
    post(&url, "/v3/kv/range", "{}").await.json().await;
    post(&url, "/v3/kv/range", r#"{"key":"YQ=="}"#).await.json().await;
    let metrics = fetch(&url, "/metrics").await.text().await;
    let count = |code: &str, method: &str| {
        let service = "grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"";
        let series = format!("{{grpc_code=\"{code}\",grpc_method=\"{method}\",{service}}} 1");
        assert!(metrics.contains(&format!("grpc_server_handled_total{series}\n")), "{metrics}");
    };
    count("OK", "Put");
    count("OK", "Range");
    count("InvalidArgument", "Range");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_learn_what_is_served_and_that_it_is() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let cluster = Cluster::found(1, |_| {}).await;
    let channel = tonic::transport::Endpoint::from_shared(cluster.client_url(0)).expect("a URL");
    let channel = channel.connect_lazy();
    let mut health = HealthClient::new(channel.clone());
    let overall = health.check(HealthCheckRequest::default()).await.expect("known");
    assert_eq!(overall.into_inner().status, 1, "serving");
    let other = HealthCheckRequest { service: "etcdserverpb.KV".to_owned() };
    let unknown = health.check(other).await.expect_err("as in etcd, only the whole is known");
    assert_eq!(unknown.code(), tonic::Code::NotFound);

    let mut reflection = ServerReflectionClient::new(channel);
    let list = MessageRequest::ListServices(String::new());
    let list = ServerReflectionRequest { message_request: Some(list), ..Default::default() };
    let requests = futures::stream::iter([list]);
    let mut answers =
        reflection.server_reflection_info(requests).await.expect("opens").into_inner();
    let answer = answers.message().await.expect("answered").expect("one");
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("another answer");
    };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["etcdserverpb.KV", "v3lockpb.Lock", "v3electionpb.Election"] {
        assert!(names.contains(&name), "{names:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_asks_for_a_token() {
    let cluster = Cluster::found(1, crate::auth::quick).await;
    let url = cluster.client_url(0);
    let root = crate::auth::Client::connect(url.clone()).await.enable_with_root().await;
    let body = json!({ "key": "YQ==" }).to_string();
    let refused = post(&url, "/v3/kv/range", &body).await;
    assert_eq!(refused.code, 400);
    assert_eq!(refused.json().await["message"], "etcdserver: user name is empty");
    let login = json!({ "name": "root", "password": "root" }).to_string();
    let login = post(&url, "/v3/auth/authenticate", &login).await.json().await;
    for token in [root.token(), login["token"].as_str().expect("a token")] {
        let request = request("POST", "/v3/kv/range").header("authorization", token);
        let request = request.body(Full::from(body.clone())).expect("a request");
        assert_eq!(send(&url, request).await.code, 200);
    }
}

/// Frames as they arrive: type, flags and payload.
async fn frame(stream: &mut tokio::net::TcpStream) -> Option<(u8, u8, Vec<u8>)> {
    use tokio::io::AsyncReadExt;
    let mut header = [0; 9];
    stream.read_exact(&mut header).await.ok()?;
    let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
    let mut payload = vec![0; usize::try_from(length).expect("short")];
    stream.read_exact(&mut payload).await.expect("the whole frame");
    Some((header[3], header[4], payload))
}

/// As etcd, with the default of `--grpc-keepalive-min-time`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_pings_too_often_is_told_so_and_loses_its_connection() {
    use tokio::io::AsyncWriteExt;
    const PING: u8 = 6;
    const GOAWAY: u8 = 7;
    let seconds = std::time::Duration::from_secs(5);
    let cluster = Cluster::found(1, |config| config.http.keepalive_min_time = seconds).await;
    let url = cluster.client_url(0);
    let address = url.trim_start_matches("http://").to_owned();
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("connects");
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("sent");
    let ping = *b"\0\0\x08\x06\0\0\0\0\0pingpong";
    for number in 1..=3 {
        stream.write_all(&ping).await.expect("sent");
        loop {
            let (kind, flags, payload) = frame(&mut stream).await.expect("open");
            assert_ne!(kind, GOAWAY, "ping {number}");
            if (kind, flags) == (PING, 1) {
                assert_eq!(payload, b"pingpong");
                break;
            }
        }
    }
    stream.write_all(&ping).await.expect("sent");
    let (kind, _, payload) = frame(&mut stream).await.expect("a last word");
    assert_eq!(kind, GOAWAY);
    assert_eq!(payload, b"\0\0\0\0\0\0\0\x0btoo_many_pings");
    assert_eq!(frame(&mut stream).await, None);
}
