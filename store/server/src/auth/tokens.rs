//! The kind of tokens that the configuration asks for.

use std::sync::Arc;

use pintle_store_api::AuthError;

use super::jwt::Jwt;
use super::options::{self, TokenError, invalid};
use super::simple::{self, SimpleTokens};

/// What makes tokens, and finds out whom they name.
#[derive(Debug)]
pub(crate) enum Tokens {
    Simple(Arc<SimpleTokens>),
    Jwt(Arc<Jwt>),
    /// Nobody can log in; certificates still name their users.
    None,
}

impl Tokens {
    /// As `--auth-token` says.
    pub(crate) fn new(text: &str, simple: &Arc<SimpleTokens>) -> Result<Self, TokenError> {
        let options = options::parse(text)?;
        match options.kind {
            "simple" => Ok(Self::Simple(Arc::clone(simple))),
            "jwt" => Ok(Self::Jwt(Arc::new(Jwt::new(&options.values)?))),
            "" => Ok(Self::None),
            other => Err(invalid(format!("unknown token type {other:?}"))),
        }
    }

    /// What a login has to make known to all members; `None` if its token speaks for itself.
    /// Fails where no token can be made.
    pub(crate) fn prefix(&self) -> Result<Option<String>, AuthError> {
        match self {
            Self::Simple(_) => Ok(Some(simple::prefix())),
            Self::Jwt(jwt) if jwt.can_sign() => Ok(None),
            Self::Jwt(_) => Err(AuthError::VerifyOnly),
            Self::None => Err(AuthError::AuthFailed),
        }
    }
}
