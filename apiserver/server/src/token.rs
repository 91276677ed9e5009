//! Service-account tokens: the key, the claims, issuing and checking the signature.
//!
//! A token is an ES256 JWT bound to a service account and, optionally, to a pod, secret or node.
//! Whether these still exist is asked at every use by [`crate::authn`]; this module is pure apart
//! from reading the key file and the clock that callers pass in.

mod request;
mod review;

use std::path::Path;

use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::ServeError;
pub(crate) use request::TokenRequests;
pub(crate) use review::{SelfSubjectReviews, TokenReviews};

/// Seconds by which clocks may differ.
const LEEWAY_SECONDS: u64 = 10;

/// The signing key is no EC P-256 key in PKCS#8 PEM, or cannot sign.
#[derive(Debug, thiserror::Error)]
#[error("unusable as an EC P-256 key in PKCS#8 PEM")]
pub(crate) struct KeyError(#[from] jsonwebtoken::errors::Error);

/// An object that a token names: its name, and the uid that tells it from its successors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ObjectReference {
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// The private claims, under `kubernetes.io`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KubernetesClaims {
    pub(crate) namespace: String,
    pub(crate) serviceaccount: ObjectReference,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<ObjectReference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) secret: Option<ObjectReference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<ObjectReference>,
}

/// All claims of a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub(crate) aud: Vec<String>,
    pub(crate) exp: i64,
    pub(crate) iat: i64,
    pub(crate) iss: String,
    pub(crate) jti: String,
    #[serde(rename = "kubernetes.io")]
    pub(crate) kubernetes: KubernetesClaims,
    pub(crate) nbf: i64,
    pub(crate) sub: String,
}

/// The key of the issuer: signs and checks.
pub(crate) struct Signer {
    issuer: String,
    key_id: String,
    encoding: EncodingKey,
    decoding: DecodingKey,
    jwk: Jwk,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer")
            .field("issuer", &self.issuer)
            .field("key_id", &self.key_id)
            .finish()
    }
}

impl Signer {
    /// The key at `path`, for tokens of `issuer`.
    pub(crate) fn load(issuer: &str, path: &Path) -> Result<Self, ServeError> {
        let unusable = |why: String| ServeError::File { path: path.to_owned(), why };
        let pem = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
        Self::from_pem(issuer, &pem).map_err(|error| unusable(error.to_string()))
    }

    pub(crate) fn from_pem(issuer: &str, pem: &[u8]) -> Result<Self, KeyError> {
        let encoding = EncodingKey::from_ec_pem(pem)?;
        let mut jwk = Jwk::from_encoding_key(&encoding, Algorithm::ES256)?;
        let key_id = jwk.thumbprint(ThumbprintHash::SHA256)?;
        jwk.common.key_id = Some(key_id.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        let decoding = DecodingKey::from_jwk(&jwk)?;
        Ok(Self { issuer: issuer.to_owned(), key_id, encoding, decoding, jwk })
    }

    /// The audience of tokens for this API, and the default of a request that names none.
    pub(crate) fn api_audiences(&self) -> Vec<String> {
        vec![self.issuer.clone()]
    }

    /// The public half, as `/openid/v1/jwks` serves it.
    pub(crate) fn key_set(&self) -> JwkSet {
        JwkSet { keys: vec![self.jwk.clone()] }
    }

    /// A signed token for `kubernetes.serviceaccount`, valid from `now` for `seconds`.
    pub(crate) fn issue(
        &self,
        kubernetes: KubernetesClaims,
        audiences: Vec<String>,
        now: i64,
        seconds: i64,
    ) -> Result<String, KeyError> {
        let claims = Claims {
            aud: audiences,
            exp: now.saturating_add(seconds),
            iat: now,
            nbf: now,
            iss: self.issuer.clone(),
            jti: uuid::Uuid::new_v4().to_string(),
            sub: username(&kubernetes.namespace, &kubernetes.serviceaccount.name),
            kubernetes,
        };
        let header =
            Header { kid: Some(self.key_id.clone()), typ: None, ..Header::new(Algorithm::ES256) };
        Ok(jsonwebtoken::encode(&header, &claims, &self.encoding)?)
    }

    /// Whether the token says that it comes from this issuer; nothing is verified.
    pub(crate) fn claims_issuer(&self, token: &str) -> bool {
        #[derive(Deserialize)]
        struct Issuer {
            iss: String,
        }
        jsonwebtoken::dangerous::insecure_decode::<Issuer>(token)
            .is_ok_and(|data| data.claims.iss == self.issuer)
    }

    /// The claims of a token with a good signature, within its time, and for one of `audiences`.
    pub(crate) fn verify(&self, token: &str, audiences: &[String]) -> Result<Claims, TokenError> {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[&self.issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_aud = false;
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &validation)?.claims;
        if !claims.aud.iter().any(|audience| audiences.contains(audience)) {
            return Err(TokenError::Audience { token: claims.aud, wanted: audiences.to_vec() });
        }
        let account = &claims.kubernetes.serviceaccount.name;
        if claims.sub != username(&claims.kubernetes.namespace, account) {
            return Err(TokenError::Subject);
        }
        Ok(claims)
    }
}

/// Why a token is not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("invalid bearer token: {0}")]
    Signature(#[from] jsonwebtoken::errors::Error),
    #[error(
        "invalid bearer token, token audiences {token:?} is invalid for the target audiences {wanted:?}"
    )]
    Audience { token: Vec<String>, wanted: Vec<String> },
    #[error("invalid bearer token, the subject does not match the service account")]
    Subject,
}

/// The user name of a service account.
pub(crate) fn username(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn signer(issuer: &str) -> Signer {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        Signer::from_pem(issuer, key.serialize_pem().as_bytes()).unwrap()
    }

    fn claims() -> KubernetesClaims {
        KubernetesClaims {
            namespace: "shop".into(),
            serviceaccount: ObjectReference { name: "robot".into(), uid: "u1".into() },
            ..KubernetesClaims::default()
        }
    }

    fn now() -> i64 {
        jiff::Timestamp::now().as_second()
    }

    #[test]
    fn an_issued_token_verifies_and_keeps_its_claims() {
        let signer = signer("https://issuer");
        let token = signer.issue(claims(), signer.api_audiences(), now(), 600).unwrap();
        let verified = signer.verify(&token, &signer.api_audiences()).unwrap();
        assert_eq!(verified.kubernetes, claims());
        assert_eq!(verified.sub, "system:serviceaccount:shop:robot");
        assert_eq!(verified.exp - verified.iat, 600);
        assert!(signer.claims_issuer(&token));
    }

    #[test]
    fn a_token_of_another_key_time_audience_or_issuer_is_refused() {
        let (ours, other) = (signer("https://issuer"), signer("https://issuer"));
        let audiences = ours.api_audiences();
        let forged = other.issue(claims(), audiences.clone(), now(), 600).unwrap();
        assert!(matches!(ours.verify(&forged, &audiences), Err(TokenError::Signature(_))));
        let expired = ours.issue(claims(), audiences.clone(), now() - 1200, 600).unwrap();
        assert!(matches!(ours.verify(&expired, &audiences), Err(TokenError::Signature(_))));
        let future = ours.issue(claims(), audiences.clone(), now() + 600, 600).unwrap();
        assert!(matches!(ours.verify(&future, &audiences), Err(TokenError::Signature(_))));
        let vault = ours.issue(claims(), vec!["vault".into()], now(), 600).unwrap();
        assert!(matches!(ours.verify(&vault, &audiences), Err(TokenError::Audience { .. })));
        assert!(ours.verify(&vault, &["vault".into()]).is_ok());
        let foreign =
            signer("https://elsewhere").issue(claims(), audiences.clone(), now(), 600).unwrap();
        assert!(!ours.claims_issuer(&foreign));
        assert!(ours.verify("not.a.token", &audiences).is_err());
    }

    #[test]
    fn the_key_set_verifies_without_the_private_key() {
        let signer = signer("https://issuer");
        let token = signer.issue(claims(), signer.api_audiences(), now(), 600).unwrap();
        let kid = jsonwebtoken::decode_header(&token).unwrap().kid.unwrap();
        let keys = signer.key_set();
        let key = DecodingKey::from_jwk(keys.find(&kid).unwrap()).unwrap();
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&signer.api_audiences());
        assert!(jsonwebtoken::decode::<Claims>(&token, &key, &validation).is_ok());
        let text = serde_json::to_string(&keys).unwrap();
        assert!(!text.contains("\"d\""), "no private part in {text}");
    }
}
