//! Alarms, quota, hashes and snapshots, as clients meet them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pintle_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use pintle_store::{DiskConfig, Space, SpaceProbe};
use pintle_store_api::pb::alarm_request::AlarmAction;
use pintle_store_api::{Rejection, Store, WriteError, pb};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::{Cluster, delete, eventually, get, put};

type Client = MaintenanceClient<Channel>;

pub(crate) async fn client(cluster: &Cluster, i: usize) -> Client {
    MaintenanceClient::connect(cluster.client_url(i)).await.expect("connects")
}

async fn alarm(
    client: &Client,
    action: AlarmAction,
    member_id: u64,
    alarm: pb::AlarmType,
) -> Result<Vec<pb::AlarmMember>, Status> {
    let request = pb::AlarmRequest { action: action.into(), member_id, alarm: alarm.into() };
    Ok(client.clone().alarm(request).await?.into_inner().alarms)
}

async fn alarms(client: &Client) -> Vec<pb::AlarmMember> {
    alarm(client, AlarmAction::Get, 0, pb::AlarmType::None).await.expect("listed")
}

/// As `etcdctl alarm disarm` does.
async fn disarm(client: &Client) {
    for one in alarms(client).await {
        let cleared = alarm(client, AlarmAction::Deactivate, one.member_id, one.alarm()).await;
        assert_eq!(cleared.expect("cleared"), [one]);
    }
}

fn is_full(result: &Result<i64, WriteError>) -> bool {
    matches!(result, Err(WriteError::Rejected(Rejection::NoSpace)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_quota_takes_only_what_frees_space_until_it_is_disarmed() {
    let cluster = Cluster::found(3, |config| config.quota_backend_bytes = 4_000).await;
    let handle = cluster.handle(cluster.follower().await);
    let client = client(&cluster, 0).await;
    let mut written = 0;
    let refused = loop {
        match put(&*handle, &format!("k{written}"), &"x".repeat(500)).await {
            Ok(_) => written += 1,
            refused => break refused,
        }
        assert!(written < 20, "the quota is never full");
    };
    assert!(is_full(&refused), "{refused:?}");
    let raised = alarms(&client).await;
    assert_eq!(raised.len(), 1, "{raised:?}");
    assert_eq!(raised[0].alarm(), pb::AlarmType::Nospace);

    // Small ones would fit the quota, but every member refuses while the alarm is raised.
    for i in 0..3 {
        assert!(is_full(&put(&*cluster.handle(i), "small", "x").await));
    }
    let lease = handle.lease_grant(pb::LeaseGrantRequest { id: 0, ttl: 60 }).await;
    assert!(matches!(lease, Err(WriteError::Rejected(Rejection::NoSpace))), "{lease:?}");
    let status = client.clone().status(pb::StatusRequest {}).await.expect("answered").into_inner();
    assert!(status.errors.iter().any(|error| error.contains("NOSPACE")), "{status:?}");
    assert_eq!(status.db_size_quota, 4_000);

    for i in 0..written {
        delete(&*handle, &format!("k{i}")).await;
    }
    let revision = handle.range(crate::support::range_request("k0")).await.expect("read");
    let revision = revision.header.expect("header").revision;
    let request = pb::CompactionRequest { revision, physical: true };
    handle.compact(request).await.expect("compaction works");
    assert!(is_full(&put(&*handle, "still", "refused").await));
    disarm(&client).await;
    assert!(alarms(&client).await.is_empty());
    put(&*handle, "again", "x").await.expect("there is room");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nearly_full_disk_raises_the_alarm_of_its_member() {
    let full = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&full);
    let probe = SpaceProbe::new(move |_| {
        let free = if told.load(Ordering::Acquire) { 10 } else { 1_000 };
        Ok(Space { total: 1_000, free })
    });
    let cluster = Cluster::found(1, |config| {
        let check_every = Duration::from_millis(20);
        config.disk = DiskConfig { reserve_bytes: Some(100), check_every, probe: probe.clone() };
    })
    .await;
    let handle = cluster.handle(0);
    put(&*handle, "a", "1").await.expect("there is room");
    full.store(true, Ordering::Release);
    eventually("a write is refused", || async {
        is_full(&put(&*handle, "a", "2").await).then_some(())
    })
    .await;
    let client = client(&cluster, 0).await;
    let own = handle.status().await.expect("answered").header.expect("header").member_id;
    assert_eq!(alarms(&client).await[0].member_id, own);
    delete(&*handle, "a").await;
    // While the disk is full, the alarm comes back; once it is not, disarming helps.
    full.store(false, Ordering::Release);
    eventually("writes work after disarming", || async {
        disarm(&client).await;
        put(&*handle, "a", "3").await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alarms_survive_restarts_and_corrupt_answers_data_loss() {
    let mut cluster = Cluster::found(1, |_| {}).await;
    let raised = {
        let client = client(&cluster, 0).await;
        alarm(&client, AlarmAction::Activate, 7, pb::AlarmType::Corrupt).await.expect("raised")
    };
    cluster.kill(0).await;
    cluster.restart(0).await;
    cluster.ready().await;
    let client = client(&cluster, 0).await;
    assert_eq!(alarms(&client).await, raised);
    let mut kv = pintle_proto::etcdserverpb::kv_client::KvClient::connect(cluster.client_url(0))
        .await
        .expect("connects");
    let status = kv.put(crate::support::put_request("a", "1")).await.expect_err("corrupt");
    assert_eq!((status.code(), status.message()), (Code::DataLoss, "etcdserver: corrupt cluster"));
    let none = alarm(&client, AlarmAction::Get, 0, pb::AlarmType::Nospace).await.expect("listed");
    assert!(none.is_empty(), "only what was asked for");
    disarm(&client).await;
    put(&*cluster.handle(0), "a", "1").await.expect("sound again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hashes_are_of_a_revision_that_is_there() {
    let cluster = Cluster::found(1, |_| {}).await;
    let handle = cluster.handle(0);
    for i in 0..6 {
        put(&*handle, "k", &i.to_string()).await.expect("written");
    }
    handle.compact(pb::CompactionRequest { revision: 4, physical: false }).await.expect("done");
    let client = client(&cluster, 0).await;
    let hash = |revision| {
        let mut client = client.clone();
        async move { client.hash_kv(pb::HashKvRequest { revision }).await.map(|a| a.into_inner()) }
    };
    let newest = hash(0).await.expect("hashed");
    assert_eq!((newest.hash_revision, newest.compact_revision), (7, 4));
    assert_eq!(hash(7).await.expect("hashed").hash, newest.hash);
    assert_ne!(hash(5).await.expect("hashed").hash, newest.hash);
    assert!(hash(4).await.is_ok(), "the floor itself");
    let compacted = hash(3).await.expect_err("compacted");
    assert_eq!(compacted.message(), "etcdserver: mvcc: required revision has been compacted");
    let future = hash(8).await.expect_err("not there yet");
    assert_eq!(future.message(), "etcdserver: mvcc: required revision is a future revision");
    assert_eq!(future.code(), Code::OutOfRange);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_to_who_is_named_and_to_nobody_else() {
    let cluster = Cluster::found(3, |_| {}).await;
    let leader = cluster.leader().await;
    let id = |i: usize| {
        let handle = cluster.handle(i);
        async move { handle.status().await.expect("answered").header.expect("header").member_id }
    };
    let target = (leader + 1) % 3;
    let move_to = |from: usize, target_id: u64| {
        let url = cluster.client_url(from);
        async move {
            let mut client = MaintenanceClient::connect(url).await.expect("connects");
            client.move_leader(pb::MoveLeaderRequest { target_id }).await.map(drop)
        }
    };
    let unknown = move_to(leader, 4711).await.expect_err("unknown");
    assert_eq!(unknown.message(), "etcdserver: bad leader transferee");
    let follower = move_to(target, id(target).await).await.expect_err("not the leader");
    assert_eq!(follower.message(), "etcdserver: not leader");
    move_to(leader, id(target).await).await.expect("moved");
    assert_eq!(cluster.leader().await, target);
}

/// The stopped members of a cluster get different data under the same revision.
async fn corrupt_one(cluster: &mut Cluster) {
    put(&*cluster.handle(0), "k", "v").await.expect("written");
    for i in 0..3 {
        cluster.shutdown(i).await;
    }
    for i in 0..3 {
        let value = if i == 2 { "wrong" } else { "right" };
        write_offline(&cluster.configs[i].data_dir.join("member/state"), value);
    }
    for i in 0..3 {
        cluster.restart(i).await;
    }
    cluster.ready().await;
}

fn write_offline(dir: &std::path::Path, value: &str) {
    use pintle_proto::raft::{Command, command::Kind};
    let mut mvcc = loop {
        // The member's last thread may still be closing it.
        match pintle_mvcc::Mvcc::open(dir, pintle_mvcc::Options::default()) {
            Ok(mvcc) => break mvcc,
            Err(error) => assert!(error.to_string().contains("lock"), "{error}"),
        }
        std::thread::yield_now();
    };
    let put = crate::support::put_request("secretly", value);
    let commands = [Command { kind: Some(Kind::Put(put)), caller: None }];
    let applied = mvcc.applied_meta().expect("a used state");
    mvcc.apply(&[pintle_mvcc::Entry { term: 1, commands: &commands }], applied).expect("applied");
    mvcc.reader().flush().expect("flushed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_hold_different_data_are_found_by_the_periodic_check() {
    let mut cluster =
        Cluster::found(3, |config| config.corrupt_check_time = Duration::from_millis(50)).await;
    let client = client(&cluster, 0).await;
    assert!(alarms(&client).await.is_empty(), "equal members raise nothing");
    corrupt_one(&mut cluster).await;
    let client = self::client(&cluster, 0).await;
    let raised = eventually("an alarm", || async {
        Some(alarms(&client).await).filter(|alarms| !alarms.is_empty())
    })
    .await;
    assert!(raised.iter().all(|one| one.alarm() == pb::AlarmType::Corrupt), "{raised:?}");
    put(&*cluster.handle(0), "k", "w").await.expect_err("a corrupt cluster takes no writes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compaction_tells_which_member_is_in_the_minority() {
    let mut cluster = Cluster::found(3, |config| {
        config.compact_hash_check_time = Some(Duration::from_millis(50));
    })
    .await;
    corrupt_one(&mut cluster).await;
    let odd = cluster.handle(2).status().await.expect("answered").header.expect("header");
    let handle = cluster.handle(0);
    let request = pb::CompactionRequest { revision: odd.revision, physical: false };
    handle.compact(request).await.expect("compacted");
    let client = client(&cluster, 0).await;
    let raised = eventually("an alarm", || async {
        Some(alarms(&client).await).filter(|alarms| !alarms.is_empty())
    })
    .await;
    assert_eq!(raised, [pb::AlarmMember { member_id: odd.member_id, alarm: 2 }]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_differs_does_not_start_when_it_looks_first() {
    let mut cluster = Cluster::found(3, |_| {}).await;
    corrupt_one(&mut cluster).await;
    cluster.shutdown(2).await;
    let mut config = cluster.configs[2].clone();
    config.initial_corrupt_check = true;
    let started = eventually("the data folder is free", || async {
        match pintle_store::start(config.clone()).await {
            Err(error) if error.to_string().contains("opening") => None,
            started => Some(started.map(drop)),
        }
    })
    .await;
    let error = started.expect_err("it differs");
    assert!(error.to_string().contains("differs"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_have_etcds_errors() {
    let cluster = Cluster::found(1, |config| {
        config.max_request_bytes = 10_000;
        config.max_txn_ops = 2;
    })
    .await;
    let mut kv = pintle_proto::etcdserverpb::kv_client::KvClient::connect(cluster.client_url(0))
        .await
        .expect("connects")
        .max_encoding_message_size(usize::MAX);
    let large = kv.put(crate::support::put_request("a", &"x".repeat(10_001))).await;
    let large = large.expect_err("too large");
    assert_eq!(
        (large.code(), large.message()),
        (Code::InvalidArgument, "etcdserver: request is too large")
    );
    // Far beyond the limit, the transport refuses: 512 KiB are left for the request itself.
    let huge = kv.put(crate::support::put_request("a", &"x".repeat(600_000))).await;
    let huge = huge.expect_err("too large for a message");
    assert!(huge.message().contains("too large"), "{huge:?}");
    let ops = |count| {
        let one = crate::support::one(pb::request_op::Request::RequestRange(
            crate::support::range_request("a"),
        ));
        let success = vec![one.success[0].clone(); count];
        pb::TxnRequest { success, ..Default::default() }
    };
    kv.txn(ops(2)).await.expect("as many as allowed");
    let many = kv.txn(ops(3)).await.expect_err("one too many");
    assert_eq!(many.message(), "etcdserver: too many operations in txn request");
    assert_eq!(get(&*cluster.handle(0), "a").await, None);
}
