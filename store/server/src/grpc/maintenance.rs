//! The Maintenance service.

mod downgrade;
mod snapshot;

use std::sync::Arc;

use pintle_proto::etcdserverpb::maintenance_server::Maintenance;
use pintle_store_api::{Revision, Store, pb};
use tonic::{Request, Response, Status};

use crate::handle::Handle;
use crate::{alarms, errors};

pub(super) struct Service(pub(super) Arc<Handle>);

impl Service {
    /// A learner serves only its status and snapshots of what it has.
    fn check_voter(&self) -> Result<(), Status> {
        self.0.core().check_voter().map_err(|refusal| errors::rejected(&refusal))
    }

    async fn hash(&self, revision: i64) -> Result<pb::HashKvResponse, Status> {
        self.check_voter()?;
        let answer = self.0.hash_kv(Revision(revision)).await;
        answer.map_err(|error| errors::read(&error))
    }
}

#[tonic::async_trait]
impl Maintenance for Service {
    type SnapshotStream = snapshot::Chunks;

    async fn alarm(
        &self,
        request: Request<pb::AlarmRequest>,
    ) -> Result<Response<pb::AlarmResponse>, Status> {
        let answer = alarms::answer(self.0.core(), request.into_inner()).await;
        answer.map(Response::new).map_err(|error| errors::write(&error))
    }

    async fn status(
        &self,
        _request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        self.0.status().await.map(Response::new).map_err(|error| errors::read(&error))
    }

    /// There is nothing to defragment. As in etcd, the answer has no header.
    async fn defragment(
        &self,
        _request: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        self.check_voter()?;
        Ok(Response::new(pb::DefragmentResponse { header: None }))
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
    ) -> Result<Response<snapshot::Chunks>, Status> {
        snapshot::stream(self.0.core()).await.map(Response::new)
    }

    /// As in etcd, the answer has no header.
    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        self.check_voter()?;
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
        Ok(Response::new(pb::MoveLeaderResponse { header: None }))
    }

    async fn downgrade(
        &self,
        request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        self.check_voter()?;
        Err(downgrade::refusal(&request.into_inner()))
    }
}
