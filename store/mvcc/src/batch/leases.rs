//! Commands on leases: grant, revoke, checkpoint; and which keys hang on which lease.

use bytes::Bytes;
use pintle_proto::raft::{LeaseCheckpoint, LeaseGrant, LeaseRevoke};
use pintle_store_api::{Rejection, pb};

use super::Batch;
use crate::keyspace::Record;
use crate::keyspace::lease::LeaseRecord;
use crate::outcome::header;
use crate::validate::LEASE_TTL_MAX;
use crate::{Fault, QueryError};

impl Batch<'_> {
    pub(super) fn lease(&self, id: i64) -> Result<Option<LeaseRecord>, Fault> {
        if let Some(written) = self.overlay.leases.get(&id) {
            return Ok(*written);
        }
        self.database.lease(id)
    }

    pub(super) fn lease_grant(
        &mut self,
        grant: &LeaseGrant,
    ) -> Result<pb::LeaseGrantResponse, QueryError> {
        if grant.id == 0 {
            return Err(Rejection::LeaseNotFound.into());
        }
        if grant.ttl > LEASE_TTL_MAX {
            return Err(Rejection::LeaseTtlTooLarge.into());
        }
        if self.lease(grant.id)?.is_some() {
            return Err(Rejection::LeaseExists.into());
        }
        let record = LeaseRecord { granted_ttl: grant.ttl, remaining_ttl: 0 };
        self.overlay.leases.insert(grant.id, Some(record));
        Ok(pb::LeaseGrantResponse {
            header: header(self.head.revision),
            id: grant.id,
            ttl: grant.ttl,
            error: String::new(),
        })
    }

    /// A client's revoke of an unknown lease is refused. A revoke by expiry passes over leases
    /// that are gone, and over all of them when the term has changed: the new leader has given
    /// every lease a new deadline.
    pub(super) fn lease_revoke(
        &mut self,
        revoke: &LeaseRevoke,
        term: u64,
    ) -> Result<pb::LeaseRevokeResponse, QueryError> {
        let by_expiry = revoke.expired_in_term != 0;
        let outdated = by_expiry && revoke.expired_in_term != term;
        let mut revoked = false;
        for id in revoke.ids.iter().filter(|_| !outdated) {
            revoked |= self.revoke(*id)?;
        }
        if !revoked && !by_expiry {
            return Err(Rejection::LeaseNotFound.into());
        }
        Ok(pb::LeaseRevokeResponse { header: header(self.head.revision) })
    }

    /// One revision for the lease's keys, if it has any. False when there is no such lease.
    fn revoke(&mut self, id: i64) -> Result<bool, Fault> {
        if self.lease(id)?.is_none() {
            return Ok(false);
        }
        for key in self.attached_keys(id)? {
            let previous = self.view().get(&key)?;
            if previous.is_some() {
                self.change(key, previous, None);
            }
        }
        self.overlay.leases.insert(id, None);
        self.seal();
        Ok(true)
    }

    /// In key order.
    pub(super) fn attached_keys(&self, id: i64) -> Result<Vec<Bytes>, Fault> {
        let mut keys = self.view().lease_keys(id)?;
        let written = self.overlay.lease_keys.range((id, Bytes::new())..);
        for ((_, key), attached) in written.take_while(|((owner, _), _)| *owner == id) {
            match (keys.binary_search(key), attached) {
                (Ok(index), false) => drop(keys.remove(index)),
                (Err(index), true) => keys.insert(index, key.clone()),
                (Ok(_), true) | (Err(_), false) => {}
            }
        }
        Ok(keys)
    }

    pub(super) fn lease_checkpoint(
        &mut self,
        checkpoint: &LeaseCheckpoint,
    ) -> Result<pb::LeaseCheckpointResponse, QueryError> {
        for remaining in &checkpoint.remaining {
            if let Some(lease) = self.lease(remaining.id)? {
                let lease = LeaseRecord { remaining_ttl: remaining.ttl, ..lease };
                self.overlay.leases.insert(remaining.id, Some(lease));
            }
        }
        Ok(pb::LeaseCheckpointResponse { header: header(self.head.revision) })
    }

    /// Keeps `lease_keys` in step with a key's change.
    pub(super) fn move_lease(
        &mut self,
        key: &Bytes,
        previous: Option<&Record>,
        next: Option<&Record>,
    ) {
        let from = previous.map_or(0, |record| record.lease);
        let to = next.map_or(0, |record| record.lease);
        if from == to {
            return;
        }
        if from != 0 {
            self.overlay.lease_keys.insert((from, key.clone()), false);
        }
        if to != 0 {
            self.overlay.lease_keys.insert((to, key.clone()), true);
        }
    }
}
