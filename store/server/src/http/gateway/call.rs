//! Calls of the gRPC services in this process.

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::uri::PathAndQuery;
use prost_reflect::{DynamicMessage, MethodDescriptor};
use tonic::client::Grpc;
use tonic::{Request, Status, Streaming};

use super::codec::DynamicCodec;
use super::{answer, json, refusal};

pub(super) struct Services(Router);

impl Services {
    pub(super) fn new(routes: Router) -> Self {
        Self(routes)
    }

    /// A call with one answer.
    pub(super) async fn unary<S>(
        &self,
        method: &MethodDescriptor,
        request: Request<S>,
    ) -> Result<DynamicMessage, Status>
    where
        S: Stream<Item = DynamicMessage> + Send + 'static,
    {
        let mut answers = self.open(method, request).await?;
        let missing = || Status::internal("the service gave no answer");
        let message = answers.message().await?.ok_or_else(missing)?;
        // The status comes last.
        answers.trailers().await?;
        Ok(message)
    }

    /// A call with a stream of answers. The code of the response is known with the first of them.
    pub(super) async fn stream<S>(&self, method: &MethodDescriptor, request: Request<S>) -> Response
    where
        S: Stream<Item = DynamicMessage> + Send + 'static,
    {
        let mut answers = match self.open(method, request).await {
            Ok(answers) => answers,
            Err(status) => return refusal::stream(&status),
        };
        let first = match answers.next().await {
            Some(Err(status)) => return refusal::stream(&status),
            first => first,
        };
        let lines = stream::iter(first).chain(answers).map(line).map(Ok::<_, Infallible>);
        answer(StatusCode::OK, Body::from_stream(lines))
    }

    async fn open<S>(
        &self,
        method: &MethodDescriptor,
        request: Request<S>,
    ) -> Result<Streaming<DynamicMessage>, Status>
    where
        S: Stream<Item = DynamicMessage> + Send + 'static,
    {
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let path =
            PathAndQuery::try_from(path).map_err(|error| Status::internal(error.to_string()));
        let unlimited = usize::MAX;
        let mut client = Grpc::new(self.0.clone())
            .max_decoding_message_size(unlimited)
            .max_encoding_message_size(unlimited);
        // A router is always ready.
        client.ready().await.map_err(|error| Status::internal(error.to_string()))?;
        let codec = DynamicCodec { answer: method.output() };
        client.streaming(request, path?, codec).await.map(tonic::Response::into_inner)
    }
}

fn line(answer: Result<DynamicMessage, Status>) -> Bytes {
    match answer.and_then(|message| json::encode(&message)) {
        Ok(body) => [b"{\"result\":".as_slice(), &body, b"}\n"].concat().into(),
        Err(status) => refusal::line(&status).into(),
    }
}
