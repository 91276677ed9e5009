//! Stands before the Maintenance service: what it does is the administrator's, and even to look
//! takes a user.

use std::sync::Arc;

use pintle_mvcc::Authorizer;
use pintle_proto::etcdserverpb::maintenance_server::Maintenance;
use pintle_store_api::pb::alarm_request::AlarmAction;
use pintle_store_api::{AuthError, pb};
use tonic::{Request, Response, Status};

use crate::errors;
use crate::handle::Handle;

/// Lets through to `inner` what the sender may ask for.
pub(super) struct Guard<S> {
    pub(super) handle: Arc<Handle>,
    pub(super) inner: S,
}

impl<S> Guard<S> {
    async fn require<T>(
        &self,
        request: &Request<T>,
        check: impl FnOnce(&Authorizer<'_>) -> Result<(), AuthError>,
    ) -> Result<(), Status> {
        let allowed = self.handle.on_behalf(request).require(check).await;
        allowed.map_err(|rejection| errors::rejected(&rejection))
    }

    async fn admin<T>(&self, request: &Request<T>) -> Result<(), Status> {
        self.require(request, |may| may.admin()).await
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl<S: Maintenance> Maintenance for Guard<S> {
    type SnapshotStream = S::SnapshotStream;

    async fn alarm(&self, request: Request<pb::AlarmRequest>) -> Answer<pb::AlarmResponse> {
        match request.get_ref().action() {
            AlarmAction::Get => self.require(&request, |may| may.login()).await?,
            AlarmAction::Activate | AlarmAction::Deactivate => self.admin(&request).await?,
        }
        self.inner.alarm(request).await
    }

    async fn status(&self, request: Request<pb::StatusRequest>) -> Answer<pb::StatusResponse> {
        self.require(&request, |may| may.login()).await?;
        self.inner.status(request).await
    }

    async fn snapshot(
        &self,
        request: Request<pb::SnapshotRequest>,
    ) -> Answer<Self::SnapshotStream> {
        self.admin(&request).await?;
        self.inner.snapshot(request).await
    }

    async fn defragment(
        &self,
        request: Request<pb::DefragmentRequest>,
    ) -> Answer<pb::DefragmentResponse> {
        self.admin(&request).await?;
        self.inner.defragment(request).await
    }

    async fn hash(&self, request: Request<pb::HashRequest>) -> Answer<pb::HashResponse> {
        self.admin(&request).await?;
        self.inner.hash(request).await
    }

    async fn hash_kv(&self, request: Request<pb::HashKvRequest>) -> Answer<pb::HashKvResponse> {
        self.admin(&request).await?;
        self.inner.hash_kv(request).await
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Answer<pb::MoveLeaderResponse> {
        self.admin(&request).await?;
        self.inner.move_leader(request).await
    }

    async fn downgrade(
        &self,
        request: Request<pb::DowngradeRequest>,
    ) -> Answer<pb::DowngradeResponse> {
        self.admin(&request).await?;
        self.inner.downgrade(request).await
    }
}
