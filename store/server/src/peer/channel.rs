//! What a peer's client calls through: a connection, or the network of a simulation.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::transport::Channel;
use tower::Service;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Calls one member. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) enum PeerChannel {
    Connection(Channel),
    #[cfg(feature = "simulation")]
    Simulated {
        network: std::sync::Arc<dyn crate::simulation::Network>,
        url: String,
    },
}

impl Service<http::Request<Body>> for PeerChannel {
    type Response = http::Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Self::Connection(channel) => channel.poll_ready(cx).map_err(Into::into),
            #[cfg(feature = "simulation")]
            Self::Simulated { .. } => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match self {
            Self::Connection(channel) => {
                let response = channel.call(request);
                Box::pin(async move { response.await.map_err(Into::into) })
            }
            #[cfg(feature = "simulation")]
            Self::Simulated { network, url } => network.call(url, request),
        }
    }
}
