//! Real `pintle store` processes under load, killed again and again; at the end nothing may be lost,
//! invented or missed.
//!
//! [`soak`] runs the rounds, `load` is the clients, [`checker`] decides. A round kills one member or all of
//! them in the middle of the load, sees the cluster work without it where it can, and starts it again.

pub mod checker;
mod load;
mod members;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use pintle_proto::etcdserverpb as pb;
use pintle_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use pintle_store_api::Store;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::checker::{Run, Seen, check};
use self::load::{Load, Shared, connect};
pub use self::members::Members;
use crate::{Result, wait_until};

const PATIENCE: Duration = Duration::from_secs(120);
/// Writes acknowledged between two faults.
const WRITES: u64 = 150;

/// What a run went through, for the person who reads the log.
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "the fields are named")]
pub struct Report {
    pub rounds: u32,
    pub acknowledged: usize,
    pub unknown: usize,
    pub refused: usize,
    pub reads: usize,
    pub events: usize,
}

/// Kills members of a cluster of `pintle` in `rounds` rounds. An error says what was wrong.
pub async fn soak(pintle: &Path, rounds: u32, seed: u64) -> Result<Report> {
    let mut members = Members::start(pintle)?;
    let done = rounds_of(&mut members, rounds, seed).await;
    done.map_err(|error| format!("seed {seed}: {error}\n{}", members.logs()))
}

async fn rounds_of(members: &mut Members, rounds: u32, seed: u64) -> Result<Report> {
    let urls = members.urls().to_vec();
    answering(&urls).await?;
    let load = Load::start(&urls, seed)?;
    let (end, until) = watch::channel(None);
    let mut watchers = JoinSet::new();
    for first in 0..urls.len() {
        let mut urls = urls.clone();
        urls.rotate_left(first);
        watchers.spawn(load::watch(connect(&urls)?, until.clone()));
    }
    let mut random = StdRng::seed_from_u64(seed);
    for round in 0..rounds {
        let at = |what: &str| format!("round {round}: {what}");
        progress(&load.shared, &at("writes before the kill")).await?;
        let victims = victims(&mut random, members.count());
        members.kill(&victims)?;
        if victims.len() < members.count() {
            progress(&load.shared, &at("writes without the killed member")).await?;
        }
        members.restart()?;
        progress(&load.shared, &at("writes after the restart")).await?;
        answering(&urls).await?;
    }
    let (writes, reads) = load.finish().await;
    let mut run = Run { writes, reads, ..Run::default() };
    let revision = equal_hashes(&urls).await?;
    (run.history, run.state) = whole(&urls).await?;
    end.send_replace(Some(revision));
    run.watchers = joined(watchers).await?;
    let violations = check(&run);
    if let Some(first) = violations.first() {
        return Err(format!("{} violations, first: {first}", violations.len()));
    }
    Ok(report(rounds, &run))
}

fn report(rounds: u32, run: &Run) -> Report {
    let count = |is: fn(&checker::Outcome) -> bool| {
        run.writes.iter().filter(|write| is(&write.outcome)).count()
    };
    Report {
        rounds,
        acknowledged: count(|outcome| matches!(outcome, checker::Outcome::Acknowledged(_))),
        unknown: count(|outcome| *outcome == checker::Outcome::Unknown),
        refused: count(|outcome| *outcome == checker::Outcome::Refused),
        reads: run.reads.len(),
        events: run.history.len(),
    }
}

/// One member, or all of them.
fn victims(random: &mut StdRng, count: usize) -> Vec<usize> {
    if random.random_ratio(1, 4) {
        return (0..count).collect();
    }
    vec![random.random_range(0..count)]
}

/// Waits until more writes have been acknowledged.
async fn progress(shared: &Shared, what: &str) -> Result {
    let target = shared.acknowledged() + WRITES;
    wait_until(what, PATIENCE, async || match shared.acknowledged() {
        count if count >= target => Ok(()),
        count => Err(format!("{count} of {target} acknowledged")),
    })
    .await
}

/// Waits until every member answers a linearizable read.
async fn answering(urls: &[String]) -> Result {
    for url in urls {
        let store = connect(std::slice::from_ref(url))?;
        let what = format!("{url} answers");
        wait_until(&what, PATIENCE, async || {
            store.read_index().await.map(drop).map_err(|error| error.to_string())
        })
        .await?;
    }
    Ok(())
}

/// Every member's hash at the newest revision is the same; the revision.
async fn equal_hashes(urls: &[String]) -> Result<i64> {
    let newest = connect(urls)?.read_index().await.map_err(|error| error.to_string())?;
    let mut hashes = Vec::new();
    for url in urls {
        let hash = wait_until("a hash of the newest revision", PATIENCE, async || {
            let client = MaintenanceClient::connect(url.clone()).await;
            let mut client = client.map_err(|error| error.to_string())?;
            let request = pb::HashKvRequest { revision: newest.0 };
            let answer = client.hash_kv(request).await.map_err(|status| status.to_string())?;
            Ok(answer.into_inner().hash)
        })
        .await?;
        hashes.push(hash);
    }
    match hashes.iter().all(|hash| *hash == hashes[0]) {
        true => Ok(newest.0),
        false => Err(format!("HashKV at {} differs: {hashes:?}", newest.0)),
    }
}

/// The whole history and the state at its end.
async fn whole(urls: &[String]) -> Result<(Vec<Seen>, BTreeMap<String, String>)> {
    let store = connect(urls)?;
    let request = pb::RangeRequest {
        key: load::PREFIX.into(),
        range_end: end_of(load::PREFIX).into(),
        ..Default::default()
    };
    let response = store.range(request).await.map_err(|error| error.to_string())?;
    let revision = response.header.map_or(0, |header| header.revision);
    let state =
        response.kvs.iter().map(|kv| (load::text(&kv.key), load::text(&kv.value))).collect();
    let (_end, until) = watch::channel(Some(revision));
    let history = tokio::time::timeout(PATIENCE, load::watch(store, until)).await;
    let history = history.map_err(|_| "the history was not read in time".to_owned())??;
    Ok((history, state))
}

async fn joined(mut watchers: JoinSet<Result<Vec<Seen>>>) -> Result<Vec<Vec<Seen>>> {
    let all = async {
        let mut seen = Vec::new();
        while let Some(watcher) = watchers.join_next().await {
            seen.push(watcher.map_err(|error| error.to_string())??);
        }
        Ok(seen)
    };
    let joined = tokio::time::timeout(PATIENCE, all).await;
    joined.map_err(|_| "a watcher did not come to the end in time".to_owned())?
}

fn end_of(prefix: &str) -> Vec<u8> {
    pintle_store_api::prefix_end(prefix.as_bytes()).unwrap_or_default().to_vec()
}
