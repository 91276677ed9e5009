//! The real `etcdctl` against a cluster, where it is installed.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use pintle_store::TlsFiles;
use pintle_store_api::Store;

use crate::support::Cluster;

pub(crate) struct Etcdctl {
    pub(crate) endpoints: String,
    pub(crate) tls: Vec<String>,
}

impl Etcdctl {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.endpoints]);
        command.args(&self.tls).args(arguments);
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "etcdctl {arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    pub(crate) fn fails(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("runs");
        assert!(!output.status.success(), "etcdctl {arguments:?} should fail");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    pub(crate) fn with_input(&self, arguments: &[&str], input: &str) -> String {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("runs");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("written");
        let output = child.wait_with_output().expect("ends");
        assert!(output.status.success(), "etcdctl {arguments:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

pub(crate) fn lines(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.is_empty()).collect()
}

pub(crate) fn is_installed() -> bool {
    let found = Command::new("etcdctl").arg("version").output().is_ok();
    if !found {
        println!("etcdctl is not installed: not tried");
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_works_on_a_cluster() {
    if is_installed() {
        let cluster = Cluster::found(3, |_| {}).await;
        everything(&cluster, Vec::new()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_works_on_a_cluster_with_certificates_on_both_sides() {
    if !is_installed() {
        return;
    }
    let cluster = Cluster::found(3, |config| {
        let https = |urls: &mut Vec<String>| {
            urls.iter_mut().for_each(|url| *url = url.replace("http:", "https:"));
        };
        https(&mut config.listen_client_urls);
        https(&mut config.advertise_client_urls);
        https(&mut config.listen_peer_urls);
        https(&mut config.initial_advertise_peer_urls);
        config
            .initial_cluster
            .iter_mut()
            .for_each(|(_, url)| *url = url.replace("http:", "https:"));
        config.client_tls = Some(certificates());
        config.peer_tls = Some(certificates());
    })
    .await;
    let files = certificates();
    let path = |path: &Path| path.display().to_string();
    let ca = path(files.ca.as_ref().expect("given"));
    let (cert, key) = (path(&files.cert), path(&files.key));
    let tls = [format!("--cacert={ca}"), format!("--cert={cert}"), format!("--key={key}")];
    everything(&cluster, tls.to_vec()).await;
    let stranger = Etcdctl { endpoints: cluster.client_url(0), tls: vec![tls[0].clone()] };
    stranger.fails(&["--command-timeout=2s", "get", "foo"]);
}

/// Certificates for loopback, made for these tests alone and valid for a century.
fn certificates() -> TlsFiles {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store/certificates");
    let path = |name: &str| dir.join(name);
    TlsFiles { cert: path("member.crt"), key: path("member.key"), ca: Some(path("ca.crt")) }
}

async fn everything(cluster: &Cluster, tls: Vec<String>) {
    cluster.published().await;
    let endpoints: Vec<String> = (0..3).map(|i| cluster.client_url(i)).collect();
    let etcdctl = Etcdctl { endpoints: endpoints.join(","), tls };
    tokio::task::spawn_blocking(move || {
        keys(&etcdctl);
        transactions(&etcdctl);
        watches(&etcdctl);
        leases(&etcdctl);
        compaction(&etcdctl);
        cluster_commands(&etcdctl);
        snapshot(&etcdctl);
    })
    .await
    .expect("etcdctl");
    let status = cluster.handle(0).status().await.expect("answered");
    assert_eq!(status.version, pintle_store::VERSION);
}

fn keys(etcdctl: &Etcdctl) {
    assert_eq!(etcdctl.run(&["put", "foo", "bar"]), "OK\n");
    assert_eq!(etcdctl.run(&["get", "foo"]), "foo\nbar\n");
    etcdctl.run(&["put", "foo1", "bar1"]);
    assert_eq!(lines(&etcdctl.run(&["get", "foo", "--prefix", "--keys-only"])), ["foo", "foo1"]);
    assert_eq!(etcdctl.run(&["put", "foo", "baz", "--prev-kv"]), "OK\nfoo\nbar\n");
    assert_eq!(etcdctl.run(&["get", "foo", "--rev", "2"]), "foo\nbar\n");
    assert_eq!(etcdctl.run(&["get", "foo", "--consistency", "s"]), "foo\nbaz\n");
    assert_eq!(etcdctl.run(&["del", "foo", "--prefix"]), "2\n");
    assert_eq!(etcdctl.run(&["get", "foo"]), "");
    assert!(etcdctl.fails(&["put", "", "x"]).contains("key is not provided"));
}

fn transactions(etcdctl: &Etcdctl) {
    let txn = "mod(\"key1\") = \"0\"\n\nput key1 \"created\"\n\nget key1\n\n";
    assert_eq!(lines(&etcdctl.with_input(&["txn"], txn)), ["SUCCESS", "OK"]);
    assert_eq!(lines(&etcdctl.with_input(&["txn"], txn)), ["FAILURE", "key1", "created"]);
}

fn watches(etcdctl: &Etcdctl) {
    let mut watch = etcdctl
        .command(&["watch", "watched", "--prefix", "--rev", "1", "--prev-kv"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("runs");
    let mut output = BufReader::new(watch.stdout.take().expect("piped")).lines();
    let mut expect = |expected: &[&str]| {
        for line in expected {
            assert_eq!(output.next().expect("more").expect("text"), *line);
        }
    };
    etcdctl.run(&["put", "watched/a", "1"]);
    expect(&["PUT", "watched/a", "1"]);
    etcdctl.run(&["put", "watched/a", "2"]);
    expect(&["PUT", "watched/a", "1", "watched/a", "2"]);
    etcdctl.run(&["del", "watched/a"]);
    expect(&["DELETE", "watched/a", "2", "watched/a", ""]);
    watch.kill().expect("runs");
    watch.wait().expect("ends");
}

fn leases(etcdctl: &Etcdctl) {
    let granted = etcdctl.run(&["lease", "grant", "100"]);
    let id = granted.split_whitespace().nth(1).expect("lease ID granted …").to_owned();
    etcdctl.run(&["put", "leased", "1", "--lease", &id]);
    let remaining = etcdctl.run(&["lease", "timetolive", &id, "--keys"]);
    assert!(remaining.contains("granted with TTL(100s)"), "{remaining}");
    assert!(remaining.contains("attached keys([leased])"), "{remaining}");
    assert!(etcdctl.run(&["lease", "list"]).contains(&id));
    let kept = etcdctl.run(&["lease", "keep-alive", &id, "--once"]);
    assert!(kept.contains("keepalived with TTL(100)"), "{kept}");
    assert!(etcdctl.run(&["lease", "revoke", &id]).contains("revoked"));
    assert_eq!(etcdctl.run(&["get", "leased"]), "");
    assert!(etcdctl.run(&["lease", "timetolive", &id]).contains("already expired"));
}

fn compaction(etcdctl: &Etcdctl) {
    etcdctl.run(&["put", "c", "1"]);
    etcdctl.run(&["put", "c", "2"]);
    let json = etcdctl.run(&["get", "c", "-w", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let revision = json["header"]["revision"].as_i64().expect("a number");
    let compacted = etcdctl.run(&["compaction", &revision.to_string(), "--physical"]);
    assert_eq!(compacted, format!("compacted revision {revision}\n"));
    let old = (revision - 1).to_string();
    assert!(
        etcdctl
            .fails(&["get", "c", "--rev", &old])
            .contains("required revision has been compacted")
    );
    let far = (revision + 100).to_string();
    assert!(etcdctl.fails(&["get", "c", "--rev", &far]).contains("is a future revision"));
}

fn snapshot(etcdctl: &Etcdctl) {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("saved");
    let one = etcdctl.endpoints.split(',').next().expect("an endpoint").to_owned();
    let etcdctl = Etcdctl { endpoints: one, tls: etcdctl.tls.clone() };
    etcdctl.run(&["snapshot", "save", path.to_str().expect("text")]);
    let archive = pintle_store::archive::Archive::open(&path).expect("a snapshot");
    archive.verify().expect("as it was sent");
    assert_eq!(archive.manifest().storage_version, "3.7.0");
}

fn cluster_commands(etcdctl: &Etcdctl) {
    let status = etcdctl.run(&["endpoint", "status", "-w", "json"]);
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    let status = status.as_array().expect("one for each endpoint");
    assert_eq!(status.len(), 3);
    let leaders: Vec<_> = status.iter().map(|one| &one["Status"]["leader"]).collect();
    assert!(leaders.iter().all(|leader| *leader == leaders[0]), "{leaders:?}");
    let members = etcdctl.run(&["member", "list"]);
    assert_eq!(lines(&members).len(), 3);
    for name in ["m0", "m1", "m2"] {
        assert!(members.contains(&format!(", started, {name}, ")), "{members}");
    }
    let health = etcdctl.command(&["endpoint", "health"]).output().expect("runs");
    assert!(health.status.success());
    let hashes = etcdctl.run(&["endpoint", "hashkv", "-w", "json"]);
    let hashes: serde_json::Value = serde_json::from_str(&hashes).expect("JSON");
    let hashes: Vec<_> =
        hashes.as_array().expect("one for each").iter().map(|one| &one["HashKV"]["hash"]).collect();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    assert_eq!(etcdctl.run(&["alarm", "list"]), "");
    assert!(etcdctl.run(&["defrag"]).contains("Finished defragmenting"));
}
