//! From an admitted request to whoever answers it.

use std::sync::Arc;

use http::{HeaderMap, Method};

use super::chain::Server;
use super::exchange;
use super::{Request, Response, respond};
use crate::authn::UserInfo;
use crate::error::{ApiError, ApiResult};
use crate::registry::Warnings;
use crate::request_info::RequestInfo;
use crate::version;

/// The TLS port: everything.
pub(super) async fn route(
    server: &Arc<Server>,
    user: Arc<UserInfo>,
    info: RequestInfo,
    request: Request,
    warnings: Warnings,
) -> ApiResult<Response> {
    if info.is_resource_request {
        return exchange::handle(server, user, info, request, warnings).await;
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(ApiError::method_not_allowed());
    }
    path(server, &info, request.headers()).await
}

/// The plain port: metrics and health.
pub(super) async fn plain(server: &Arc<Server>, info: &RequestInfo) -> ApiResult<Response> {
    let open = ["/metrics", "/healthz", "/livez", "/readyz", "/version"];
    if open.iter().any(|open| info.path.starts_with(open)) {
        return path(server, info, &HeaderMap::new()).await;
    }
    Err(ApiError::resource_not_found())
}

async fn path(
    server: &Arc<Server>,
    info: &RequestInfo,
    headers: &HeaderMap,
) -> ApiResult<Response> {
    let trimmed = info.path.trim_end_matches('/');
    let segments: Vec<&str> = trimmed.split('/').filter(|segment| !segment.is_empty()).collect();
    let documents = || server.documents.current(&server.registry.mapper());
    match segments.as_slice() {
        [] => Ok(respond::json(200, &documents().root_paths())),
        ["healthz" | "livez" | "readyz", ..] => {
            Ok(server.health.respond(server, &segments, &info.query).await)
        }
        ["version"] => Ok(respond::json(200, &version::info())),
        ["metrics"] => {
            let revision = server.registry.caches().revision();
            let text = server.metrics.render(server.in_flight.counts(), revision);
            Ok(respond::text(200, text))
        }
        ["api" | "apis", ..] => documents().discovery(&segments, headers),
        ["openapi", rest @ ..] => documents().openapi(rest, headers, &info.query),
        [".well-known", "openid-configuration"] => Ok(server.openid.configuration()),
        ["openid", "v1", "jwks"] => Ok(server.openid.keys()),
        _ => Err(ApiError::resource_not_found()),
    }
}
