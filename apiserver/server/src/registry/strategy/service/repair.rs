//! The repair of claims: what no service holds is given up, what a service holds unclaimed is
//! claimed. Every member does it now and then; all changes are compare-and-swap.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::allocator::{AllocateError, Allocator, Owners};
use super::claims::{Claim, Held, Owner};
use super::{LiveServices, claims_of, owner_of};
use crate::error::{ApiError, ApiResult};
use crate::registry::Registry;

/// Time between two repairs. A claim must be seen ownerless twice, so that a service whose write is
/// on its way keeps what it has just claimed.
const INTERVAL: Duration = Duration::from_secs(60);

/// Repairs until shut down.
pub(crate) async fn run(allocator: Allocator, registry: Registry, shutdown: CancellationToken) {
    let mut suspects = HashMap::new();
    loop {
        match repair(&allocator, &registry, suspects).await {
            Ok(found) => suspects = found,
            Err(error) => {
                tracing::warn!(%error, "service addresses and node ports could not be repaired");
                suspects = HashMap::new();
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// One repair. Returns the claims found without an owner for the first time.
pub(crate) async fn repair(
    allocator: &Allocator,
    registry: &Registry,
    suspects: HashMap<Claim, Owner>,
) -> ApiResult<HashMap<Claim, Owner>> {
    let failed = |error: &dyn std::fmt::Display| ApiError::service_unavailable(error.to_string());
    let held = allocator.claims().all().await.map_err(|error| failed(&error))?;
    let services = registry.list::<Service>("").await?;
    let services: Vec<Value> =
        services.iter().filter_map(|s| serde_json::to_value(s).ok()).collect();
    claim_missing(allocator, registry, &services, &held).await;
    let mut found = HashMap::new();
    for held in orphans(&held, &services) {
        let Some(owner) = &held.owner else { continue };
        if suspects.get(&held.claim) != Some(owner) {
            found.insert(held.claim, owner.clone());
        } else if !is_named(registry, held.claim, owner).await? {
            allocator.claims().remove(held).await.map_err(|error| failed(&error))?;
            tracing::info!(claim = ?held.claim, ?owner, "gave up what no service holds any more");
        }
    }
    Ok(found)
}

/// Whether the service that holds the claim exists and names it, as of now.
async fn is_named(registry: &Registry, claim: Claim, owner: &Owner) -> ApiResult<bool> {
    let service = registry.get_live::<Service>(&owner.namespace, &owner.name).await?;
    let value = service.and_then(|service| serde_json::to_value(service).ok());
    Ok(value.is_some_and(|s| owner_of(&s) == *owner && claims_of(&s).contains(&claim)))
}

/// Claims of services that do not exist or do not name them. Claims without a service behind them
/// (an `IPAddress` of somebody else's making) are left alone.
fn orphans<'a>(held: &'a [Held], services: &[Value]) -> Vec<&'a Held> {
    let wanted: HashMap<Claim, Owner> =
        services.iter().flat_map(|s| claims_of(s).into_iter().map(|c| (c, owner_of(s)))).collect();
    held.iter()
        .filter(|held| held.owner.as_ref().is_some_and(|owner| !owner.uid.is_empty()))
        .filter(|held| wanted.get(&held.claim) != held.owner.as_ref())
        .collect()
}

async fn claim_missing(
    allocator: &Allocator,
    registry: &Registry,
    services: &[Value],
    held: &[Held],
) {
    let held: HashMap<Claim, &Held> = held.iter().map(|held| (held.claim, held)).collect();
    let owners = LiveServices(registry);
    for service in services {
        let owner = owner_of(service);
        for claim in claims_of(service).into_iter().filter(|claim| !held.contains_key(claim)) {
            // The cache may show a service that is gone by now.
            if !owners.exists(&owner).await {
                break;
            }
            let claimed: Result<bool, AllocateError> = match claim {
                Claim::Address(address) => allocator.address(address, &owner, &owners).await,
                Claim::NodePort(port) => allocator.node_port(port, &owner, &owners).await,
            };
            if let Err(error) = claimed {
                tracing::warn!(%error, ?claim, ?owner, "a service uses what it cannot claim");
            }
        }
    }
}
