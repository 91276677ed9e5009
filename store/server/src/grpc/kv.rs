//! The KV service.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http;
use futures::{Stream, StreamExt};
use hyper::body::Incoming;
use pintle_mvcc::validate;
use pintle_proto::etcdserverpb::kv_server::Kv;
use pintle_store_api::pb::range_request::{SortOrder, SortTarget};
use pintle_store_api::{Store, pb};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use super::{measure, slow, unary};
use crate::errors;
use crate::handle::{Handle, is_long, is_pageable};
use crate::listener::{Answering, Direct};

#[derive(Clone)]
pub(super) struct Service(pub(super) Arc<Handle>);

/// The busiest methods, which [`unary`] serves.
pub(super) struct Busiest {
    pub(super) service: Service,
    pub(super) bytes_max: usize,
    /// What takes longer is named in the log; zero names nothing.
    pub(super) slow: Duration,
}

#[derive(Clone, Copy)]
enum Method {
    Range,
    Put,
    Txn,
}

impl Method {
    const ALL: [Self; 3] = [Self::Range, Self::Put, Self::Txn];

    fn of(request: &http::Request<Incoming>) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.path() == request.uri().path())
    }

    fn path(self) -> &'static str {
        match self {
            Self::Range => "/etcdserverpb.KV/Range",
            Self::Put => "/etcdserverpb.KV/Put",
            Self::Txn => "/etcdserverpb.KV/Txn",
        }
    }
}

impl Direct for Busiest {
    fn serves(&self, request: &http::Request<Incoming>) -> bool {
        // What a web page may have sent goes through the rules for those.
        let direct = unary::is_grpc(request) && request.version() == http::Version::HTTP_2;
        direct && Method::of(request).is_some()
    }

    /// Each method has a future of its own, as small as it can be: they are moved often.
    fn call(&self, request: http::Request<Incoming>) -> Answering {
        match Method::of(&request) {
            Some(method @ Method::Range) => self.measure(method, request, Service::answer_range),
            Some(method @ Method::Put) => self.measure(method, request, Service::answer_put),
            Some(method @ Method::Txn) => self.measure(method, request, Service::answer_txn),
            None => Box::pin(std::future::ready(Ok(
                Status::unimplemented("unknown method").into_http()
            ))),
        }
    }
}

type Answer = Result<http::Response<Body>, Status>;

impl Busiest {
    fn measure<F>(
        &self,
        method: Method,
        request: http::Request<Incoming>,
        answer: impl FnOnce(Service, http::Request<Incoming>, usize) -> F + Send + 'static,
    ) -> Answering
    where
        F: Future<Output = Answer> + Send,
    {
        let (service, bytes_max, slow) = (self.service.clone(), self.bytes_max, self.slow);
        Box::pin(async move {
            let started = Instant::now();
            let core = Arc::clone(service.0.core());
            let mut call = measure::Direct::start(&core, method.path());
            let answer = match measure::check_leader(&core, request.headers()) {
                Ok(()) => answer(service, request, bytes_max).await,
                Err(refusal) => Err(refusal),
            };
            call.end(&answer);
            if !slow.is_zero() {
                slow::note(method.path(), started.elapsed(), slow);
            }
            Ok(answer.unwrap_or_else(Status::into_http))
        })
    }
}

impl Service {
    async fn answer_range(self, request: http::Request<Incoming>, bytes_max: usize) -> Answer {
        Ok(self.range_in_pieces(self.read(request, bytes_max).await?).await)
    }

    // Not through the trait's methods, whose futures are boxed once more.

    async fn answer_put(self, request: http::Request<Incoming>, bytes_max: usize) -> Answer {
        let request = self.read(request, bytes_max).await?;
        let answer = self.0.on_behalf(&request).put(request.into_inner()).await;
        Ok(unary::respond(answer.map_err(|error| errors::write(&error))).await)
    }

    async fn answer_txn(self, request: http::Request<Incoming>, bytes_max: usize) -> Answer {
        let request = self.read(request, bytes_max).await?;
        let answer = self.0.on_behalf(&request).txn(request.into_inner()).await;
        Ok(unary::respond(answer.map_err(|error| errors::write(&error))).await)
    }

    async fn read<M: prost::Message + Default>(
        &self,
        request: http::Request<Incoming>,
        bytes_max: usize,
    ) -> Result<Request<M>, Status> {
        let request: Request<M> = unary::request(request, bytes_max).await?;
        let received = request.get_ref().encoded_len() as u64;
        let calls = &self.0.core().counters.calls;
        calls.received_bytes.fetch_add(received, Ordering::Relaxed);
        Ok(request)
    }

    /// A long answer is encoded while it is read, and never copied.
    async fn range_in_pieces(&self, request: Request<pb::RangeRequest>) -> http::Response<Body> {
        if !is_long(request.get_ref()) || !is_pageable(request.get_ref()) {
            let answer = self.0.on_behalf(&request).range(request.into_inner()).await;
            return unary::respond(answer.map_err(|error| errors::read(&error))).await;
        }
        match self.0.on_behalf(&request).range_encoded(request.into_inner()).await {
            Ok(pieces) => unary::pieces(pieces),
            Err(error) => errors::read(&error).into_http(),
        }
    }
}

type Chunks = Pin<Box<dyn Stream<Item = Result<pb::RangeStreamResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Kv for Service {
    type RangeStreamStream = Chunks;

    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        let answer = self.0.on_behalf(&request).range(request.into_inner()).await;
        answer.map(Response::new).map_err(|error| errors::read(&error))
    }

    async fn range_stream(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<Chunks>, Status> {
        let handle = self.0.on_behalf(&request);
        let request = request.into_inner();
        check_stream(&request)?;
        // Without an order it is in the order of the keys, whatever the target.
        let request = pb::RangeRequest { sort_target: SortTarget::Key.into(), ..request };
        let pages = handle.range_stream(request).await.map_err(|error| errors::read(&error))?;
        Ok(Response::new(chunks(pages).boxed()))
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        let answer = self.0.on_behalf(&request).put(request.into_inner()).await;
        answer.map(Response::new).map_err(|error| errors::write(&error))
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let answer = self.0.on_behalf(&request).delete_range(request.into_inner()).await;
        answer.map(Response::new).map_err(|error| errors::write(&error))
    }

    async fn txn(
        &self,
        request: Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        let answer = self.0.on_behalf(&request).txn(request.into_inner()).await;
        answer.map(Response::new).map_err(|error| errors::write(&error))
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        let answer = self.0.on_behalf(&request).compact(request.into_inner()).await;
        answer.map(Response::new).map_err(|error| errors::write(&error))
    }
}

/// What a stream cannot do, in etcd's words.
fn check_stream(request: &pb::RangeRequest) -> Result<(), Status> {
    validate::range(request).map_err(|refusal| errors::rejected(&refusal))?;
    let by_key = request.sort_target() == SortTarget::Key;
    let ascending = by_key && request.sort_order() == SortOrder::Ascend;
    if request.sort_order() != SortOrder::None && !ascending {
        return Err(Status::unimplemented("RangeStream does not support custom sort orders"));
    }
    if !is_pageable(&pb::RangeRequest { sort_target: SortTarget::Key.into(), ..request.clone() }) {
        return Err(Status::unimplemented("RangeStream does not support revision filters"));
    }
    Ok(())
}

/// Page after page, up to the one that is the last; a stream that was cut off ends with an error.
fn chunks(
    pages: mpsc::Receiver<Result<pb::RangeResponse, pintle_store_api::ReadError>>,
) -> impl Stream<Item = Result<pb::RangeStreamResponse, Status>> {
    futures::stream::unfold(Some(pages), |pages| async {
        let mut pages = pages?;
        match pages.recv().await {
            Some(Ok(page)) => {
                let rest = page.header.is_none().then_some(pages);
                Some((Ok(pb::RangeStreamResponse { range_response: Some(page) }), rest))
            }
            Some(Err(error)) => Some((Err(errors::read(&error)), None)),
            None => Some((Err(errors::transient(errors::TIMEOUT)), None)),
        }
    })
}
