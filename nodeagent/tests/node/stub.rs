//! As much of an apiserver as a node agent talks to: objects by path, lists, watches, merge patches.
//! No validation, no defaults, no selectors but those that a path implies.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

/// The server; objects are looked at and changed through it.
#[derive(Clone)]
pub(crate) struct Stub(Arc<Inner>);

struct Inner {
    objects: Mutex<BTreeMap<String, Value>>,
    revision: Mutex<u64>,
    events: broadcast::Sender<(String, &'static str, Value)>,
}

impl Stub {
    /// Starts it; the URL.
    pub(crate) async fn start() -> (Self, String) {
        let (events, _) = broadcast::channel(4096);
        let stub =
            Self(Arc::new(Inner { objects: Mutex::default(), revision: Mutex::new(1), events }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(handle).with_state(stub.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (stub, url)
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.0.objects.lock().get(path).cloned()
    }

    /// Creates or replaces.
    pub(crate) fn put(&self, path: &str, mut object: Value) -> Value {
        let revision = {
            let mut revision = self.0.revision.lock();
            *revision += 1;
            *revision
        };
        object["metadata"]["resourceVersion"] = json!(revision.to_string());
        let before = self.0.objects.lock().insert(path.to_owned(), object.clone());
        let kind = if before.is_some() { "MODIFIED" } else { "ADDED" };
        // Nobody may be watching.
        let _ = self.0.events.send((path.to_owned(), kind, object.clone()));
        object
    }

    pub(crate) fn change(&self, path: &str, change: impl FnOnce(&mut Value)) {
        let mut object = self.get(path).unwrap();
        change(&mut object);
        self.put(path, object);
    }

    pub(crate) fn remove(&self, path: &str) -> Option<Value> {
        let object = self.0.objects.lock().remove(path)?;
        let _ = self.0.events.send((path.to_owned(), "DELETED", object.clone()));
        Some(object)
    }

    /// Everything of a kind, by the end of its collection's path.
    pub(crate) fn list(&self, collection: &str) -> Vec<Value> {
        let objects = self.0.objects.lock();
        objects
            .iter()
            .filter(|(path, _)| belongs(path, collection))
            .map(|(_, o)| o.clone())
            .collect()
    }
}

/// `/api/v1/pods` holds `/api/v1/namespaces/NS/pods/NAME`.
fn belongs(path: &str, collection: &str) -> bool {
    let Some((parent, _)) = path.rsplit_once('/') else { return false };
    let all = |path: &str| match path
        .split_once("/namespaces/")
        .and_then(|(root, rest)| Some((root, rest.split_once('/')?.1)))
    {
        Some((root, kind)) => format!("{root}/{kind}"),
        None => path.to_owned(),
    };
    parent == collection || all(parent) == collection
}

async fn handle(State(stub): State<Stub>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let method = request.method().clone();
    let body = axum::body::to_bytes(request.into_body(), 4 << 20).await.unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let object_path = path.strip_suffix("/status").unwrap_or(&path).to_owned();
    match method {
        Method::GET if query.contains("watch=true") || query.contains("watch=1") => {
            watch(&stub, path)
        }
        Method::GET => match stub.get(&path) {
            Some(object) => json_answer(StatusCode::OK, &object),
            None if is_collection(&path) => {
                let list = json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": "1" }, "items": stub.list(&path) });
                json_answer(StatusCode::OK, &list)
            }
            None => not_found(&path),
        },
        Method::POST if path.ends_with("/token") => {
            let status =
                json!({ "token": "a-token", "expirationTimestamp": "2099-01-01T00:00:00Z" });
            let answer = json!({ "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "metadata": {}, "spec": body["spec"], "status": status });
            json_answer(StatusCode::CREATED, &answer)
        }
        Method::POST => {
            let name = body["metadata"]["name"].as_str().unwrap_or("x").to_owned();
            let mut body = body;
            if body["metadata"]["uid"].is_null() {
                body["metadata"]["uid"] = json!(format!("uid-of-{name}"));
            }
            json_answer(StatusCode::CREATED, &stub.put(&format!("{path}/{name}"), body))
        }
        Method::PUT => json_answer(StatusCode::OK, &stub.put(&object_path, body)),
        Method::PATCH => patch(&stub, &object_path, &body),
        Method::DELETE => match stub.remove(&path) {
            Some(object) => json_answer(StatusCode::OK, &object),
            None => not_found(&path),
        },
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

fn patch(stub: &Stub, path: &str, patch: &Value) -> Response {
    let Some(mut object) = stub.get(path) else { return not_found(path) };
    let wanted = &patch["metadata"]["resourceVersion"];
    if !wanted.is_null() && *wanted != object["metadata"]["resourceVersion"] {
        return status(StatusCode::CONFLICT, "Conflict", path);
    }
    merge(&mut object, patch);
    json_answer(StatusCode::OK, &stub.put(path, object))
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in fields {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key.as_str()], value);
        }
    }
}

/// Kinds are plural and names of the tests have a dash.
fn is_collection(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|last| last.ends_with('s') && !last.contains('-'))
}

fn watch(stub: &Stub, collection: String) -> Response {
    let events = BroadcastStream::new(stub.0.events.subscribe());
    // What happened between the list and this watch is told again; the agent is level-triggered.
    let known = stub.list(&collection).into_iter().map(|object| event("MODIFIED", &object));
    let new = events.filter_map(move |received| {
        let line = received
            .ok()
            .filter(|(path, ..)| belongs(path, &collection))
            .map(|(_, kind, object)| event(kind, &object));
        async move { line }
    });
    let lines = stream::iter(known.collect::<Vec<_>>()).chain(new).map(Ok::<_, std::io::Error>);
    Response::builder()
        .header("content-type", "application/json")
        .body(Body::from_stream(lines))
        .unwrap()
}

fn event(kind: &str, object: &Value) -> Bytes {
    format!("{}\n", json!({ "type": kind, "object": object })).into()
}

fn json_answer(code: StatusCode, value: &Value) -> Response {
    (code, [("content-type", "application/json")], value.to_string()).into_response()
}

fn not_found(path: &str) -> Response {
    status(StatusCode::NOT_FOUND, "NotFound", path)
}

fn status(code: StatusCode, reason: &str, path: &str) -> Response {
    let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("{reason}: {path}"), "reason": reason, "code": code.as_u16() });
    json_answer(code, &status)
}
