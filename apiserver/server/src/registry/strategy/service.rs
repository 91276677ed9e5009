//! Services: addresses and node ports are claimed before the write and given back after the
//! service is gone.

pub(crate) mod allocator;
pub(crate) mod claims;
pub(crate) mod plan;
pub(crate) mod repair;

use k8s_openapi::api::core::v1::Service as TypedService;
use pintle_machinery::{ErrorList, Path, object};
use serde_json::{Value, json};

use super::{Context, Strategy};
use crate::error::{ApiError, ApiResult};
use crate::registry::Registry;
use allocator::{AllocateError, Allocator, Owners};
use claims::{Claim, Owner};

/// The strategy of `services`.
pub(crate) struct Service;

/// The allocator of the cluster that the registry serves.
pub(crate) fn allocator(registry: &Registry) -> Allocator {
    let claims = claims::Claims::new(registry.storage().store().clone());
    Allocator::new(claims, registry.config().service_cidr)
}

/// Asks the store whether a service still exists under that uid.
pub(crate) struct LiveServices<'a>(pub(crate) &'a Registry);

#[async_trait::async_trait]
impl Owners for LiveServices<'_> {
    /// When the store cannot be asked, the owner counts as alive: nothing is taken from it.
    async fn exists(&self, owner: &Owner) -> bool {
        match self.0.get_live::<TypedService>(&owner.namespace, &owner.name).await {
            Ok(service) => {
                service.is_some_and(|s| s.metadata.uid.as_deref() == Some(owner.uid.as_str()))
            }
            Err(_) => true,
        }
    }
}

pub(crate) fn owner_of(service: &Value) -> Owner {
    Owner {
        namespace: object::namespace(service).to_owned(),
        name: object::name(service).to_owned(),
        uid: object::uid(service).to_owned(),
    }
}

/// All claims that the service stands for.
pub(crate) fn claims_of(service: &Value) -> Vec<Claim> {
    let address = plan::address(service).map(Claim::Address);
    address.into_iter().chain(plan::node_ports(service).into_iter().map(Claim::NodePort)).collect()
}

/// Whether the service names only what it held before, and lacks nothing: most updates.
fn wants_nothing_new(service: &Value, old: &Value) -> bool {
    let held = claims_of(old);
    let has_address = !plan::needs_cluster_ip(service) || !plan::cluster_ip(service).is_empty();
    let has_health_port = !plan::needs_health_check_port(service)
        || object::get_i64(service, &["spec", "healthCheckNodePort"]).is_some_and(|port| port != 0);
    has_address
        && has_health_port
        && plan::open_ports(service).is_empty()
        && claims_of(service).iter().all(|claim| held.contains(claim))
}

/// What could not be had: where, what, why.
type Refused = (Path, Value, AllocateError);

impl Service {
    /// Claims everything that `service` names or lacks. What was new is pushed to `new`, so that the
    /// caller can give it back when a later step fails.
    async fn claim_all(
        &self,
        cx: &Context,
        service: &mut Value,
        new: &mut Vec<Claim>,
    ) -> Result<(), Refused> {
        let owner = owner_of(service);
        let owners = LiveServices(&cx.registry);
        let request = Request { allocator: allocator(&cx.registry), owner, owners };
        request.claim_address(service, new).await?;
        request.claim_named_ports(service, new).await?;
        request.claim_open_ports(service, new).await
    }

    /// Claims everything or nothing.
    async fn claim(&self, cx: &Context, service: &mut Value) -> ApiResult<()> {
        let mut new = Vec::new();
        let Err((field, value, error)) = self.claim_all(cx, service, &mut new).await else {
            return Ok(());
        };
        give_back(cx, new, &owner_of(service)).await;
        Err(refusal(cx, service, field, value, error))
    }
}

/// What cannot be given back now is found by the repair loop.
async fn give_back(cx: &Context, claims: Vec<Claim>, owner: &Owner) {
    if let Err(error) = allocator(&cx.registry).release(claims, owner).await {
        tracing::warn!(%error, ?owner, "claims of a service stay behind until the next repair");
    }
}

/// One service's wish.
struct Request<'a> {
    allocator: Allocator,
    owner: Owner,
    owners: LiveServices<'a>,
}

impl Request<'_> {
    async fn claim_address(
        &self,
        service: &mut Value,
        new: &mut Vec<Claim>,
    ) -> Result<(), Refused> {
        if !plan::needs_cluster_ip(service) || plan::cluster_ip(service) == plan::HEADLESS {
            return Ok(());
        }
        let at = |error| {
            (Path::new("spec").child("clusterIPs"), json!([plan::cluster_ip(service)]), error)
        };
        match plan::address(service) {
            Some(address) => {
                if self.allocator.address(address, &self.owner, &self.owners).await.map_err(at)? {
                    new.push(Claim::Address(address));
                }
            }
            None => {
                let address = self.allocator.any_address(&self.owner).await.map_err(at)?;
                new.push(Claim::Address(address));
                plan::assign_address(service, address);
            }
        }
        Ok(())
    }

    async fn claim_named_ports(
        &self,
        service: &Value,
        new: &mut Vec<Claim>,
    ) -> Result<(), Refused> {
        for port in plan::node_ports(service) {
            match self.allocator.node_port(port, &self.owner, &self.owners).await {
                Ok(true) => new.push(Claim::NodePort(port)),
                Ok(false) => {}
                Err(error) => return Err((node_port_path(service, port), port.into(), error)),
            }
        }
        Ok(())
    }

    async fn claim_open_ports(
        &self,
        service: &mut Value,
        new: &mut Vec<Claim>,
    ) -> Result<(), Refused> {
        for index in plan::open_ports(service) {
            let at = |error| (port_path(index), json!(0), error);
            let port = match plan::sibling_node_port(service, index) {
                Some(port) => {
                    self.allocator.node_port(port, &self.owner, &self.owners).await.map_err(at)?;
                    port
                }
                None => {
                    let port = self.allocator.any_node_port(&self.owner).await.map_err(at)?;
                    new.push(Claim::NodePort(port));
                    port
                }
            };
            plan::assign_node_port(service, index, port);
        }
        let health = object::get_i64(service, &["spec", "healthCheckNodePort"]).unwrap_or(0);
        if plan::needs_health_check_port(service) && health == 0 {
            let at = |error| (Path::new("spec").child("healthCheckNodePort"), json!(0), error);
            let port = self.allocator.any_node_port(&self.owner).await.map_err(at)?;
            new.push(Claim::NodePort(port));
            plan::assign_health_check_port(service, port);
        }
        Ok(())
    }
}

fn port_path(index: usize) -> Path {
    Path::new("spec").child("ports").index(index).child("nodePort")
}

fn node_port_path(service: &Value, node_port: u16) -> Path {
    let ports = object::get_list(service, &["spec", "ports"]);
    let has = |port: &Value| object::get_i64(port, &["nodePort"]) == Some(node_port.into());
    match ports.iter().position(has) {
        Some(index) => port_path(index),
        None => Path::new("spec").child("healthCheckNodePort"),
    }
}

fn refusal(
    cx: &Context,
    service: &Value,
    field: Path,
    value: Value,
    error: AllocateError,
) -> ApiError {
    let detail = match &error {
        AllocateError::Full => {
            return ApiError::internal_error(format!("failed to allocate {field}: {error}"));
        }
        AllocateError::Claim(error) => {
            return ApiError::service_unavailable(format!("failed to allocate {field}: {error}"));
        }
        AllocateError::AddressTaken | AllocateError::AddressOutOfRange { .. } => {
            format!("failed to allocate IP {}: {error}", plan::cluster_ip(service))
        }
        AllocateError::PortTaken | AllocateError::PortOutOfRange => error.to_string(),
    };
    let mut errors = ErrorList::new();
    errors.invalid(field, value, detail);
    ApiError::invalid(&cx.resource.group_kind(), object::name(service), &errors)
}

#[async_trait::async_trait]
impl Strategy for Service {
    async fn prepare_for_create(&self, _cx: &Context, service: &mut Value) -> ApiResult<()> {
        plan::normalize(service);
        service["status"] = json!({"loadBalancer": {}});
        Ok(())
    }

    async fn prepare_for_update(
        &self,
        _cx: &Context,
        service: &mut Value,
        old: &Value,
    ) -> ApiResult<()> {
        plan::carry_over(service, old);
        plan::normalize(service);
        Ok(())
    }

    fn validate_update(&self, _cx: &Context, service: &Value, old: &Value) -> ErrorList {
        let (before, now) = (plan::cluster_ip(old), plan::cluster_ip(service));
        let both = plan::needs_cluster_ip(old) && plan::needs_cluster_ip(service);
        if !both || before.is_empty() || before == now {
            return ErrorList::new();
        }
        let mut errors = ErrorList::new();
        let field = Path::new("spec").child("clusterIPs").index(0);
        errors.invalid(field, json!([now]), "may not change once set");
        errors
    }

    async fn begin_create(&self, cx: &Context, service: &mut Value) -> ApiResult<()> {
        self.claim(cx, service).await
    }

    async fn abort_create(&self, cx: &Context, service: &Value) {
        let owner = owner_of(service);
        // A write whose outcome is unknown may have happened.
        if !LiveServices(&cx.registry).exists(&owner).await {
            give_back(cx, claims_of(service), &owner).await;
        }
    }

    async fn begin_update(&self, cx: &Context, service: &mut Value, old: &Value) -> ApiResult<()> {
        if wants_nothing_new(service, old) {
            return Ok(());
        }
        self.claim(cx, service).await
    }

    async fn after_update(&self, cx: &Context, service: &Value, old: &Value) {
        let kept = claims_of(service);
        let gone: Vec<Claim> = claims_of(old).into_iter().filter(|c| !kept.contains(c)).collect();
        give_back(cx, gone, &owner_of(old)).await;
    }

    async fn after_delete(&self, cx: &Context, service: &Value) {
        give_back(cx, claims_of(service), &owner_of(service)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_new_wish_goes_to_the_allocators() {
        let service = |spec: Value| json!({"metadata": {"name": "s"}, "spec": spec});
        let old = service(
            json!({"type": "NodePort", "clusterIP": "10.96.0.9", "ports": [{"port": 80, "nodePort": 30080}]}),
        );
        let cases = [
            (old.clone(), true),
            (
                service(
                    json!({"type": "ClusterIP", "clusterIP": "10.96.0.9", "ports": [{"port": 80}]}),
                ),
                true,
            ),
            (
                service(
                    json!({"type": "NodePort", "clusterIP": "10.96.0.9", "ports": [{"port": 80, "nodePort": 30081}]}),
                ),
                false,
            ),
            (
                service(
                    json!({"type": "NodePort", "clusterIP": "10.96.0.9", "ports": [{"port": 80, "nodePort": 30080}, {"port": 443}]}),
                ),
                false,
            ),
            (service(json!({"type": "ClusterIP", "ports": [{"port": 80}]})), false),
            (service(json!({"type": "ExternalName", "externalName": "x"})), true),
        ];
        for (new, nothing_new) in cases {
            assert_eq!(wants_nothing_new(&new, &old), nothing_new, "{new}");
        }
    }
}
