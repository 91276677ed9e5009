//! The RBAC [`Policies`] of the moment: rebuilt when a role or binding has changed, shared between
//! all requests until then.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use k8s_openapi::api::rbac::v1::PolicyRule;
use pintle_apiserver_storage::Cache;
use serde::de::DeserializeOwned;

use super::rbac::{Policies, is_privileged};
use super::{Attributes, Authorizer, Decision, Rules};
use crate::authn::UserInfo;
use crate::error::{ApiError, ApiResult};
use crate::registry::Registry;

const GROUP: &str = "rbac.authorization.k8s.io";

/// Generations of the four caches that a snapshot was made from.
type Version = [u64; 4];

/// The RBAC authorizer.
pub(crate) struct Rbac {
    registry: Registry,
    current: ArcSwapOption<(Version, Policies)>,
}

impl Rbac {
    pub(crate) fn new(registry: Registry) -> Self {
        Self { registry, current: ArcSwapOption::empty() }
    }

    async fn policies(&self) -> ApiResult<Arc<(Version, Policies)>> {
        let roles = self.registry.cache(GROUP, "roles").await?;
        let cluster_roles = self.registry.cache(GROUP, "clusterroles").await?;
        let bindings = self.registry.cache(GROUP, "rolebindings").await?;
        let cluster_bindings = self.registry.cache(GROUP, "clusterrolebindings").await?;
        // Read before the snapshots: a change in between makes the next question rebuild once more.
        let version =
            [&roles, &cluster_roles, &bindings, &cluster_bindings].map(|cache| cache.generation());
        if let Some(current) = self.current.load_full()
            && current.0 == version
        {
            return Ok(current);
        }
        let policies =
            Policies::new(all(&cluster_roles), all(&roles), all(&cluster_bindings), all(&bindings));
        let fresh = Arc::new((version, policies));
        self.current.store(Some(fresh.clone()));
        Ok(fresh)
    }
}

fn all<T: DeserializeOwned>(cache: &Cache) -> Vec<T> {
    let snapshot = cache.snapshot();
    let read = |bytes: &[u8]| match serde_json::from_slice(bytes) {
        Ok(object) => Some(object),
        Err(error) => {
            tracing::error!(prefix = %cache.spec().prefix, %error, "a stored object cannot be read");
            None
        }
    };
    snapshot.iter().filter_map(|object| read(object.bytes())).collect()
}

#[async_trait::async_trait]
impl Authorizer for Rbac {
    async fn authorize(&self, attributes: &Attributes) -> Decision {
        let failed = |error: ApiError| Decision::NoOpinion(format!("RBAC: {error}"));
        let policies = match self.policies().await {
            Ok(policies) => policies,
            Err(error) => return failed(error),
        };
        match policies.1.authorize(attributes) {
            Decision::NoOpinion(_) => {}
            decided => return decided,
        }
        // Whoever was granted something a moment ago, through another member, must not be refused.
        if let Err(error) = self.registry.caches().wait_consistent().await {
            return Decision::NoOpinion(format!("RBAC: {error}"));
        }
        match self.policies().await {
            Ok(newer) => newer.1.authorize(attributes),
            Err(error) => failed(error),
        }
    }

    async fn rules_for(&self, user: &UserInfo, namespace: &str) -> Rules {
        match self.policies().await {
            Ok(policies) => Rules {
                rules: policies.1.rules_for(user, namespace),
                incomplete: false,
                error: String::new(),
            },
            Err(error) => Rules { incomplete: true, error: error.to_string(), rules: Vec::new() },
        }
    }
}

/// Members of `system:masters` may do everything.
pub(crate) struct Privileged;

#[async_trait::async_trait]
impl Authorizer for Privileged {
    async fn authorize(&self, attributes: &Attributes) -> Decision {
        if is_privileged(&attributes.user) {
            return Decision::Allow(String::new());
        }
        Decision::NoOpinion(String::new())
    }

    async fn rules_for(&self, user: &UserInfo, _namespace: &str) -> Rules {
        if !is_privileged(user) {
            return Rules::default();
        }
        let any = || Some(vec!["*".to_owned()]);
        let verbs = vec!["*".to_owned()];
        let resources = PolicyRule {
            verbs: verbs.clone(),
            api_groups: any(),
            resources: any(),
            ..PolicyRule::default()
        };
        let urls = PolicyRule { verbs, non_resource_urls: any(), ..PolicyRule::default() };
        Rules { rules: vec![resources, urls], ..Rules::default() }
    }
}
