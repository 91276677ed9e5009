//! What a client asks about the server itself: whether it serves, and what. The second is
//! reflection, in both versions that tools speak, so that they can call without `.proto` files.

use pintle_proto::ETCD_DESCRIPTORS;
use tonic::service::RoutesBuilder;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tonic_reflection::server::{Builder, Error};

/// Adds both. The service that every health check names, `""`, serves for as long as anything is
/// answered here, as in etcd; whether the cluster can do its work is what `/readyz` says.
pub(super) fn add(routes: &mut RoutesBuilder) -> Result<(), Error> {
    let described = || {
        Builder::configure()
            .register_encoded_file_descriptor_set(ETCD_DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let health = HealthService::from_health_reporter(HealthReporter::new());
    routes
        .add_service(HealthServer::new(health))
        .add_service(described().build_v1()?)
        .add_service(described().build_v1alpha()?);
    Ok(())
}
