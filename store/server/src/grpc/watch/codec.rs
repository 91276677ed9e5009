//! The watch stream on the wire: requests are decoded as always, replies are encoded already.

use std::convert::Infallible;
use std::pin::Pin;

use axum::body::Body;
use axum::{Router, http};
use futures::future::BoxFuture;
use futures::{Stream, StreamExt};
use pintle_store_api::pb;
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::{ProstCodec, ProstDecoder};

use super::{Reply, Service};

/// Serves the watch method so that events that many watchers share are encoded once; a request finds
/// it before the whole service.
pub(crate) fn encoded(service: &Service, bytes_max: usize) -> Router {
    let service = service.clone();
    let serve = move |request: http::Request<Body>| {
        let service = service.clone();
        async move {
            let mut grpc = Grpc::new(EncodedReplies).max_decoding_message_size(bytes_max);
            Ok::<_, Infallible>(grpc.streaming(service, request).await)
        }
    };
    Router::new().route_service("/etcdserverpb.Watch/Watch", tower::service_fn(serve))
}

type Replies = Pin<Box<dyn Stream<Item = Result<Reply, Status>> + Send>>;

impl StreamingService<pb::WatchRequest> for Service {
    type Response = Reply;
    type ResponseStream = Replies;
    type Future = BoxFuture<'static, Result<Response<Replies>, Status>>;

    fn call(&mut self, request: Request<Streaming<pb::WatchRequest>>) -> Self::Future {
        let replies = self.replies(request);
        Box::pin(async move { Ok(Response::new(replies?.boxed())) })
    }
}

struct EncodedReplies;

impl Codec for EncodedReplies {
    type Encode = Reply;
    type Decode = pb::WatchRequest;
    type Encoder = Put;
    type Decoder = ProstDecoder<pb::WatchRequest>;

    fn encoder(&mut self) -> Put {
        Put
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<pb::WatchResponse, pb::WatchRequest>::default().decoder()
    }
}

struct Put;

impl Encoder for Put {
    type Item = Reply;
    type Error = Status;

    fn encode(&mut self, reply: Reply, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(reply.size());
        reply.encode(out);
        Ok(())
    }
}
