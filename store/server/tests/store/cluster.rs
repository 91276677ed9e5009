//! Writes, reads and restarts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pintle_store_api::{Store, WriteError};
use pintle_testing::free_port;
use tokio::io::AsyncReadExt;

use crate::support::{Cluster, eventually, get, http_get, prefix_request, put};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_member_keeps_its_data_over_clean_stops_and_crashes() {
    let mut cluster = Cluster::found(1, |_| {}).await;
    assert_eq!(put(&*cluster.handle(0), "a", "1").await, Ok(2));
    cluster.kill(0).await;
    cluster.restart(0).await;
    assert_eq!(get(&*cluster.handle(0), "a").await.as_deref(), Some("1"));
    assert_eq!(put(&*cluster.handle(0), "b", "2").await, Ok(3));
    cluster.shutdown(0).await;
    cluster.restart(0).await;
    assert_eq!(get(&*cluster.handle(0), "a").await.as_deref(), Some("1"));
    assert_eq!(get(&*cluster.handle(0), "b").await.as_deref(), Some("2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_takes_writes_and_sees_those_of_the_others() {
    let cluster = Cluster::found(3, |_| {}).await;
    for i in 0..3 {
        put(&*cluster.handle(i), &format!("key{i}"), &format!("by {i}")).await.expect("written");
        for j in 0..3 {
            let value = get(&*cluster.handle(j), &format!("key{i}")).await;
            assert_eq!(value, Some(format!("by {i}")), "written at {i}, read at {j}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_reads_its_own_forwarded_write_without_asking_the_leader() {
    let cluster = Cluster::found(3, |_| {}).await;
    let handle = cluster.handle(cluster.follower().await);
    for i in 0..20 {
        put(&*handle, "own", &i.to_string()).await.expect("written");
        let mut request = crate::support::range_request("own");
        request.serializable = true;
        let read = handle.range(request).await.expect("readable");
        assert_eq!(read.kvs[0].value, i.to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_the_leader_loses_no_acknowledged_write() {
    let mut cluster = Cluster::found(3, |_| {}).await;
    let leader = cluster.leader().await;
    let survivor = (leader + 1) % 3;
    let stop = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicUsize::new(0));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let handle = cluster.handle(survivor);
            let (stop, written) = (Arc::clone(&stop), Arc::clone(&written));
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    let key = format!("w/{writer}/{n}");
                    match put(&*handle, &key, "v").await {
                        Ok(_) => {
                            acknowledged.push(key);
                            written.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(WriteError::Rejected(rejection)) => panic!("{rejection}"),
                        Err(_) => {}
                    }
                    n += 1;
                }
                acknowledged
            })
        })
        .collect();
    eventually("the load is under way", || async {
        (written.load(Ordering::Relaxed) > 50).then_some(())
    })
    .await;
    cluster.kill(leader).await;
    let killed = Instant::now();
    let handle = cluster.handle(survivor);
    eventually("a write after the leader is gone", || async {
        put(&*handle, "after", "x").await.ok()
    })
    .await;
    let outage = killed.elapsed();
    stop.store(true, Ordering::Relaxed);
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.expect("writer"));
    }
    println!("{} acknowledged, outage {outage:?}", acknowledged.len());
    for key in &acknowledged {
        assert_eq!(get(&*handle, key).await.as_deref(), Some("v"), "{key} was acknowledged");
    }
    // The old leader comes back with whatever it had, and agrees.
    cluster.restart(leader).await;
    cluster.ready().await;
    let back = cluster.handle(leader).range(prefix_request("w/")).await.expect("readable");
    let here = handle.range(prefix_request("w/")).await.expect("readable");
    assert_eq!(back.kvs, here.kvs);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_all_members_loses_nothing() {
    let mut cluster = Cluster::found(3, |_| {}).await;
    for i in 0..50 {
        put(&*cluster.handle(i % 3), &format!("k{i}"), "v").await.expect("written");
    }
    for i in 0..3 {
        cluster.kill(i).await;
    }
    for i in 0..3 {
        cluster.restart(i).await;
    }
    cluster.ready().await;
    for i in 0..50 {
        assert_eq!(get(&*cluster.handle(0), &format!("k{i}")).await.as_deref(), Some("v"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_stop_hands_leadership_over_at_once() {
    // Without a hand-over the others would miss the leader after 18 s at the earliest.
    let mut cluster = Cluster::found(3, |config| config.election_ms = 60_000).await;
    let leader = cluster.leader().await;
    cluster.shutdown(leader).await;
    let other = cluster.handle((leader + 1) % 3);
    let write = put(&*other, "a", "1");
    let written = tokio::time::timeout(Duration::from_secs(15), write).await;
    written.expect("the others have a leader").expect("written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_stop_of_the_leader_fails_no_request() {
    let mut cluster = Cluster::found(3, |_| {}).await;
    for round in 0..3 {
        let leader = cluster.leader().await;
        let stop = Arc::new(AtomicBool::new(false));
        let written = Arc::new(AtomicUsize::new(0));
        let followers = (0..3).filter(|i| *i != leader);
        let writers: Vec<_> = followers
            .flat_map(|i| (0..4).map(move |writer| (i, writer)))
            .map(|(i, writer)| {
                let handle = cluster.handle(i);
                let (stop, written) = (Arc::clone(&stop), Arc::clone(&written));
                tokio::spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        let done = put(&*handle, &format!("w/{i}/{writer}"), "v").await;
                        if let Err(error) = done {
                            println!("round {round}, member {i}: {error:?}");
                            return Err(error);
                        }
                        written.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok::<(), WriteError>(())
                })
            })
            .collect();
        let more = async |count: usize| {
            let goal = written.load(Ordering::Relaxed) + count;
            let reached = || async { (written.load(Ordering::Relaxed) >= goal).then_some(()) };
            eventually("writes go on", reached).await;
        };
        more(50).await;
        cluster.shutdown(leader).await;
        more(50).await;
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            assert_eq!(writer.await.expect("writer"), Ok(()), "round {round}");
        }
        cluster.restart(leader).await;
        cluster.ready().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_process_ends_is_replaced_before_its_time_is_up() {
    // By their timers the others would stand for election after 54 s.
    let mut cluster = Cluster::found(3, |config| config.election_ms = 60_000).await;
    for round in 0..2 {
        let leader = cluster.leader().await;
        put(&*cluster.handle((leader + 1) % 3), "a", "0").await.expect("written");
        cluster.kill(leader).await;
        let other = cluster.handle((leader + 1) % 3);
        let written = eventually("a write under the next leader", || async {
            put(&*other, "a", "1").await.ok()
        });
        let written = tokio::time::timeout(Duration::from_secs(30), written).await;
        written.unwrap_or_else(|_| panic!("no leader in round {round}"));
        cluster.restart(leader).await;
        cluster.ready().await;
    }
}

/// Three members, one of which is down and behind what the others have cut of their logs; which one.
async fn with_one_behind() -> (Cluster, usize) {
    let tweak = |config: &mut pintle_store::Config| {
        config.snapshot_count = 20;
        config.snapshot_catchup_entries = 5;
        config.metrics_listen = Some(([127, 0, 0, 1], free_port()).into());
    };
    let mut cluster = Cluster::found(3, tweak).await;
    let lagging = cluster.follower().await;
    put(&*cluster.handle(lagging), "before", "1").await.expect("written");
    cluster.kill(lagging).await;
    let other = (lagging + 1) % 3;
    for i in 0..200 {
        put(&*cluster.handle(other), &format!("k{i}"), "v").await.expect("written");
    }
    for survivor in (0..3).filter(|i| *i != lagging) {
        eventually("the log is cut above what the lagging member has", || async {
            let purged = metric(&cluster, survivor, "pintle_raft_log_purged_index").await;
            (purged > 50).then_some(())
        })
        .await;
    }
    (cluster, lagging)
}

/// The sum of a metric's series.
pub(crate) async fn metric(cluster: &Cluster, i: usize, name: &str) -> u64 {
    let address = cluster.configs[i].metrics_listen.expect("given");
    let text = http_get(address, "/metrics").await;
    let lines = text.lines().filter_map(|line| line.strip_prefix(name));
    let values = lines.filter_map(|rest| rest.rsplit_once(' '));
    values.map(|(_, value)| value.parse::<u64>().expect("a number")).sum()
}

const SENT: &str = "etcd_network_snapshot_send_success";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_lags_gets_a_snapshot_from_a_follower() {
    let (mut cluster, lagging) = with_one_behind().await;
    let leader = cluster.leader().await;
    cluster.restart(lagging).await;
    cluster.ready().await;
    let handle = cluster.handle(lagging);
    let read = handle.range(prefix_request("k")).await.expect("readable");
    assert_eq!(read.count, 200);
    assert_eq!(metric(&cluster, lagging, "etcd_server_snapshot_apply_total").await, 1);
    let follower = 3 - leader - lagging;
    eventually("the follower has counted it", || async {
        (metric(&cluster, follower, SENT).await == 1).then_some(())
    })
    .await;
    assert_eq!(metric(&cluster, leader, SENT).await, 0, "the leader has other things to do");
    put(&*handle, "after", "1").await.expect("written");
    // It survives its own crash after the install, too.
    drop(handle);
    cluster.kill(lagging).await;
    cluster.restart(lagging).await;
    cluster.ready().await;
    let read = cluster.handle(lagging).range(prefix_request("k")).await.expect("readable");
    assert_eq!(read.count, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_followers_cannot_sends_the_snapshot_itself() {
    let (mut cluster, lagging) = with_one_behind().await;
    let leader = cluster.leader().await;
    cluster.kill(3 - leader - lagging).await;
    // Without the lagging member there is no quorum now.
    cluster.restart(lagging).await;
    let handle = cluster.handle(lagging);
    eventually("writes go on", || async { put(&*handle, "after", "1").await.ok() }).await;
    assert_eq!(handle.range(prefix_request("k")).await.expect("readable").count, 200);
    assert_eq!(metric(&cluster, leader, SENT).await, 1);
}

/// While a member is gone, its peers' heartbeats set the pace; so many of them are waited for,
const HEARTBEATS: usize = 10;
/// and at each the log may call so often.
const LOG_CALLS_MAX: usize = 10;

/// What comes to an address where nobody answers.
#[derive(Default)]
struct Calls {
    log: AtomicUsize,
    /// Of gRPC: heartbeats, mostly.
    others: AtomicUsize,
}

impl Calls {
    async fn count(&self, listener: tokio::net::TcpListener) {
        while let Ok((mut call, _)) = listener.accept().await {
            let mut first = [0];
            let said = call.read_exact(&mut first).await;
            // The log's connections begin with an HTTP/1 request, the others with HTTP/2's preface.
            match said.map(|_| first) {
                Ok([b'G']) => self.log.fetch_add(1, Ordering::Relaxed),
                _ => self.others.fetch_add(1, Ordering::Relaxed),
            };
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_gone_is_not_called_without_a_pause() {
    let mut cluster = Cluster::found(3, |_| {}).await;
    let follower = cluster.follower().await;
    cluster.kill(follower).await;
    let peer_url = &cluster.configs[follower].listen_peer_urls[0];
    let address = peer_url.trim_start_matches("http://");
    let listen = || async { tokio::net::TcpListener::bind(address).await.ok() };
    let listener = eventually("the port is free", listen).await;
    let calls = Arc::<Calls>::default();
    let counting = tokio::spawn({
        let calls = Arc::clone(&calls);
        async move { calls.count(listener).await }
    });
    put(&*cluster.handle(cluster.leader().await), "k", "v").await.expect("written by two");
    let called = || async {
        let log = calls.log.load(Ordering::Relaxed);
        (log > 0 && calls.others.load(Ordering::Relaxed) >= HEARTBEATS).then_some(())
    };
    eventually("it is called for the log and for heartbeats", called).await;
    let (log, others) = (calls.log.load(Ordering::Relaxed), calls.others.load(Ordering::Relaxed));
    assert!(log < others * LOG_CALLS_MAX, "{log} calls of the log beside {others} others");
    counting.abort();
    drop(counting.await);
    cluster.restart(follower).await;
    let caught_up = || async { get(&*cluster.handle(follower), "k").await };
    eventually("it has what was written meanwhile", caught_up).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_know_each_other_by_name_and_client_address() {
    let cluster = Cluster::found(3, |_| {}).await;
    let members = cluster.published().await;
    let mut names: Vec<_> = members.iter().map(|member| member.name.clone()).collect();
    names.sort();
    assert_eq!(names, ["m0", "m1", "m2"]);
    for member in members {
        assert!(!member.is_learner);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_port_also_answers_health_checks() {
    let cluster = Cluster::found(1, |_| {}).await;
    let address = cluster.client_url(0).trim_start_matches("http://").parse().expect("an address");
    let health = http_get(address, "/health").await;
    assert!(health.contains(r#"{"health":"true","reason":""}"#), "{health}");
    assert!(http_get(address, "/readyz").await.ends_with("ok\n"));
    let version = http_get(address, "/version").await;
    assert!(version.contains(pintle_store::VERSION), "{version}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_a_majority_refuses_instead_of_lying() {
    let mut cluster = Cluster::found(3, |config| config.election_ms = 300).await;
    put(&*cluster.handle(0), "a", "1").await.expect("written");
    cluster.kill(1).await;
    cluster.kill(2).await;
    let handle = cluster.handle(0);
    let write = put(&*handle, "a", "2").await.expect_err("no majority");
    assert!(!matches!(write, WriteError::Rejected(_)), "{write}");
    handle.range(crate::support::range_request("a")).await.expect_err("no linearizable read");
    let mut stale = crate::support::range_request("a");
    stale.serializable = true;
    assert_eq!(handle.range(stale).await.expect("local").kvs[0].value, "1");
    cluster.restart(1).await;
    cluster.ready().await;
    let value = get(&*handle, "a").await;
    // The refused write may have been kept, if its outcome was unknown.
    let kept = matches!(write, WriteError::Unknown(_)) && value.as_deref() == Some("2");
    assert!(kept || value.as_deref() == Some("1"), "{write}: {value:?}");
}
