//! What an empty cluster is given: namespaces, roles, the `kubernetes` service, and what is
//! reconciled at every start. Runs after the caches stand; every write is "create unless there".
//!
//! Members do this at the same time. Creating what another one has just created is no error, and
//! additions to what exists are compare-and-swap, so the outcome does not depend on who was first.

mod members;
mod objects;
pub(crate) mod policy;
mod rbac;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pintle_machinery::{GroupVersionKind, Reason, object};
use serde::Serialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::error::{ApiError, ApiResult};
use crate::registry::strategy::service;
use crate::registry::{DeleteOptions, Registry, Target};
use members::Members;
use policy::Policy;

/// How often a member says that it lives, and looks at the endpoints of the API.
const ENDPOINTS_INTERVAL: Duration = Duration::from_secs(3);

/// How long after its own start a member leaves the endpoints as the configuration has them.
const SETTLING: Duration = Duration::from_secs(15);

/// Creates what is missing, once; `/readyz` waits for it. Called again after a pause when it fails.
pub(crate) async fn reconcile(config: &Config, registry: &Registry) -> Result<(), ApiError> {
    for name in objects::NAMESPACES {
        ensure(registry, objects::namespace(name), keep).await?;
    }
    reconcile_policy(registry, Policy::default_policy()).await?;
    for class in objects::priority_classes() {
        ensure(registry, class, keep).await?;
    }
    let network = config.service_cidr;
    ensure(registry, objects::service_cidr(network), keep).await?;
    let port = config.advertise.first().map_or(config.listen.port(), |address| address.port());
    ensure(registry, objects::kubernetes_service(network, port), keep).await?;
    ensure(registry, objects::dns_service(network), keep).await?;
    reconcile_endpoints(&config.advertise, registry).await?;
    let client_ca = read(&config.client_ca).await?;
    ensure(registry, objects::extension_authentication(&client_ca), overwrite).await?;
    if let Some(server) = config.advertise.first() {
        let cluster_ca = read(&config.cluster_ca).await?;
        ensure(registry, objects::cluster_info(&cluster_ca, *server), keep).await?;
    }
    Ok(())
}

/// Whatever has to go on for as long as the server runs: the endpoints of `default/kubernetes` and
/// the repair of service addresses and node ports.
pub(crate) async fn run(config: Arc<Config>, registry: Registry, shutdown: CancellationToken) {
    let repair =
        service::repair::run(service::allocator(&registry), registry.clone(), shutdown.clone());
    let endpoints = follow_members(&config, &registry, &shutdown);
    tokio::join!(repair, endpoints);
}

/// Keeps the endpoints of `default/kubernetes` at the members that live.
async fn follow_members(config: &Config, registry: &Registry, shutdown: &CancellationToken) {
    let store = registry.storage().store().clone();
    let mut members = Members::new(store, config.advertise.clone(), config.listen);
    // The others are given a moment to come up before they are taken for dead.
    let settled = tokio::time::Instant::now() + SETTLING;
    loop {
        let written = match members.renew().await {
            Ok(_) if tokio::time::Instant::now() < settled => Ok(()),
            Ok(live) => reconcile_endpoints(&live, registry).await,
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            tracing::warn!(%error, "the endpoints of default/kubernetes could not be written");
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep(ENDPOINTS_INTERVAL) => {}
        }
    }
    members.leave().await;
}

async fn read(path: &Path) -> ApiResult<String> {
    let failed = |error| ApiError::internal_error(format!("{}: {error}", path.display()));
    tokio::fs::read_to_string(path).await.map_err(failed)
}

/// Leaves an object as it is.
fn keep(_found: &mut Value, _wanted: &Value) -> ApiResult<bool> {
    Ok(false)
}

/// Replaces whatever differs, except for metadata.
fn overwrite(found: &mut Value, wanted: &Value) -> ApiResult<bool> {
    if objects::contains(found, wanted) {
        return Ok(false);
    }
    for (key, value) in wanted.as_object().into_iter().flatten() {
        if key != "metadata" {
            found[key] = value.clone();
        }
    }
    Ok(true)
}

/// Makes an object hold at least what it must: created when missing, else mended by `mend`.
async fn ensure(
    registry: &Registry,
    wanted: Value,
    mend: impl Fn(&mut Value, &Value) -> ApiResult<bool> + Sync,
) -> ApiResult<()> {
    let gvk = GroupVersionKind::of(&wanted).unwrap_or_default();
    let resource =
        registry.mapper().by_kind(&gvk).cloned().ok_or_else(ApiError::resource_not_found)?;
    let (namespace, name) =
        (object::namespace(&wanted).to_owned(), object::name(&wanted).to_owned());
    let cached = registry.cache(&resource.group, &resource.plural).await?;
    let found = cached.snapshot().get(&namespace, &name).cloned();
    match found {
        None => match registry.create(wanted.clone()).await {
            Err(error) if error.reason == Reason::AlreadyExists => {}
            created => return created.map(|_| ()),
        },
        Some(found) => {
            let mut found = found.decode().map_err(ApiError::internal_error)?;
            if !mend(&mut found, &wanted)? {
                return Ok(());
            }
        }
    }
    let target = Target {
        group: &resource.group,
        plural: &resource.plural,
        namespace: &namespace,
        name: &name,
        ..Target::default()
    };
    registry.update(target, &mut |found| mend(found, &wanted)).await?;
    Ok(())
}

fn dynamic(object: &impl Serialize) -> ApiResult<Value> {
    serde_json::to_value(object).map_err(ApiError::internal_error)
}

async fn reconcile_policy(registry: &Registry, policy: Policy) -> ApiResult<()> {
    for role in &policy.cluster_roles {
        ensure(registry, dynamic(role)?, rbac::add_to_role).await?;
    }
    for role in &policy.roles {
        ensure(registry, dynamic(role)?, rbac::add_to_role).await?;
    }
    let add = |found: &mut Value, wanted: &Value| Ok(rbac::add_to_binding(found, wanted));
    for binding in &policy.cluster_role_bindings {
        ensure(registry, dynamic(binding)?, add).await?;
    }
    for binding in &policy.role_bindings {
        ensure(registry, dynamic(binding)?, add).await?;
    }
    Ok(())
}

/// The members as endpoints, and no slices but theirs.
async fn reconcile_endpoints(members: &[SocketAddr], registry: &Registry) -> ApiResult<()> {
    ensure(registry, objects::kubernetes_endpoints(members), overwrite).await?;
    let slices = objects::kubernetes_slices(members);
    let names: Vec<String> = slices.iter().map(|slice| object::name(slice).to_owned()).collect();
    for slice in slices {
        ensure(registry, slice, overwrite).await?;
    }
    let cache = registry.cache("discovery.k8s.io", "endpointslices").await?;
    let snapshot = cache.snapshot();
    let is_stale = |name: &str| {
        (name == "kubernetes" || name.starts_with("kubernetes-"))
            && !names.iter().any(|n| n == name)
    };
    for slice in snapshot.range("default", "") {
        let of_api = slice.labels().and_then(|labels| labels.get("kubernetes.io/service-name"));
        if of_api.and_then(Value::as_str) != Some("kubernetes") || !is_stale(slice.name()) {
            continue;
        }
        let target = Target {
            group: "discovery.k8s.io",
            plural: "endpointslices",
            namespace: "default",
            name: slice.name(),
            ..Target::default()
        };
        match registry.delete(target, &DeleteOptions::default()).await {
            Err(error) if error.reason != Reason::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
