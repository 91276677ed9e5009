//! Leases over time and over changes of the leader.

use std::time::{Duration, Instant};

use pintle_store_api::pb::request_op::Request;
use pintle_store_api::{LeaseId, Store, pb};

use crate::support::{Cluster, eventually, get, one, put_request};

async fn leased_key(store: &dyn Store, key: &str, ttl: i64) -> LeaseId {
    let lease = store.lease_grant(pb::LeaseGrantRequest { ttl, id: 0 }).await.expect("granted");
    let put = pb::PutRequest { lease: lease.id, ..put_request(key, "1") };
    store.txn(one(Request::RequestPut(put))).await.expect("written");
    LeaseId(lease.id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_is_not_renewed_expires_with_its_keys() {
    let cluster = Cluster::found(3, |_| {}).await;
    let handle = cluster.handle(cluster.follower().await);
    let started = Instant::now();
    leased_key(&*handle, "expires", 1).await;
    let kept = leased_key(&*handle, "kept", 1).await;
    eventually("the key goes", || async {
        handle.lease_keep_alive(kept).await.expect("renewed");
        get(&*handle, "expires").await.is_none().then_some(())
    })
    .await;
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_eq!(get(&*handle, "kept").await.as_deref(), Some("1"), "it was renewed all the time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_outlives_its_leader_and_expires_under_the_next() {
    let mut cluster = Cluster::found(3, |_| {}).await;
    let leader = cluster.leader().await;
    let handle = cluster.handle((leader + 1) % 3);
    let lease = leased_key(&*handle, "short", 5).await;
    leased_key(&*handle, "long", 600).await;
    cluster.kill(leader).await;
    let alive = handle.lease_keep_alive(lease).await.expect("renewed under the new leader");
    assert_eq!(alive.ttl, 5);
    eventually("the short one expires", || async {
        get(&*handle, "short").await.is_none().then_some(())
    })
    .await;
    assert_eq!(get(&*handle, "long").await.as_deref(), Some("1"));
}
