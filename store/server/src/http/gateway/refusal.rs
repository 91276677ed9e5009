//! A status as JSON, and the HTTP code that goes with it.
//!
//! etcd up to 3.5 told the message as `error`, later ones as `message`; clients of both are served.

use axum::http::StatusCode;
use axum::http::header::{self, HeaderValue};
use axum::response::Response;
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::answer;

/// The answer to a call that gave none.
pub(super) fn unary(status: &Status) -> Response {
    let message = status.message();
    let body = json!({ "error": message, "code": i32::from(status.code()), "message": message });
    refuse(status, body.to_string())
}

/// The answer to a call whose stream did not begin.
pub(super) fn stream(status: &Status) -> Response {
    refuse(status, line(status))
}

/// The last line of a stream that did not end well.
pub(super) fn line(status: &Status) -> String {
    let http = http_code(status.code());
    let error: Value = json!({
        "code": i32::from(status.code()),
        "message": status.message(),
        "grpc_code": i32::from(status.code()),
        "http_code": http.as_u16(),
        "http_status": http.canonical_reason().unwrap_or_default(),
    });
    format!("{}\n", json!({ "error": error }))
}

fn refuse(status: &Status, body: String) -> Response {
    let mut response = answer(http_code(status.code()), body);
    if status.code() == Code::Unauthenticated
        && let Ok(challenge) = HeaderValue::try_from(status.message())
    {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

/// As Google's APIs map them; a client that went away gets nginx's 499.
fn http_code(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::REQUEST_TIMEOUT),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_google_apis() {
        for (code, expected) in [
            (Code::Ok, 200),
            (Code::Cancelled, 499),
            (Code::InvalidArgument, 400),
            (Code::OutOfRange, 400),
            (Code::NotFound, 404),
            (Code::PermissionDenied, 403),
            (Code::Unauthenticated, 401),
            (Code::ResourceExhausted, 429),
            (Code::Unimplemented, 501),
            (Code::Unavailable, 503),
            (Code::Unknown, 500),
        ] {
            assert_eq!(http_code(code).as_u16(), expected, "{code:?}");
        }
    }
}
