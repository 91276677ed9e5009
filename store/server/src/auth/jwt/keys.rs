//! The keys that tokens are signed and verified with, from PEM files.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey, Header, Validation};
use p256::pkcs8::EncodePrivateKey;

use crate::auth::options::TokenError;

/// A pair that fits together, or the public half.
pub(super) struct Keys {
    pub(super) signing: Option<EncodingKey>,
    pub(super) verifying: DecodingKey,
}

/// The content of a key file; nothing where none is named.
pub(super) fn read(path: Option<&str>) -> Result<Vec<u8>, TokenError> {
    match path.filter(|path| !path.is_empty()) {
        None => Ok(Vec::new()),
        Some(path) => {
            std::fs::read(path).map_err(|source| TokenError::File { path: path.into(), source })
        }
    }
}

/// The private key alone is enough; the public key alone verifies; both must fit together.
pub(super) fn load(
    algorithm: Algorithm,
    private: &[u8],
    public: &[u8],
) -> Result<Keys, TokenError> {
    let failed =
        |what| move |source| TokenError::Key { what, method: format!("{algorithm:?}"), source };
    if algorithm.family() == AlgorithmFamily::Hmac {
        if private.is_empty() {
            return Err(TokenError::MissingKey);
        }
        let signing = Some(EncodingKey::from_secret(private));
        return Ok(Keys { signing, verifying: DecodingKey::from_secret(private) });
    }
    let signing = match private {
        [] => None,
        pem => Some(private_key(algorithm, pem).map_err(failed("the private key"))?),
    };
    let verifying = match (public, &signing) {
        ([], None) => return Err(TokenError::MissingKey),
        ([], Some(signing)) => {
            public_half(signing, algorithm).map_err(failed("the private key"))?
        }
        (pem, _) => public_key(algorithm, pem).map_err(failed("the public key"))?,
    };
    let keys = Keys { signing, verifying };
    match keys.probe(algorithm) {
        Ok(()) => Ok(keys),
        Err(error) if *error.kind() == ErrorKind::InvalidSignature => Err(TokenError::KeyMismatch),
        Err(error) if keys.signing.is_some() => Err(failed("the key pair")(error)),
        Err(error) => Err(failed("the public key")(error)),
    }
}

fn private_key(algorithm: Algorithm, pem: &[u8]) -> Result<EncodingKey, Error> {
    match algorithm.family() {
        AlgorithmFamily::Rsa => EncodingKey::from_rsa_pem(pem),
        AlgorithmFamily::Ed => EncodingKey::from_ed_pem(pem),
        AlgorithmFamily::Ec if pem.starts_with(b"-----BEGIN EC PRIVATE KEY-----") => {
            sec1(algorithm, pem).ok_or_else(|| ErrorKind::InvalidEcdsaKey.into())
        }
        AlgorithmFamily::Ec => EncodingKey::from_ec_pem(pem),
        AlgorithmFamily::Hmac => Ok(EncodingKey::from_secret(pem)),
    }
}

/// OpenSSL's own format for EC keys.
fn sec1(algorithm: Algorithm, pem: &[u8]) -> Option<EncodingKey> {
    let pem = std::str::from_utf8(pem).ok()?;
    let key = match algorithm {
        Algorithm::ES256 => p256::SecretKey::from_sec1_pem(pem).ok()?.to_pkcs8_der(),
        _ => p384::SecretKey::from_sec1_pem(pem).ok()?.to_pkcs8_der(),
    };
    Some(EncodingKey::from_ec_der(key.ok()?.as_bytes()))
}

fn public_key(algorithm: Algorithm, pem: &[u8]) -> Result<DecodingKey, Error> {
    match algorithm.family() {
        AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(pem),
        AlgorithmFamily::Ed => DecodingKey::from_ed_pem(pem),
        AlgorithmFamily::Ec => DecodingKey::from_ec_pem(pem),
        AlgorithmFamily::Hmac => Ok(DecodingKey::from_secret(pem)),
    }
}

fn public_half(signing: &EncodingKey, algorithm: Algorithm) -> Result<DecodingKey, Error> {
    DecodingKey::from_jwk(&Jwk::from_encoding_key(signing, algorithm)?)
}

impl Keys {
    /// Signs something and verifies it. The public key alone has to be one that can refuse a
    /// signature.
    fn probe(&self, algorithm: Algorithm) -> Result<(), Error> {
        let mut validation = Validation::new(algorithm);
        validation.set_required_spec_claims::<&str>(&[]);
        validation.validate_exp = false;
        let verify = |token: &str| {
            jsonwebtoken::decode::<serde_json::Value>(token, &self.verifying, &validation)
        };
        if let Some(signing) = &self.signing {
            let token =
                jsonwebtoken::encode(&Header::new(algorithm), &serde_json::json!({}), signing)?;
            return verify(&token).map(drop);
        }
        let header = serde_json::to_vec(&Header::new(algorithm))?;
        let [header, claims] = [header.as_slice(), b"{}"].map(|part| URL_SAFE_NO_PAD.encode(part));
        match verify(&format!("{header}.{claims}.AAAA")) {
            Err(error) if *error.kind() != ErrorKind::InvalidSignature => Err(error),
            _ => Ok(()),
        }
    }
}
