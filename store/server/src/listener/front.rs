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

/// What becomes of a request that was taken.
pub(crate) type Answering = BoxFuture<'static, Result<Response<Body>, Infallible>>;

/// Serves some requests, and gives back the others.
pub(crate) trait Direct: Send + Sync {
    fn call(&self, request: Request<Incoming>) -> Result<Answering, Request<Incoming>>;
}

/// What is served on a port.
#[derive(Clone)]
pub(crate) struct Front {
    direct: Option<Arc<dyn Direct>>,
    router: Router,
}

impl From<Router> for Front {
    fn from(router: Router) -> Self {
        Self { direct: None, router }
    }
}

impl Front {
    pub(crate) fn new(direct: Arc<dyn Direct>, router: Router) -> Self {
        Self { direct: Some(direct), router }
    }
}

impl Service<Request<Incoming>> for Front {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<Answering, RouteFuture<Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let request = match &self.direct {
            None => request,
            Some(direct) => match direct.call(request) {
                Ok(answering) => return Either::Left(answering),
                Err(request) => request,
            },
        };
        Either::Right(tower::Service::call(&mut self.router.clone(), request))
    }
}
