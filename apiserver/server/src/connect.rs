//! Endpoints that are no storage: creating reviews, tokens, bindings and evictions, and whatever
//! takes over the connection (logs, exec, attach, port-forward, proxy).

mod binding;
mod eviction;

use std::sync::Arc;

use serde_json::Value;

use crate::authn::ServiceAccounts;
use crate::authz::reviews;
use crate::error::ApiError;
use crate::http::{Request, Response};
use crate::registry::{Context, Registry};
use crate::request_info::RequestInfo;
use crate::token::{SelfSubjectReviews, Signer, TokenRequests, TokenReviews};
use crate::{Config, ServeError, node_proxy};

/// POST of an object that is answered, not stored.
#[async_trait::async_trait]
pub trait Action: Send + Sync + 'static {
    /// `object` is decoded and defaulted; authorization and mutating admission have passed.
    /// The answer is sent with 201.
    async fn create(&self, cx: &Context, object: Value) -> Result<Value, ApiError>;
}

/// Takes the whole request (streams, upgrades). Any method.
#[async_trait::async_trait]
pub trait Connector: Send + Sync + 'static {
    /// Authorization has passed (verb `get` or `create`), connect admission has not: use
    /// `cx.registry.admission()`. `request` is as it came in, its `OnUpgrade` untouched.
    async fn connect(
        &self,
        cx: Context,
        info: RequestInfo,
        request: Request,
    ) -> Result<Response, ApiError>;
}

/// How a virtual endpoint answers.
#[derive(Clone)]
pub enum Endpoint {
    /// See [`Action`].
    Action(Arc<dyn Action>),
    /// See [`Connector`].
    Connector(Arc<dyn Connector>),
}

/// `(group, resource, subresource or "")` and who answers. Looked up before the generic registry.
pub type Endpoints = Vec<((&'static str, &'static str, &'static str), Endpoint)>;

/// All virtual endpoints.
pub fn build(config: &Config, registry: &Registry) -> Result<Endpoints, ServeError> {
    const AUTHORIZATION: &str = "authorization.k8s.io";
    const AUTHENTICATION: &str = "authentication.k8s.io";
    fn action(action: impl Action) -> Endpoint {
        Endpoint::Action(Arc::new(action))
    }
    let signer =
        Arc::new(Signer::load(&config.service_account_issuer, &config.service_account_key)?);
    let accounts = ServiceAccounts::new(signer.clone(), registry.clone());
    let mut endpoints: Endpoints = vec![
        (("", "pods", "binding"), action(binding::Bindings)),
        (("", "bindings", ""), action(binding::Bindings)),
        (("", "pods", "eviction"), action(eviction::Evictions)),
        (("", "serviceaccounts", "token"), action(TokenRequests::new(signer))),
        ((AUTHENTICATION, "tokenreviews", ""), action(TokenReviews::new(accounts))),
        ((AUTHENTICATION, "selfsubjectreviews", ""), action(SelfSubjectReviews)),
        ((AUTHORIZATION, "subjectaccessreviews", ""), action(reviews::SubjectAccessReviews)),
        (
            (AUTHORIZATION, "localsubjectaccessreviews", ""),
            action(reviews::LocalSubjectAccessReviews),
        ),
        (
            (AUTHORIZATION, "selfsubjectaccessreviews", ""),
            action(reviews::SelfSubjectAccessReviews),
        ),
        ((AUTHORIZATION, "selfsubjectrulesreviews", ""), action(reviews::SelfSubjectRulesReviews)),
    ];
    endpoints.extend(node_proxy::endpoints(node_proxy::Backend::new(config)?));
    Ok(endpoints)
}
