//! Locks and elections: one at a time, in the order of their coming, and nobody waits for the dead.

use std::time::Duration;

use pintle_proto::v3electionpb::election_client::ElectionClient;
use pintle_proto::v3electionpb::{
    CampaignRequest, LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest,
};
use pintle_proto::v3lockpb::lock_client::LockClient;
use pintle_proto::v3lockpb::{LockRequest, UnlockRequest};
use pintle_store_api::{LeaseId, Store, pb};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::{Cluster, eventually, prefix_request};

async fn lease(store: &dyn Store, ttl: i64) -> i64 {
    store.lease_grant(pb::LeaseGrantRequest { ttl, id: 0 }).await.expect("granted").id
}

async fn waiting(store: &dyn Store, prefix: &str) -> i64 {
    store.range(prefix_request(prefix)).await.expect("readable").count
}

async fn lock(mut client: LockClient<Channel>, lease: i64) -> Result<bytes::Bytes, Status> {
    let locked = client.lock(LockRequest { name: "l".into(), lease }).await?;
    Ok(locked.into_inner().key)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_goes_from_hand_to_hand_in_the_order_of_coming() {
    let cluster = Cluster::found(3, |_| {}).await;
    let store = cluster.handle(0);
    let mut queue = Vec::new();
    for i in 0..4_usize {
        let lease = lease(&*store, 60).await;
        let client = LockClient::connect(cluster.client_url(i % 3)).await.expect("connects");
        queue.push((client.clone(), tokio::spawn(lock(client, lease)), lease));
        let expected = i64::try_from(i).expect("small") + 1;
        eventually("it stands in the queue", || async {
            (waiting(&*store, "l/").await == expected).then_some(())
        })
        .await;
    }
    for (mut client, locked, lease) in queue {
        let key = locked.await.expect("ran").expect("locked");
        assert_eq!(key, format!("l/{lease:x}"));
        let again = client.lock(LockRequest { name: "l".into(), lease }).await.expect("its own");
        assert_eq!(again.into_inner().key, key, "who holds it may ask again");
        client.unlock(UnlockRequest { key }).await.expect("unlocked");
    }
    assert_eq!(waiting(&*store, "l/").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_or_waiter_whose_lease_ends_is_passed_over() {
    let cluster = Cluster::found(1, |_| {}).await;
    let store = cluster.handle(0);
    let client = LockClient::connect(cluster.client_url(0)).await.expect("connects");
    let mut leases = Vec::new();
    let mut waits = Vec::new();
    for expected in 1..=3 {
        let lease = lease(&*store, 60).await;
        waits.push(tokio::spawn(lock(client.clone(), lease)));
        leases.push(lease);
        eventually("it stands in the queue", || async {
            (waiting(&*store, "l/").await == expected).then_some(())
        })
        .await;
    }
    store.lease_revoke(LeaseId(leases[1])).await.expect("revoked");
    store.lease_revoke(LeaseId(leases[0])).await.expect("revoked");
    let third = waits.pop().expect("three").await.expect("ran").expect("locked");
    assert_eq!(third, format!("l/{:x}", leases[2]));
    let second = waits.pop().expect("two").await.expect("ran").expect_err("gone");
    assert_eq!((second.code(), second.message()), (Code::Unknown, "mutex: session is expired"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_stops_waiting_leaves_the_queue() {
    let cluster = Cluster::found(1, |_| {}).await;
    let store = cluster.handle(0);
    let client = LockClient::connect(cluster.client_url(0)).await.expect("connects");
    let held = lock(client.clone(), lease(&*store, 60).await).await.expect("locked");
    let impatient = tokio::spawn(lock(client.clone(), lease(&*store, 60).await));
    let count = |expected| {
        let store = &store;
        move || async move { (waiting(&**store, "l/").await == expected).then_some(()) }
    };
    eventually("it waits", count(2)).await;
    impatient.abort();
    eventually("its place is free", count(1)).await;
    assert_eq!(store.range(prefix_request("l/")).await.expect("read").kvs[0].key, held);
    let unknown = lock(client, 4711).await.expect_err("no such lease");
    assert_eq!(unknown.message(), "etcdserver: requested lease not found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_without_a_lease_gets_one() {
    let cluster = Cluster::found(1, |_| {}).await;
    let client = LockClient::connect(cluster.client_url(0)).await.expect("connects");
    lock(client, 0).await.expect("locked");
    let kvs = cluster.handle(0).range(prefix_request("l/")).await.expect("read").kvs;
    assert_ne!(kvs[0].lease, 0);
}

async fn campaign(
    mut client: ElectionClient<Channel>,
    lease: i64,
    value: &'static str,
) -> Result<LeaderKey, Status> {
    let request = CampaignRequest { name: "e".into(), lease, value: value.into() };
    Ok(client.campaign(request).await?.into_inner().leader.expect("a leader"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_election_has_one_leader_whom_observers_follow() {
    let cluster = Cluster::found(1, |_| {}).await;
    let store = cluster.handle(0);
    let mut client = ElectionClient::connect(cluster.client_url(0)).await.expect("connects");
    let name = || LeaderRequest { name: "e".into() };
    let nobody = client.leader(name()).await.expect_err("nobody leads");
    assert_eq!((nobody.code(), nobody.message()), (Code::Unknown, "election: no leader"));
    let mut observed = client.clone().observe(name()).await.expect("opens").into_inner();
    let mut next = async || {
        let next = tokio::time::timeout(Duration::from_secs(60), observed.message());
        let response = next.await.expect("in time").expect("no error").expect("goes on");
        response.kv.expect("a leader").value
    };

    let first = campaign(client.clone(), lease(&*store, 60).await, "one").await.expect("wins");
    assert_eq!(next().await, "one");
    let second = tokio::spawn(campaign(client.clone(), lease(&*store, 60).await, "two"));
    eventually("the second waits", || async { (waiting(&*store, "e/").await == 2).then_some(()) })
        .await;
    let proclaim = |leader: &LeaderKey, value: &'static str| ProclaimRequest {
        leader: Some(leader.clone()),
        value: value.into(),
    };
    client.proclaim(proclaim(&first, "more")).await.expect("leads");
    assert_eq!(next().await, "more");
    let leader = client.leader(name()).await.expect("leads").into_inner();
    assert_eq!(leader.kv.expect("a leader").value, "more");

    client.resign(ResignRequest { leader: Some(first.clone()) }).await.expect("resigned");
    let second = second.await.expect("ran").expect("wins");
    assert_eq!(next().await, "two");
    let late = client.proclaim(proclaim(&first, "late")).await.expect_err("leads no more");
    assert_eq!((late.code(), late.message()), (Code::Unknown, "election: not leader"));
    client.proclaim(proclaim(&second, "still")).await.expect("leads");
    assert_eq!(next().await, "still");
    let nameless = client.resign(ResignRequest { leader: None }).await.expect_err("of whom?");
    assert_eq!(nameless.message(), "\"leader\" field must be provided");
}
