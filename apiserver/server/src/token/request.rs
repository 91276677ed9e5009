//! `serviceaccounts/NAME/token`: a new token, bound to what the request names.

use std::sync::Arc;

use k8s_openapi::api::authentication::v1::{
    BoundObjectReference, TokenRequest, TokenRequestSpec, TokenRequestStatus,
};
use k8s_openapi::api::core::v1::{Node, Pod, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use pintle_machinery::{ErrorList, GroupKind, GroupResource, Path};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{KubernetesClaims, ObjectReference, Signer};
use crate::authz::reviews::{decode, encode};
use crate::connect::Action;
use crate::error::{ApiError, ApiResult};
use crate::registry::Context;

const SECONDS_DEFAULT: i64 = 3600;
const SECONDS_MIN: i64 = 600;
const SECONDS_MAX: i64 = 1 << 32;

/// Issues tokens.
pub(crate) struct TokenRequests {
    signer: Arc<Signer>,
}

impl TokenRequests {
    pub(crate) fn new(signer: Arc<Signer>) -> Self {
        Self { signer }
    }
}

#[async_trait::async_trait]
impl Action for TokenRequests {
    async fn create(&self, cx: &Context, object: Value) -> ApiResult<Value> {
        let mut request: TokenRequest = decode(object)?;
        let mut spec = request.spec.take().unwrap_or_default();
        let seconds = spec.expiration_seconds.unwrap_or(SECONDS_DEFAULT);
        check_seconds(seconds)?;
        if spec.audiences.as_ref().is_none_or(Vec::is_empty) {
            spec.audiences = Some(self.signer.api_audiences());
        }
        spec.expiration_seconds = Some(seconds);
        let claims = claims(cx, &spec).await?;
        let now = jiff::Timestamp::now().as_second();
        let audiences = spec.audiences.clone().unwrap_or_default();
        let token = self.signer.issue(claims, audiences, now, seconds).map_err(|error| {
            ApiError::internal_error(format!("failed to generate token: {error}"))
        })?;
        let expiration = jiff::Timestamp::from_second(now + seconds)
            .map_err(|error| ApiError::internal_error(error.to_string()))?;
        request.metadata.name.get_or_insert_with(|| cx.name.clone());
        request.metadata.namespace = Some(cx.namespace.clone());
        request.metadata.creation_timestamp = jiff::Timestamp::from_second(now).ok().map(Time);
        request.spec = Some(spec);
        request.status = Some(TokenRequestStatus {
            expiration_timestamp: Some(Time(expiration)),
            token: Some(token),
        });
        encode(&request)
    }
}

fn check_seconds(seconds: i64) -> ApiResult<()> {
    let why = if seconds < SECONDS_MIN {
        "may not specify a duration less than 10 minutes"
    } else if seconds > SECONDS_MAX {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return Ok(());
    };
    let mut errors = ErrorList::new();
    errors.invalid(Path::new("spec").child("expirationSeconds"), seconds, why);
    let kind = GroupKind::new("authentication.k8s.io", "TokenRequest");
    Err(ApiError::invalid(&kind, "", &errors))
}

async fn claims(cx: &Context, spec: &TokenRequestSpec) -> ApiResult<KubernetesClaims> {
    let account: ServiceAccount = live(cx, &cx.namespace, &cx.name, "serviceaccounts").await?;
    let mut claims = KubernetesClaims {
        namespace: cx.namespace.clone(),
        serviceaccount: reference(&account.metadata),
        ..KubernetesClaims::default()
    };
    let Some(bound) = &spec.bound_object_ref else { return Ok(claims) };
    let name = bound.name.as_deref().unwrap_or_default();
    match (bound.api_version.as_deref(), bound.kind.as_deref()) {
        (Some("v1"), Some("Pod")) => {
            let pod: Pod = live(cx, &cx.namespace, name, "pods").await?;
            same_uid(cx, bound, &pod.metadata, "pods")?;
            let runs_as = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
            if runs_as != Some(cx.name.as_str()) {
                return Err(ApiError::bad_request(format!(
                    "cannot bind token for serviceaccount \"{}\" to pod running with different serviceaccount name.",
                    cx.name
                )));
            }
            claims.pod = Some(reference(&pod.metadata));
            let node = pod.spec.and_then(|spec| spec.node_name).filter(|name| !name.is_empty());
            if let Some(node) = node {
                let found = cx.registry.get::<Node>("", &node).await?;
                let uid = found.and_then(|node| node.metadata.uid).unwrap_or_default();
                claims.node = Some(ObjectReference { name: node, uid });
            }
        }
        (Some("v1"), Some("Secret")) => {
            let secret: Secret = live(cx, &cx.namespace, name, "secrets").await?;
            same_uid(cx, bound, &secret.metadata, "secrets")?;
            claims.secret = Some(reference(&secret.metadata));
        }
        (Some("v1"), Some("Node")) => {
            let node: Node = live(cx, "", name, "nodes").await?;
            same_uid(cx, bound, &node.metadata, "nodes")?;
            claims.node = Some(reference(&node.metadata));
        }
        (version, kind) => {
            return Err(ApiError::bad_request(format!(
                "cannot bind token to object of type {}, Kind={}",
                version.unwrap_or_default(),
                kind.unwrap_or_default()
            )));
        }
    }
    Ok(claims)
}

/// Tokens are bound to what exists now, not to what a cache remembers.
async fn live<T>(cx: &Context, namespace: &str, name: &str, resource: &str) -> ApiResult<T>
where
    T: k8s_openapi::Resource + DeserializeOwned,
{
    let found = cx.registry.get_live::<T>(namespace, name).await?;
    found.ok_or_else(|| ApiError::not_found(&GroupResource::new("", resource), name))
}

fn reference(metadata: &ObjectMeta) -> ObjectReference {
    ObjectReference {
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
    }
}

fn same_uid(
    cx: &Context,
    bound: &BoundObjectReference,
    found: &ObjectMeta,
    resource: &str,
) -> ApiResult<()> {
    let (wanted, found) =
        (bound.uid.as_deref().unwrap_or_default(), found.uid.as_deref().unwrap_or_default());
    if wanted.is_empty() || wanted == found {
        return Ok(());
    }
    let why = format!(
        "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have been deleted and then recreated"
    );
    let name = bound.name.as_deref().unwrap_or(&cx.name);
    Err(ApiError::conflict(&GroupResource::new("", resource), name, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_lives_between_ten_minutes_and_a_century() {
        for (seconds, fine) in
            [(599, false), (600, true), (3600, true), (1 << 32, true), ((1 << 32) + 1, false)]
        {
            assert_eq!(check_seconds(seconds).is_ok(), fine, "{seconds}");
        }
        let error = check_seconds(1).unwrap_err();
        assert_eq!(
            error.message,
            "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes"
        );
    }
}
