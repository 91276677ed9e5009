//! Health and version, as plain HTTP beside gRPC.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use crate::VERSION;
use crate::core::Core;

pub(crate) fn router(core: Arc<Core>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/version", get(version))
        .with_state(core)
}

fn answer(problem: Option<String>, text: impl FnOnce() -> Response) -> Response {
    match problem {
        None => text(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason).into_response(),
    }
}

async fn health(State(core): State<Arc<Core>>) -> Response {
    let problem = unready(&core).await;
    let code = if problem.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let health = if problem.is_none() { "true" } else { "false" };
    (code, Json(json!({ "health": health, "reason": problem.unwrap_or_default() }))).into_response()
}

async fn livez(State(core): State<Arc<Core>>) -> Response {
    answer(core.leadership.failure(), || "ok\n".into_response())
}

async fn readyz(State(core): State<Arc<Core>>) -> Response {
    answer(unready(&core).await, || "ok\n".into_response())
}

async fn unready(core: &Core) -> Option<String> {
    if let Some(failure) = core.leadership.failure() {
        return Some(failure);
    }
    core.read_index.wait().await.err().map(|error| error.to_string())
}

async fn version() -> Response {
    Json(json!({ "etcdserver": VERSION, "etcdcluster": "3.7.0" })).into_response()
}
