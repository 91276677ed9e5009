//! The Lock service: the front of a queue holds the lock, until its key or its lease goes.

use std::sync::Arc;

use pintle_proto::v3lockpb::lock_server::Lock;
use pintle_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use pintle_store_api::pb;
use tonic::{Request, Response, Status};

use super::concurrency::{Queue, lost_code, range, session};
use crate::errors;
use crate::handle::Handle;

const SESSION_EXPIRED: &str = "mutex: session is expired";

pub(super) struct Service(pub(super) Arc<Handle>);

#[tonic::async_trait]
impl Lock for Service {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        let handle = Arc::new(self.0.on_behalf(&request));
        let request = request.into_inner();
        let lease = session(&handle, request.lease).await?;
        let queue = Queue::new(Arc::clone(&handle), &request.name);
        let mut place = queue.join(lease, bytes::Bytes::new()).await?;
        queue.wait(&place).await?;
        // The lease may have ended meanwhile.
        let own = pb::RangeRequest { key: place.key.clone(), ..Default::default() };
        let found = range(&handle, own).await?;
        if found.kvs.first().is_none_or(|kv| kv.create_revision != place.revision) {
            return Err(Status::unknown(SESSION_EXPIRED));
        }
        place.keep();
        Ok(Response::new(LockResponse { header: found.header, key: place.key.clone() }))
    }

    async fn unlock(
        &self,
        request: Request<UnlockRequest>,
    ) -> Result<Response<UnlockResponse>, Status> {
        let handle = Arc::new(self.0.on_behalf(&request));
        let key = request.into_inner().key;
        let deleted = handle.delete_range(pb::DeleteRangeRequest { key, ..Default::default() });
        let deleted = deleted.await.map_err(|error| lost_code(errors::write(&error)))?;
        Ok(Response::new(UnlockResponse { header: deleted.header }))
    }
}
