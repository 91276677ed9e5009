//! The watch stream on the wire: requests are decoded as always, replies go out in whole parcels.
//!
//! tonic would copy each reply into a buffer that it makes larger step by step. A parcel is written
//! into one of the right size, and events that many watchers share are encoded already.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::{Router, http};
use bytes::{Bytes, BytesMut};
use http_body::Frame;
use pintle_store_api::pb;
use tokio::sync::mpsc;
use tonic::codec::{Codec, Streaming};
use tonic::metadata::{GRPC_CONTENT_TYPE, MetadataMap};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use super::reply::Reply;
use super::{Parcel, Service};

/// Serves the watch method; a request finds it before the whole service.
pub(crate) fn encoded(service: &Service, bytes_max: usize) -> Router {
    let service = service.clone();
    let serve = move |request: http::Request<Body>| {
        let service = service.clone();
        async move { Ok::<_, Infallible>(answer(&service, request, bytes_max)) }
    };
    Router::new().route_service("/etcdserverpb.Watch/Watch", tower::service_fn(serve))
}

fn answer(
    service: &Service,
    request: http::Request<Body>,
    bytes_max: usize,
) -> http::Response<Body> {
    if let Some(encoding) = request.headers().get("grpc-encoding").filter(|one| *one != "identity")
    {
        let encoding = encoding.to_str().unwrap_or("something");
        let refusal = format!("Content is compressed with `{encoding}` which isn't supported");
        return Status::unimplemented(refusal).into_http();
    }
    let parcels = match service.parcels(requests(request, bytes_max)) {
        Ok(parcels) => parcels,
        Err(status) => return status.into_http(),
    };
    let body = Replies { parcels, end: None, ended: false };
    let mut response = http::Response::new(Body::new(body));
    response.headers_mut().insert(http::header::CONTENT_TYPE, GRPC_CONTENT_TYPE);
    response
}

fn requests(
    request: http::Request<Body>,
    bytes_max: usize,
) -> Request<Streaming<pb::WatchRequest>> {
    let (parts, body) = request.into_parts();
    let decoder = ProstCodec::<pb::WatchResponse, pb::WatchRequest>::default().decoder();
    let requests = Streaming::new_request(decoder, body, None, Some(bytes_max));
    Request::from_parts(MetadataMap::from_headers(parts.headers), parts.extensions, requests)
}

/// The body of the answer: a frame for each parcel, and how it ended.
struct Replies {
    parcels: mpsc::Receiver<Parcel>,
    /// With what it ends, once the parcel before is out.
    end: Option<Status>,
    ended: bool,
}

impl http_body::Body for Replies {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        while self.end.is_none() {
            let Some(parcel) = ready!(self.parcels.poll_recv(context)) else {
                self.end = Some(Status::ok(""));
                break;
            };
            let (messages, end) = encode(parcel);
            self.end = end;
            if !messages.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(messages))));
            }
        }
        self.ended = true;
        let mut trailers = http::HeaderMap::new();
        let status = self.end.take().unwrap_or_else(|| Status::ok(""));
        if status.add_header(&mut trailers).is_err() {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// The messages of a parcel one after the other, and the error that ends the stream, if one does.
fn encode(parcel: Parcel) -> (Bytes, Option<Status>) {
    let sizes = parcel.iter().flatten().map(Reply::size);
    let mut out = BytesMut::with_capacity(sizes.sum());
    for reply in parcel {
        if let Err(status) = reply.and_then(|reply| reply.frame(&mut out)) {
            return (out.freeze(), Some(status));
        }
    }
    (out.freeze(), None)
}

#[cfg(test)]
mod tests {
    use bytes::Buf;
    use http_body_util::BodyExt;
    use prost::Message;
    use tonic::Code;

    use super::*;

    fn reply(watch_id: i64) -> Result<Reply, Status> {
        Ok(pb::WatchResponse { watch_id, ..Default::default() }.into())
    }

    async fn body(parcels: Vec<Parcel>) -> (Vec<i64>, usize, i32) {
        let (sender, receiver) = mpsc::channel(parcels.len().max(1));
        for parcel in parcels {
            sender.send(parcel).await.expect("room");
        }
        drop(sender);
        let mut replies = Replies { parcels: receiver, end: None, ended: false };
        let (mut ids, mut frames) = (Vec::new(), 0);
        loop {
            let frame = replies.frame().await.expect("trailers come first").expect("infallible");
            match frame.into_data() {
                Ok(mut data) => {
                    frames += 1;
                    while data.has_remaining() {
                        assert_eq!(data.get_u8(), 0);
                        let length = data.get_u32() as usize;
                        let message = pb::WatchResponse::decode(data.split_to(length));
                        ids.push(message.expect("a response").watch_id);
                    }
                }
                Err(frame) => {
                    let trailers = frame.into_trailers().expect("data or trailers");
                    let status = Status::from_header_map(&trailers).expect("a status");
                    assert!(replies.frame().await.is_none());
                    return (ids, frames, status.code() as i32);
                }
            }
        }
    }

    #[tokio::test]
    async fn parcels_are_frames_and_the_end_is_told() {
        let parcels = vec![vec![reply(1), reply(2)], vec![], vec![reply(3)]];
        assert_eq!(body(parcels).await, (vec![1, 2, 3], 2, Code::Ok as i32));
    }

    #[tokio::test]
    async fn an_error_comes_after_what_was_said_before_it() {
        let last = vec![reply(2), Err(Status::unavailable("gone")), reply(3)];
        let code = Code::Unavailable as i32;
        assert_eq!(body(vec![vec![reply(1)], last]).await, (vec![1, 2], 2, code));
        assert_eq!(body(vec![vec![Err(Status::unavailable("gone"))]]).await, (vec![], 0, code));
    }
}
