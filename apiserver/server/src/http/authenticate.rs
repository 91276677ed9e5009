//! Who asks, as whom, and whether they may.

use http::HeaderMap;

use super::chain::{Peer, Server};
use crate::authn::{self, Credentials, UserInfo};
use crate::authz::{Attributes, Decision};
use crate::error::{ApiError, ApiResult};
use crate::request_info::RequestInfo;

/// Paths that need no identity.
const OPEN_PATHS: [&str; 3] = ["/healthz", "/livez", "/readyz"];

/// The user, after authentication, impersonation and authorization.
pub(super) async fn admit(
    server: &Server,
    peer: &Peer,
    headers: &HeaderMap,
    info: &RequestInfo,
) -> ApiResult<UserInfo> {
    let credentials = Credentials { headers, peer_certificates: &peer.certificates };
    let user = match server.authenticator.authenticate(&credentials).await {
        Ok(Some(user)) => user,
        Ok(None) if is_open(&info.path) => return Ok(UserInfo::anonymous()),
        Ok(None) => return Err(ApiError::unauthorized("Unauthorized")),
        Err(error) => {
            tracing::debug!(%error, path = info.path, "invalid credentials");
            return Err(ApiError::unauthorized("Unauthorized"));
        }
    };
    let authorizer = server.registry.authorizer();
    let user = authn::impersonate(user, headers, authorizer.as_ref()).await?;
    if is_open(&info.path) {
        return Ok(user);
    }
    match authorizer.authorize(&Attributes::of(&user, info)).await {
        Decision::Allow(_) => Ok(user),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => {
            Err(forbidden(&user, info, &reason))
        }
    }
}

fn is_open(path: &str) -> bool {
    OPEN_PATHS.iter().any(|open| {
        path.strip_prefix(open).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// 403 in upstream's words.
fn forbidden(user: &UserInfo, info: &RequestInfo, reason: &str) -> ApiError {
    let mut why = format!("User \"{}\" cannot {}", user.name, info.verb);
    if !info.is_resource_request {
        why.push_str(&format!(" path \"{}\"", info.path));
        return finish(&pintle_machinery::GroupResource::default(), "", why, reason);
    }
    let resource = if info.subresource.is_empty() {
        info.resource.clone()
    } else {
        format!("{}/{}", info.resource, info.subresource)
    };
    why.push_str(&format!(" resource \"{resource}\" in API group \"{}\"", info.group));
    if info.namespace.is_empty() {
        why.push_str(" at the cluster scope");
    } else {
        why.push_str(&format!(" in the namespace \"{}\"", info.namespace));
    }
    let resource = pintle_machinery::GroupResource::new(&*info.group, &*info.resource);
    finish(&resource, &info.name, why, reason)
}

fn finish(
    resource: &pintle_machinery::GroupResource,
    name: &str,
    mut why: String,
    reason: &str,
) -> ApiError {
    if !reason.is_empty() {
        why.push_str(": ");
        why.push_str(reason);
    }
    ApiError::forbidden(resource, name, why)
}
