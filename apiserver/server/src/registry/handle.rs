//! The handle on everything that is stored.

use std::sync::Arc;

use pintle_apiserver_storage::{Cache, Object, Snapshot};
use pintle_machinery::{GroupResource, Resource, RestMapper};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Context, DeleteOptions};
use crate::admission::Chain;
use crate::authz::Authorizer;
use crate::error::ApiResult;

/// The registry. Cheap to clone.
#[derive(Clone)]
pub struct Registry(pub(crate) Arc<super::Inner>);

/// Cached reads: as fresh as the watch cache is (milliseconds behind the store). Typed with
/// k8s-openapi; `namespace` is empty for cluster-scoped kinds.
impl Registry {
    /// One object from the cache; waits for the cache's first fill.
    pub async fn get<T>(&self, namespace: &str, name: &str) -> ApiResult<Option<T>>
    where
        T: k8s_openapi::Resource + DeserializeOwned,
    {
        unimplemented!()
    }

    /// All objects of a namespace, or of all when it is empty.
    pub async fn list<T>(&self, namespace: &str) -> ApiResult<Vec<T>>
    where
        T: k8s_openapi::Resource + DeserializeOwned,
    {
        unimplemented!()
    }

    /// One object as of now: a linearizable read of the store.
    pub async fn get_live<T>(&self, namespace: &str, name: &str) -> ApiResult<Option<T>>
    where
        T: k8s_openapi::Resource + DeserializeOwned,
    {
        unimplemented!()
    }

    /// The cache of a resource: snapshots of encoded objects, and [`Cache::generation`], which
    /// changes whenever any object does, for whoever keeps an index (RBAC).
    pub async fn cache(&self, group: &str, plural: &str) -> ApiResult<Arc<Cache>> {
        unimplemented!()
    }
}
