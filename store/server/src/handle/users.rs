//! Users, roles and logins.

use std::sync::Arc;
use std::time::SystemTime;

use pintle_mvcc::{Auth, Response};
use pintle_proto::raft::auth_command::Change;
use pintle_proto::raft::command::Kind;
use pintle_proto::raft::{AuthCommand, Authenticate};
use pintle_store_api::{AuthError, ReadError, Rejection, WriteError, pb};

use super::{Handle, as_write, unexpected};
use crate::auth::Tokens;

impl Handle {
    /// A change of users, roles or permissions; the header of its answer.
    pub(crate) async fn auth_change(
        &self,
        change: Change,
    ) -> Result<Option<pb::ResponseHeader>, WriteError> {
        let command = AuthCommand { change: Some(change) };
        self.check_size(&command).await?;
        let Response::Auth(mut header) = self.propose(Kind::Auth(command)).await? else {
            return Err(unexpected());
        };
        self.core.complete(&mut header);
        Ok(header)
    }

    /// Adds a user. The password goes no further than this.
    pub(crate) async fn user_add(
        &self,
        mut request: pb::AuthUserAddRequest,
    ) -> Result<Option<pb::ResponseHeader>, WriteError> {
        self.writer().await?;
        let password = std::mem::take(&mut request.password);
        request.hashed_password = match request.options {
            Some(options) if options.no_password => String::new(),
            _ => self.core.auth.passwords.hash(password).await?,
        };
        self.auth_change(Change::UserAdd(request)).await
    }

    /// Sets another password. With an empty one the user cannot log in by password any more, as
    /// in etcd.
    pub(crate) async fn user_change_password(
        &self,
        mut request: pb::AuthUserChangePasswordRequest,
    ) -> Result<Option<pb::ResponseHeader>, WriteError> {
        self.writer().await?;
        let password = std::mem::take(&mut request.password);
        request.hashed_password = match password.as_str() {
            "" => String::new(),
            _ => self.core.auth.passwords.hash(password).await?,
        };
        self.auth_change(Change::UserChangePassword(request)).await
    }

    /// Checks a password and makes a token. Begins again when users have changed meanwhile: the
    /// password may be another by now.
    pub(crate) async fn authenticate(
        &self,
        request: pb::AuthenticateRequest,
    ) -> Result<pb::AuthenticateResponse, WriteError> {
        self.core.check_voter()?;
        self.core.read_index.wait().await.map_err(as_write)?;
        let pb::AuthenticateRequest { name, password } = request;
        loop {
            let auth = self.core.reader().auth();
            self.check_password(&auth, &name, &password).await?;
            let token = self.make_token(&auth, &name).await?;
            if self.core.reader().auth().revision() == auth.revision() {
                let header = Some(self.core.header());
                return Ok(pb::AuthenticateResponse { header, token });
            }
        }
    }

    async fn check_password(
        &self,
        auth: &Auth,
        user: &str,
        password: &str,
    ) -> Result<(), WriteError> {
        let hash = auth.password_hash(user).map_err(Rejection::from)?;
        if self.core.auth.passwords.verify(password.to_owned(), hash).await? {
            return Ok(());
        }
        tracing::info!(user, "invalid password");
        Err(Rejection::from(AuthError::AuthFailed).into())
    }

    async fn make_token(&self, auth: &Auth, user: &str) -> Result<String, WriteError> {
        let token_prefix = self.core.auth.tokens.prefix().map_err(Rejection::from)?;
        if let Some(token_prefix) = token_prefix {
            let authenticate = Authenticate { user: user.to_owned(), token_prefix };
            let change = Some(Change::Authenticate(authenticate));
            let made = self.propose_as(None, Kind::Auth(AuthCommand { change })).await?;
            let Response::Authenticate(made) = made else { return Err(unexpected()) };
            return Ok(made.token);
        }
        let Tokens::Jwt(jwt) = &self.core.auth.tokens else { return Err(unexpected()) };
        let (jwt, user, revision) = (Arc::clone(jwt), user.to_owned(), auth.revision());
        let sign = move || jwt.sign(&user, revision, SystemTime::now());
        let signed = tokio::task::spawn_blocking(sign).await;
        let signed = signed.map_err(|error| WriteError::NotApplied(error.to_string()))?;
        Ok(signed.map_err(Rejection::from)?)
    }

    /// Users and roles as they are, after everything that was acknowledged before.
    async fn newest_auth(&self) -> Result<Arc<Auth>, ReadError> {
        self.core.check_voter()?;
        self.core.read_index.wait().await?;
        Ok(self.core.reader().auth())
    }

    /// Whether authentication is on; everybody may know.
    pub(crate) async fn auth_status(&self) -> Result<pb::AuthStatusResponse, ReadError> {
        let auth = self.newest_auth().await?;
        self.identity().await?;
        let (enabled, auth_revision) = (auth.enabled(), auth.revision());
        Ok(pb::AuthStatusResponse { header: Some(self.core.header()), enabled, auth_revision })
    }

    /// The roles of a user.
    pub(crate) async fn user_get(&self, name: &str) -> Result<pb::AuthUserGetResponse, ReadError> {
        let auth = self.newest_auth().await?;
        let identity = self.identity().await?;
        let roles = || {
            auth.authorizer(identity.caller()).user_get(name)?;
            auth.user(name)
        };
        let roles = roles().map_err(Rejection::from)?;
        Ok(pb::AuthUserGetResponse { header: Some(self.core.header()), roles })
    }

    /// The names of all users.
    pub(crate) async fn user_list(&self) -> Result<pb::AuthUserListResponse, ReadError> {
        let users = self.list(Auth::users).await?;
        Ok(pb::AuthUserListResponse { header: Some(self.core.header()), users })
    }

    /// The permissions of a role.
    pub(crate) async fn role_get(&self, role: &str) -> Result<pb::AuthRoleGetResponse, ReadError> {
        let auth = self.newest_auth().await?;
        let identity = self.identity().await?;
        let permissions = || {
            auth.authorizer(identity.caller()).role_get(role)?;
            auth.role(role)
        };
        let perm = permissions().map_err(Rejection::from)?;
        Ok(pb::AuthRoleGetResponse { header: Some(self.core.header()), perm })
    }

    /// The names of all roles.
    pub(crate) async fn role_list(&self) -> Result<pb::AuthRoleListResponse, ReadError> {
        let roles = self.list(Auth::roles).await?;
        Ok(pb::AuthRoleListResponse { header: Some(self.core.header()), roles })
    }

    async fn list(&self, names: impl Fn(&Auth) -> Vec<String>) -> Result<Vec<String>, ReadError> {
        let auth = self.newest_auth().await?;
        let identity = self.identity().await?;
        auth.authorizer(identity.caller()).admin().map_err(Rejection::from)?;
        Ok(names(&auth))
    }
}
