//! Copies between real members in this process, and from a real etcd where there is one.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pintle_proto::etcdserverpb as pb;
use pintle_store::{Config, Member};
use pintle_testing::free_port;

use super::*;

mod users;

async fn member(dir: &Path, name: &str) -> (Member, String) {
    let client = format!("http://127.0.0.1:{}", free_port());
    let peer = format!("http://127.0.0.1:{}", free_port());
    let config = Config {
        name: name.to_owned(),
        data_dir: dir.join(name),
        listen_client_urls: vec![client.clone()],
        advertise_client_urls: vec![client.clone()],
        listen_peer_urls: vec![peer.clone()],
        initial_advertise_peer_urls: vec![peer.clone()],
        initial_cluster: vec![(name.to_owned(), peer)],
        ..Config::default()
    };
    let member = pintle_store::start(config).await.expect("starts");
    member.ready().await;
    (member, client)
}

fn options(from: &str, to: &str, dir: &Path) -> Options {
    Options {
        from: vec![from.to_owned()],
        from_cacert: None,
        from_cert: None,
        from_key: None,
        from_user: None,
        to: endpoint_options(to),
        journal: dir.join("journal.json"),
    }
}

fn endpoint_options(url: &str) -> endpoint::Options {
    let endpoints = vec![url.to_owned()];
    endpoint::Options { endpoints, cacert: None, cert: None, key: None, user: None }
}

async fn put(side: &mut Side, key: String, value: &str, lease: i64) {
    let value = value.to_owned().into();
    let request = pb::PutRequest { key: key.into(), value, lease, ..Default::default() };
    side.kv.put(request).await.expect("written");
}

/// Keys over several pages, a lease with keys, a key that was deleted.
async fn fill(side: &mut Side) {
    let grant = pb::LeaseGrantRequest { id: 4711, ttl: 600 };
    side.lease.lease_grant(grant).await.expect("granted");
    for i in 0..1_200 {
        put(side, format!("key/{i:05}"), &format!("value {i}"), 0).await;
    }
    put(side, "leased".to_owned(), "x", 4711).await;
    put(side, "gone".to_owned(), "x", 0).await;
    let gone = pb::DeleteRangeRequest { key: "gone".into(), ..Default::default() };
    side.kv.delete_range(gone).await.expect("deleted");
}

async fn value(side: &mut Side, key: &'static str) -> Option<(String, i64)> {
    let request = pb::RangeRequest { key: key.into(), ..Default::default() };
    let kv = side.kv.range(request).await.expect("read").into_inner().kvs.into_iter().next()?;
    Some((String::from_utf8_lossy(&kv.value).into_owned(), kv.lease))
}

async fn copies(from: &str, to: &str, dir: &Path) {
    let mut source = Side::connect(&endpoint_options(from)).await.expect("connects");
    let mut target = Side::connect(&endpoint_options(to)).await.expect("connects");
    fill(&mut source).await;
    let summary = migrate(&options(from, to, dir)).await.expect("copied");
    assert!(summary.contains("1201 keys, 1 leases"), "{summary}");
    assert!(summary.contains("1201 keys were compared"), "{summary}");
    assert_eq!(value(&mut target, "key/01199").await, Some(("value 1199".to_owned(), 0)));
    assert_eq!(value(&mut target, "leased").await, Some(("x".to_owned(), 4711)));
    assert_eq!(value(&mut target, "gone").await, None);
    assert!(!dir.join("journal.json").exists());
    let again = migrate(&options(from, to, dir)).await.expect_err("the target is not empty");
    assert!(again.to_string().contains("holds keys already"), "{again}");
}

/// Does `copied` between two members: where from, where to, and a folder.
async fn from_a_member(copied: impl AsyncFnOnce(&str, &str, &Path)) {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (source, from) = member(dir.path(), "source").await;
    let (target, to) = member(dir.path(), "target").await;
    copied(&from, &to, dir.path()).await;
    source.kill().await;
    target.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_is_copied_and_compared() {
    from_a_member(copies).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_copy_goes_on_and_sees_what_changed_meanwhile() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (source, from) = member(dir.path(), "source").await;
    let (target, to) = member(dir.path(), "target").await;
    let mut theirs = Side::connect(&endpoint_options(&from)).await.expect("connects");
    let mut ours = Side::connect(&endpoint_options(&to)).await.expect("connects");
    fill(&mut theirs).await;
    let options = options(&from, &to, dir.path());
    // The first page is copied, then the copier is gone.
    let mut journal =
        Journal::open(&options.journal, theirs.cluster_id, ours.cluster_id).expect("new");
    journal.begin(theirs.revision().await.expect("known")).expect("saved");
    let page = theirs.page(bytes::Bytes::new(), journal.revision).await.expect("read");
    for kv in page.kvs {
        put(&mut ours, String::from_utf8_lossy(&kv.key).into_owned(), "", 0).await;
        put(
            &mut ours,
            String::from_utf8_lossy(&kv.key).into_owned(),
            &String::from_utf8_lossy(&kv.value),
            0,
        )
        .await;
    }
    journal.copied(page.next).expect("saved");
    drop(journal);
    put(&mut theirs, "key/00000".to_owned(), "changed", 0).await;
    put(&mut theirs, "new".to_owned(), "1", 0).await;
    let gone = pb::DeleteRangeRequest { key: "key/00001".into(), ..Default::default() };
    theirs.kv.delete_range(gone).await.expect("deleted");
    let summary = migrate(&options).await.expect("goes on");
    assert!(summary.contains("3 later changes"), "{summary}");
    assert_eq!(value(&mut ours, "key/00000").await, Some(("changed".to_owned(), 0)));
    assert_eq!(value(&mut ours, "key/00001").await, None);
    source.kill().await;
    target.kill().await;
}

/// etcd, ended with its test.
struct Etcd(Child);

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn start_etcd(dir: &Path) -> Option<(Etcd, String)> {
    let client = format!("http://127.0.0.1:{}", free_port());
    let peer = format!("http://127.0.0.1:{}", free_port());
    let mut command = Command::new("etcd");
    command.arg("--data-dir").arg(dir.join("etcd"));
    for (flag, value) in [
        ("--listen-client-urls", client.clone()),
        ("--advertise-client-urls", client.clone()),
        ("--listen-peer-urls", peer.clone()),
        ("--initial-advertise-peer-urls", peer.clone()),
        ("--initial-cluster", format!("default={peer}")),
    ] {
        command.arg(flag).arg(value);
    }
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
    Some((Etcd(child), client))
}

/// One that answers, where etcd is installed.
async fn ready_etcd(dir: &Path) -> Option<(Etcd, String)> {
    let Some((etcd, url)) = start_etcd(dir) else {
        println!("etcd is not installed: not tried");
        return None;
    };
    for attempt in 0.. {
        assert!(attempt < 600, "etcd never answered");
        if Side::connect(&endpoint_options(&url)).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Some((etcd, url))
}

/// The same from a real etcd, where it is installed.
async fn from_etcd(copied: impl AsyncFnOnce(&str, &str, &Path)) {
    let dir = tempfile::tempdir().expect("temporary folder");
    let Some((etcd, from)) = ready_etcd(dir.path()).await else { return };
    let (target, to) = member(dir.path(), "target").await;
    copied(&from, &to, dir.path()).await;
    target.kill().await;
    drop(etcd);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_etcd_is_copied() {
    from_etcd(copies).await;
}
