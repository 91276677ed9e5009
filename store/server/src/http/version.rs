//! `/version`: what clients decide by what they may ask for.

use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{Json, Router};
use serde_json::json;

use super::only_get;
use crate::VERSION;

pub(super) fn router() -> Router {
    Router::new().route("/version", any(version))
}

async fn version(method: Method) -> Response {
    if let Some(refusal) = only_get(&method) {
        return refusal;
    }
    let (major_minor, _) = VERSION.rsplit_once('.').unwrap_or((VERSION, ""));
    let level = format!("{major_minor}.0");
    let body = json!({ "etcdserver": VERSION, "etcdcluster": level, "storage": level });
    ([(header::CONTENT_TYPE, "application/json")], Json(body)).into_response()
}
