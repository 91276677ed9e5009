//! Members that come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pintle_proto::etcdserverpb::cluster_client::ClusterClient;
use pintle_store::{Handle, StartError};
use pintle_store_api::{Rejection, Store, WriteError, pb};
use tonic::transport::Channel;

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

/// Writers that remember what was acknowledged to them.
struct Load {
    stop: Arc<AtomicBool>,
    writers: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Load {
    /// Writes through the given members, whichever of them answers.
    fn start(handles: Vec<Arc<Handle>>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let writers = (0..3).map(|writer| {
            let (handles, stop) = (handles.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let key = format!("w/{writer}/{n}");
                    if put(&*handles[n % handles.len()], &key, "v").await.is_ok() {
                        acknowledged.push(key);
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                acknowledged
            })
        });
        Self { writers: writers.collect(), stop }
    }

    async fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut acknowledged = Vec::new();
        for writer in self.writers {
            acknowledged.extend(writer.await.expect("writer"));
        }
        acknowledged
    }
}

async fn add(cluster: &mut Cluster, client: &ClusterClient<Channel>) -> (usize, u64) {
    let joining = cluster.next_config();
    let peer_ur_ls = joining.initial_advertise_peer_urls.clone();
    let request = pb::MemberAddRequest { peer_ur_ls, is_learner: false };
    let added = eventually("the member is added", || async {
        client.clone().member_add(request.clone()).await.ok()
    })
    .await;
    let member = added.into_inner().member.expect("the new member");
    assert!(!member.is_learner, "it is to vote");
    let i = cluster.join(joining).await;
    let handle = cluster.handle(i);
    eventually("the member votes", || async {
        let status = handle.status().await.ok()?;
        (!status.is_learner).then_some(())
    })
    .await;
    (i, member.id)
}

async fn remove(client: &ClusterClient<Channel>, id: u64) {
    eventually("the member is removed", || async {
        match client.clone().member_remove(pb::MemberRemoveRequest { id }).await {
            Ok(_) => Some(()),
            Err(status) if status.message() == "etcdserver: member not found" => Some(()),
            Err(_) => None,
        }
    })
    .await;
}

async fn id_of(cluster: &Cluster, i: usize) -> u64 {
    cluster.handle(i).status().await.expect("answered").header.expect("header").member_id
}

/// What every member holds at one revision.
async fn hashes(cluster: &Cluster, members: &[usize]) -> Vec<u32> {
    let revision = cluster.handle(members[0]).read_index().await.expect("read").0;
    let mut hashes = Vec::new();
    for i in members {
        let client = crate::maintenance::client(cluster, *i).await;
        let answer = eventually("the member has come that far", || {
            let mut client = client.clone();
            async move { client.hash_kv(pb::HashKvRequest { revision }).await.ok() }
        })
        .await;
        hashes.push(answer.into_inner().hash);
    }
    hashes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_member_is_told_why_it_cannot_join() {
    let mut cluster = Cluster::found(1, |_| {}).await;
    let joining = cluster.next_config();
    let refused = pintle_store::start(joining.clone()).await.expect_err("nobody has added it");
    assert!(matches!(refused, StartError::NotAdded), "{refused}");

    // Who asks while nobody is there may be added, and answered, a moment later.
    let mut client = ClusterClient::connect(cluster.client_url(0)).await.expect("connects");
    let peer_ur_ls = joining.initial_advertise_peer_urls.clone();
    let request = pb::MemberAddRequest { peer_ur_ls, is_learner: true };
    client.member_add(request).await.expect("added");
    cluster.shutdown(0).await;
    let starting = tokio::spawn(pintle_store::start(joining));
    cluster.restart(0).await;
    let member = starting.await.expect("runs").expect("starts, once somebody answers");
    member.shutdown().await;

    let mut alone = cluster.next_config();
    alone.data_dir.set_extension("elsewhere");
    alone.initial_cluster.retain(|(name, _)| *name == alone.name);
    let refused = pintle_store::start(alone).await.expect_err("nobody to ask");
    assert!(matches!(refused, StartError::Alone), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_grows_to_five_and_shrinks_to_one_under_load() {
    let mut cluster = Cluster::found(1, |config| {
        config.snapshot_count = 200;
        config.snapshot_catchup_entries = 50;
    })
    .await;
    let client = ClusterClient::connect(cluster.client_url(0)).await.expect("connects");
    let load = Load::start(vec![cluster.handle(0)]);
    let mut ids = vec![id_of(&cluster, 0).await];
    for _ in 0..4 {
        ids.push(add(&mut cluster, &client).await.1);
    }
    let grown = hashes(&cluster, &[0, 1, 2, 3, 4]).await;
    assert!(grown.iter().all(|hash| *hash == grown[0]), "{grown:?}");
    for i in [4, 3, 2, 1] {
        remove(&client, ids[i]).await;
        let reason = cluster.failed(i).await;
        assert!(reason.contains("removed"), "{reason}");
        cluster.kill(i).await;
    }
    let acknowledged = load.end().await;
    assert!(acknowledged.len() > 10, "the load must have been under way");
    let handle = cluster.handle(0);
    for key in &acknowledged {
        assert_eq!(get(&*handle, key).await.as_deref(), Some("v"), "{key} was acknowledged");
    }
    let members = handle.member_list().await.expect("listed").members;
    assert_eq!(members.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_can_be_removed_and_ends() {
    let mut cluster = Cluster::found(3, |_| {}).await;
    cluster.published().await;
    let leader = cluster.leader().await;
    let other = (leader + 1) % 3;
    put(&*cluster.handle(other), "before", "x").await.expect("written");
    let client = ClusterClient::connect(cluster.client_url(other)).await.expect("connects");
    remove(&client, id_of(&cluster, leader).await).await;
    let reason = cluster.failed(leader).await;
    assert!(reason.contains("permanently removed"), "{reason}");
    cluster.kill(leader).await;
    eventually("a write without it", || async {
        put(&*cluster.handle(other), "after", "x").await.ok()
    })
    .await;
    let members = cluster.handle(other).member_list().await.expect("listed").members;
    assert_eq!(members.len(), 2);
    // Its data folder does not bring it back.
    cluster.restart(leader).await;
    let reason = cluster.failed(leader).await;
    assert!(reason.contains("permanently removed"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_member_is_replaced() {
    let mut cluster = Cluster::found(3, |_| {}).await;
    cluster.published().await;
    let dead = cluster.follower().await;
    let id = id_of(&cluster, dead).await;
    let alive = (0..3).find(|i| *i != dead).expect("another");
    cluster.kill(dead).await;
    put(&*cluster.handle(alive), "without it", "x").await.expect("written");
    let client = ClusterClient::connect(cluster.client_url(alive)).await.expect("connects");
    remove(&client, id).await;
    let (new, _) = add(&mut cluster, &client).await;
    assert_eq!(get(&*cluster.handle(new), "without it").await.as_deref(), Some("x"));
    let members: Vec<usize> = (0..4).filter(|i| *i != dead).collect();
    let hashes = hashes(&cluster, &members).await;
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_endanger_the_quorum_or_make_no_sense_are_refused() {
    let mut cluster = Cluster::found(3, |_| {}).await;
    cluster.published().await;
    let leader = cluster.leader().await;
    let client = ClusterClient::connect(cluster.client_url(leader)).await.expect("connects");
    let member_add = |url: &str, is_learner| {
        let mut client = client.clone();
        let peer_ur_ls = vec![url.to_owned()];
        async move { client.member_add(pb::MemberAddRequest { peer_ur_ls, is_learner }).await }
    };
    let bad = member_add("127.0.0.1:1", false).await.expect_err("no URL");
    assert_eq!(bad.message(), "etcdserver: given member URLs are invalid");
    member_add("http://127.0.0.1:1", true).await.expect("a learner");
    let learners = member_add("http://127.0.0.1:2", true).await.expect_err("one is the limit");
    assert_eq!(learners.message(), "etcdserver: too many learner members in cluster");
    let listed = client.clone().member_list(pb::MemberListRequest { linearizable: true }).await;
    let listed = listed.expect("listed").into_inner();
    assert_eq!(listed.header.expect("header").revision, 0, "as in etcd");
    let learner = listed.members.iter().find(|member| member.is_learner).expect("listed").id;
    let promote = client.clone().member_promote(pb::MemberPromoteRequest { id: learner }).await;
    assert_eq!(
        promote.expect_err("it never started").message(),
        "etcdserver: can only promote a learner member which is in sync with leader"
    );
    let taken = pb::MemberUpdateRequest {
        id: learner,
        peer_ur_ls: vec![cluster.configs[0].initial_advertise_peer_urls[0].clone()],
    };
    let taken = client.clone().member_update(taken).await.expect_err("taken");
    assert_eq!(taken.message(), "etcdserver: Peer URLs already exists");
    let moved = vec!["http://127.0.0.1:3".to_owned()];
    let request = pb::MemberUpdateRequest { id: learner, peer_ur_ls: moved.clone() };
    let updated = client.clone().member_update(request).await.expect("updated").into_inner();
    let updated = updated.members.iter().find(|member| member.id == learner).expect("listed");
    assert_eq!(updated.peer_ur_ls, moved);
    let unknown = pb::MemberUpdateRequest { id: 4711, peer_ur_ls: moved };
    let unknown = client.clone().member_update(unknown).await.expect_err("unknown");
    assert_eq!(unknown.message(), "etcdserver: member not found");
    remove(&client, learner).await;

    // With one of three down, the others may not go.
    let down = (leader + 1) % 3;
    let (down_id, other_id) =
        (id_of(&cluster, down).await, id_of(&cluster, (leader + 2) % 3).await);
    cluster.kill(down).await;
    let unhealthy = eventually("the leader misses the member", || async {
        let added = member_add("http://127.0.0.1:4", false).await;
        match added {
            Err(status) if status.message() == "etcdserver: unhealthy cluster" => Some(()),
            Ok(added) => {
                remove(&client, added.into_inner().member.expect("added").id).await;
                None
            }
            Err(_) => None,
        }
    });
    unhealthy.await;
    let refused = client.clone().member_remove(pb::MemberRemoveRequest { id: other_id }).await;
    assert_eq!(refused.expect_err("the quorum").message(), "etcdserver: unhealthy cluster");
    remove(&client, down_id).await;
    put(&*cluster.handle(leader), "still", "works").await.expect("written");
}
