//! The Cluster service.

use std::sync::Arc;

use pintle_proto::etcdserverpb::cluster_server::Cluster;
use pintle_proto::raft::change_member_request::Change;
use pintle_store_api::{Store, pb};
use tonic::{Request, Response, Status};

use crate::consensus::Node;
use crate::consensus::convert::node_to_pb;
use crate::handle::Handle;
use crate::{errors, members};

pub(super) struct Service(pub(super) Arc<Handle>);

impl Service {
    async fn change(&self, change: Change) -> Result<(), Status> {
        let done = members::change(self.0.core(), change).await;
        done.map_err(|error| errors::write(&error))
    }

    fn members(&self) -> (Option<pb::ResponseHeader>, Vec<pb::Member>) {
        let core = self.0.core();
        (Some(core.header()), members::list(core))
    }
}

#[tonic::async_trait]
impl Cluster for Service {
    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        let request = request.into_inner();
        let added = members::add(self.0.core(), request.peer_ur_ls, request.is_learner).await;
        let id = added.map_err(|error| errors::write(&error))?;
        let (header, members) = self.members();
        let member = members.iter().find(|member| member.id == id).cloned();
        Ok(Response::new(pb::MemberAddResponse { header, member, members }))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        self.change(Change::Remove(request.into_inner().id)).await?;
        let (header, members) = self.members();
        Ok(Response::new(pb::MemberRemoveResponse { header, members }))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        let request = request.into_inner();
        let membership = self.0.core().leadership.membership();
        let known = membership.membership().get_node(&request.id);
        let known = known.ok_or_else(|| Status::not_found(errors::MEMBER_NOT_FOUND))?;
        let node = Node { peer_urls: request.peer_ur_ls, ..known.clone() };
        self.change(Change::Set(node_to_pb(request.id, &node))).await?;
        let (header, members) = self.members();
        Ok(Response::new(pb::MemberUpdateResponse { header, members }))
    }

    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        if request.into_inner().linearizable {
            let answer = self.0.member_list().await;
            return answer.map(Response::new).map_err(|error| errors::read(&error));
        }
        let (header, members) = self.members();
        Ok(Response::new(pb::MemberListResponse { header, members }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        self.change(Change::Promote(request.into_inner().id)).await?;
        let (header, members) = self.members();
        Ok(Response::new(pb::MemberPromoteResponse { header, members }))
    }
}
