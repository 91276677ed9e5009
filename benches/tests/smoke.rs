//! A tiny load against a store in this process: everything runs; nothing is timed.

use std::time::Duration;

use pintle_benches::results::Metric;
use pintle_benches::system::{Launch, System};
use pintle_benches::workload::select;
use pintle_benches::{Event, Plan, run};
use pintle_testing::free_address;

async fn store(dir: &std::path::Path) -> (pintle_store::Member, String) {
    let (client, peer) = (free_address(), format!("http://{}", free_address()));
    let config = pintle_store::Config {
        data_dir: dir.join("store"),
        listen_client_urls: vec![format!("http://{client}")],
        advertise_client_urls: vec![format!("http://{client}")],
        listen_peer_urls: vec![peer.clone()],
        initial_advertise_peer_urls: vec![peer.clone()],
        initial_cluster: vec![("default".to_owned(), peer)],
        ..pintle_store::Config::default()
    };
    let member = pintle_store::start(config).await.expect("starts");
    let ready = tokio::time::timeout(Duration::from_secs(60), member.ready()).await;
    ready.expect("a leader within a minute");
    (member, client.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_load_runs_against_a_store_in_this_process() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (member, endpoint) = store(dir.path()).await;
    let wanted = ["put-100", "update", "range-linearizable", "watch-fan-out", "lease-keepalive"];
    let wanted: Vec<String> = wanted.map(str::to_owned).to_vec();
    let mut workloads = select(&wanted).expect("known");
    for workload in &mut workloads {
        workload.clients = 5;
        workload.keys = workload.keys.min(200);
    }
    let plan = Plan {
        command: "smoke".to_owned(),
        systems: vec![System { name: "pintle".to_owned(), launch: Launch::At(vec![endpoint]) }],
        workloads,
        rounds: 1,
        seconds: 0.2,
        streams_per_connection: 2,
        history: 100,
        leader_losses: 0,
        memory_limit: 0,
        dir: dir.path().to_owned(),
    };
    let results = tokio::task::spawn_blocking(move || {
        let mut turns = 0;
        let results =
            run::run(&plan, &mut |event| turns += u32::from(matches!(event, Event::Turn { .. })));
        (results, turns)
    });
    let (results, turns) = results.await.expect("no panic");
    let results = results.expect("runs");
    assert_eq!(turns as usize, results.workloads.len());
    for measured in &results.workloads {
        let sample = measured.rounds[0][0].as_ref();
        let sample = sample.unwrap_or_else(|error| panic!("{}: {error}", measured.name));
        assert!(sample.figures[&Metric::Throughput] > 0.0, "{}", measured.name);
        assert!(sample.figures[&Metric::P50] > 0.0, "{}", measured.name);
        assert!(!sample.figures.contains_key(&Metric::ServerCpu), "of a store that runs elsewhere");
    }
    member.shutdown().await;
}
