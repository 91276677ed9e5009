//! What only the leader knows of a lease: asked here, or of the leader.

use std::time::Duration;

use pintle_mvcc::Authorizer;
use pintle_proto::raft::{PeerLeaseRequest, PeerLeaseResponse};
use pintle_store_api::{LeaseId, ReadError, WriteError, pb};
use tokio::time::Instant;

use super::{Handle, as_write};
use crate::consensus::Node;
use crate::errors;
use crate::leadership::Leader;
use crate::peer::Lane;

/// How long to wait before a request is sent to a new leader.
const RETRY_AFTER: Duration = Duration::from_millis(20);

impl Handle {
    /// Asks the leader about a lease: here, if this member leads.
    pub(super) async fn ask_leader<F>(
        &self,
        id: LeaseId,
        here: impl Fn(LeaseId) -> F,
        renew: bool,
    ) -> Result<i64, WriteError>
    where
        F: Future<Output = Result<i64, WriteError>>,
    {
        self.core.check_voter()?;
        let deadline = Instant::now() + self.core.config.request_timeout();
        let mut leadership = self.core.leadership.clone();
        loop {
            #[cfg(feature = "simulation")]
            if self.core.leases.still_believes() {
                return here(id).await;
            }
            let answer = match leadership.leader() {
                Leader::This => here(id).await,
                Leader::Other(leader, node) => self.ask_other(leader, &node, id, renew).await,
                Leader::Unknown => Err(WriteError::NotApplied(errors::NO_LEADER.to_owned())),
            };
            match answer {
                // Renewing or asking twice does no harm, so an unknown outcome is tried again too.
                Err(WriteError::NotApplied(_) | WriteError::Unknown(_))
                    if Instant::now() < deadline =>
                {
                    tokio::select! {
                        () = leadership.changed() => {}
                        () = tokio::time::sleep(RETRY_AFTER) => {}
                    }
                }
                done => return done,
            }
        }
    }

    async fn ask_other(
        &self,
        leader: u64,
        node: &Node,
        id: LeaseId,
        renew: bool,
    ) -> Result<i64, WriteError> {
        let transient =
            |status: &tonic::Status| WriteError::NotApplied(status.message().to_owned());
        let mut client =
            self.core.peers.client(node, Lane::Control).map_err(|status| transient(&status))?;
        let request =
            PeerLeaseRequest { addressed: Some(self.core.peers.addressed(leader)), id: id.0 };
        let answer = if renew {
            client.lease_keep_alive(request).await
        } else {
            client.lease_time_to_live(request).await
        };
        let PeerLeaseResponse { ttl, .. } =
            answer.map_err(|status| transient(&status))?.into_inner();
        Ok(ttl)
    }

    /// What is known of a lease; a TTL of −1 when there is none.
    pub(crate) async fn lease_time_to_live(
        &self,
        request: pb::LeaseTimeToLiveRequest,
    ) -> Result<pb::LeaseTimeToLiveResponse, WriteError> {
        if !request.keys {
            self.require(|may| may.login()).await?;
            return self.time_to_live(request).await;
        }
        let id = LeaseId(request.id);
        self.settle().await;
        let check = |may: &Authorizer<'_>| {
            may.login()?;
            may.lease_read(id, self.core.reader())
        };
        let answer = self.permitted(check, async { Ok(self.time_to_live(request).await) });
        answer.await.map_err(as_write)?
    }

    async fn time_to_live(
        &self,
        request: pb::LeaseTimeToLiveRequest,
    ) -> Result<pb::LeaseTimeToLiveResponse, WriteError> {
        let id = LeaseId(request.id);
        let leases = &self.core.leases;
        let here = |id| async move {
            let ttl = leases.time_to_live(id).await.map_err(as_write)?;
            Ok(ttl.unwrap_or(-1))
        };
        let ttl = self.ask_leader(id, here, false).await?;
        self.core.read_index.wait().await.map_err(as_write)?;
        let keys = request.keys;
        let read = self.read(keys, move |reader| {
            let keys = if keys { reader.lease_keys(id)? } else { Vec::new() };
            Ok((reader.lease(id)?, keys))
        });
        let header = Some(self.core.header());
        let (lease, keys) = read.await.map_err(as_write)?;
        let Some(lease) = lease.filter(|_| ttl >= 0) else {
            return Ok(pb::LeaseTimeToLiveResponse {
                header,
                id: id.0,
                ttl: -1,
                ..Default::default()
            });
        };
        Ok(pb::LeaseTimeToLiveResponse {
            header,
            id: id.0,
            ttl,
            granted_ttl: lease.granted_ttl,
            keys,
        })
    }

    /// The ids of all leases.
    pub(crate) async fn leases(&self) -> Result<pb::LeaseLeasesResponse, ReadError> {
        self.core.read_index.wait().await?;
        let leases = self.read(true, |reader| Ok(reader.leases()?)).await?;
        let check = |may: &Authorizer<'_>| {
            may.login()?;
            leases.iter().try_for_each(|lease| may.lease_read(lease.id, self.core.reader()))
        };
        self.permitted(check, std::future::ready(Ok(()))).await?;
        let leases = leases.into_iter().map(|lease| pb::LeaseStatus { id: lease.id.0 }).collect();
        Ok(pb::LeaseLeasesResponse { header: Some(self.core.header()), leases })
    }
}
