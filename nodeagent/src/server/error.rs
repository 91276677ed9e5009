//! Errors of the kubelet API: a status code and a plain text, which the apiserver makes a `Status` of.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::runtime;

/// An answer that is not what was asked for.
#[derive(Debug)]
pub(super) struct Error {
    code: StatusCode,
    message: String,
}

impl Error {
    pub(super) fn new(code: StatusCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }
}

impl From<runtime::Error> for Error {
    fn from(error: runtime::Error) -> Self {
        let code = match error {
            runtime::Error::NotFound(_) => StatusCode::NOT_FOUND,
            runtime::Error::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            runtime::Error::DeadlineExceeded(_) => StatusCode::GATEWAY_TIMEOUT,
            runtime::Error::Unimplemented(_) => StatusCode::NOT_IMPLEMENTED,
            runtime::Error::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(code, error.to_string())
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        (self.code, self.message).into_response()
    }
}
