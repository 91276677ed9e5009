//! Service-account tokens at the door: a good signature, and everything the token is bound to
//! still exists under the same uid.

use std::sync::Arc;

use k8s_openapi::Metadata;
use k8s_openapi::api::core::v1::{Node, Pod, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;

use super::{InvalidCredentials, UserInfo};
use crate::registry::Registry;
use crate::token::{Claims, ObjectReference, Signer, username};

/// How long after its deletion began an object still vouches for a token.
const DELETION_LEEWAY_SECONDS: i64 = 60;

/// Checks tokens of one issuer.
#[derive(Clone)]
pub(crate) struct ServiceAccounts {
    signer: Arc<Signer>,
    registry: Registry,
}

impl ServiceAccounts {
    pub(crate) fn new(signer: Arc<Signer>, registry: Registry) -> Self {
        Self { signer, registry }
    }

    /// The user of a token for one of `audiences` (empty: this API) and the audiences that both
    /// name; `None` when the token is of another issuer.
    pub(crate) async fn authenticate(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<(UserInfo, Vec<String>)>, InvalidCredentials> {
        if !self.signer.claims_issuer(token) {
            return Ok(None);
        }
        let own = self.signer.api_audiences();
        let audiences = if audiences.is_empty() { &own } else { audiences };
        let claims = self
            .signer
            .verify(token, audiences)
            .map_err(|error| InvalidCredentials(error.to_string()))?;
        self.check_bindings(&claims).await?;
        let common = claims.aud.iter().filter(|aud| audiences.contains(aud)).cloned().collect();
        Ok(Some((user_of(&claims), common)))
    }

    async fn check_bindings(&self, claims: &Claims) -> Result<(), InvalidCredentials> {
        let bound = &claims.kubernetes;
        let namespace = &bound.namespace;
        self.check::<ServiceAccount>(namespace, &bound.serviceaccount).await?;
        if let Some(secret) = &bound.secret {
            self.check::<Secret>(namespace, secret).await?;
        }
        if let Some(pod) = &bound.pod {
            self.check::<Pod>(namespace, pod).await?;
        } else if let Some(node) = &bound.node {
            self.check::<Node>("", node).await?;
        }
        Ok(())
    }

    /// Asks the cache, and the store where the cache (which may lag behind a creation) says no.
    async fn check<T>(
        &self,
        namespace: &str,
        reference: &ObjectReference,
    ) -> Result<(), InvalidCredentials>
    where
        T: k8s_openapi::Resource + Metadata<Ty = ObjectMeta> + DeserializeOwned,
    {
        let ObjectReference { name, uid } = reference;
        let now = jiff::Timestamp::now().as_second();
        let vouches = |object: Option<T>| object.is_some_and(|o| is_alive(o.metadata(), uid, now));
        let failed = |error: crate::error::ApiError| InvalidCredentials(error.to_string());
        let cached: Option<T> = self.registry.get(namespace, name).await.map_err(failed)?;
        if vouches(cached) {
            return Ok(());
        }
        let live: Option<T> = self.registry.get_live(namespace, name).await.map_err(failed)?;
        if vouches(live) {
            return Ok(());
        }
        Err(InvalidCredentials(format!(
            "service account token has been invalidated: {} {name} is gone",
            T::KIND
        )))
    }
}

/// Whether the object is the one the token was bound to, and not long since deleted.
fn is_alive(metadata: &ObjectMeta, uid: &str, now: i64) -> bool {
    metadata.uid.as_deref() == Some(uid)
        && metadata
            .deletion_timestamp
            .as_ref()
            .is_none_or(|at| at.0.as_second() + DELETION_LEEWAY_SECONDS > now)
}

/// The identity that a verified token stands for.
fn user_of(claims: &Claims) -> UserInfo {
    let bound = &claims.kubernetes;
    let mut user = UserInfo {
        name: username(&bound.namespace, &bound.serviceaccount.name),
        uid: bound.serviceaccount.uid.clone(),
        groups: vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{}", bound.namespace),
        ],
        extra: Default::default(),
    };
    let mut extra = |key: &str, value: &str| {
        user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
    };
    if !claims.jti.is_empty() {
        extra("credential-id", &format!("JTI={}", claims.jti));
    }
    for (kind, reference) in [("pod", &bound.pod), ("node", &bound.node)] {
        if let Some(reference) = reference {
            extra(&format!("{kind}-name"), &reference.name);
            extra(&format!("{kind}-uid"), &reference.uid);
        }
    }
    user
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::token::KubernetesClaims;

    #[test]
    fn an_object_vouches_by_uid_and_until_a_minute_after_its_deletion() {
        let now = 10_000;
        let deleted = |at: i64| Some(Time(jiff::Timestamp::from_second(at).unwrap()));
        let metadata = |uid: &str, at: Option<Time>| ObjectMeta {
            uid: Some(uid.into()),
            deletion_timestamp: at,
            ..ObjectMeta::default()
        };
        assert!(is_alive(&metadata("u", None), "u", now));
        assert!(!is_alive(&metadata("other", None), "u", now));
        assert!(is_alive(&metadata("u", deleted(now - 30)), "u", now));
        assert!(!is_alive(&metadata("u", deleted(now - 61)), "u", now));
    }

    #[test]
    fn a_pod_bound_token_tells_pod_and_node() {
        let reference =
            |name: &str| ObjectReference { name: name.into(), uid: format!("{name}-uid") };
        let user = user_of(&Claims {
            jti: "id".into(),
            kubernetes: KubernetesClaims {
                namespace: "shop".into(),
                serviceaccount: reference("robot"),
                pod: Some(reference("p")),
                node: Some(reference("n")),
                secret: None,
            },
            ..Claims::default()
        });
        assert_eq!(user.name, "system:serviceaccount:shop:robot");
        assert_eq!(user.uid, "robot-uid");
        assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:shop"]);
        let extra =
            |key: &str| user.extra[&format!("authentication.kubernetes.io/{key}")][0].clone();
        assert_eq!(extra("credential-id"), "JTI=id");
        assert_eq!(extra("pod-uid"), "p-uid");
        assert_eq!(extra("node-name"), "n");
    }
}
