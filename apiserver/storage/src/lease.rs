//! Leases shared by keys of the same lifetime, so that a burst of events costs one lease.

use std::collections::HashMap;
use std::time::Instant;

use pintle_store_api::{Store, pb};
use tokio::sync::Mutex;

use crate::Error;
use crate::limits::LEASE_REUSE;

#[derive(Debug)]
struct Shared {
    id: i64,
    granted: Instant,
    keys: u32,
}

/// The newest lease of every lifetime. The lock is held over the grant on purpose: whoever comes
/// meanwhile wants that very lease.
#[derive(Debug, Default)]
pub(crate) struct Leases(Mutex<HashMap<i64, Shared>>);

impl Leases {
    /// A lease that lives at least `ttl` seconds from now.
    pub(crate) async fn lease(&self, store: &dyn Store, ttl: i64) -> Result<i64, Error> {
        let (reuse, keys_max) = LEASE_REUSE;
        let mut shared = self.0.lock().await;
        if let Some(lease) = shared.get_mut(&ttl)
            && lease.granted.elapsed() < reuse
            && lease.keys < keys_max
        {
            lease.keys += 1;
            return Ok(lease.id);
        }
        let seconds = ttl + i64::try_from(reuse.as_secs()).expect("a minute fits into i64");
        let granted = Instant::now();
        let response = store.lease_grant(pb::LeaseGrantRequest { ttl: seconds, id: 0 }).await?;
        shared.insert(ttl, Shared { id: response.id, granted, keys: 1 });
        Ok(response.id)
    }
}
