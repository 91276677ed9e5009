//! The handle on everything that is stored.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use parking_lot::RwLock;
use pintle_apiserver_storage::{Cache, CacheSpec, Caches, Freshness, Object, REGISTRY, Storage};
use pintle_machinery::{GroupResource, GroupVersionResource, Resource, RestMapper, object};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::strategy::{Strategy, strategy_for};
use super::{Context, DeleteOptions, Deleted, Preconditions, ScalePaths, Update, codec};
use crate::Config;
use crate::admission::Chain;
use crate::authz::Authorizer;
use crate::error::{ApiError, ApiResult, from_storage};

/// The registry. Cheap to clone.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    config: Arc<Config>,
    caches: Arc<Caches>,
    mapper: ArcSwap<RestMapper>,
    scales: ArcSwap<BTreeMap<String, ScalePaths>>,
    strategies: RwLock<HashMap<GroupResource, Arc<dyn Strategy>>>,
    admission: OnceLock<Chain>,
    authorizer: OnceLock<Arc<dyn Authorizer>>,
}

impl Registry {
    /// Over the built-in resources; their caches start at once.
    pub(crate) fn new(config: Arc<Config>, caches: Arc<Caches>) -> Self {
        let mapper = RestMapper::builtin();
        let registry = Self(Arc::new(Inner {
            config,
            caches,
            mapper: ArcSwap::from_pointee(mapper),
            scales: ArcSwap::default(),
            strategies: RwLock::default(),
            admission: OnceLock::new(),
            authorizer: OnceLock::new(),
        }));
        for resource in registry.mapper().resources() {
            if resource.storage.is_some() {
                let _started = registry.cache_of(resource);
            }
        }
        registry
    }

    /// Completes the handle: the parts that need one themselves are built after it.
    pub(crate) fn complete(&self, admission: Chain, authorizer: Arc<dyn Authorizer>) {
        let first =
            self.0.admission.set(admission).is_ok() && self.0.authorizer.set(authorizer).is_ok();
        debug_assert!(first, "a registry is completed once");
    }

    /// What the command line decided.
    pub fn config(&self) -> &Arc<Config> {
        &self.0.config
    }

    /// The admission chain (empty until the server has been assembled).
    pub fn admission(&self) -> &Chain {
        static EMPTY: Chain = Chain::none();
        self.0.admission.get().unwrap_or(&EMPTY)
    }

    /// The authorizer. Only asked while requests are served, when it is there.
    pub fn authorizer(&self) -> Arc<dyn Authorizer> {
        self.0
            .authorizer
            .get()
            .expect("requests are served after the server has been assembled")
            .clone()
    }

    /// Everything that is served now.
    pub fn mapper(&self) -> Arc<RestMapper> {
        self.0.mapper.load_full()
    }

    /// Replaces what is served: custom resources came or went.
    /// `scales`: where the replicas of those are that can be scaled, by the text of their GVR.
    pub(crate) fn set_mapper(&self, mapper: RestMapper, scales: BTreeMap<String, ScalePaths>) {
        self.0.scales.store(Arc::new(scales));
        self.0.mapper.store(Arc::new(mapper));
    }

    /// Where the replicas of a resource are.
    pub(crate) fn scale_paths(&self, resource: &Resource) -> ScalePaths {
        if !resource.custom {
            return ScalePaths::default();
        }
        self.0.scales.load().get(&resource.gvr().to_string()).cloned().unwrap_or_default()
    }

    /// The store, for conditional writes.
    pub(crate) fn storage(&self) -> &Storage {
        self.0.caches.storage()
    }

    /// The watch caches.
    pub(crate) fn caches(&self) -> &Arc<Caches> {
        &self.0.caches
    }

    /// The strategy of a resource.
    pub(crate) fn strategy(&self, resource: &Resource) -> Arc<dyn Strategy> {
        let key = resource.group_resource();
        if let Some(known) = self.0.strategies.read().get(&key) {
            return known.clone();
        }
        let strategy = strategy_for(&resource.group, &resource.plural);
        self.0.strategies.write().entry(key).or_insert(strategy).clone()
    }

    /// The cache of a resource; a 405 for kinds that are not stored.
    pub(crate) fn cache_of(&self, resource: &Resource) -> ApiResult<Arc<Cache>> {
        let Some(storage) = &resource.storage else {
            return Err(ApiError::method_not_supported(&resource.group_resource(), "get"));
        };
        let spec = CacheSpec {
            prefix: format!("{REGISTRY}{}/", storage.prefix),
            fields: resource.selectable_fields.clone(),
            index: watch_index(resource),
        };
        Ok(self.0.caches.cache(spec))
    }

    /// The resource of a typed kind.
    fn resource_of<T: k8s_openapi::Resource>(&self) -> ApiResult<Arc<Resource>> {
        let gvr = GroupVersionResource::new(T::GROUP, T::VERSION, T::URL_PATH_SEGMENT);
        self.mapper().get(&gvr).cloned().ok_or_else(ApiError::resource_not_found)
    }

    /// A resource by group and plural name, in its preferred version.
    pub fn resource(&self, group: &str, plural: &str) -> ApiResult<Arc<Resource>> {
        self.mapper().preferred(group, plural).cloned().ok_or_else(ApiError::resource_not_found)
    }
}

/// Reads. Cached ones are as fresh as the watch cache is (milliseconds behind the store); typed with
/// k8s-openapi. `namespace` is empty for cluster-scoped kinds.
impl Registry {
    /// One object from the cache; waits for the cache's first fill.
    pub async fn get<T>(&self, namespace: &str, name: &str) -> ApiResult<Option<T>>
    where
        T: k8s_openapi::Resource + DeserializeOwned,
    {
        let resource = self.resource_of::<T>()?;
        let cache = self.filled(&resource).await?;
        let object = cache.snapshot().get(namespace, name).cloned();
        object.map(|object| typed(&resource, &object)).transpose()
    }

    /// All objects of a namespace, or of all when it is empty.
    pub async fn list<T>(&self, namespace: &str) -> ApiResult<Vec<T>>
    where
        T: k8s_openapi::Resource + DeserializeOwned,
    {
        let resource = self.resource_of::<T>()?;
        let snapshot = self.filled(&resource).await?.snapshot();
        snapshot.range(namespace, "").map(|object| typed(&resource, object)).collect()
    }

    /// One object as of now: a linearizable read of the store.
    pub async fn get_live<T>(&self, namespace: &str, name: &str) -> ApiResult<Option<T>>
    where
        T: k8s_openapi::Resource + DeserializeOwned,
    {
        let resource = self.resource_of::<T>()?;
        let object = self.live(&resource, namespace, name).await?;
        object.map(|object| typed(&resource, &object)).transpose()
    }

    /// The same, dynamic, at the preferred version.
    pub async fn get_live_value(
        &self,
        group: &str,
        plural: &str,
        namespace: &str,
        name: &str,
    ) -> ApiResult<Option<Value>> {
        let resource = self.resource(group, plural)?;
        let object = self.live(&resource, namespace, name).await?;
        object.map(|object| decode(&resource, &object)).transpose()
    }

    /// The filled cache of a resource: snapshots of encoded objects, and [`Cache::generation`], which
    /// changes whenever any object does, for whoever keeps an index (RBAC).
    pub async fn cache(&self, group: &str, plural: &str) -> ApiResult<Arc<Cache>> {
        let resource = self.resource(group, plural)?;
        self.filled(&resource).await
    }

    async fn filled(&self, resource: &Resource) -> ApiResult<Arc<Cache>> {
        let cache = self.cache_of(resource)?;
        self.wait(&cache, resource, Freshness::Any).await?;
        Ok(cache)
    }

    async fn live(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> ApiResult<Option<Arc<Object>>> {
        let cache = self.cache_of(resource)?;
        let read = self.0.caches.get_live(&cache, namespace, name).await;
        read.map_err(|error| from_storage(error, &resource.group_resource(), name))
    }

    async fn wait(
        &self,
        cache: &Arc<Cache>,
        resource: &Resource,
        freshness: Freshness,
    ) -> ApiResult<()> {
        let waited = self.0.caches.wait(cache, freshness).await;
        waited.map_err(|error| from_storage(error, &resource.group_resource(), ""))
    }
}

/// Writes as the apiserver itself: strategies and validation apply; authorization does not, and
/// admission runs as the user `system:apiserver`.
impl Registry {
    /// Creates an object; its kind and namespace are read from it.
    pub async fn create(&self, value: Value) -> ApiResult<Value> {
        let gvk = pintle_machinery::GroupVersionKind::of(&value).unwrap_or_default();
        let resource =
            self.mapper().by_kind(&gvk).cloned().ok_or_else(ApiError::resource_not_found)?;
        let mut cx = Context::internal(self, &resource, object::namespace(&value), "");
        super::create(&mut cx, value, false).await
    }

    /// Changes an object until the change is stored; `change` says whether it changed anything.
    pub async fn update(
        &self,
        target: Target<'_>,
        change: &mut (dyn FnMut(&mut Value) -> ApiResult<bool> + Send),
    ) -> ApiResult<Value> {
        let resource = self.resource(target.group, target.plural)?;
        let mut cx = Context::internal(self, &resource, target.namespace, target.name);
        cx.subresource = target.subresource.to_owned();
        let group_resource = resource.group_resource();
        let mut transform = |old: Option<&Value>| {
            let mut value =
                old.cloned().ok_or_else(|| ApiError::not_found(&group_resource, target.name))?;
            change(&mut value)?;
            Ok(value)
        };
        let request = Update {
            transform: &mut transform,
            preconditions: Preconditions::default(),
            creates: false,
            owned: false,
            replaces: false,
        };
        super::update(&mut cx, request).await.map(|(value, _)| value)
    }

    /// Deletes an object. Answers what it was, and whether it is gone already.
    pub async fn delete(
        &self,
        target: Target<'_>,
        options: &DeleteOptions,
    ) -> ApiResult<(Value, bool)> {
        let resource = self.resource(target.group, target.plural)?;
        let cx = Context::internal(self, &resource, target.namespace, target.name);
        let Deleted { object, removed } = super::delete(&cx, options).await?;
        Ok((object, removed))
    }
}

/// Names an object (or a view of it) for the apiserver's own writes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Target<'a> {
    /// Empty for core.
    pub group: &'a str,
    /// Plural name of the resource.
    pub plural: &'a str,
    /// Empty for cluster-scoped kinds.
    pub namespace: &'a str,
    /// Name.
    pub name: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
}

/// The field of which every node watches its own value.
fn watch_index(resource: &Resource) -> Vec<String> {
    if resource.group.is_empty() && resource.plural == "pods" {
        return ["spec", "nodeName"].map(str::to_owned).to_vec();
    }
    Vec::new()
}

/// A cached object at the version of `resource`.
pub(crate) fn decode(resource: &Resource, object: &Object) -> ApiResult<Value> {
    let mut value = object.decode().map_err(ApiError::internal_error)?;
    codec::convert(resource, &mut value)?;
    Ok(value)
}

fn typed<T: DeserializeOwned>(resource: &Resource, object: &Object) -> ApiResult<T> {
    let value = decode(resource, object)?;
    serde_json::from_value(value).map_err(ApiError::internal_error)
}
