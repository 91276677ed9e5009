//! Users, roles and logins, and the tokens that a client shows.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use pintle_proto::etcdserverpb as pb;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::{Request, Status};

use super::{Side, answer};
use crate::Result;
use crate::differential::call::Auth;
use crate::differential::text::{self, response};

/// Who may do everything, and must always be able to log in.
pub(in crate::differential) const ROOT: &str = "root";
pub(in crate::differential) const ROOT_PASSWORD: &str = "rootpw";
/// Looks like a token, and names an entry of the log that is applied everywhere.
const FORGED: &str = "forgedforgedforg.0";

/// Puts a token into each request.
#[derive(Clone, Debug, Default)]
pub(in crate::differential) struct Shown(Arc<Mutex<Option<AsciiMetadataValue>>>);

impl Interceptor for Shown {
    fn call(&mut self, mut request: Request<()>) -> std::result::Result<Request<()>, Status> {
        if let Some(token) = self.0.lock().clone() {
            request.metadata_mut().insert("token", token);
        }
        Ok(request)
    }
}

/// The tokens that there are.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    shown: Shown,
    of_users: BTreeMap<String, String>,
    /// Root's, for what is no part of the comparison; there while authentication is on.
    keeper: Option<String>,
}

impl Tokens {
    pub(super) fn shown(&self) -> Shown {
        self.shown.clone()
    }

    fn show(&self, token: Option<&str>) {
        *self.shown.0.lock() = token.and_then(|token| token.parse().ok());
    }

    pub(super) fn show_of(&self, user: Option<&str>) {
        let token = |user| self.of_users.get(user).map_or(FORGED, String::as_str);
        self.show(user.map(token));
    }

    pub(super) fn show_keeper(&self) {
        self.show(self.keeper.as_deref());
    }
}

impl Side {
    pub(super) async fn auth_call(&mut self, call: &Auth) -> String {
        match call {
            Auth::Enable => {
                let enabled = self.auth.auth_enable(pb::AuthEnableRequest {}).await;
                let is_on = enabled.is_ok();
                let text = answer(enabled, |it| response!(it));
                if is_on { self.after(text).await } else { text }
            }
            Auth::Disable => {
                let disabled = self.auth.auth_disable(pb::AuthDisableRequest {}).await;
                if disabled.is_ok() {
                    self.tokens.keeper = None;
                }
                answer(disabled, |it| response!(it))
            }
            Auth::Status => {
                let status = self.auth.auth_status(pb::AuthStatusRequest {}).await;
                answer(status, |it| response!(it))
            }
            Auth::Authenticate { user, password } => self.authenticate(user, password).await,
            Auth::RoleAdd { .. }
            | Auth::RoleGet { .. }
            | Auth::RoleList
            | Auth::RoleDelete { .. }
            | Auth::RoleGrantPermission { .. }
            | Auth::RoleRevokePermission { .. } => self.role_call(call).await,
            _ => self.user_call(call).await,
        }
    }

    /// The answer, once root has logged in for the comparison itself.
    async fn after(&mut self, answer: String) -> String {
        let request =
            pb::AuthenticateRequest { name: ROOT.to_owned(), password: ROOT_PASSWORD.to_owned() };
        match self.auth.authenticate(request).await {
            Ok(made) => {
                self.tokens.keeper = Some(made.into_inner().token);
                answer
            }
            Err(status) => format!("{answer}, but root cannot log in: {status}"),
        }
    }

    async fn authenticate(&mut self, user: &str, password: &str) -> String {
        let (name, password) = (user.to_owned(), password.to_owned());
        let made = self.auth.authenticate(pb::AuthenticateRequest { name, password }).await;
        if let Ok(made) = &made {
            self.tokens.of_users.insert(user.to_owned(), made.get_ref().token.clone());
        }
        answer(made, text::authenticated)
    }

    async fn user_call(&mut self, call: &Auth) -> String {
        match call.clone() {
            Auth::UserAdd { user, password, no_password } => {
                let request = Auth::user_add(&user, &password, no_password);
                answer(self.auth.user_add(request).await, |it| response!(it))
            }
            Auth::UserGet { user: name } => {
                let request = pb::AuthUserGetRequest { name };
                answer(self.auth.user_get(request).await, |it| response!(it))
            }
            Auth::UserDelete { user: name } => {
                let request = pb::AuthUserDeleteRequest { name };
                answer(self.auth.user_delete(request).await, |it| response!(it))
            }
            Auth::UserChangePassword { user, password } => {
                self.change_password(&user, password).await
            }
            Auth::UserGrantRole { user, role } => {
                let request = pb::AuthUserGrantRoleRequest { user, role };
                answer(self.auth.user_grant_role(request).await, |it| response!(it))
            }
            Auth::UserRevokeRole { user: name, role } => {
                let request = pb::AuthUserRevokeRoleRequest { name, role };
                answer(self.auth.user_revoke_role(request).await, |it| response!(it))
            }
            _ => {
                let listed = self.auth.user_list(pb::AuthUserListRequest {}).await;
                answer(listed, |it| response!(it))
            }
        }
    }

    async fn change_password(&mut self, user: &str, password: String) -> String {
        let request = pb::AuthUserChangePasswordRequest {
            name: user.to_owned(),
            password,
            hashed_password: String::new(),
        };
        let changed = self.auth.user_change_password(request).await;
        let ends_tokens = changed.is_ok() && user == ROOT && self.tokens.keeper.is_some();
        let text = answer(changed, |it| response!(it));
        if ends_tokens { self.after(text).await } else { text }
    }

    async fn role_call(&mut self, call: &Auth) -> String {
        match call.clone() {
            Auth::RoleAdd { role: name } => {
                let request = pb::AuthRoleAddRequest { name };
                answer(self.auth.role_add(request).await, |it| response!(it))
            }
            Auth::RoleGet { role } => {
                let request = pb::AuthRoleGetRequest { role };
                answer(self.auth.role_get(request).await, |it| response!(it))
            }
            Auth::RoleDelete { role } => {
                let request = pb::AuthRoleDeleteRequest { role };
                answer(self.auth.role_delete(request).await, |it| response!(it))
            }
            Auth::RoleGrantPermission { role: name, permission } => {
                let perm = permission.map(|permission| permission.message());
                let request = pb::AuthRoleGrantPermissionRequest { name, perm };
                answer(self.auth.role_grant_permission(request).await, |it| response!(it))
            }
            Auth::RoleRevokePermission { role, key, end } => {
                let (key, range_end) = (key.into(), end.into());
                let request = pb::AuthRoleRevokePermissionRequest { role, key, range_end };
                answer(self.auth.role_revoke_permission(request).await, |it| response!(it))
            }
            _ => {
                let listed = self.auth.role_list(pb::AuthRoleListRequest {}).await;
                answer(listed, |it| response!(it))
            }
        }
    }

    /// Turns authentication off and removes every user and role; the auth revision after that.
    pub(in crate::differential) async fn clear_auth(&mut self) -> Result<u64> {
        self.tokens.show_keeper();
        let text = |status: Status| status.to_string();
        self.auth.auth_disable(pb::AuthDisableRequest {}).await.map_err(text)?;
        self.tokens.keeper = None;
        self.tokens.of_users.clear();
        self.tokens.show_keeper();
        let users = self.auth.user_list(pb::AuthUserListRequest {}).await.map_err(text)?;
        for name in users.into_inner().users {
            self.auth.user_delete(pb::AuthUserDeleteRequest { name }).await.map_err(text)?;
        }
        let roles = self.auth.role_list(pb::AuthRoleListRequest {}).await.map_err(text)?;
        for role in roles.into_inner().roles {
            self.auth.role_delete(pb::AuthRoleDeleteRequest { role }).await.map_err(text)?;
        }
        let status = self.auth.auth_status(pb::AuthStatusRequest {}).await.map_err(text)?;
        Ok(status.into_inner().auth_revision)
    }

    /// Makes changes that leave nothing behind until the auth revision is `to`, two on at least.
    pub(in crate::differential) async fn advance_auth(&mut self, from: u64, to: u64) -> Result {
        let text = |status: Status| status.to_string();
        let name = "ground".to_owned();
        let add = Auth::user_add(&name, "", Some(true));
        self.auth.user_add(add).await.map_err(text)?;
        for _ in from + 2..to {
            let request =
                pb::AuthUserChangePasswordRequest { name: name.clone(), ..Default::default() };
            self.auth.user_change_password(request).await.map_err(text)?;
        }
        self.auth.user_delete(pb::AuthUserDeleteRequest { name }).await.map_err(text)?;
        Ok(())
    }
}
