//! HTTP: connections, the chain that every request goes through, and how answers are written.

mod authenticate;
pub(crate) mod body;
mod chain;
mod compression;
mod exchange;
mod format;
mod in_flight;
mod listener;
pub(crate) mod metrics;
pub(crate) mod negotiation;
mod patch;
mod protobuf;
mod respond;
mod route;
mod tls;
mod watch;

use bytes::Bytes;
use futures::Stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};

pub(crate) use chain::{Peer, Server};
pub(crate) use in_flight::InFlight;
pub(crate) use listener::{plain, run};
pub(crate) use metrics::Metrics;
pub(crate) use respond::{bytes_as, json, status, text};
pub(crate) use tls::{acceptor, certificates, unusable};

/// What a body may fail with on its way.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer: bytes at hand, or a stream.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A request as it comes from the connection.
pub type Request = http::Request<Incoming>;

/// An answer.
pub type Response = http::Response<Body>;

/// Nothing.
pub fn empty_body() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Bytes at hand.
pub fn full_body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Somebody else's body, passed on as it comes.
pub fn stream_body<B>(body: B) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    body.map_err(Into::into).boxed_unsync()
}

/// Chunks as they become available.
pub(crate) fn chunked_body(chunks: impl Stream<Item = Bytes> + Send + 'static) -> Body {
    use futures::StreamExt as _;
    let frames = chunks.map(|chunk| Ok::<_, BodyError>(Frame::data(chunk)));
    StreamBody::new(frames).boxed_unsync()
}
