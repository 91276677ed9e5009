//! How many requests may be worked on at once. Beyond that: 429, come back in a second.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{ApiError, ApiResult};
use crate::request_info::RequestInfo;

/// Upstream's defaults.
const READS_MAX: usize = 400;
const WRITES_MAX: usize = 200;

/// Two pools, so that a storm of reads leaves room for writes.
#[derive(Debug)]
pub(crate) struct InFlight {
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
}

impl Default for InFlight {
    fn default() -> Self {
        Self {
            reads: Arc::new(Semaphore::new(READS_MAX)),
            writes: Arc::new(Semaphore::new(WRITES_MAX)),
        }
    }
}

impl InFlight {
    /// A place, or 429. Health checks and the leaders' leases must not starve: they take none.
    pub(crate) fn enter(&self, info: &RequestInfo) -> ApiResult<Option<OwnedSemaphorePermit>> {
        if !info.is_resource_request || info.group == "coordination.k8s.io" {
            return Ok(None);
        }
        let pool = if is_write(&info.verb) { &self.writes } else { &self.reads };
        match pool.clone().try_acquire_owned() {
            Ok(permit) => Ok(Some(permit)),
            Err(_) => {
                Err(ApiError::too_many_requests("too many requests, please try again later", 1))
            }
        }
    }

    /// Requests under way: reads, writes.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (READS_MAX - self.reads.available_permits(), WRITES_MAX - self.writes.available_permits())
    }
}

/// Whether the verb changes something.
pub(crate) fn is_write(verb: &str) -> bool {
    matches!(verb, "create" | "update" | "patch" | "delete" | "deletecollection" | "post" | "put")
}
