//! Who may do what: the seam between the HTTP server and the authorizers.
//!
//! The chain asks, in order: is the user above all rules, is it a node, does RBAC allow it. The first
//! that has an opinion decides; nobody's opinion is a refusal.

mod graph;
pub(crate) mod node;
mod pods;
mod policies;
mod rbac;
pub(crate) mod reviews;
pub(crate) mod rules;

use std::sync::Arc;

use k8s_openapi::api::rbac::v1::PolicyRule;

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

/// What a user may do in a namespace, as far as it can be listed.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Cluster-wide rules and those of the namespace.
    pub rules: Vec<PolicyRule>,
    /// Whether there may be more that cannot be listed.
    pub incomplete: bool,
    /// Why, if so.
    pub error: String,
}

/// Answers questions.
#[async_trait::async_trait]
pub trait Authorizer: Send + Sync + 'static {
    /// One question.
    async fn authorize(&self, attributes: &Attributes) -> Decision;

    /// Everything that `user` may do in `namespace`.
    async fn rules_for(&self, _user: &UserInfo, _namespace: &str) -> Rules {
        Rules::default()
    }
}

/// The chain of all configured authorizers.
pub fn build(_config: &Config, registry: &Registry) -> Result<Arc<dyn Authorizer>, ServeError> {
    let pods = pods::PodGraph::new(registry.clone());
    Ok(Arc::new(Union(vec![
        Box::new(policies::Privileged),
        Box::new(node::NodeAuthorizer::new(registry.clone(), pods)),
        Box::new(policies::Rbac::new(registry.clone())),
    ])))
}

/// Asks one after the other.
struct Union(Vec<Box<dyn Authorizer>>);

#[async_trait::async_trait]
impl Authorizer for Union {
    async fn authorize(&self, attributes: &Attributes) -> Decision {
        let mut reasons = Vec::new();
        for authorizer in &self.0 {
            match authorizer.authorize(attributes).await {
                Decision::NoOpinion(reason) if reason.is_empty() => {}
                Decision::NoOpinion(reason) => reasons.push(reason),
                decided => return decided,
            }
        }
        Decision::NoOpinion(reasons.join(", "))
    }

    async fn rules_for(&self, user: &UserInfo, namespace: &str) -> Rules {
        let mut all = Rules::default();
        for authorizer in &self.0 {
            let Rules { rules, incomplete, error } = authorizer.rules_for(user, namespace).await;
            all.rules.extend(rules);
            all.incomplete |= incomplete;
            if all.error.is_empty() {
                all.error = error;
            }
        }
        all
    }
}
