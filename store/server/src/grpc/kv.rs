//! The KV service.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use pintle_proto::etcdserverpb::kv_server::Kv;
use pintle_store_api::{Store, pb};
use prost::Message;
use tonic::{Request, Response, Status};

use crate::errors;
use crate::handle::Handle;

/// One chunk of a streamed range holds about this many bytes.
const CHUNK_BYTES: usize = 1 << 20;

pub(super) struct Service(pub(super) Arc<Handle>);

type Chunks = Pin<Box<dyn Stream<Item = Result<pb::RangeStreamResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Kv for Service {
    type RangeStreamStream = Chunks;

    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        let answer = self.0.range(request.into_inner()).await;
        answer.map(Response::new).map_err(|error| errors::read(&error))
    }

    async fn range_stream(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<Chunks>, Status> {
        let request = request.into_inner();
        if is_filtered(&request) {
            return Err(Status::unimplemented("etcdserver: range stream with sort or filters"));
        }
        let answer = self.0.range(request).await.map_err(|error| errors::read(&error))?;
        let chunks = chunks(answer)
            .into_iter()
            .map(|response| Ok(pb::RangeStreamResponse { range_response: Some(response) }));
        Ok(Response::new(futures::stream::iter(chunks).boxed()))
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        let answer = self.0.put(request.into_inner()).await;
        answer.map(Response::new).map_err(|error| errors::write(&error))
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let answer = self.0.delete_range(request.into_inner()).await;
        answer.map(Response::new).map_err(|error| errors::write(&error))
    }

    async fn txn(
        &self,
        request: Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        let answer = self.0.txn(request.into_inner()).await;
        answer.map(Response::new).map_err(|error| errors::write(&error))
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        let answer = self.0.compact(request.into_inner()).await;
        answer.map(Response::new).map_err(|error| errors::write(&error))
    }
}

fn is_filtered(request: &pb::RangeRequest) -> bool {
    let sorted = request.sort_order() != pb::range_request::SortOrder::None
        && !(request.sort_target() == pb::range_request::SortTarget::Key
            && request.sort_order() == pb::range_request::SortOrder::Ascend);
    sorted
        || request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

/// Cuts an answer into chunks whose merge is the answer; everything but keys is on the last one.
fn chunks(mut answer: pb::RangeResponse) -> Vec<pb::RangeResponse> {
    let mut chunks = Vec::new();
    let mut chunk = pb::RangeResponse::default();
    let mut bytes = 0;
    for kv in std::mem::take(&mut answer.kvs) {
        bytes += kv.encoded_len();
        chunk.kvs.push(kv);
        if bytes >= CHUNK_BYTES {
            chunks.push(std::mem::take(&mut chunk));
            bytes = 0;
        }
    }
    chunks.push(pb::RangeResponse { kvs: chunk.kvs, ..answer });
    chunks
}
