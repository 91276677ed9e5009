//! Snapshots for download, what becomes of them, and clusters that go on with one member.

use std::path::{Path, PathBuf};

use pintle_proto::etcdserverpb::cluster_client::ClusterClient;
use pintle_store::archive::Archive;
use pintle_store::mvcc::offline::Offline;
use pintle_store::{Config, Restore, RestoreError, restore};
use pintle_store_api::{Store, pb};

use crate::maintenance::client;
use crate::support::{Cluster, eventually, get, prefix_request, put};

async fn save(cluster: &Cluster, i: usize, path: &Path) -> Vec<pb::SnapshotResponse> {
    let mut client = client(cluster, i).await;
    let mut stream = client.snapshot(pb::SnapshotRequest {}).await.expect("begins").into_inner();
    let mut chunks = Vec::new();
    while let Some(chunk) = stream.message().await.expect("whole") {
        chunks.push(chunk);
    }
    let bytes: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.blob.to_vec()).collect();
    std::fs::write(path, bytes).expect("written");
    chunks
}

fn restored(config: &Config, snapshot: &Path) -> Result<(), RestoreError> {
    let config = config.clone();
    let options =
        Restore { config, bump_revision: 1_000, mark_compacted: true, skip_hash_check: false };
    restore(snapshot, &options)
}

/// Twenty keys, one of them changed and one deleted, and the file of a snapshot.
async fn saved() -> (tempfile::TempDir, PathBuf, i64) {
    let cluster = Cluster::found(3, |_| {}).await;
    for i in 0..20 {
        put(&*cluster.handle(i % 3), &format!("k{i}"), "v").await.expect("written");
    }
    let revision = put(&*cluster.handle(0), "k0", "changed").await.expect("written");
    let revision = revision.max(crate::support::delete(&*cluster.handle(0), "k1").await);
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("saved");
    let chunks = save(&cluster, cluster.follower().await, &path).await;
    let total: u64 = chunks.iter().map(|chunk| chunk.blob.len() as u64).sum();
    let first = &chunks[0];
    assert_eq!(first.remaining_bytes + first.blob.len() as u64 + 32, total);
    assert!(chunks.iter().all(|chunk| chunk.version == "3.7.0"));
    (dir, path, revision)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_becomes_a_new_cluster_that_others_can_join() {
    let (_dir, path, revision) = saved().await;
    let archive = Archive::open(&path).expect("a snapshot");
    archive.verify().expect("unharmed");
    assert!(archive.manifest().revision >= revision);
    assert_eq!(archive.manifest().keys, 19);
    let mut cluster =
        Cluster::restored(3, |config| restored(config, &path).expect("restored")).await;
    for i in 0..3 {
        let handle = cluster.handle(i);
        assert_eq!(get(&*handle, "k0").await.as_deref(), Some("changed"));
        assert_eq!(get(&*handle, "k1").await, None);
        assert_eq!(handle.range(prefix_request("k")).await.expect("read").count, 19);
    }
    let next = put(&*cluster.handle(0), "after", "x").await.expect("writable");
    assert_eq!(next, archive.manifest().revision + 1_001);
    // What lies before the bump is compacted.
    let mut old = crate::support::range_request("k0");
    old.revision = revision;
    let refused = cluster.handle(0).range(old).await.expect_err("compacted");
    assert!(refused.to_string().contains("compacted"), "{refused}");

    let joining = cluster.next_config();
    let mut members = ClusterClient::connect(cluster.client_url(0)).await.expect("connects");
    let peer_ur_ls = joining.initial_advertise_peer_urls.clone();
    members
        .member_add(pb::MemberAddRequest { peer_ur_ls, is_learner: false })
        .await
        .expect("added");
    let new = cluster.join(joining).await;
    let handle = cluster.handle(new);
    eventually("the new member has everything", || async {
        let read = handle.range(prefix_request("k")).await.ok()?;
        (read.count == 19).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_restored_only_where_it_belongs() {
    let (dir, path, _) = saved().await;
    let url = "http://127.0.0.1:1".to_owned();
    let config = Config {
        name: "a".into(),
        data_dir: dir.path().join("data"),
        initial_cluster: vec![("a".into(), url.clone())],
        initial_advertise_peer_urls: vec![url],
        ..Config::default()
    };
    let stranger = Config { name: "b".into(), ..config.clone() };
    assert!(matches!(restored(&stranger, &path), Err(RestoreError::NotInCluster(_))));
    let moved =
        Config { initial_advertise_peer_urls: vec!["http://127.0.0.1:2".into()], ..config.clone() };
    assert!(matches!(restored(&moved, &path), Err(RestoreError::OtherUrls { .. })));
    let mut bytes = std::fs::read(&path).expect("there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let damaged = dir.path().join("damaged");
    std::fs::write(&damaged, bytes).expect("written");
    assert!(matches!(restored(&config, &damaged), Err(RestoreError::Archive(_))));
    assert!(!config.data_dir.join("member/identity").exists());
    restored(&config, &path).expect("restored");
    assert!(matches!(restored(&config, &path), Err(RestoreError::NotEmpty(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_and_a_stopped_member_agree_with_themselves() {
    let (dir, path, _) = saved().await;
    let unpacked = dir.path().join("unpacked");
    Archive::open(&path).and_then(|archive| archive.unpack(&unpacked)).expect("unpacked");
    let report = Offline::open(&unpacked).and_then(|state| state.check()).expect("readable");
    assert!(report.is_clean(), "{:?}", report.problems);
    assert_eq!(report.entries["current"], 19);
    let mut cluster = Cluster::found(1, |_| {}).await;
    for i in 0..50 {
        put(&*cluster.handle(0), &format!("k{}", i % 7), &i.to_string()).await.expect("written");
    }
    cluster.shutdown(0).await;
    let folder = pintle_store::inspect::state_folder(&cluster.configs[0].data_dir).expect("found");
    let report = Offline::open(&folder).and_then(|state| state.check()).expect("readable");
    assert!(report.is_clean(), "{:?}", report.problems);
    let mut entries = 0;
    let log = cluster.configs[0].data_dir.join("member/log");
    pintle_store::inspect::raft_log(&log, 0, u64::MAX, |_| {
        entries += 1;
        true
    })
    .expect("readable");
    assert!(entries >= 50, "{entries}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn downloads_at_the_same_time_are_limited_and_a_client_that_leaves_makes_room() {
    let cluster = Cluster::found(1, |_| {}).await;
    for i in 0..200 {
        // Nothing that compresses: more than the connection holds.
        let value: String =
            (0..20_000).map(|_| char::from(rand::random_range(b'0'..=b'z'))).collect();
        put(&*cluster.handle(0), &format!("k{i}"), &value).await.expect("written");
    }
    let mut held = Vec::new();
    let refused = loop {
        let mut client = client(&cluster, 0).await;
        match client.snapshot(pb::SnapshotRequest {}).await {
            // Not read: the member waits for it.
            Ok(stream) => held.push((client, stream)),
            Err(status) => break status,
        }
        assert!(held.len() < 20, "there is no limit");
    };
    assert_eq!(refused.message(), "etcdserver: too many requests");
    held.clear();
    eventually("room for another download", || async {
        client(&cluster, 0).await.snapshot(pb::SnapshotRequest {}).await.ok().map(drop)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_member_of_a_lost_cluster_goes_on_alone() {
    let mut cluster =
        Cluster::found(3, |config| config.wal_dir = Some(config.data_dir.join("wal"))).await;
    assert!(cluster.configs[0].data_dir.join("wal").exists());
    for i in 0..30 {
        put(&*cluster.handle(i % 3), &format!("k{i}"), "v").await.expect("written");
    }
    let survivor = cluster.leader().await;
    for i in 0..3 {
        cluster.kill(i).await;
    }
    cluster.configs[survivor].force_new_cluster = true;
    cluster.restart(survivor).await;
    cluster.ready().await;
    let handle = cluster.handle(survivor);
    assert_eq!(handle.range(prefix_request("k")).await.expect("read").count, 30);
    put(&*handle, "alone", "x").await.expect("writable");
    let members = handle.member_list().await.expect("listed").members;
    assert_eq!(members.len(), 1, "{members:?}");
    // An ordinary start goes on with what there is now.
    drop(handle);
    cluster.configs[survivor].force_new_cluster = false;
    cluster.kill(survivor).await;
    cluster.restart(survivor).await;
    cluster.ready().await;
    assert_eq!(get(&*cluster.handle(survivor), "alone").await.as_deref(), Some("x"));
}
