//! The Maintenance service.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use pintle_proto::etcdserverpb::maintenance_server::Maintenance;
use pintle_store_api::{Revision, Store, pb};
use tonic::{Request, Response, Status};

use crate::errors;
use crate::handle::Handle;

pub(super) struct Service(pub(super) Arc<Handle>);

type Blobs = Pin<Box<dyn Stream<Item = Result<pb::SnapshotResponse, Status>> + Send>>;

impl Service {
    async fn hash(&self, revision: i64) -> Result<pb::HashKvResponse, Status> {
        let answer = self.0.hash_kv(Revision(revision)).await;
        answer.map_err(|error| errors::read(&error))
    }
}

#[tonic::async_trait]
impl Maintenance for Service {
    type SnapshotStream = Blobs;

    async fn alarm(
        &self,
        request: Request<pb::AlarmRequest>,
    ) -> Result<Response<pb::AlarmResponse>, Status> {
        // No alarm is ever raised yet: there is none to list and none to clear.
        if request.into_inner().action() == pb::alarm_request::AlarmAction::Activate {
            return Err(Status::unimplemented("etcdserver: alarms cannot be raised by hand"));
        }
        let header = Some(self.0.core().header());
        Ok(Response::new(pb::AlarmResponse { header, alarms: Vec::new() }))
    }

    async fn status(
        &self,
        _request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        self.0.status().await.map(Response::new).map_err(|error| errors::read(&error))
    }

    /// There is nothing to defragment.
    async fn defragment(
        &self,
        _request: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        Ok(Response::new(pb::DefragmentResponse { header: Some(self.0.core().header()) }))
    }

    async fn hash(
        &self,
        _request: Request<pb::HashRequest>,
    ) -> Result<Response<pb::HashResponse>, Status> {
        let answer = self.hash(0).await?;
        Ok(Response::new(pb::HashResponse { header: answer.header, hash: answer.hash }))
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        self.hash(request.into_inner().revision).await.map(Response::new)
    }

    async fn snapshot(
        &self,
        _request: Request<pb::SnapshotRequest>,
    ) -> Result<Response<Blobs>, Status> {
        Err(Status::unimplemented("etcdserver: snapshots for download are not served yet"))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        let core = self.0.core();
        let target = request.into_inner().target_id;
        if !core.leadership.is_leader() {
            return Err(errors::transient(errors::NOT_LEADER));
        }
        if target != core.identity.member_id {
            let membership = core.leadership.membership();
            if !membership.membership().voter_ids().any(|id| id == target) {
                return Err(Status::failed_precondition(errors::BAD_LEADER_TRANSFEREE));
            }
            core.move_leader(target).await.map_err(|error| errors::read(&error))?;
        }
        Ok(Response::new(pb::MoveLeaderResponse { header: Some(core.header()) }))
    }

    async fn downgrade(
        &self,
        _request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        Err(Status::unimplemented("etcdserver: downgrade is not supported"))
    }
}
