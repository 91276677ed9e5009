//! Users and roles over restarts, crashes and snapshots.

use pintle_store_api::authpb::permission::Type;
use pintle_store_api::{AuthError, Store};

use super::client::{Client, found, permission, quick, refused};
use crate::support::{Cluster, eventually};

async fn check(cluster: &Cluster, i: usize) {
    let client = Client::connect(cluster.client_url(i)).await;
    refused(client.put("a").await, AuthError::UserEmpty);
    let root = client.login("root", "root").await;
    assert_eq!(root.user_list().await.expect("listed"), ["alice", "root"]);
    let alice = client.login("alice", "alice").await;
    alice.put("a").await.expect("hers");
    refused(alice.put("b").await, AuthError::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_survive_clean_stops_and_crashes() {
    let mut cluster = found(1).await;
    let client = Client::connect(cluster.client_url(0)).await;
    let root = client.enable_with_root().await;
    root.user_with("alice", &[permission(Type::Readwrite, "a", "")]).await;
    let status = root.status().await;
    check(&cluster, 0).await;
    cluster.kill(0).await;
    cluster.restart(0).await;
    cluster.ready().await;
    check(&cluster, 0).await;
    let client = Client::connect(cluster.client_url(0)).await;
    assert_eq!(client.status().await, status);
    let replayed = client.with_token(root.token());
    refused(replayed.get("a").await, AuthError::InvalidToken);
    cluster.shutdown(0).await;
    cluster.restart(0).await;
    cluster.ready().await;
    check(&cluster, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_lags_gets_users_with_its_snapshot() {
    let mut cluster = Cluster::found(3, |config| {
        quick(config);
        config.snapshot_count = 50;
        config.snapshot_catchup_entries = 10;
    })
    .await;
    let lagging = cluster.follower().await;
    let awake = (lagging + 1) % 3;
    cluster.kill(lagging).await;
    let client = Client::connect(cluster.client_url(awake)).await;
    let root = client.enable_with_root().await;
    root.user_with("alice", &[permission(Type::Readwrite, "a", "")]).await;
    let handle = cluster.handle(awake);
    for i in 0..200 {
        crate::support::put(&*handle, "filler", &i.to_string()).await.expect("written");
    }
    cluster.restart(lagging).await;
    let (ahead, behind) = (cluster.handle(awake), cluster.handle(lagging));
    eventually("it has caught up", || async {
        let applied = |status: pintle_store_api::pb::StatusResponse| status.raft_applied_index;
        let ahead = applied(ahead.status().await.ok()?);
        (applied(behind.status().await.ok()?) >= ahead).then_some(())
    })
    .await;
    check(&cluster, lagging).await;
}
