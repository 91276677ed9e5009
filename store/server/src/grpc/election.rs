//! The Election service: the front of a queue is the leader, and its value the proclamation.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use pintle_proto::v3electionpb::election_server::Election;
use pintle_proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use pintle_store_api::pb;
use pintle_store_api::pb::request_op::Request::RequestPut;
use tonic::{Request, Response, Status};

use super::concurrency::{Place, Queue, created_at, op, range, session, txn};
use crate::handle::Handle;

mod observe;

const NOT_LEADER: &str = "election: not leader";
const NO_LEADER: &str = "election: no leader";
const MISSING_LEADER_KEY: &str = "\"leader\" field must be provided";

pub(super) struct Service(pub(super) Arc<Handle>);

type Leaders = Pin<Box<dyn Stream<Item = Result<LeaderResponse, Status>> + Send>>;

/// Replaces the value of a place that is still the one that was won.
async fn proclaim(
    handle: &Handle,
    key: &Bytes,
    revision: i64,
    lease: i64,
    value: Bytes,
) -> Result<Option<pb::ResponseHeader>, Status> {
    let put = pb::PutRequest { key: key.clone(), value, lease, ..Default::default() };
    let request = pb::TxnRequest {
        compare: vec![created_at(key, revision)],
        success: vec![op(RequestPut(put))],
        failure: Vec::new(),
    };
    let answer = txn(handle, request).await?;
    if !answer.succeeded {
        return Err(Status::unknown(NOT_LEADER));
    }
    Ok(answer.header)
}

fn leader_key(leader: Option<LeaderKey>) -> Result<LeaderKey, Status> {
    leader.ok_or_else(|| Status::unknown(MISSING_LEADER_KEY))
}

#[tonic::async_trait]
impl Election for Service {
    type ObserveStream = Leaders;

    async fn campaign(
        &self,
        request: Request<CampaignRequest>,
    ) -> Result<Response<CampaignResponse>, Status> {
        let handle = Arc::new(self.0.on_behalf(&request));
        let CampaignRequest { name, lease, value } = request.into_inner();
        let lease = session(&handle, lease).await?;
        let queue = Queue::new(Arc::clone(&handle), &name);
        let mut place = queue.join(lease, value.clone()).await?;
        if place.found.as_ref().is_some_and(|found| found.value != value) {
            proclaim(&handle, &place.key, place.revision, lease, value).await?;
        }
        queue.wait(&place).await?;
        place.keep();
        let leader =
            LeaderKey { name, key: place.key.clone(), rev: place.revision, lease: place.lease };
        let header = place.header.take();
        Ok(Response::new(CampaignResponse { header, leader: Some(leader) }))
    }

    async fn proclaim(
        &self,
        request: Request<ProclaimRequest>,
    ) -> Result<Response<ProclaimResponse>, Status> {
        let handle = Arc::new(self.0.on_behalf(&request));
        let ProclaimRequest { leader, value } = request.into_inner();
        let leader = leader_key(leader)?;
        let lease = session(&handle, leader.lease).await?;
        let header = proclaim(&handle, &leader.key, leader.rev, lease, value).await?;
        Ok(Response::new(ProclaimResponse { header }))
    }

    async fn leader(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<LeaderResponse>, Status> {
        let handle = Arc::new(self.0.on_behalf(&request));
        let queue = Queue::new(Arc::clone(&handle), &request.into_inner().name);
        let answer = range(&handle, queue.front()).await?;
        let kv = answer.kvs.into_iter().next().ok_or_else(|| Status::unknown(NO_LEADER))?;
        Ok(Response::new(LeaderResponse { header: answer.header, kv: Some(kv) }))
    }

    async fn observe(&self, request: Request<LeaderRequest>) -> Result<Response<Leaders>, Status> {
        let handle = Arc::new(self.0.on_behalf(&request));
        let name = request.into_inner().name;
        let stopped = handle.core().clients_stop.clone().cancelled_owned();
        let leaders = observe::leaders(handle, &name);
        Ok(Response::new(leaders.take_until(stopped).boxed()))
    }

    async fn resign(
        &self,
        request: Request<ResignRequest>,
    ) -> Result<Response<ResignResponse>, Status> {
        let handle = Arc::new(self.0.on_behalf(&request));
        let leader = leader_key(request.into_inner().leader)?;
        let answer = txn(&handle, Place::resign(&leader.key, leader.rev)).await?;
        Ok(Response::new(ResignResponse { header: answer.header }))
    }
}
