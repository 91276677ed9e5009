//! What the node says about itself: health, pods, statistics, metrics.

use axum::Json;
use axum::extract::State as Extract;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use k8s_openapi::jiff::Timestamp;
use pintle_proto::cri::ContainerState;
use serde_json::{Value, json};

use super::State;
use super::error::Error;
use crate::stats::{metrics, summary};

/// Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) async fn healthz() -> &'static str {
    "ok"
}

pub(super) async fn pods(Extract(state): Extract<State>) -> Json<Value> {
    let items: Vec<_> = state.pods.all();
    let items: Vec<_> = items.iter().map(|pod| &**pod).collect();
    Json(json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items }))
}

pub(super) async fn configz(Extract(state): Extract<State>) -> Json<Value> {
    Json(json!({ "kubeletconfig": {
        "clusterDNS": [state.context.dns.server],
        "clusterDomain": state.context.dns.domain,
        "maxPods": 110,
        "containerLogMaxSize": "10Mi",
        "containerLogMaxFiles": 5,
        "cgroupDriver": "cgroupfs",
    } }))
}

pub(super) async fn summary(Extract(state): Extract<State>) -> Json<Value> {
    let context = &state.context;
    let pods = summary::measure(&*context.runtime, &state.pods.all()).await;
    Json(summary::summary(&context.name, context.paths.data_dir(), &pods, Timestamp::now()))
}

pub(super) async fn resource_metrics(Extract(state): Extract<State>) -> Response {
    let pods = summary::measure(&*state.context.runtime, &state.pods.all()).await;
    ([(CONTENT_TYPE, METRICS_TYPE)], metrics::resource(&pods)).into_response()
}

pub(super) async fn metrics(Extract(state): Extract<State>) -> Result<Response, Error> {
    let runtime = &state.context.runtime;
    let sandboxes = runtime.list_sandboxes(None).await?;
    let running = runtime
        .list_containers(None)
        .await?
        .iter()
        .filter(|c| c.state == ContainerState::ContainerRunning as i32)
        .count();
    let ready = sandboxes.iter().filter(|sandbox| sandbox.state == 0).count();
    let text = metrics::kubelet(&state.context.name, ready, running);
    Ok(([(CONTENT_TYPE, METRICS_TYPE)], text).into_response())
}
