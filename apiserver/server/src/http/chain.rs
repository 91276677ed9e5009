//! What every request goes through, whatever it asks for.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::HeaderValue;
use rustls_pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

use super::in_flight::InFlight;
use super::metrics::Metrics;
use super::{Request, Response, authenticate, compression, respond, route};
use crate::authn::Authenticator;
use crate::connect::Endpoint;
use crate::documents::Documents;
use crate::error::{ApiError, ApiResult};
use crate::health::Health;
use crate::openid::Openid;
use crate::registry::{Registry, Warnings};
use crate::request_info::RequestInfo;

/// A request that is no watch or stream ends by then.
const DEADLINE: Duration = Duration::from_secs(60);

/// The other end of a connection.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) remote: SocketAddr,
    /// Verified against the client CA; leaf first.
    pub(crate) certificates: Vec<CertificateDer<'static>>,
    /// Whether this is the TLS port; the plain one serves metrics and health only.
    pub(crate) secure: bool,
}

/// `(group, resource, subresource)`.
type EndpointKey = (String, String, String);

/// Everything that requests are answered with.
pub(crate) struct Server {
    pub(crate) registry: Registry,
    pub(crate) authenticator: Arc<dyn Authenticator>,
    pub(crate) endpoints: HashMap<EndpointKey, Endpoint>,
    pub(crate) documents: Documents,
    pub(crate) openid: Openid,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
    pub(crate) in_flight: InFlight,
    pub(crate) shutdown: CancellationToken,
}

impl Server {
    /// Answers a request; never fails. The work runs in a task of its own, so that a client that
    /// goes away does not stop a write half-way, and a panic is that request's alone.
    pub(crate) async fn handle(self: Arc<Self>, peer: Arc<Peer>, request: Request) -> Response {
        let started = Instant::now();
        let info = RequestInfo::parse(request.method(), request.uri());
        let gzip = compression::accepts_gzip(request.headers());
        let work = tokio::spawn(self.clone().work(peer.clone(), info.clone(), request));
        let response = match work.await {
            Ok(response) => response,
            Err(error) => {
                self.metrics.panicked();
                tracing::error!(%error, verb = info.verb, path = info.path, "a request panicked");
                respond::status(&ApiError::internal_error("the request ended in a panic"))
            }
        };
        let response = if gzip { compression::compress(response).await } else { response };
        let took = started.elapsed();
        self.metrics.observe(&info, response.status().as_u16(), took);
        tracing::debug!(
            verb = info.verb,
            path = info.path,
            code = response.status().as_u16(),
            took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            remote = %peer.remote,
        );
        response
    }

    async fn work(
        self: Arc<Self>,
        peer: Arc<Peer>,
        info: RequestInfo,
        request: Request,
    ) -> Response {
        let warnings = Warnings::default();
        let answer = if is_long_running(&info) {
            self.answer(&peer, info, request, &warnings).await
        } else {
            let answer = self.answer(&peer, info, request, &warnings);
            match tokio::time::timeout(DEADLINE, answer).await {
                Ok(answer) => answer,
                Err(_) => Err(ApiError::timeout(
                    "request did not complete within the allotted timeout",
                    0,
                )),
            }
        };
        let mut response = answer.unwrap_or_else(|error| respond::status(&error));
        add_warnings(&mut response, &warnings);
        response
    }

    async fn answer(
        self: &Arc<Self>,
        peer: &Peer,
        info: RequestInfo,
        request: Request,
        warnings: &Warnings,
    ) -> ApiResult<Response> {
        if !peer.secure {
            return route::plain(self, &info).await;
        }
        let _place = if is_long_running(&info) { None } else { self.in_flight.enter(&info)? };
        let user = authenticate::admit(self, peer, request.headers(), &info).await?;
        route::route(self, Arc::new(user), info, request, warnings.clone()).await
    }
}

/// Watches and streams have no deadline of ours and take no place.
fn is_long_running(info: &RequestInfo) -> bool {
    info.verb == "watch"
        || matches!(&*info.subresource, "log" | "exec" | "attach" | "portforward" | "proxy")
}

fn add_warnings(response: &mut Response, warnings: &Warnings) {
    for text in warnings.take() {
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ");
        // Bytes beyond ASCII are allowed in a header value; control characters are not, and are dropped.
        let quoted: String = quoted.chars().filter(|letter| !letter.is_control()).collect();
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            response.headers_mut().append(http::header::WARNING, value);
        }
    }
}
