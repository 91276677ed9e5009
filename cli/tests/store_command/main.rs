//! The program `pintle store` from outside: flags, variables, config file, its log and its end, and
//! the subcommands on what it leaves.

mod profiles;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pintle_proto::etcdserverpb as pb;
use pintle_proto::etcdserverpb::kv_client::KvClient;
use pintle_testing::free_port;

fn pintle(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pintle"));
    command.env_remove("PINTLE_LOG").arg("store").args(arguments);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeeds(arguments: &[&str]) -> String {
    let output = pintle(arguments).output().expect("runs");
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn fails(arguments: &[&str]) -> Output {
    let output = pintle(arguments).output().expect("runs");
    assert!(!output.status.success(), "{arguments:?} should fail: {}", text(&output.stdout));
    output
}

/// A member as a process, ended with its test.
struct Member {
    child: Child,
    client: String,
    data_dir: PathBuf,
}

impl Member {
    /// The flags of a member on its own in `dir`.
    fn flags(dir: &Path) -> (String, String, PathBuf) {
        let client = format!("http://127.0.0.1:{}", free_port());
        let peer = format!("http://127.0.0.1:{}", free_port());
        (client, peer, dir.join("data"))
    }

    fn start(dir: &Path, more: &[&str]) -> Self {
        let (client, peer, data_dir) = Self::flags(dir);
        let data = data_dir.to_str().expect("text").to_owned();
        let mut command = pintle(&["--name", "m1", "--data-dir", &data]);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.arg("--initial-cluster").arg(format!("m1={peer}")).args(more);
        Self::ready(command, client, data_dir)
    }

    fn ready(mut command: Command, client: String, data_dir: PathBuf) -> Self {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let told = lines.any(|line| line.expect("text").contains("ready to serve client requests"));
        assert!(told, "it ended before it was ready: {:?}", child.wait());
        // What it prints from now on is not read; it is little.
        std::thread::spawn(move || lines.count());
        Self { child, client, data_dir }
    }

    fn data(&self) -> &str {
        self.data_dir.to_str().expect("text")
    }

    /// As a supervisor does.
    fn terminate(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        kill(pid, Signal::SIGTERM).expect("runs");
        let status = self.child.wait().expect("ends");
        assert!(status.success(), "{status}");
    }

    async fn kv(&self) -> KvClient<tonic::transport::Channel> {
        KvClient::connect(self.client.clone()).await.expect("connects")
    }

    async fn put(&self, key: &str, value: &str) {
        let (key, value) = (key.to_owned().into(), value.to_owned().into());
        let request = pb::PutRequest { key, value, ..Default::default() };
        self.kv().await.put(request).await.expect("written");
    }

    async fn get(&self, key: &str) -> Option<String> {
        let request = pb::RangeRequest { key: key.to_owned().into(), ..Default::default() };
        let kvs = self.kv().await.range(request).await.expect("read").into_inner().kvs;
        kvs.first().map(|kv| text(&kv.value))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn the_version_has_a_line_for_etcds_tools() {
    let version = succeeds(&["--version"]);
    let wanted = format!("etcd Version: {}", pintle_store::VERSION);
    assert!(version.lines().any(|line| line == wanted), "{version}");
}

#[test]
fn an_unknown_flag_ends_with_2_and_a_bad_value_with_1() {
    assert_eq!(fails(&["--no-such-flag"]).status.code(), Some(2));
    let bad = fails(&["--snapshot-count", "many"]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(text(&bad.stderr).contains("--snapshot-count"), "{}", text(&bad.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_saved_checked_dumped_and_restored() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let log = dir.path().join("log");
    let outputs = format!("stdout,{}", log.display());
    let mut member = Member::start(
        dir.path(),
        &["--log-outputs", &outputs, "--log-format", "json", "--max-wals", "5"],
    );
    for i in 0..10 {
        member.put(&format!("k{i}"), "v").await;
    }
    let snapshot = dir.path().join("saved");
    let file = snapshot.to_str().expect("text");
    succeeds(&["snapshot", "save", file, "--endpoints", &member.client]);
    let status = succeeds(&["snapshot", "status", file, "-o", "json"]);
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!((&status["totalKey"], &status["revision"]), (&10.into(), &11.into()));
    assert!(succeeds(&["snapshot", "status", file]).contains("TOTAL KEYS"));
    assert!(succeeds(&["check", file]).contains("everything agrees"));

    let running = fails(&["check", member.data()]);
    assert!(text(&running.stderr).contains("is running"), "{}", text(&running.stderr));
    member.terminate();
    let told = std::fs::read_to_string(&log).expect("a log");
    assert!(told.lines().all(|line| line.starts_with('{')), "{told}");
    assert!(told.contains("ready to serve client requests"), "{told}");
    assert!(told.contains("max-wals"), "named once as without effect: {told}");

    assert!(succeeds(&["check", member.data()]).contains("everything agrees"));
    let keys = succeeds(&["dump", member.data(), "keys", "--prefix", "k1"]);
    assert!(keys.contains("k1 created 3 modified 3"), "{keys}");
    let changes = succeeds(&["dump", file, "changes", "--from", "5", "--to", "6", "-o", "json"]);
    assert_eq!(changes.lines().count(), 2, "{changes}");
    assert!(succeeds(&["dump", member.data(), "head"]).contains("revision 11"));
    assert!(succeeds(&["dump", member.data(), "log"]).contains("voters"));

    let elsewhere = tempfile::tempdir().expect("temporary folder");
    let (client, peer, data_dir) = Member::flags(elsewhere.path());
    let data = data_dir.to_str().expect("text").to_owned();
    let cluster = format!("new={peer}");
    let founding = ["--name", "new", "--data-dir", &data, "--initial-cluster", &cluster];
    let mut restore = vec!["snapshot", "restore", file, "--initial-advertise-peer-urls", &peer];
    restore.extend(founding);
    succeeds(&restore);
    assert!(text(&fails(&restore).stderr).contains("not empty"));
    let mut command = pintle(&founding);
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    let restored = Member::ready(command, client, data_dir);
    assert_eq!(restored.get("k9").await.as_deref(), Some("v"));
    restored.put("k10", "v").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn variables_and_a_config_file_say_the_same_as_flags() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (client, peer, data_dir) = Member::flags(dir.path());
    let mut command = pintle(&["--name", "from-flag"]);
    command
        .env("ETCD_NAME", "from-variable")
        .env("ETCD_DATA_DIR", &data_dir)
        .env("ETCD_LISTEN_CLIENT_URLS", &client)
        .env("ETCD_ADVERTISE_CLIENT_URLS", &client)
        .env("ETCD_LISTEN_PEER_URLS", &peer)
        .env("ETCD_INITIAL_ADVERTISE_PEER_URLS", &peer)
        .env("ETCD_INITIAL_CLUSTER", format!("from-flag={peer}"));
    let mut member = Member::ready(command, client, data_dir.clone());
    member.put("a", "1").await;
    member.terminate();

    let (client, _, _) = Member::flags(dir.path());
    let file = dir.path().join("config.yaml");
    let yaml = format!(
        "name: from-flag\ndata-dir: {}\nlisten-client-urls: {client}\n\
         advertise-client-urls: {client}\nlisten-peer-urls: {peer}\n\
         initial-advertise-peer-urls: {peer}\ninitial-cluster: from-flag={peer}\n",
        data_dir.display()
    );
    std::fs::write(&file, yaml).expect("written");
    let mut command = pintle(&["--data-dir", "/no/such/folder"]);
    command.arg("--config-file").arg(&file);
    let member = Member::ready(command, client, data_dir);
    assert_eq!(member.get("a").await.as_deref(), Some("1"));
}
