//! JSON web tokens: signed with a key that all members have, so that nothing of them is kept.
//!
//! A token carries its user and the auth revision at which it was made; once users, roles or
//! permissions have changed it is old, and its holder logs in again. Tokens whose signature was
//! found good are remembered for a while, because that takes longer than most requests.

mod keys;

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use parking_lot::RwLock;
use pintle_store_api::AuthError;
use serde::{Deserialize, Serialize};

use super::options::{TokenError, invalid};

/// As in etcd.
const TTL_DEFAULT: Duration = Duration::from_secs(300);
/// Verified tokens that are remembered, about 500 bytes each. When more are in use, all are
/// forgotten and verified again.
const REMEMBERED_MAX: usize = 4_096;

/// Signs and verifies.
pub(crate) struct Jwt {
    algorithm: Algorithm,
    /// Without it this member only verifies.
    signing: Option<EncodingKey>,
    verifying: DecodingKey,
    validation: Validation,
    ttl: Duration,
    verified: RwLock<HashMap<Box<str>, Verified>>,
}

impl std::fmt::Debug for Jwt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jwt").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// What a good token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verified {
    pub(super) user: Arc<str>,
    pub(super) revision: u64,
    /// Seconds of Unix time; a token may have no end.
    expires: Option<u64>,
}

#[derive(Serialize)]
struct Claims<'a> {
    exp: u64,
    revision: u64,
    username: &'a str,
}

#[derive(Deserialize)]
struct Claimed {
    exp: Option<f64>,
    /// A number as JSON has them: other issuers may write it with a fraction.
    revision: f64,
    username: String,
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Jwt {
    pub(super) fn new(options: &BTreeMap<&str, &str>) -> Result<Self, TokenError> {
        let known = ["sign-method", "pub-key", "priv-key", "ttl"];
        for name in options.keys().filter(|name| !known.contains(*name)) {
            tracing::warn!(name, "unknown JWT option");
        }
        let method = options.get("sign-method").copied().unwrap_or("");
        let algorithm = Algorithm::from_str(method)
            .map_err(|_| invalid(format!("no signing method is called {method:?} here")))?;
        let ttl = match options.get("ttl").copied().filter(|ttl| !ttl.is_empty()) {
            None => TTL_DEFAULT,
            Some(ttl) => duration(ttl)?,
        };
        let file = |name| keys::read(options.get(name).copied());
        let keys = keys::load(algorithm, &file("priv-key")?, &file("pub-key")?)?;
        let mut validation = Validation::new(algorithm);
        validation.set_required_spec_claims::<&str>(&[]);
        validation.leeway = 0;
        validation.validate_nbf = true;
        validation.validate_aud = false;
        let (signing, verifying, verified) = (keys.signing, keys.verifying, RwLock::default());
        Ok(Self { algorithm, signing, verifying, validation, ttl, verified })
    }

    pub(super) fn can_sign(&self) -> bool {
        self.signing.is_some()
    }

    /// A token for `user`; takes up to milliseconds.
    pub(crate) fn sign(
        &self,
        user: &str,
        revision: u64,
        now: SystemTime,
    ) -> Result<String, AuthError> {
        let key = self.signing.as_ref().ok_or(AuthError::VerifyOnly)?;
        let claims = Claims { exp: seconds(now + self.ttl), revision, username: user };
        let signed = jsonwebtoken::encode(&Header::new(self.algorithm), &claims, key);
        signed.map_err(|error| {
            tracing::warn!(%error, "a token was not signed");
            AuthError::AuthFailed
        })
    }

    /// A token that was found good lately.
    pub(super) fn remembered(&self, token: &str, now: SystemTime) -> Option<Verified> {
        let verified = self.verified.read().get(token)?.clone();
        verified.expires.is_none_or(|expires| seconds(now) < expires).then_some(verified)
    }

    /// Checks a token; takes up to milliseconds.
    pub(super) fn verify(&self, token: &str) -> Option<Verified> {
        let claimed = jsonwebtoken::decode::<Claimed>(token, &self.verifying, &self.validation)
            .inspect_err(|error| tracing::debug!(%error, "a token is not good"))
            .ok()?
            .claims;
        let verified = Verified {
            user: claimed.username.into(),
            revision: whole(claimed.revision),
            expires: claimed.exp.map(whole),
        };
        let mut remembered = self.verified.write();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(token.into(), verified.clone());
        Some(verified)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "what is out of range becomes the nearest number, as in etcd"
)]
fn whole(number: f64) -> u64 {
    number as u64
}

/// As Go writes durations: `10m`, `1h30m`.
fn duration(text: &str) -> Result<Duration, TokenError> {
    let parsed = jiff::SignedDuration::from_str(text).ok();
    let parsed = parsed.and_then(|parsed| Duration::try_from(parsed).ok());
    parsed.ok_or_else(|| invalid(format!("{text:?} is no duration")))
}

#[cfg(test)]
mod tests;
