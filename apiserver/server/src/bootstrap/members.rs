//! Which members serve the API right now: each holds a key of its own on a lease of the store, so
//! that one that dies leaves the endpoints of `default/kubernetes` by itself.

use std::net::SocketAddr;
use std::sync::Arc;

use pintle_store_api::{KeyRange, LeaseId, Store, pb};

use crate::error::{ApiError, ApiResult};

/// Where upstream keeps them too.
const PREFIX: &str = "/registry/masterleases/";
/// A member that has not been heard of for so long is gone. Longer than any change of leaders.
const TTL_SECONDS: i64 = 10;

/// This member's place among the others.
pub(super) struct Members {
    store: Arc<dyn Store>,
    all: Vec<SocketAddr>,
    own: Option<SocketAddr>,
    lease: Option<LeaseId>,
}

fn failed(error: impl std::fmt::Display) -> ApiError {
    ApiError::service_unavailable(error.to_string())
}

impl Members {
    /// `all` are the addresses of the configuration, `listen` tells which one is ours.
    pub(super) fn new(store: Arc<dyn Store>, all: Vec<SocketAddr>, listen: SocketAddr) -> Self {
        let own = own_address(&all, listen);
        Self { store, all, own, lease: None }
    }

    /// Says that this member lives, and answers who else does. All of them, when it cannot tell
    /// which one it is.
    pub(super) async fn renew(&mut self) -> ApiResult<Vec<SocketAddr>> {
        let Some(own) = self.own else { return Ok(self.all.clone()) };
        if let Some(lease) = self.lease {
            let kept = self.store.lease_keep_alive(lease).await.map_err(failed)?;
            if kept.ttl == 0 {
                self.lease = None;
            }
        }
        if self.lease.is_none() {
            self.lease = Some(self.announce(own).await?);
        }
        let mut live = self.announced().await?;
        if !live.contains(&own) {
            live.push(own);
        }
        live.sort();
        Ok(live)
    }

    /// Leaves at once: the others need not wait for the lease to run out.
    pub(super) async fn leave(&mut self) {
        if let Some(lease) = self.lease.take()
            && let Err(error) = self.store.lease_revoke(lease).await
        {
            tracing::debug!(%error, "the member's lease runs out by itself");
        }
    }

    async fn announce(&self, own: SocketAddr) -> ApiResult<LeaseId> {
        let grant = pb::LeaseGrantRequest { ttl: TTL_SECONDS, id: 0 };
        let lease = self.store.lease_grant(grant).await.map_err(failed)?.id;
        let put = pb::PutRequest {
            key: format!("{PREFIX}{own}").into(),
            value: announcement(own).to_string().into(),
            lease,
            ..Default::default()
        };
        let put = pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) };
        let txn = pb::TxnRequest { success: vec![put], ..Default::default() };
        self.store.txn(txn).await.map_err(failed)?;
        Ok(LeaseId(lease))
    }

    async fn announced(&self) -> ApiResult<Vec<SocketAddr>> {
        let range = KeyRange::prefix(PREFIX.into());
        let request = pb::RangeRequest {
            key: range.start().clone(),
            range_end: range.end().cloned().unwrap_or_default(),
            keys_only: true,
            ..Default::default()
        };
        let response = self.store.range(request).await.map_err(failed)?;
        let address = |kv: &pintle_store_api::mvccpb::KeyValue| {
            std::str::from_utf8(&kv.key).ok()?.strip_prefix(PREFIX)?.parse().ok()
        };
        Ok(response.kvs.iter().filter_map(address).collect())
    }
}

/// What a member's key holds; the key alone matters here.
fn announcement(own: SocketAddr) -> serde_json::Value {
    serde_json::json!({
        "kind": "Endpoints",
        "apiVersion": "v1",
        "metadata": {},
        "subsets": [{"addresses": [{"ip": own.ip().to_string()}], "ports": [{"port": own.port()}]}],
    })
}

/// The advertised address that is served here: the one listened on, or the only one of that port
/// when every address of the machine is listened on.
fn own_address(all: &[SocketAddr], listen: SocketAddr) -> Option<SocketAddr> {
    if all.contains(&listen) {
        return Some(listen);
    }
    let mut same_port = all.iter().filter(|address| address.port() == listen.port());
    match (listen.ip().is_unspecified(), same_port.next(), same_port.next()) {
        (true, Some(only), None) => Some(*only),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use pintle_store_api::memory::Memory;

    use super::*;

    fn addresses(text: &str) -> Vec<SocketAddr> {
        text.split(' ').map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn a_member_knows_itself_by_address_or_by_port() {
        let all = addresses("10.0.0.1:6453 10.0.0.2:6463 10.0.0.3:6463");
        let own = |listen: &str| own_address(&all, listen.parse().unwrap());
        assert_eq!(own("10.0.0.2:6463"), Some(all[1]));
        assert_eq!(own("0.0.0.0:6453"), Some(all[0]));
        assert_eq!(own("0.0.0.0:6463"), None);
        assert_eq!(own("10.0.0.9:6453"), None);
    }

    #[tokio::test]
    async fn members_come_and_go() {
        let store = Memory::new();
        let all = addresses("127.0.0.1:1 127.0.0.1:2");
        let mut first = Members::new(store.clone(), all.clone(), all[0]);
        let mut second = Members::new(store.clone(), all.clone(), all[1]);
        assert_eq!(first.renew().await.unwrap(), [all[0]]);
        assert_eq!(second.renew().await.unwrap(), all);
        assert_eq!(first.renew().await.unwrap(), all);
        second.leave().await;
        assert_eq!(first.renew().await.unwrap(), [all[0]]);
        let mut stranger = Members::new(store, all.clone(), "0.0.0.0:9".parse().unwrap());
        assert_eq!(stranger.renew().await.unwrap(), all);
    }

    #[tokio::test]
    async fn a_lost_lease_is_taken_anew() {
        let store = Memory::new();
        let all = addresses("127.0.0.1:1");
        let mut member = Members::new(store.clone(), all.clone(), all[0]);
        member.renew().await.unwrap();
        store.lease_revoke(member.lease.unwrap()).await.unwrap();
        member.renew().await.unwrap();
        assert_eq!(member.announced().await.unwrap(), all);
    }
}
