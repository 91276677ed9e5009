//! Watchers that start far back, while others write.

use std::time::Instant;

use bytes::Bytes;
use futures::StreamExt;
use pintle_proto::etcdserverpb::PutRequest;

use super::Context;
use super::load::{Load, connections};
use super::recorder::Window;
use super::sources::Pool;
use super::watchers::{Watch, Watchers};
use crate::client::{Call, Connection, encode};
use crate::results::{Metric, Sample};
use crate::system::Running;
use crate::workload::VALUE_BYTES;

/// Prefixes that the history is spread over evenly; each watcher reads one of them.
const GROUPS: usize = 100;
const HISTORY_WRITERS: usize = 200;
const WRITERS: usize = 50;

fn prefix(group: usize) -> String {
    format!("/registry/history/{group:03}/")
}

pub(super) async fn catch_up(context: &Context<'_>, running: &Running) -> anyhow::Result<Sample> {
    let connections = connections(running, WRITERS.div_ceil(10)).await?;
    let per_group = context.plan.history / GROUPS;
    write_history(&connections, per_group).await?;

    // Those who write meanwhile, elsewhere.
    let pool = Pool::puts(10_000, VALUE_BYTES, "/registry/other/");
    let load = Load::start(&connections, (0..WRITERS).map(|_| pool.clone()));
    load.recorder.borrow_mut().start();
    let started = Instant::now();
    tokio::time::sleep(context.seconds()).await;
    let before = load.recorder.borrow().done as f64 / started.elapsed().as_secs_f64();

    let window = Window::open(running);
    let (counted, started) = (load.recorder.borrow().done, Instant::now());
    let watch = |i: usize| {
        let prefix = prefix(i % GROUPS);
        let range_end = prefix.clone().into_bytes();
        Watch { range_end: next(range_end).into(), key: prefix.into(), start_revision: 2 }
    };
    let watchers = context.workload.clients;
    let all = Watchers::start(running, (0..watchers).map(watch)).await?;
    let events = (watchers * per_group) as u64;
    all.arrivals.reach(events).await?;
    let seconds = started.elapsed().as_secs_f64();
    let meanwhile = (load.recorder.borrow().done - counted) as f64 / seconds;

    let mut usage = Sample::default();
    window.close(running, events, &mut usage);
    let recorder = load.stop().await;
    let mut sample = recorder.borrow().sample()?;
    sample.figures.clear();
    sample.tail.clear();
    sample.figures.append(&mut usage.figures);
    sample.set(Metric::Time, seconds);
    sample.set(Metric::PutsMeanwhile, meanwhile / before.max(1.0));
    Ok(sample)
}

/// The end of a prefix's range.
fn next(mut prefix: Vec<u8>) -> Vec<u8> {
    if let Some(last) = prefix.last_mut() {
        *last += 1;
    }
    prefix
}

/// As many revisions under each prefix.
async fn write_history(connections: &[Connection], per_group: usize) -> anyhow::Result<()> {
    let value = Bytes::from(vec![b'v'; VALUE_BYTES]);
    let puts = (0..per_group * GROUPS).map(|i| {
        let key = format!("{}{:06}", prefix(i % GROUPS), i / GROUPS).into();
        let put = encode(&PutRequest { key, value: value.clone(), ..Default::default() });
        let mut connection = connections[i % connections.len()].clone();
        async move { connection.unary(Call::Put, put).await }
    });
    let mut puts = futures::stream::iter(puts).buffer_unordered(HISTORY_WRITERS);
    while let Some(answer) = puts.next().await {
        answer?;
    }
    Ok(())
}
