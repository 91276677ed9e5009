//! Who may do what: the seam between the HTTP server and the authorizers.

use std::sync::Arc;

use crate::authn::UserInfo;
use crate::registry::Registry;
use crate::request_info::RequestInfo;
use crate::{Config, ServeError};

/// One question to an [`Authorizer`], owned so that it can be built by reviews as well.
#[derive(Clone, Debug, Default)]
pub struct Attributes {
    /// Who asks.
    pub user: UserInfo,
    /// Lower-case Kubernetes verb (`get`, `list`, `deletecollection`, …), or the HTTP method in
    /// lower case for a path that is no resource.
    pub verb: String,
    /// Whether the request is for a resource; otherwise only `path` is set.
    pub resource_request: bool,
    /// API group, empty for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// Plural resource name.
    pub resource: String,
    /// Subresource, or empty.
    pub subresource: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// Object name, or empty for collections.
    pub name: String,
    /// The URL's path.
    pub path: String,
    /// `fieldSelector` as it was asked for (list, watch, deletecollection), or empty.
    pub field_selector: String,
    /// `labelSelector` likewise.
    pub label_selector: String,
}

impl Attributes {
    /// What `user` asks with this request.
    pub fn of(user: &UserInfo, info: &RequestInfo) -> Self {
        Self {
            user: user.clone(),
            verb: info.verb.clone(),
            resource_request: info.is_resource_request,
            group: info.group.clone(),
            version: info.version.clone(),
            resource: info.resource.clone(),
            subresource: info.subresource.clone(),
            namespace: info.namespace.clone(),
            name: info.name.clone(),
            path: info.path.clone(),
            field_selector: info.query.get("fieldSelector").unwrap_or_default().to_owned(),
            label_selector: info.query.get("labelSelector").unwrap_or_default().to_owned(),
        }
    }
}

/// An answer, with the reason that ends up in the 403 or in a review's status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Allowed.
    Allow(String),
    /// Refused, whatever later authorizers think.
    Deny(String),
    /// Not known here; refused if nobody knows.
    NoOpinion(String),
}

/// Answers questions.
#[async_trait::async_trait]
pub trait Authorizer: Send + Sync + 'static {
    /// One question.
    async fn authorize(&self, attributes: &Attributes) -> Decision;
}

/// The chain of all configured authorizers.
pub fn build(_config: &Config, _registry: &Registry) -> Result<Arc<dyn Authorizer>, ServeError> {
    Ok(Arc::new(AlwaysAllow))
}

/// Holds the place until [`build`] assembles the real chain.
struct AlwaysAllow;

#[async_trait::async_trait]
impl Authorizer for AlwaysAllow {
    async fn authorize(&self, _attributes: &Attributes) -> Decision {
        Decision::Allow(String::new())
    }
}
