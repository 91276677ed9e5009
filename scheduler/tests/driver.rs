//! The whole scheduler against a small apiserver in memory, on paused time: watches, bindings, conditions, events, lease.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::client::Body;
use parking_lot::Mutex;
use pintle_scheduler::{Config, run};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

type Answer = UnsyncBoxBody<Bytes, Infallible>;

/// Objects by path, and the log of their changes.
#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    log: Vec<(String, Value)>,
    requests: HashMap<String, usize>,
    /// How many bindings are still to be refused.
    refuse: usize,
}

struct Server {
    state: Mutex<State>,
    version: watch::Sender<usize>,
}

/// `/api/v1/namespaces/ns/pods/p/status` → (`pods`, `ns/p`, `status`); collections have no key.
fn parse(path: &str) -> (String, Option<String>, Option<String>) {
    let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    parts.drain(..if parts[0] == "api" { 2 } else { 3 });
    let mut namespace = String::new();
    if parts[0] == "namespaces" && parts.len() > 2 {
        namespace = format!("{}/", parts[1]);
        parts.drain(..2);
    }
    let name = parts.get(1).map(|name| format!("{namespace}{name}"));
    (parts[0].to_owned(), name, parts.get(2).map(|part| (*part).to_owned()))
}

impl Server {
    fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), version: watch::Sender::new(0) })
    }

    fn put(&self, plural: &str, key: &str, mut object: Value) -> Value {
        let mut state = self.state.lock();
        let id = format!("{plural}/{key}");
        let version = state.log.len() + 1;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let kind = if state.objects.contains_key(&id) { "MODIFIED" } else { "ADDED" };
        state.log.push((plural.to_owned(), json!({"type": kind, "object": object})));
        state.objects.insert(id, object.clone());
        drop(state);
        self.version.send_replace(version);
        object
    }

    fn get(&self, plural: &str, key: &str) -> Option<Value> {
        self.state.lock().objects.get(&format!("{plural}/{key}")).cloned()
    }

    fn all(&self, plural: &str) -> Vec<Value> {
        let prefix = format!("{plural}/");
        let state = self.state.lock();
        let all = state.objects.iter().filter(|(id, _)| id.starts_with(&prefix));
        all.map(|(_, object)| object.clone()).collect()
    }

    async fn answer(self: Arc<Self>, request: Request<Body>) -> Response<Answer> {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await.unwrap();
        let (plural, key, sub) = parse(parts.uri.path());
        let query = parts.uri.query().unwrap_or_default();
        let request = format!("{} {plural} {}", parts.method, sub.as_deref().unwrap_or_default());
        *self.state.lock().requests.entry(request).or_default() += 1;
        match (parts.method, key) {
            (Method::GET, None) if query.contains("watch=true") => {
                let from = query.split('&').find_map(|q| q.strip_prefix("resourceVersion="));
                self.watch(plural, from.unwrap().parse().unwrap())
            }
            (Method::GET, None) => {
                let version = self.state.lock().log.len().to_string();
                ok(&json!({"metadata": {"resourceVersion": version}, "items": self.all(&plural)}))
            }
            (Method::GET, Some(key)) => match self.get(&plural, &key) {
                Some(object) => ok(&object),
                None => failure(StatusCode::NOT_FOUND),
            },
            (Method::POST, Some(key)) if sub.as_deref() == Some("binding") => {
                self.bind(&key, &body)
            }
            (Method::POST, _) => {
                let object: Value = serde_json::from_slice(&body).unwrap();
                let meta = &object["metadata"];
                let key = format!(
                    "{}/{}",
                    meta["namespace"].as_str().unwrap(),
                    meta["name"].as_str().unwrap()
                );
                ok(&self.put(&plural, &key, object))
            }
            (Method::PUT, Some(key)) => {
                let object: Value = serde_json::from_slice(&body).unwrap();
                let old = self.get(&plural, &key).unwrap();
                if old["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] {
                    return failure(StatusCode::CONFLICT);
                }
                ok(&self.put(&plural, &key, object))
            }
            (Method::PATCH, Some(key)) => {
                let patch: Value = serde_json::from_slice(&body).unwrap();
                let mut object = self.get(&plural, &key).unwrap();
                merge(&mut object, &patch);
                ok(&self.put(&plural, &key, object))
            }
            (Method::DELETE, Some(key)) => {
                let mut state = self.state.lock();
                let object = state.objects.remove(&format!("{plural}/{key}")).unwrap();
                state.log.push((plural, json!({"type": "DELETED", "object": object})));
                let version = state.log.len();
                drop(state);
                self.version.send_replace(version);
                ok(&object)
            }
            other => panic!("unexpected request {other:?}"),
        }
    }

    fn bind(&self, key: &str, body: &[u8]) -> Response<Answer> {
        if std::mem::take(&mut self.state.lock().refuse) > 0 {
            return failure(StatusCode::INTERNAL_SERVER_ERROR);
        }
        let binding: Value = serde_json::from_slice(body).unwrap();
        let mut pod = self.get("pods", key).unwrap();
        if pod["spec"]["nodeName"].is_string() {
            return failure(StatusCode::CONFLICT);
        }
        assert_eq!(binding["metadata"]["uid"], pod["metadata"]["uid"]);
        pod["spec"]["nodeName"] = binding["target"]["name"].clone();
        self.put("pods", key, pod);
        ok(&json!({"kind": "Status", "apiVersion": "v1", "status": "Success", "code": 201}))
    }

    fn watch(self: Arc<Self>, plural: String, from: usize) -> Response<Answer> {
        let version = self.version.subscribe();
        let events =
            futures::stream::unfold((self, from, version), move |(server, at, mut version)| {
                let plural = plural.clone();
                async move {
                    version.wait_for(|version| *version > at).await.ok()?;
                    let log = server.state.lock().log[at..].to_vec();
                    let next = at + log.len();
                    let mut lines = Vec::new();
                    for (_, event) in log.iter().filter(|(of, _)| *of == plural) {
                        lines.extend(serde_json::to_vec(event).unwrap());
                        lines.push(b'\n');
                    }
                    Some((Ok(http_body::Frame::data(lines.into())), (server, next, version)))
                }
            });
        Response::new(StreamBody::new(events.boxed()).boxed_unsync())
    }
}

/// A merge patch, with the conditions joined by their type.
fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else { return };
    for (key, value) in fields {
        match value {
            Value::Null => drop(object.as_object_mut().unwrap().remove(key)),
            Value::Object(_) => {
                if !object[key].is_object() {
                    object[key] = json!({});
                }
                merge(&mut object[key], value);
            }
            value => object[key] = value.clone(),
        }
    }
}

fn ok(value: &Value) -> Response<Answer> {
    Response::new(Full::from(serde_json::to_vec(value).unwrap()).boxed_unsync())
}

fn failure(code: StatusCode) -> Response<Answer> {
    let reason = code.canonical_reason().unwrap().replace(' ', "");
    let status = json!({"kind": "Status", "status": "Failure", "code": code.as_u16(), "reason": reason, "message": "no"});
    let mut response = ok(&status);
    *response.status_mut() = code;
    response
}

struct Member {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), pintle_scheduler::Error>>,
}

fn start(server: &Arc<Server>, identity: &str) -> Member {
    let server = server.clone();
    let service = tower::service_fn(move |request| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(server.answer(request).await) }
    });
    let config = Config {
        client: kube::Client::new(service, "default"),
        identity: identity.into(),
        scheduler_name: "default-scheduler".into(),
    };
    let stop = CancellationToken::new();
    Member { task: tokio::spawn(run(config, stop.clone())), stop }
}

fn add_node(server: &Server, name: &str, cpu: u32) {
    server.put(
        "nodes",
        name,
        json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "status": {"allocatable": {"cpu": cpu.to_string(), "memory": "8Gi", "pods": "110"}},
        }),
    );
}

fn add_pod(server: &Server, name: &str, cpu: &str, priority: i32) {
    server.put(
        "pods",
        &format!("default/{name}"),
        json!({
            "metadata": {"name": name, "namespace": "default", "uid": name},
            "spec": {
                "schedulerName": "default-scheduler", "priority": priority,
                "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}],
            },
        }),
    );
}

fn node_of(server: &Server, pod: &str) -> Option<String> {
    let pod = server.get("pods", &format!("default/{pod}"))?;
    pod["spec"]["nodeName"].as_str().map(str::to_owned)
}

async fn until(what: &str, server: &Server, condition: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    let wait = async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    if timeout(Duration::from_secs(60), wait).await.is_err() {
        panic!("never: {what}; requests: {:#?}", server.state.lock().requests);
    }
    start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn pods_are_bound_and_told_so() {
    let server = Server::new();
    let _member = start(&server, "a");
    add_node(&server, "n1", 4);
    add_node(&server, "n2", 4);
    for i in 0..16 {
        add_pod(&server, &format!("p{i}"), "500m", 0);
    }
    until("all are bound", &server, || {
        (0..16).all(|i| node_of(&server, &format!("p{i}")).is_some())
    })
    .await;
    let on_first = (0..16).filter(|i| node_of(&server, &format!("p{i}")).as_deref() == Some("n1"));
    assert_eq!(on_first.count(), 8, "both nodes are full");
    let told = |event: &Value| event["message"].as_str().unwrap_or_default().to_owned();
    until("the event", &server, || {
        let expected =
            format!("Successfully assigned default/p3 to {}", node_of(&server, "p3").unwrap());
        server.all("events").iter().any(|event| told(event) == expected)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn pod_without_a_node_says_why_and_gets_the_next_one() {
    let server = Server::new();
    let _member = start(&server, "a");
    add_node(&server, "small", 1);
    add_pod(&server, "big", "2", 0);
    let condition =
        || server.get("pods", "default/big").unwrap()["status"]["conditions"][0].clone();
    until("the condition", &server, || condition()["status"] == "False").await;
    assert_eq!(condition()["reason"], "Unschedulable");
    assert_eq!(
        condition()["message"],
        "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    );
    let failed =
        |event: &Value| event["reason"] == "FailedScheduling" && event["type"] == "Warning";
    until("the event", &server, || server.all("events").iter().any(failed)).await;
    add_node(&server, "large", 4);
    until("it is bound", &server, || node_of(&server, "big").as_deref() == Some("large")).await;
}

#[tokio::test(start_paused = true)]
async fn refused_binding_is_tried_again_and_holds_no_room() {
    let server = Server::new();
    server.state.lock().refuse = 1;
    let _member = start(&server, "a");
    add_node(&server, "n", 1);
    add_pod(&server, "p", "1", 0);
    until("it is bound", &server, || node_of(&server, "p").is_some()).await;
    assert_eq!(server.state.lock().requests["POST pods binding"], 2);
}

#[tokio::test(start_paused = true)]
async fn victim_of_preemption_makes_room() {
    let server = Server::new();
    let _member = start(&server, "a");
    add_node(&server, "n", 1);
    add_pod(&server, "low", "1", 0);
    until("the first is bound", &server, || node_of(&server, "low").is_some()).await;
    add_pod(&server, "high", "1", 1000);
    until("the important one is bound", &server, || node_of(&server, "high").is_some()).await;
    assert_eq!(server.get("pods", "default/low"), None);
}

#[tokio::test(start_paused = true)]
async fn standby_takes_over_warm_after_a_crash_and_at_once_after_a_stop() {
    let server = Server::new();
    add_node(&server, "n", 64);
    let first = start(&server, "a");
    add_pod(&server, "p0", "1", 0);
    until("the first leads", &server, || node_of(&server, "p0").is_some()).await;
    let second = start(&server, "b");
    sleep(Duration::from_secs(5)).await;
    let lists = server.state.lock().requests["GET pods "];

    first.task.abort();
    add_pod(&server, "p1", "1", 0);
    let took = until("the second leads", &server, || node_of(&server, "p1").is_some()).await;
    assert!(took < Duration::from_secs(3), "took {took:?}");
    assert_eq!(server.state.lock().requests["GET pods "], lists, "nothing was listed anew");

    let third = start(&server, "c");
    sleep(Duration::from_secs(5)).await;
    second.stop.cancel();
    second.task.await.unwrap().unwrap();
    add_pod(&server, "p2", "1", 0);
    let took = until("the third leads", &server, || node_of(&server, "p2").is_some()).await;
    assert!(took < Duration::from_millis(500), "took {took:?}");
    third.stop.cancel();
    third.task.await.unwrap().unwrap();
}
