//! Who asks: what a request shows of its sender, and whom that names.
//!
//! A client shows a token (simple or JWT) or, where clients must have certificates, the common
//! name of its own. Code of this process shows nothing and is the server itself: whoever runs in
//! it could read its disk as well, so the apiserver beside the store needs no password.
//! What the caller may do then is decided by `pintle-mvcc`'s authorizer.
//!
//! While authentication is off, credentials are carried along but not looked at.

mod credentials;
mod jwt;
mod options;
mod passwords;
mod simple;
mod tokens;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pintle_mvcc::{Caller, Reader};
use pintle_proto::raft;
use pintle_store_api::AuthError;
use tokio::sync::watch;

pub(crate) use credentials::{ClientCertificate, Credentials, common_name};
pub use options::TokenError;
pub(crate) use passwords::Passwords;
pub(crate) use simple::SimpleTokens;
pub(crate) use tokens::Tokens;

/// Whom a [`Handle`](crate::Handle) acts for.
#[derive(Clone, Debug)]
pub(crate) enum Asker {
    /// Code of this process.
    Process,
    /// Whoever sent a request.
    Client(Credentials),
}

/// Whom credentials name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    Server,
    Anonymous,
    User { name: Arc<str>, revision: u64 },
}

impl Identity {
    pub(crate) fn caller(&self) -> Caller<'_> {
        match self {
            Self::Server => Caller::Server,
            Self::Anonymous => Caller::Anonymous,
            Self::User { name, revision } => Caller::User { name, revision: *revision },
        }
    }

    /// As a command carries it.
    pub(crate) fn to_pb(&self) -> Option<raft::Caller> {
        match self {
            Self::Anonymous => None,
            Self::Server => Some(raft::Caller { server: true, ..Default::default() }),
            Self::User { name, revision } => Some(raft::Caller {
                server: false,
                user: name.to_string(),
                auth_revision: *revision,
            }),
        }
    }
}

/// Finds out who asks, and makes and checks what they show.
#[derive(Debug)]
pub(crate) struct Authenticator {
    pub(crate) reader: Reader,
    pub(crate) tokens: Tokens,
    pub(crate) passwords: Passwords,
    /// Whether a verified certificate names its user.
    pub(crate) client_certificates: bool,
    pub(crate) applied: watch::Receiver<u64>,
    pub(crate) timeout: Duration,
}

impl Authenticator {
    /// Whom `asker` is. Nobody is named while authentication is off.
    pub(crate) async fn identify(&self, asker: &Asker) -> Result<Identity, AuthError> {
        let credentials = match asker {
            Asker::Process => return Ok(Identity::Server),
            Asker::Client(_) if !self.reader.auth_enabled() => return Ok(Identity::Anonymous),
            Asker::Client(credentials) => credentials,
        };
        if let Some(token) = credentials.token() {
            return self.by_token(token).await.ok_or(AuthError::InvalidToken);
        }
        match credentials.common_name() {
            Some(name) if self.client_certificates => Ok(self.now(Arc::clone(name))),
            _ => Ok(Identity::Anonymous),
        }
    }

    fn now(&self, name: Arc<str>) -> Identity {
        Identity::User { name, revision: self.reader.auth().revision() }
    }

    async fn by_token(&self, token: &str) -> Option<Identity> {
        match &self.tokens {
            Tokens::Simple(tokens) => {
                let name = match tokens.user(token) {
                    Some(name) => name,
                    None => {
                        self.wait_applied(simple::index(token)?).await?;
                        tokens.user(token)?
                    }
                };
                Some(self.now(name))
            }
            Tokens::Jwt(jwt) => {
                let verified = match jwt.remembered(token, SystemTime::now()) {
                    Some(verified) => verified,
                    None => {
                        let (jwt, token) = (Arc::clone(jwt), token.to_owned());
                        let verify = move || jwt.verify(&token);
                        tokio::task::spawn_blocking(verify).await.ok().flatten()?
                    }
                };
                Some(Identity::User { name: verified.user, revision: verified.revision })
            }
            Tokens::None => None,
        }
    }

    /// A token names the log entry that made it: it may be valid, and not known here yet.
    async fn wait_applied(&self, index: u64) -> Option<()> {
        let mut applied = self.applied.clone();
        let reached = applied.wait_for(|applied| *applied >= index);
        tokio::time::timeout(self.timeout, reached).await.ok()?.ok().map(drop)
    }
}
