//! A store of three members under its usual loads, in one process that ends by itself: what
//! `scripts/dist` learns from which ways are taken often.

use std::path::Path;

use anyhow::Context;
use pintle_benches::system::{Launch, System};
use pintle_benches::{Plan, run, workload};
use pintle_store::{Config, Member};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const MEMBERS: usize = 3;
/// They run in the order of the catalogue.
const WORKLOADS: [&str; 10] = [
    "put-1",
    "put-100",
    "put-1000",
    "update",
    "range-linearizable",
    "range-serializable",
    "list",
    "watch-catch-up",
    "watch-fan-out",
    "lease-keepalive",
];
/// Of each.
const SECONDS: f64 = 4.0;

fn configs(dir: &Path) -> Vec<Config> {
    let urls: Vec<String> = (0..2 * MEMBERS)
        .map(|_| format!("http://127.0.0.1:{}", pintle_testing::free_port()))
        .collect();
    let (clients, peers) = urls.split_at(MEMBERS);
    let names = (0..MEMBERS).map(|i| format!("m{i}"));
    let cluster: Vec<(String, String)> = names.zip(peers.iter().cloned()).collect();
    (0..MEMBERS)
        .map(|i| Config {
            name: cluster[i].0.clone(),
            data_dir: dir.join(&cluster[i].0),
            listen_client_urls: vec![clients[i].clone()],
            advertise_client_urls: vec![clients[i].clone()],
            listen_peer_urls: vec![peers[i].clone()],
            initial_advertise_peer_urls: vec![peers[i].clone()],
            initial_cluster: cluster.clone(),
            ..Config::default()
        })
        .collect()
}

fn main() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let configs = configs(dir.path());
    let members: Vec<Member> = runtime.block_on(async {
        let starting = configs.iter().cloned().map(pintle_store::start);
        let members = futures::future::try_join_all(starting).await?;
        for member in &members {
            member.ready().await;
        }
        anyhow::Ok(members)
    })?;
    let address = |config: &Config| {
        let url = config.listen_client_urls.first().context("a member without a port")?;
        anyhow::Ok(url.trim_start_matches("http://").to_owned())
    };
    let endpoints = configs.iter().map(address).collect::<anyhow::Result<Vec<_>>>()?;
    let plan = Plan {
        command: "typical".to_owned(),
        systems: vec![System { name: "pintle".to_owned(), launch: Launch::At(endpoints) }],
        workloads: workload::select(&WORKLOADS.map(str::to_owned)).map_err(anyhow::Error::msg)?,
        rounds: 1,
        seconds: SECONDS,
        streams_per_connection: 10,
        history: 100_000,
        leader_losses: 0,
        memory_limit: 0,
        dir: dir.path().join("plan"),
    };
    let results = run::run(&plan, &mut |event| {
        if let pintle_benches::Event::Workload { workload, .. } = event {
            eprintln!("{}", workload.name);
        }
    })?;
    runtime.block_on(futures::future::join_all(members.into_iter().map(Member::shutdown)));
    // A load that was not run has taught nothing.
    for measured in &results.workloads {
        for sample in measured.rounds.iter().flatten() {
            if let Err(reason) = sample {
                anyhow::bail!("{}: {reason}", measured.name);
            }
        }
    }
    Ok(())
}
