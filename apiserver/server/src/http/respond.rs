//! Answers in their plain forms.

use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use serde::Serialize;

use super::{Response, full_body};
use crate::error::ApiError;

/// JSON of anything serializable.
pub(crate) fn json(code: u16, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => bytes_as(code, "application/json", bytes),
        Err(error) => status(&ApiError::internal_error(error)),
    }
}

/// Bytes of some media type.
pub(crate) fn bytes_as(code: u16, media: &'static str, bytes: impl Into<bytes::Bytes>) -> Response {
    let mut response = Response::new(full_body(bytes));
    *response.status_mut() =
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// Plain text.
pub(crate) fn text(code: u16, body: impl Into<bytes::Bytes>) -> Response {
    bytes_as(code, "text/plain; charset=utf-8", body)
}

/// An error.
pub(crate) fn status(error: &ApiError) -> Response {
    let mut response = json(error.code, error);
    if let Some(seconds) = error.retry_after_seconds() {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}
