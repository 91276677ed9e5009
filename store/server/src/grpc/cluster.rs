//! The Cluster service.

use std::sync::Arc;
use std::time::Duration;

use pintle_proto::etcdserverpb::cluster_server::Cluster;
use pintle_proto::raft::change_member_request::Change;
use pintle_store_api::pb;
use tonic::{Request, Response, Status};

use crate::consensus::Node;
use crate::consensus::convert::node_to_pb;
use crate::handle::Handle;
use crate::{errors, members};

/// How long an answer waits until this member knows of the change that it is about.
const CATCH_UP_MAX: Duration = Duration::from_secs(1);

pub(super) struct Service(pub(super) Arc<Handle>);

impl Service {
    async fn require_admin<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let allowed = self.0.on_behalf(request).require(|may| may.admin()).await;
        allowed.map_err(|rejection| errors::rejected(&rejection))
    }

    async fn change(&self, change: Change) -> Result<(), Status> {
        let done = members::change(self.0.core(), change).await;
        done.map_err(|error| errors::write(&error))?;
        self.catch_up().await;
        Ok(())
    }

    /// Waits for this member to know of the change; one that lags, or has just been removed, answers
    /// with what it knows.
    async fn catch_up(&self) {
        let known = self.0.core().read_index.wait();
        drop(tokio::time::timeout(CATCH_UP_MAX, known).await);
    }

    /// As in etcd, the header tells no revision.
    fn members(&self) -> (Option<pb::ResponseHeader>, Vec<pb::Member>) {
        let core = self.0.core();
        (Some(core.header_at(0)), members::list(core))
    }
}

fn check_urls(urls: &[String]) -> Result<(), Status> {
    if members::are_peer_urls(urls) {
        return Ok(());
    }
    Err(Status::invalid_argument(errors::MEMBER_BAD_URLS))
}

#[tonic::async_trait]
impl Cluster for Service {
    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        self.require_admin(&request).await?;
        let request = request.into_inner();
        check_urls(&request.peer_ur_ls)?;
        let added = members::add(self.0.core(), request.peer_ur_ls, request.is_learner).await;
        let id = added.map_err(|error| errors::write(&error))?;
        self.catch_up().await;
        let (header, members) = self.members();
        let member = members.iter().find(|member| member.id == id).cloned();
        Ok(Response::new(pb::MemberAddResponse { header, member, members }))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        self.require_admin(&request).await?;
        self.change(Change::Remove(request.into_inner().id)).await?;
        let (header, members) = self.members();
        Ok(Response::new(pb::MemberRemoveResponse { header, members }))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        self.require_admin(&request).await?;
        let request = request.into_inner();
        let membership = self.0.core().leadership.membership();
        let known = membership.membership().get_node(&request.id);
        let known = known.ok_or_else(|| Status::not_found(errors::MEMBER_NOT_FOUND))?;
        check_urls(&request.peer_ur_ls)?;
        let node = Node { peer_urls: request.peer_ur_ls, ..known.clone() };
        self.change(Change::Set(node_to_pb(request.id, &node))).await?;
        let (header, members) = self.members();
        Ok(Response::new(pb::MemberUpdateResponse { header, members }))
    }

    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        let handle = self.0.on_behalf(&request);
        handle.core().check_voter().map_err(|refusal| errors::rejected(&refusal))?;
        if request.into_inner().linearizable {
            let read = handle.core().read_index.wait().await;
            read.map_err(|error| errors::read(&error))?;
        }
        let allowed = handle.require(|may| may.login()).await;
        allowed.map_err(|rejection| errors::rejected(&rejection))?;
        let (header, members) = self.members();
        Ok(Response::new(pb::MemberListResponse { header, members }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        self.require_admin(&request).await?;
        self.change(Change::Promote(request.into_inner().id)).await?;
        let (header, members) = self.members();
        Ok(Response::new(pb::MemberPromoteResponse { header, members }))
    }
}
