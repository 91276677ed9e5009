//! etcd's gRPC services on the client port. Thin: they decode, call the [`Handle`] and map errors;
//! only the watch service keeps state, one sequencer for each stream.

mod about;
mod auth;
mod cluster;
mod concurrency;
mod election;
mod guard;
mod kv;
mod lease;
mod lock;
mod maintenance;
mod measure;
mod slow;
mod unary;
mod watch;

use std::sync::Arc;

use pintle_proto::etcdserverpb::auth_server::AuthServer;
use pintle_proto::etcdserverpb::cluster_server::ClusterServer;
use pintle_proto::etcdserverpb::kv_server::KvServer;
use pintle_proto::etcdserverpb::lease_server::LeaseServer;
use pintle_proto::etcdserverpb::maintenance_server::MaintenanceServer;
use pintle_proto::etcdserverpb::watch_server::WatchServer;
use pintle_proto::v3electionpb::election_server::ElectionServer;
use pintle_proto::v3lockpb::lock_server::LockServer;

use crate::handle::Handle;
use crate::listener::Direct;

/// What a message may hold beyond the largest request: as in etcd, so that a request that is a
/// little too large gets etcd's error and not the transport's.
const OVERHEAD_BYTES: usize = 512 << 10;

/// All services, as one router.
pub(crate) fn routes(handle: &Arc<Handle>) -> axum::Router {
    let limit = handle.core().config.max_request_bytes + OVERHEAD_BYTES;
    let handle = || Arc::clone(handle);
    let unlimited = usize::MAX;
    let mut routes = tonic::service::Routes::builder();
    routes
        .add_service(
            KvServer::new(kv::Service(handle()))
                .max_decoding_message_size(limit)
                .max_encoding_message_size(unlimited),
        )
        .add_service(
            WatchServer::new(watch::Service(handle()))
                .max_decoding_message_size(limit)
                .max_encoding_message_size(unlimited),
        )
        .add_service(
            LeaseServer::new(lease::Service(handle())).max_encoding_message_size(unlimited),
        )
        .add_service(ClusterServer::new(cluster::Service(handle())))
        .add_service(MaintenanceServer::new(guard::Guard {
            handle: handle(),
            inner: maintenance::Service(handle()),
        }))
        .add_service(AuthServer::new(auth::Service(handle())))
        .add_service(LockServer::new(lock::Service(handle())))
        .add_service(ElectionServer::new(election::Service(handle())));
    about::add(&mut routes).expect("the build made the descriptors");
    let slow = handle().core().config.warning_unary_request_duration;
    let watch = watch::encoded(&watch::Service(handle()), limit);
    let routes = slow::watch(routes.routes().into_axum_router().merge(watch), slow);
    measure::around(routes, handle().core())
}

/// The busiest methods, which need neither the router nor tonic's codec.
pub(crate) fn busiest(handle: &Arc<Handle>) -> Arc<dyn Direct> {
    let config = &handle.core().config;
    let bytes_max = config.max_request_bytes + OVERHEAD_BYTES;
    let slow = config.warning_unary_request_duration;
    Arc::new(kv::Busiest { service: kv::Service(Arc::clone(handle)), bytes_max, slow })
}
