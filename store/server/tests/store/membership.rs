//! Members that come and go.

use pintle_proto::etcdserverpb::cluster_client::ClusterClient;
use pintle_store_api::{Rejection, WriteError, pb};

use crate::support::{Cluster, eventually, get, put};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_joins_as_a_learner_is_promoted_and_leaves() {
    let mut cluster = Cluster::found(1, |_| {}).await;
    for i in 0..50 {
        put(&*cluster.handle(0), &format!("k{i}"), "v").await.expect("written");
    }
    let mut client = ClusterClient::connect(cluster.client_url(0)).await.expect("connects");
    let joining = cluster.next_config();
    let peer_ur_ls = joining.initial_advertise_peer_urls.clone();
    let request = pb::MemberAddRequest { peer_ur_ls: peer_ur_ls.clone(), is_learner: true };
    let added = client.member_add(request.clone()).await.expect("added").into_inner();
    let id = added.member.expect("the new member").id;
    assert_eq!(added.members.len(), 2);
    let again = client.member_add(request).await.expect_err("the address is taken");
    assert_eq!(again.message(), "etcdserver: Peer URLs already exists");

    let learner = cluster.join(joining).await;
    let handle = cluster.handle(learner);
    let write = put(&*handle, "by learner", "x").await;
    assert!(matches!(write, Err(WriteError::Rejected(Rejection::Other { .. }))), "{write:?}");
    eventually("the learner has caught up and is promoted", || async {
        let request = pb::MemberPromoteRequest { id };
        client.clone().member_promote(request).await.ok()
    })
    .await;
    eventually("the promotion is known to the member itself", || async {
        put(&*handle, "by voter", "x").await.ok()
    })
    .await;
    assert_eq!(get(&*handle, "k49").await.as_deref(), Some("v"));
    let promoted = client.member_promote(pb::MemberPromoteRequest { id }).await;
    let refusal = promoted.expect_err("it is a voter already");
    assert_eq!(refusal.message(), "etcdserver: can only promote a learner member");

    let removed = client.member_remove(pb::MemberRemoveRequest { id }).await.expect("removed");
    assert_eq!(removed.into_inner().members.len(), 1);
    let unknown = client.member_remove(pb::MemberRemoveRequest { id: 4711 }).await;
    assert_eq!(unknown.expect_err("unknown").message(), "etcdserver: member not found");
    cluster.kill(learner).await;
    put(&*cluster.handle(0), "alone again", "x").await.expect("written");
}
