//! Who is asking: the seam between the HTTP server and the authenticators.
//!
//! The server calls one [`Authenticator`] (a union built by [`build`]) for every request and
//! treats `Ok(None)` as "anonymous", which only the always-allowed paths accept.

mod bearer;
mod impersonation;
mod service_account;
mod x509;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderMap;
use rustls_pki_types::CertificateDer;

use crate::authz::Authorizer;
use crate::error::ApiError;
use crate::registry::Registry;
use crate::token::Signer;
use crate::{Config, ServeError};

pub(crate) use bearer::WEBSOCKET_PROTOCOL_PREFIX;
pub(crate) use service_account::ServiceAccounts;

/// The group of every request that proved who it is.
pub const ALL_AUTHENTICATED: &str = "system:authenticated";
/// The group of every request that did not.
pub const ALL_UNAUTHENTICATED: &str = "system:unauthenticated";
/// The name of whoever did not say who it is.
pub const ANONYMOUS: &str = "system:anonymous";
/// The group that may do everything.
pub const SYSTEM_PRIVILEGED_GROUP: &str = "system:masters";

/// An identity, as `user.Info` upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// Unique among active users.
    pub name: String,
    /// Tells apart users of the same name over time; may be empty.
    pub uid: String,
    /// Memberships; [`ALL_AUTHENTICATED`] is added by the authenticator.
    pub groups: Vec<String>,
    /// What the authenticator wants to hand to the authorizer and admission.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// The user of a request without credentials.
    pub fn anonymous() -> Self {
        Self { name: ANONYMOUS.into(), groups: vec![ALL_UNAUTHENTICATED.into()], ..Self::default() }
    }

    /// The apiserver itself, for its own loopback reads and writes.
    pub fn apiserver() -> Self {
        Self {
            name: "system:apiserver".into(),
            groups: vec![SYSTEM_PRIVILEGED_GROUP.into(), ALL_AUTHENTICATED.into()],
            ..Self::default()
        }
    }

    /// Whether the user is a member of `group`.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|member| member == group)
    }
}

/// What a request brought to prove who it is.
#[derive(Debug)]
pub struct Credentials<'a> {
    /// All headers (`Authorization`, `Sec-WebSocket-Protocol` with a bearer token).
    pub headers: &'a HeaderMap,
    /// The client's certificate chain, leaf first; already verified against the client CA by TLS.
    pub peer_certificates: &'a [CertificateDer<'static>],
}

/// Credentials that were presented and are wrong; answered with 401.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct InvalidCredentials(pub String);

/// Turns credentials into a user.
#[async_trait::async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// `Ok(None)` when these credentials are not of a kind that this authenticator knows.
    async fn authenticate(
        &self,
        credentials: &Credentials<'_>,
    ) -> Result<Option<UserInfo>, InvalidCredentials>;
}

/// Certificates first, then tokens; whoever is recognized joins [`ALL_AUTHENTICATED`].
pub fn build(config: &Config, registry: &Registry) -> Result<Arc<dyn Authenticator>, ServeError> {
    let signer = Signer::load(&config.service_account_issuer, &config.service_account_key)?;
    let accounts = ServiceAccounts::new(Arc::new(signer), registry.clone());
    Ok(Arc::new(Union { accounts }))
}

/// Applies `Impersonate-*` headers: each impersonated name, group and extra is authorized for
/// `user` first. Returns `user` unchanged when there are none.
pub async fn impersonate(
    user: UserInfo,
    headers: &HeaderMap,
    authorizer: &dyn Authorizer,
) -> Result<UserInfo, ApiError> {
    impersonation::impersonate(user, headers, authorizer).await
}

struct Union {
    accounts: ServiceAccounts,
}

#[async_trait::async_trait]
impl Authenticator for Union {
    async fn authenticate(
        &self,
        credentials: &Credentials<'_>,
    ) -> Result<Option<UserInfo>, InvalidCredentials> {
        let by_certificate = match credentials.peer_certificates.first() {
            Some(leaf) => x509::user_of(leaf)?,
            None => None,
        };
        let user = match (by_certificate, bearer::token_of(credentials.headers)) {
            (Some(user), _) => Some(user),
            (None, Some(token)) => match self.accounts.authenticate(&token, &[]).await? {
                Some((user, _)) => Some(user),
                None => return Err(InvalidCredentials("invalid bearer token".to_owned())),
            },
            (None, None) => None,
        };
        Ok(user.map(|mut user| {
            if !user.in_group(ALL_AUTHENTICATED) {
                user.groups.push(ALL_AUTHENTICATED.to_owned());
            }
            user
        }))
    }
}
