//! The JSON gateway: every gRPC call as `POST /v3/…` with protobuf's JSON mapping.
//!
//! Nothing here knows a single message. A path names a method, the descriptors say what goes in and
//! out, and the call is made on the gRPC services of the same process, so that whatever is true
//! of gRPC (authentication, limits, metrics, errors) is true of the gateway as well.
//! Streams are lines: `{"result": …}` for each message, `{"error": …}` at the end if it was none.

mod call;
mod codec;
mod json;
mod refusal;
mod routes;

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use prost_reflect::MethodDescriptor;
use tonic::Status;
use tonic::metadata::MetadataMap;

use self::call::Services;
use crate::auth::ClientCertificate;
use crate::core::Core;

/// JSON is larger than what it stands for: base64 by a third, numbers and names by more.
const JSON_FACTOR: usize = 4;

/// What `Grpc-Metadata-name: value` of a request becomes: metadata of the call.
const METADATA_PREFIX: &str = "grpc-metadata-";

/// What a client hears whose certificate would name a user, were it not for the gateway.
const NAME_IGNORED: &str = "CommonName of client sending a request against gateway will be ignored \
                            and not used as expected\n";

struct Gateway {
    core: Arc<Core>,
    services: Services,
    methods: HashMap<&'static str, MethodDescriptor>,
    body_bytes_max: usize,
}

/// The paths of the gateway, in front of `grpc`.
pub(super) fn router(core: &Arc<Core>, grpc: Router) -> Router {
    let request_bytes_max = core.config.max_request_bytes;
    let gateway = Gateway {
        core: Arc::clone(core),
        services: Services::new(grpc),
        methods: routes::methods(),
        body_bytes_max: request_bytes_max.saturating_mul(JSON_FACTOR),
    };
    let serve = || any(serve);
    let router = Router::new().route("/v3/{*method}", serve()).route("/v3beta/{*method}", serve());
    router.with_state(Arc::new(gateway))
}

impl Gateway {
    /// Whether the client has a name by its certificate and may believe that it counts here.
    fn ignores_the_name_of(&self, request: &Request) -> bool {
        let certificate = request.extensions().get::<ClientCertificate>();
        let named = certificate.is_some_and(|ClientCertificate(name)| !name.is_empty());
        named && self.core.auth.client_certificates && self.core.reader().auth().enabled()
    }
}

async fn serve(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    if gateway.ignores_the_name_of(&request) {
        return (StatusCode::BAD_REQUEST, NAME_IGNORED).into_response();
    }
    let path = request.uri().path();
    let path = path.trim_start_matches("/v3beta/").trim_start_matches("/v3/");
    let Some(method) = gateway.methods.get(path) else {
        return refusal::unary(&Status::not_found("Not Found"));
    };
    if request.method() != Method::POST {
        return refusal::unary(&Status::unimplemented("Method Not Allowed"));
    }
    let metadata = metadata(request.headers());
    let body = request.into_body();
    let messages = match json::messages(body, method, gateway.body_bytes_max).await {
        Ok(messages) => messages,
        Err(status) => return refusal::unary(&status),
    };
    let mut call = tonic::Request::new(messages);
    *call.metadata_mut() = metadata;
    if method.is_server_streaming() {
        return gateway.services.stream(method, call).await;
    }
    match gateway.services.unary(method, call).await.and_then(|answer| json::encode(&answer)) {
        Ok(body) => answer(StatusCode::OK, body),
        Err(status) => refusal::unary(&status),
    }
}

fn answer(code: StatusCode, body: impl Into<axum::body::Body>) -> Response {
    (code, [(header::CONTENT_TYPE, "application/json")], body.into()).into_response()
}

/// The metadata of the call that a request stands for. Neither the connection's certificate nor
/// any other header passes: a gateway speaks for those who show a token.
fn metadata(headers: &HeaderMap) -> MetadataMap {
    let mut passed = HeaderMap::new();
    for (name, value) in headers {
        let name = name.as_str();
        let target = match name.strip_prefix(METADATA_PREFIX) {
            Some(stripped) => stripped.to_owned(),
            None if name == "authorization" => name.to_owned(),
            None if name == "accept" => "grpcgateway-accept".to_owned(),
            None => continue,
        };
        if let Ok(target) = header::HeaderName::try_from(target) {
            passed.append(target, value.clone());
        }
    }
    // Marks the call as the gateway's also where the client accepts anything unasked.
    let marker = header::HeaderName::from_static("grpcgateway-accept");
    passed.entry(marker).or_insert(header::HeaderValue::from_static("*/*"));
    MetadataMap::from_headers(passed)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_token_and_marked_headers_pass_and_nothing_else() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "abc.1"),
            ("grpc-metadata-hasleader", "true"),
            ("cookie", "secret"),
            ("te", "trailers"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let passed = metadata(&headers).into_headers();
        assert_eq!(passed.len(), 3);
        assert_eq!(passed["authorization"], "abc.1");
        assert_eq!(passed["hasleader"], "true");
        assert_eq!(passed["grpcgateway-accept"], "*/*");
    }
}
