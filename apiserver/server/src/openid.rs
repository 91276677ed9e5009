//! How others verify our service-account tokens: the OpenID provider document and the key set.

use serde_json::{Value, json};

use crate::http::{Response, bytes_as, json as respond_json};
use crate::token::Signer;
use crate::{Config, ServeError};

/// The two documents; they change only with the configuration.
#[derive(Debug)]
pub(crate) struct Openid {
    configuration: Value,
    keys: Vec<u8>,
}

impl Openid {
    pub(crate) fn new(config: &Config) -> Result<Self, ServeError> {
        let issuer = &config.service_account_issuer;
        let signer = Signer::load(issuer, &config.service_account_key)?;
        let configuration = json!({
            "issuer": issuer,
            "jwks_uri": format!("{}/openid/v1/jwks", issuer.trim_end_matches('/')),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        });
        let keys = serde_json::to_vec(&signer.key_set()).expect("a key set has only strings");
        Ok(Self { configuration, keys })
    }

    /// `/.well-known/openid-configuration`.
    pub(crate) fn configuration(&self) -> Response {
        respond_json(200, &self.configuration)
    }

    /// `/openid/v1/jwks`.
    pub(crate) fn keys(&self) -> Response {
        bytes_as(200, "application/jwk-set+json", self.keys.clone())
    }
}
