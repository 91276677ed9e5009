//! The Auth service: users, roles, permissions and logins.

use std::sync::Arc;

use pintle_proto::etcdserverpb::auth_server::Auth;
use pintle_proto::raft::auth_command::Change;
use pintle_store_api::pb;
use tonic::{Request, Response, Status};

use crate::errors;
use crate::handle::Handle;

pub(super) struct Service(pub(super) Arc<Handle>);

impl Service {
    async fn change<T>(
        &self,
        request: Request<T>,
        change: impl FnOnce(T) -> Change,
    ) -> Result<Option<pb::ResponseHeader>, Status> {
        let handle = self.0.on_behalf(&request);
        let done = handle.auth_change(change(request.into_inner())).await;
        done.map_err(|error| errors::write(&error))
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Auth for Service {
    async fn auth_enable(
        &self,
        request: Request<pb::AuthEnableRequest>,
    ) -> Answer<pb::AuthEnableResponse> {
        let header = self.change(request, Change::Enable).await?;
        Ok(Response::new(pb::AuthEnableResponse { header }))
    }

    async fn auth_disable(
        &self,
        request: Request<pb::AuthDisableRequest>,
    ) -> Answer<pb::AuthDisableResponse> {
        let header = self.change(request, Change::Disable).await?;
        Ok(Response::new(pb::AuthDisableResponse { header }))
    }

    async fn auth_status(
        &self,
        request: Request<pb::AuthStatusRequest>,
    ) -> Answer<pb::AuthStatusResponse> {
        let answer = self.0.on_behalf(&request).auth_status().await;
        answer.map(Response::new).map_err(|error| errors::read(&error))
    }

    async fn authenticate(
        &self,
        request: Request<pb::AuthenticateRequest>,
    ) -> Answer<pb::AuthenticateResponse> {
        let handle = self.0.on_behalf(&request);
        let answer = handle.authenticate(request.into_inner()).await;
        answer.map(Response::new).map_err(|error| errors::write(&error))
    }

    async fn user_add(
        &self,
        request: Request<pb::AuthUserAddRequest>,
    ) -> Answer<pb::AuthUserAddResponse> {
        let handle = self.0.on_behalf(&request);
        let done = handle.user_add(request.into_inner()).await;
        let header = done.map_err(|error| errors::write(&error))?;
        Ok(Response::new(pb::AuthUserAddResponse { header }))
    }

    async fn user_get(
        &self,
        request: Request<pb::AuthUserGetRequest>,
    ) -> Answer<pb::AuthUserGetResponse> {
        let answer = self.0.on_behalf(&request).user_get(&request.get_ref().name).await;
        answer.map(Response::new).map_err(|error| errors::read(&error))
    }

    async fn user_list(
        &self,
        request: Request<pb::AuthUserListRequest>,
    ) -> Answer<pb::AuthUserListResponse> {
        let answer = self.0.on_behalf(&request).user_list().await;
        answer.map(Response::new).map_err(|error| errors::read(&error))
    }

    async fn user_delete(
        &self,
        request: Request<pb::AuthUserDeleteRequest>,
    ) -> Answer<pb::AuthUserDeleteResponse> {
        let header = self.change(request, Change::UserDelete).await?;
        Ok(Response::new(pb::AuthUserDeleteResponse { header }))
    }

    async fn user_change_password(
        &self,
        request: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Answer<pb::AuthUserChangePasswordResponse> {
        let handle = self.0.on_behalf(&request);
        let done = handle.user_change_password(request.into_inner()).await;
        let header = done.map_err(|error| errors::write(&error))?;
        Ok(Response::new(pb::AuthUserChangePasswordResponse { header }))
    }

    async fn user_grant_role(
        &self,
        request: Request<pb::AuthUserGrantRoleRequest>,
    ) -> Answer<pb::AuthUserGrantRoleResponse> {
        let header = self.change(request, Change::UserGrantRole).await?;
        Ok(Response::new(pb::AuthUserGrantRoleResponse { header }))
    }

    async fn user_revoke_role(
        &self,
        request: Request<pb::AuthUserRevokeRoleRequest>,
    ) -> Answer<pb::AuthUserRevokeRoleResponse> {
        let header = self.change(request, Change::UserRevokeRole).await?;
        Ok(Response::new(pb::AuthUserRevokeRoleResponse { header }))
    }

    async fn role_add(
        &self,
        request: Request<pb::AuthRoleAddRequest>,
    ) -> Answer<pb::AuthRoleAddResponse> {
        let header = self.change(request, Change::RoleAdd).await?;
        Ok(Response::new(pb::AuthRoleAddResponse { header }))
    }

    async fn role_get(
        &self,
        request: Request<pb::AuthRoleGetRequest>,
    ) -> Answer<pb::AuthRoleGetResponse> {
        let answer = self.0.on_behalf(&request).role_get(&request.get_ref().role).await;
        answer.map(Response::new).map_err(|error| errors::read(&error))
    }

    async fn role_list(
        &self,
        request: Request<pb::AuthRoleListRequest>,
    ) -> Answer<pb::AuthRoleListResponse> {
        let answer = self.0.on_behalf(&request).role_list().await;
        answer.map(Response::new).map_err(|error| errors::read(&error))
    }

    async fn role_delete(
        &self,
        request: Request<pb::AuthRoleDeleteRequest>,
    ) -> Answer<pb::AuthRoleDeleteResponse> {
        let header = self.change(request, Change::RoleDelete).await?;
        Ok(Response::new(pb::AuthRoleDeleteResponse { header }))
    }

    async fn role_grant_permission(
        &self,
        request: Request<pb::AuthRoleGrantPermissionRequest>,
    ) -> Answer<pb::AuthRoleGrantPermissionResponse> {
        let header = self.change(request, Change::RoleGrantPermission).await?;
        Ok(Response::new(pb::AuthRoleGrantPermissionResponse { header }))
    }

    async fn role_revoke_permission(
        &self,
        request: Request<pb::AuthRoleRevokePermissionRequest>,
    ) -> Answer<pb::AuthRoleRevokePermissionResponse> {
        let header = self.change(request, Change::RoleRevokePermission).await?;
        Ok(Response::new(pb::AuthRoleRevokePermissionResponse { header }))
    }
}
