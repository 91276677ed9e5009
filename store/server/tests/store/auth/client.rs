//! A client that may have logged in.

use pintle_proto::etcdserverpb::auth_client::AuthClient;
use pintle_proto::etcdserverpb::cluster_client::ClusterClient;
use pintle_proto::etcdserverpb::kv_client::KvClient;
use pintle_proto::etcdserverpb::lease_client::LeaseClient;
use pintle_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use pintle_proto::etcdserverpb::watch_client::WatchClient;
use pintle_proto::v3lockpb::lock_client::LockClient;
use pintle_store::Config;
use pintle_store_api::authpb::{Permission, UserAddOptions, permission::Type};
use pintle_store_api::{AuthError, pb};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::support::Cluster;

/// Members that hash quickly.
pub(crate) async fn found(members: usize) -> Cluster {
    Cluster::found(members, quick).await
}

pub(crate) fn quick(config: &mut Config) {
    config.bcrypt_cost = 4;
}

#[derive(Clone)]
pub(crate) struct Client {
    channel: Channel,
    token: Option<String>,
}

type Answer<T> = Result<Response<T>, Status>;

impl Client {
    pub(crate) async fn connect(url: String) -> Self {
        let endpoint = Channel::from_shared(url).expect("a URL");
        Self::over(endpoint.connect().await.expect("connects"))
    }

    pub(crate) fn over(channel: Channel) -> Self {
        Self { channel, token: None }
    }

    pub(crate) fn with_token(&self, token: &str) -> Self {
        Self { channel: self.channel.clone(), token: Some(token.to_owned()) }
    }

    pub(crate) fn token(&self) -> &str {
        self.token.as_deref().expect("logged in")
    }

    /// The same connection, logged in.
    pub(crate) async fn login(&self, name: &str, password: &str) -> Self {
        let token = self.authenticate(name, password).await.expect("logs in");
        self.with_token(&token.into_inner().token)
    }

    pub(crate) async fn authenticate(
        &self,
        name: &str,
        password: &str,
    ) -> Answer<pb::AuthenticateResponse> {
        let (name, password) = (name.to_owned(), password.to_owned());
        self.auth().authenticate(pb::AuthenticateRequest { name, password }).await
    }

    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.parse().expect("text"));
        }
        request
    }

    pub(crate) fn auth(&self) -> AuthClient<Channel> {
        AuthClient::new(self.channel.clone())
    }

    pub(crate) fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone())
    }

    pub(crate) fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel.clone())
    }

    pub(crate) fn lock(&self) -> LockClient<Channel> {
        LockClient::new(self.channel.clone())
    }

    pub(crate) fn watch(&self) -> WatchClient<Channel> {
        WatchClient::new(self.channel.clone())
    }

    pub(crate) fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel.clone())
    }

    pub(crate) fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel.clone())
    }

    pub(crate) async fn put(&self, key: &str) -> Answer<pb::PutResponse> {
        self.kv().put(self.request(crate::support::put_request(key, "value"))).await
    }

    pub(crate) async fn get(&self, key: &str) -> Answer<pb::RangeResponse> {
        self.kv().range(self.request(crate::support::range_request(key))).await
    }

    pub(crate) async fn enable(&self) -> Answer<pb::AuthEnableResponse> {
        self.auth().auth_enable(self.request(pb::AuthEnableRequest {})).await
    }

    pub(crate) async fn disable(&self) -> Answer<pb::AuthDisableResponse> {
        self.auth().auth_disable(self.request(pb::AuthDisableRequest {})).await
    }

    pub(crate) async fn status(&self) -> (bool, u64) {
        let request = self.request(pb::AuthStatusRequest {});
        let status = self.auth().auth_status(request).await.expect("answered").into_inner();
        (status.enabled, status.auth_revision)
    }

    pub(crate) async fn user_add(
        &self,
        name: &str,
        password: &str,
    ) -> Answer<pb::AuthUserAddResponse> {
        let (name, password) = (name.to_owned(), password.to_owned());
        let request = pb::AuthUserAddRequest { name, password, ..Default::default() };
        self.auth().user_add(self.request(request)).await
    }

    pub(crate) async fn user_add_without_password(
        &self,
        name: &str,
    ) -> Answer<pb::AuthUserAddResponse> {
        let options = Some(UserAddOptions { no_password: true });
        let name = name.to_owned();
        let request = pb::AuthUserAddRequest { name, options, ..Default::default() };
        self.auth().user_add(self.request(request)).await
    }

    pub(crate) async fn user_delete(&self, name: &str) -> Answer<pb::AuthUserDeleteResponse> {
        let name = name.to_owned();
        self.auth().user_delete(self.request(pb::AuthUserDeleteRequest { name })).await
    }

    pub(crate) async fn user_change_password(
        &self,
        name: &str,
        password: &str,
    ) -> Answer<pb::AuthUserChangePasswordResponse> {
        let (name, password) = (name.to_owned(), password.to_owned());
        let hashed_password = String::new();
        let request = pb::AuthUserChangePasswordRequest { name, password, hashed_password };
        self.auth().user_change_password(self.request(request)).await
    }

    pub(crate) async fn user_get(&self, name: &str) -> Result<Vec<String>, Status> {
        let name = name.to_owned();
        let answer = self.auth().user_get(self.request(pb::AuthUserGetRequest { name })).await;
        answer.map(|answer| answer.into_inner().roles)
    }

    pub(crate) async fn user_list(&self) -> Result<Vec<String>, Status> {
        let answer = self.auth().user_list(self.request(pb::AuthUserListRequest {})).await;
        answer.map(|answer| answer.into_inner().users)
    }

    pub(crate) async fn user_grant_role(
        &self,
        user: &str,
        role: &str,
    ) -> Answer<pb::AuthUserGrantRoleResponse> {
        let (user, role) = (user.to_owned(), role.to_owned());
        self.auth().user_grant_role(self.request(pb::AuthUserGrantRoleRequest { user, role })).await
    }

    pub(crate) async fn user_revoke_role(
        &self,
        name: &str,
        role: &str,
    ) -> Answer<pb::AuthUserRevokeRoleResponse> {
        let (name, role) = (name.to_owned(), role.to_owned());
        self.auth()
            .user_revoke_role(self.request(pb::AuthUserRevokeRoleRequest { name, role }))
            .await
    }

    pub(crate) async fn role_add(&self, name: &str) -> Answer<pb::AuthRoleAddResponse> {
        let name = name.to_owned();
        self.auth().role_add(self.request(pb::AuthRoleAddRequest { name })).await
    }

    pub(crate) async fn role_delete(&self, role: &str) -> Answer<pb::AuthRoleDeleteResponse> {
        let role = role.to_owned();
        self.auth().role_delete(self.request(pb::AuthRoleDeleteRequest { role })).await
    }

    pub(crate) async fn role_get(&self, role: &str) -> Result<Vec<Permission>, Status> {
        let role = role.to_owned();
        let answer = self.auth().role_get(self.request(pb::AuthRoleGetRequest { role })).await;
        answer.map(|answer| answer.into_inner().perm)
    }

    pub(crate) async fn role_list(&self) -> Result<Vec<String>, Status> {
        let answer = self.auth().role_list(self.request(pb::AuthRoleListRequest {})).await;
        answer.map(|answer| answer.into_inner().roles)
    }

    pub(crate) async fn role_grant(
        &self,
        role: &str,
        perm: Option<Permission>,
    ) -> Answer<pb::AuthRoleGrantPermissionResponse> {
        let request = pb::AuthRoleGrantPermissionRequest { name: role.to_owned(), perm };
        self.auth().role_grant_permission(self.request(request)).await
    }

    pub(crate) async fn role_revoke(
        &self,
        role: &str,
        key: &str,
        range_end: &str,
    ) -> Answer<pb::AuthRoleRevokePermissionResponse> {
        let request = pb::AuthRoleRevokePermissionRequest {
            role: role.to_owned(),
            key: key.to_owned().into(),
            range_end: range_end.to_owned().into(),
        };
        self.auth().role_revoke_permission(self.request(request)).await
    }

    /// Makes `root` with the password `root`, and turns authentication on; gives root logged in.
    pub(crate) async fn enable_with_root(&self) -> Self {
        self.user_add("root", "root").await.expect("added");
        self.user_grant_role("root", "root").await.expect("granted");
        self.enable().await.expect("enabled");
        self.login("root", "root").await
    }

    /// A user whose password is its name, with one role of these permissions.
    pub(crate) async fn user_with(&self, name: &str, permissions: &[Permission]) {
        self.user_add(name, name).await.expect("added");
        self.role_add(name).await.expect("added");
        for permission in permissions {
            self.role_grant(name, Some(permission.clone())).await.expect("granted");
        }
        self.user_grant_role(name, name).await.expect("granted");
    }
}

pub(crate) fn permission(perm_type: Type, key: &str, range_end: &str) -> Permission {
    Permission {
        perm_type: perm_type.into(),
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
    }
}

/// The code that etcd gives with an error.
fn code(error: AuthError) -> Code {
    match error {
        AuthError::UserEmpty
        | AuthError::RoleEmpty
        | AuthError::AuthFailed
        | AuthError::PermissionNotGiven
        | AuthError::InvalidManagement
        | AuthError::OldRevision => Code::InvalidArgument,
        AuthError::PermissionDenied => Code::PermissionDenied,
        AuthError::InvalidToken => Code::Unauthenticated,
        AuthError::NoPasswordUser | AuthError::VerifyOnly | AuthError::PasswordTooLong => {
            Code::Unknown
        }
        _ => Code::FailedPrecondition,
    }
}

#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, error: AuthError) {
    let status = answer.expect_err("should be refused");
    assert_eq!((status.code(), status.message()), (code(error), error.to_string().as_str()));
}
