//! Plain HTTP beside gRPC: the JSON gateway, health, version, profiles, and who may ask from where.

mod access;
mod gateway;
mod health;
mod profiles;
mod version;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{Method, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use tonic::Status;

pub(crate) use self::health::HealthCounters;
pub use self::profiles::{HeapSample, Held, Pprof};
use crate::core::Core;
use crate::metrics;

/// What is served beside gRPC, and to whom: etcd's flags of the same names.
#[derive(Clone, Debug)]
pub struct WebConfig {
    /// Whether the durations of calls are measured for each method (`metrics=extensive`).
    pub extensive_metrics: bool,
    /// Whether gRPC can be called with JSON (`enable-grpc-gateway`).
    pub grpc_gateway: bool,
    /// Origins of pages that may call; `*` for all (`cors`).
    pub cors: Vec<String>,
    /// Names under which this member may be asked without TLS; `*` for all (`host-whitelist`).
    pub host_whitelist: Vec<String>,
    /// Profiles of the process (`enable-pprof`); `None`: there are none.
    pub pprof: Option<Pprof>,
}

impl Default for WebConfig {
    fn default() -> Self {
        let everybody = || vec!["*".to_owned()];
        Self {
            extensive_metrics: false,
            grpc_gateway: true,
            cors: everybody(),
            host_whitelist: everybody(),
            pprof: None,
        }
    }
}

/// Health, version and metrics.
fn router(core: &Arc<Core>) -> Router {
    health::router(core).merge(version::router()).merge(metrics::router(Arc::clone(core)))
}

/// What a client port serves: gRPC, and everything that is not, under the rules for web pages.
pub(crate) fn client_routes(core: &Arc<Core>, grpc: Router, tls: bool) -> Router {
    let config = &core.config.web;
    let mut routes = grpc.clone().merge(router(core));
    if config.grpc_gateway {
        routes = routes.merge(gateway::router(core, grpc));
    }
    if let Some(pprof) = config.pprof {
        routes = routes.merge(profiles::router(pprof));
    }
    access::guard(routes.fallback(not_found), config, tls)
}

/// What the metrics port serves. Scrapers may call it by any name; a profile is kept from web pages.
pub(crate) fn metrics_routes(core: &Arc<Core>) -> Router {
    let config = &core.config.web;
    let mut routes = router(core);
    if let Some(pprof) = config.pprof {
        routes = routes.merge(access::guard_from_pages(profiles::router(pprof), config));
    }
    routes.fallback(not_found)
}

/// Whether no page can have sent this: browsers do not speak HTTP/2 without TLS.
fn is_grpc(request: &Request) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    request.version() == Version::HTTP_2
        && kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

async fn not_found(request: Request) -> Response {
    if is_grpc(&request) {
        let path = request.uri().path().trim_start_matches('/');
        let service = path.rsplit_once('/').map_or(path, |(service, _)| service);
        return Status::unimplemented(format!("unknown service {service}")).into_http();
    }
    (StatusCode::NOT_FOUND, "404 page not found\n").into_response()
}

/// The refusal of every method but GET.
fn only_get(method: &Method) -> Option<Response> {
    if method == Method::GET {
        return None;
    }
    let allow = [(header::ALLOW, "GET")];
    Some((StatusCode::METHOD_NOT_ALLOWED, allow, "Method Not Allowed\n").into_response())
}
