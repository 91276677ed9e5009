//! What volumes and environments are made from, read from the apiserver; tokens are kept until they
//! are due for renewal.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret, ServiceAccount,
};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use parking_lot::Mutex;

use super::Error;
use crate::pod::PodExt;
use crate::pod::env::Facts;

/// The lifetime of a token when the pod does not say.
const TOKEN_SECONDS: i64 = 3600;
/// A token older than this is renewed, however long it lives.
const TOKEN_AGE_SECONDS_MAX: i64 = 24 * 3600;

/// Reads for one pod.
#[derive(Clone)]
pub struct Sources {
    client: Client,
    facts: Facts,
    tokens: Tokens,
}

/// Tokens of one pod, kept between refreshes. The lock is never held over an await.
#[derive(Clone, Default)]
pub struct Tokens(Arc<Mutex<HashMap<TokenKey, Token>>>);

type TokenKey = (String, i64);

#[derive(Clone)]
struct Token {
    text: String,
    requested: i64,
    expires: i64,
}

impl Token {
    /// Renewed after 80 % of its life, or a day.
    fn is_fresh(&self, now: i64) -> bool {
        let life = self.expires - self.requested;
        now < self.requested + life * 4 / 5 && now < self.requested + TOKEN_AGE_SECONDS_MAX
    }
}

impl Sources {
    /// For a pod with these facts.
    pub fn new(client: Client, facts: Facts, tokens: Tokens) -> Self {
        Self { client, facts, tokens }
    }

    /// Facts for the downward API.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// A ConfigMap, or `None`.
    pub async fn config_map(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<ConfigMap>, Error> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        api.get_opt(name).await.map_err(api_error(format!("configmap {namespace}/{name}")))
    }

    /// A Secret, or `None`.
    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, Error> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        api.get_opt(name).await.map_err(api_error(format!("secret {namespace}/{name}")))
    }

    /// The volume that a claim is bound to.
    pub async fn volume_of_claim(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<PersistentVolume, Error> {
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        let claim = api
            .get_opt(name)
            .await
            .map_err(api_error(format!("persistentvolumeclaim {namespace}/{name}")))?
            .ok_or_else(|| Error::NotFound {
                kind: "persistentvolumeclaim",
                name: name.to_owned(),
            })?;
        let bound = claim.status.and_then(|status| status.phase).as_deref() == Some("Bound");
        let volume = claim.spec.and_then(|spec| spec.volume_name).filter(|_| bound);
        let volume =
            volume.ok_or_else(|| Error::Invalid(format!("claim {name:?} is not bound")))?;
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        api.get_opt(&volume)
            .await
            .map_err(api_error(format!("persistentvolume {volume}")))?
            .ok_or(Error::NotFound { kind: "persistentvolume", name: volume })
    }

    /// A token of the pod's service account, bound to the pod.
    pub async fn token(
        &self,
        pod: &Pod,
        audience: Option<&str>,
        seconds: Option<i64>,
    ) -> Result<String, Error> {
        let seconds = seconds.unwrap_or(TOKEN_SECONDS);
        let key = (audience.unwrap_or_default().to_owned(), seconds);
        let now = Timestamp::now().as_second();
        let kept = self.tokens.0.lock().get(&key).filter(|token| token.is_fresh(now)).cloned();
        if let Some(token) = kept {
            return Ok(token.text);
        }
        let account = pod.pod_spec().service_account_name.as_deref().unwrap_or("default");
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: audience.map(|audience| vec![audience.to_owned()]),
                expiration_seconds: Some(seconds),
                bound_object_ref: Some(BoundObjectReference {
                    kind: Some("Pod".to_owned()),
                    api_version: Some("v1".to_owned()),
                    name: pod.metadata.name.clone(),
                    uid: pod.metadata.uid.clone(),
                }),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), pod.namespace());
        let answer: TokenRequest = api
            .create_subresource("token", account, &PostParams::default(), &request)
            .await
            .map_err(api_error(format!("a token of {}/{account}", pod.namespace())))?;
        let status = answer.status.unwrap_or_default();
        let (Some(text), Some(expires)) = (status.token, status.expiration_timestamp) else {
            return Err(Error::Invalid("the token request has no answer".to_owned()));
        };
        let token = Token { text: text.clone(), requested: now, expires: expires.0.as_second() };
        self.tokens.0.lock().insert(key, token);
        Ok(text)
    }
}

fn api_error(what: String) -> impl FnOnce(kube::Error) -> Error {
    move |source| Error::Api { what, source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_renewed_well_before_they_end() {
        let token = |life| Token { text: String::new(), requested: 0, expires: life };
        assert!(token(3600).is_fresh(2879));
        assert!(!token(3600).is_fresh(2880));
        assert!(!token(1_000_000).is_fresh(24 * 3600));
    }
}
