//! The Lease service.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use pintle_proto::etcdserverpb::lease_server::Lease;
use pintle_store_api::{LeaseId, Store, pb};
use tonic::{Request, Response, Status, Streaming};

use crate::errors;
use crate::handle::Handle;

pub(super) struct Service(pub(super) Arc<Handle>);

type KeepAlives = Pin<Box<dyn Stream<Item = Result<pb::LeaseKeepAliveResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Lease for Service {
    type LeaseKeepAliveStream = KeepAlives;

    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let answer = self.0.on_behalf(&request).lease_grant(request.into_inner()).await;
        answer.map(Response::new).map_err(|error| errors::write(&error))
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let handle = self.0.on_behalf(&request);
        let answer = handle.lease_revoke(LeaseId(request.into_inner().id)).await;
        answer.map(Response::new).map_err(|error| errors::write(&error))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<KeepAlives>, Status> {
        let handle = Arc::new(self.0.on_behalf(&request));
        let stopped = self.0.core().clients_stop.clone().cancelled_owned();
        let answers = request.into_inner().take_until(stopped).then(move |request| {
            let handle = Arc::clone(&handle);
            async move {
                let id = LeaseId(request?.id);
                handle.lease_keep_alive(id).await.map_err(|error| errors::write(&error))
            }
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let handle = self.0.on_behalf(&request);
        let answer = handle.lease_time_to_live(request.into_inner()).await;
        answer.map(Response::new).map_err(|error| errors::write(&error))
    }

    async fn lease_leases(
        &self,
        request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        self.0
            .on_behalf(&request)
            .leases()
            .await
            .map(Response::new)
            .map_err(|error| errors::read(&error))
    }
}
