//! Who answers a request: the busiest gRPC methods are served at once, the router finds everything
//! else. Finding a route and boxing what passes through it costs a point read a third of its time.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::routing::future::RouteFuture;
use futures::future::{BoxFuture, Either};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::Service;

use super::short::Marker;
use crate::auth::ClientCertificate;

/// What becomes of a request that was taken.
pub(crate) type Answering = BoxFuture<'static, Result<Response<Body>, Infallible>>;

/// Serves some requests, each in the task of its connection: what takes long or blocks is done elsewhere.
pub(crate) trait Direct: Send + Sync {
    /// Whether this request is one of them.
    fn serves(&self, request: &Request<Incoming>) -> bool;
    fn call(&self, request: Request<Incoming>) -> Answering;
}

/// What is served on a port.
#[derive(Clone)]
pub(crate) struct Front {
    direct: Option<Arc<dyn Direct>>,
    router: Router,
    /// Of the connection; every request on it brings it along.
    certificate: Option<ClientCertificate>,
    /// Of the connection.
    marker: Marker,
}

impl From<Router> for Front {
    fn from(router: Router) -> Self {
        Self { direct: None, router, certificate: None, marker: Marker::default() }
    }
}

impl Front {
    pub(crate) fn new(direct: Arc<dyn Direct>, router: Router) -> Self {
        Self { direct: Some(direct), ..Self::from(router) }
    }

    /// The same for one connection.
    pub(super) fn with_certificate(self, certificate: Option<ClientCertificate>) -> Self {
        Self { certificate, ..self }
    }

    pub(super) fn with_marker(self, marker: Marker) -> Self {
        Self { marker, ..self }
    }
}

impl Service<Request<Incoming>> for Front {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<Answering, RouteFuture<Infallible>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        if let Some(certificate) = &self.certificate {
            request.extensions_mut().insert(certificate.clone());
        }
        match &self.direct {
            Some(direct) if direct.serves(&request) => {
                self.marker.mark();
                Either::Left(direct.call(request))
            }
            _ => Either::Right(tower::Service::call(&mut self.router.clone(), request)),
        }
    }
}
