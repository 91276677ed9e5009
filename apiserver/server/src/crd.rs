//! Custom resources: follows the CustomResourceDefinitions, gives them their conditions, and puts
//! what they define into the resource table.
//!
//! Every apiserver does this for itself; the status that they write is a function of the
//! definitions alone, so that it does not matter who is first.

mod convert;
mod names;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use pintle_apiserver_storage::{Cache, REGISTRY};
use pintle_machinery::{RestMapper, object};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::error::ApiResult;
use crate::registry::{DeleteOptions, Registry, ScalePaths, Target};

pub(crate) const GROUP: &str = "apiextensions.k8s.io";
pub(crate) const PLURAL: &str = "customresourcedefinitions";

/// Keeps a definition until its objects are gone.
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// After a failed write.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// What is served now: name, uid, generation and whether it is established, per definition.
type Signature = BTreeSet<(String, String, i64, bool)>;

/// Follows the definitions until told to stop.
pub(crate) async fn run(registry: Registry, shutdown: CancellationToken) {
    let mut served = Signature::new();
    loop {
        let followed = tokio::select! {
            () = shutdown.cancelled() => return,
            followed = follow(&registry, &mut served) => followed,
        };
        if let Err(error) = followed {
            tracing::warn!(%error, "custom resources are not up to date, trying again");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(RETRY_PAUSE) => {}
        }
    }
}

async fn follow(registry: &Registry, served: &mut Signature) -> ApiResult<()> {
    let cache = registry.cache(GROUP, PLURAL).await?;
    let (_, _, mut watcher) = cache.watch_with_snapshot();
    loop {
        let definitions = definitions(&cache);
        serve(registry, &definitions, served);
        for definition in &definitions {
            settle(registry, definition, &definitions).await?;
        }
        if watcher.next().await.is_err() {
            return Ok(());
        }
    }
}

fn definitions(cache: &Cache) -> Vec<Value> {
    let snapshot = cache.snapshot();
    snapshot.iter().filter_map(|object| object.decode().ok()).collect()
}

/// Replaces the resource table, when something in it changes.
fn serve(registry: &Registry, definitions: &[Value], served: &mut Signature) {
    let signature: Signature = definitions
        .iter()
        .map(|definition| {
            let (name, uid) = (object::name(definition), object::uid(definition));
            (
                name.to_owned(),
                uid.to_owned(),
                object::generation(definition),
                status::is_established(definition),
            )
        })
        .collect();
    if signature == *served {
        return;
    }
    let before = prefixes(&registry.mapper());
    let mut mapper = RestMapper::builtin();
    let mut scales = BTreeMap::new();
    for definition in definitions.iter().filter(|definition| status::is_established(definition)) {
        for (resource, scale) in convert::resources(definition) {
            if let Some(scale) = scale {
                scales.insert(resource.gvr().to_string(), scale);
            }
            mapper.insert(Arc::new(resource));
        }
    }
    let after = prefixes(&mapper);
    for resource in mapper.resources().iter().filter(|resource| resource.custom) {
        // Starts the cache; every custom resource is stored, so there is one.
        let _started = registry.cache_of(resource);
    }
    registry.set_mapper(mapper, scales);
    for gone in before.difference(&after) {
        registry.caches().remove(gone);
    }
    *served = signature;
}

fn prefixes(mapper: &RestMapper) -> BTreeSet<String> {
    let custom = mapper.resources().iter().filter(|resource| resource.custom);
    custom
        .filter_map(|resource| resource.storage.as_ref())
        .map(|storage| format!("{REGISTRY}{}/", storage.prefix))
        .collect()
}

/// Brings finalizer and status of one definition to what they should be.
async fn settle(registry: &Registry, definition: &Value, all: &[Value]) -> ApiResult<()> {
    let target = Target {
        group: GROUP,
        plural: PLURAL,
        name: object::name(definition),
        ..Target::default()
    };
    if object::is_terminating(definition) {
        return clean_up(registry, definition, target).await;
    }
    if !object::has_finalizer(definition, CLEANUP) {
        let mut add = |definition: &mut Value| {
            let mut finalizers: Vec<String> =
                object::finalizers(definition).map(str::to_owned).collect();
            let missing = !finalizers.iter().any(|finalizer| finalizer == CLEANUP);
            if missing && !object::is_terminating(definition) {
                finalizers.push(CLEANUP.to_owned());
                object::set_finalizers(definition, finalizers);
            }
            Ok(missing)
        };
        ignore_missing(registry.update(target, &mut add).await)?;
    }
    let wanted = status::wanted(definition, all);
    if definition.get("status") == Some(&wanted) {
        return Ok(());
    }
    let target = Target { subresource: "status", ..target };
    let mut set = |definition: &mut Value| {
        let wanted = status::wanted(definition, all);
        let changed = definition.get("status") != Some(&wanted);
        object::as_object_mut(definition).insert("status".to_owned(), wanted);
        Ok(changed)
    };
    ignore_missing(registry.update(target, &mut set).await)
}

/// Deletes all objects of a definition on its way out, then lets it go.
async fn clean_up(registry: &Registry, definition: &Value, target: Target<'_>) -> ApiResult<()> {
    if !object::has_finalizer(definition, CLEANUP) {
        return Ok(());
    }
    let (group, plural) = names::of(definition);
    if let Ok(resource) = registry.resource(&group, &plural) {
        let cache = registry.cache_of(&resource)?;
        cache.wait_ready().await;
        let objects: Vec<_> = cache.snapshot().iter().cloned().collect();
        for object in &objects {
            let target = Target {
                group: &group,
                plural: &plural,
                namespace: object.namespace(),
                name: object.name(),
                subresource: "",
            };
            match registry.delete(target, &DeleteOptions::default()).await {
                Ok(_) => {}
                Err(error) if error.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        wait_empty(&cache).await;
    }
    let mut release = |definition: &mut Value| {
        let kept: Vec<String> = object::finalizers(definition)
            .filter(|finalizer| *finalizer != CLEANUP)
            .map(str::to_owned)
            .collect();
        object::set_finalizers(definition, kept);
        Ok(true)
    };
    ignore_missing(registry.update(target, &mut release).await)
}

/// Returns when the last object has gone, or after a while: then the next round looks again.
async fn wait_empty(cache: &Arc<Cache>) {
    const PATIENCE: Duration = Duration::from_secs(5);
    let emptied = async {
        let (_, _, mut watcher) = cache.watch_with_snapshot();
        while !cache.snapshot().is_empty() {
            if watcher.next().await.is_err() {
                return;
            }
        }
    };
    if tokio::time::timeout(PATIENCE, emptied).await.is_err() {
        tracing::debug!(
            prefix = cache.spec().prefix,
            "objects with finalizers outlive their definition"
        );
    }
}

fn ignore_missing(result: ApiResult<Value>) -> ApiResult<()> {
    match result {
        Ok(_) => Ok(()),
        Err(error) if error.code == 404 => Ok(()),
        Err(error) => Err(error),
    }
}

/// Where the numbers of a custom `scale` are; re-exported for the converter.
pub(crate) type Scale = ScalePaths;
