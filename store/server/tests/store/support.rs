//! A cluster to test on, and how to wait for it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use pintle_store::{Config, Handle, Member, start};
use pintle_store_api::pb::request_op::Request;
use pintle_store_api::{Store, WriteError, pb};
use pintle_testing::free_port;
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// Long enough for anything on a busy machine; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` gives something.
pub(crate) async fn eventually<T, F>(what: &str, condition: impl Fn() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Clusters that run at the same time. All databases of a process share a few threads for their
/// flushes: more clusters than a machine would ever run make each other time out.
static CLUSTERS: Semaphore = Semaphore::const_new(2);

pub(crate) struct Cluster {
    pub(crate) configs: Vec<Config>,
    members: Vec<Option<Member>>,
    dir: TempDir,
    _permit: SemaphorePermit<'static>,
}

impl Cluster {
    /// `count` members that have just been founded; `tweak` may change what they are told.
    pub(crate) async fn found(count: usize, tweak: impl Fn(&mut Config)) -> Self {
        Self::prepared(count, tweak, |_| {}).await
    }

    /// `count` members whose data folders `restore` fills before they start.
    pub(crate) async fn restored(count: usize, restore: impl Fn(&Config)) -> Self {
        Self::prepared(count, |_| {}, restore).await
    }

    async fn prepared(
        count: usize,
        tweak: impl Fn(&mut Config),
        prepare: impl Fn(&Config),
    ) -> Self {
        let permit = CLUSTERS.acquire().await.expect("never closed");
        let dir = tempfile::tempdir().expect("temporary folder");
        let name = |i: usize| format!("m{i}");
        let peers: Vec<String> =
            (0..count).map(|_| format!("http://127.0.0.1:{}", free_port())).collect();
        let initial_cluster: Vec<(String, String)> =
            peers.iter().enumerate().map(|(i, url)| (name(i), url.clone())).collect();
        let configs: Vec<Config> = (0..count)
            .map(|i| {
                let client = format!("http://127.0.0.1:{}", free_port());
                let mut config = Config {
                    name: name(i),
                    data_dir: dir.path().join(name(i)),
                    listen_client_urls: vec![client.clone()],
                    advertise_client_urls: vec![client],
                    listen_peer_urls: vec![peers[i].clone()],
                    initial_advertise_peer_urls: vec![peers[i].clone()],
                    initial_cluster: initial_cluster.clone(),
                    ..Config::default()
                };
                tweak(&mut config);
                config
            })
            .collect();
        let mut cluster = Self { members: Vec::new(), configs, dir, _permit: permit };
        for config in &cluster.configs {
            prepare(config);
            cluster.members.push(Some(start(config.clone()).await.expect("starts")));
        }
        cluster.ready().await;
        cluster
    }

    /// What one more member would be told.
    pub(crate) fn next_config(&self) -> Config {
        let name = format!("m{}", self.configs.len());
        let client = format!("http://127.0.0.1:{}", free_port());
        let peer = format!("http://127.0.0.1:{}", free_port());
        let mut initial_cluster = self.configs[0].initial_cluster.clone();
        initial_cluster.push((name.clone(), peer.clone()));
        Config {
            data_dir: self.dir.path().join(&name),
            name,
            listen_client_urls: vec![client.clone()],
            advertise_client_urls: vec![client],
            listen_peer_urls: vec![peer.clone()],
            initial_advertise_peer_urls: vec![peer],
            initial_cluster,
            initial_cluster_existing: true,
            ..Config::default()
        }
    }

    /// Starts a member that the cluster has added already.
    pub(crate) async fn join(&mut self, config: Config) -> usize {
        self.members.push(Some(start(config.clone()).await.expect("starts")));
        self.configs.push(config);
        self.ready().await;
        self.members.len() - 1
    }

    pub(crate) async fn ready(&self) {
        for member in self.members.iter().flatten() {
            tokio::time::timeout(PATIENCE, member.ready()).await.expect("ready in time");
        }
    }

    pub(crate) fn handle(&self, i: usize) -> Arc<Handle> {
        self.members[i].as_ref().expect("runs").handle()
    }

    pub(crate) fn client_url(&self, i: usize) -> String {
        self.configs[i].listen_client_urls[0].clone()
    }

    /// The members, once all have told their client addresses.
    pub(crate) async fn published(&self) -> Vec<pb::Member> {
        let handle = self.handle(0);
        eventually("all client addresses are published", || async {
            let members = handle.member_list().await.ok()?.members;
            members.iter().all(|member| !member.client_ur_ls.is_empty()).then_some(members)
        })
        .await
    }

    /// The member that leads, waiting for one.
    pub(crate) async fn leader(&self) -> usize {
        eventually("a leader", || async {
            for (i, member) in self.members.iter().enumerate() {
                let Some(member) = member else { continue };
                let status = member.handle().status().await.ok()?;
                let own = status.header.expect("header").member_id;
                if status.leader == own {
                    return Some(i);
                }
            }
            None
        })
        .await
    }

    pub(crate) async fn follower(&self) -> usize {
        let leader = self.leader().await;
        (0..self.members.len())
            .find(|i| *i != leader && self.members[*i].is_some())
            .expect("another member")
    }

    /// Stops a member without any farewell.
    pub(crate) async fn kill(&mut self, i: usize) {
        self.members[i].take().expect("runs").kill().await;
    }

    /// Why a member ended, once it has.
    pub(crate) async fn failed(&self, i: usize) -> String {
        let member = self.members[i].as_ref().expect("runs");
        tokio::time::timeout(PATIENCE, member.failed()).await.expect("ends in time")
    }

    pub(crate) async fn shutdown(&mut self, i: usize) {
        self.members[i].take().expect("runs").shutdown().await;
    }

    /// Starts a stopped member on its data.
    pub(crate) async fn restart(&mut self, i: usize) {
        let config = self.configs[i].clone();
        let member = eventually("the data folder is free again", || async {
            start(config.clone()).await.ok()
        })
        .await;
        self.members[i] = Some(member);
    }
}

/// What a plain HTTP server answers.
pub(crate) async fn http_get(address: std::net::SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("connects");
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut response = String::new();
    stream.read_to_string(&mut response).await.expect("answered");
    response
}

impl Drop for Cluster {
    /// Stops what still runs: the process must not end while a database is at work.
    fn drop(&mut self) {
        let members: Vec<Member> = self.members.drain(..).flatten().collect();
        let stop = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("starts").block_on(async {
                for member in members {
                    member.kill().await;
                }
            });
        };
        std::thread::spawn(stop).join().expect("stops");
    }
}

pub(crate) fn put_request(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..Default::default()
    }
}

pub(crate) fn one(request: Request) -> pb::TxnRequest {
    let op = pb::RequestOp { request: Some(request) };
    pb::TxnRequest { success: vec![op], ..Default::default() }
}

/// Writes a key; the revision of the write.
pub(crate) async fn put(store: &dyn Store, key: &str, value: &str) -> Result<i64, WriteError> {
    let response = store.txn(one(Request::RequestPut(put_request(key, value)))).await?;
    Ok(response.header.expect("header").revision)
}

pub(crate) async fn delete(store: &dyn Store, key: &str) -> i64 {
    let request = pb::DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() };
    let response = store.txn(one(Request::RequestDeleteRange(request))).await.expect("deleted");
    response.header.expect("header").revision
}

pub(crate) fn range_request(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.to_owned().into(), ..Default::default() }
}

pub(crate) fn prefix_request(prefix: &str) -> pb::RangeRequest {
    let range = pintle_store_api::KeyRange::prefix(prefix.to_owned().into());
    let range_end = range.end().cloned().expect("bounded");
    pb::RangeRequest { key: prefix.to_owned().into(), range_end, ..Default::default() }
}

/// The value of a key.
pub(crate) async fn get(store: &dyn Store, key: &str) -> Option<String> {
    let response = store.range(range_request(key)).await.expect("readable");
    let kv = response.kvs.into_iter().next()?;
    Some(String::from_utf8(kv.value.to_vec()).expect("text"))
}
