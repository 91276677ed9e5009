//! Watchers that start far back, while others write.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use futures::StreamExt;
use pintle_proto::etcdserverpb::PutRequest;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::Context;
use super::load::{Load, connections};
use super::recorder::{Recorder, Window};
use super::sources::{Counted, Pool, Source as _};
use super::watchers::{Watch, Watchers};
use crate::client::{Call, Connection, encode};
use crate::results::{Metric, Sample};
use crate::system::Running;
use crate::workload::VALUE_BYTES;

/// Prefixes that the history is spread over evenly; each watcher reads one of them.
const GROUPS: usize = 100;
const HISTORY_WRITERS: usize = 200;
const WRITERS: usize = 50;
/// Puts at a steady rate: what a large Kubernetes cluster may write, and much less than either system can take.
const PUTS_PER_SECOND: u32 = 1_000;

fn prefix(group: usize) -> String {
    format!("/registry/history/{group:03}/")
}

pub(super) async fn catch_up(
    context: &Context<'_>,
    running: &Running,
    paced: bool,
) -> anyhow::Result<Sample> {
    let connections = connections(running, WRITERS.div_ceil(10)).await?;
    let per_group = context.plan.history / GROUPS;
    write_history(&connections, per_group).await?;

    let writers = Writers::start(running.endpoints(), paced)?;
    let started = Instant::now();
    tokio::time::sleep(context.seconds()).await;
    let before = writers.answered() as f64 / started.elapsed().as_secs_f64();

    let window = Window::open(running);
    let (counted, started) = (writers.answered(), Instant::now());
    writers.meanwhile.store(true, Ordering::Relaxed);
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
    let meanwhile = (writers.answered() - counted) as f64 / seconds;

    let mut usage = Sample::default();
    window.close(running, events, &mut usage);
    let mut sample = writers.stop().await?;
    sample.figures.append(&mut usage.figures);
    sample.set(Metric::Time, seconds);
    sample.set(Metric::PutsMeanwhile, meanwhile / before.max(1.0));
    Ok(sample)
}

/// Those who write meanwhile, elsewhere; on a thread of their own, or they would wait behind all that the
/// watchers receive.
struct Writers {
    answered: Arc<AtomicU64>,
    /// The watchers have begun.
    meanwhile: Arc<AtomicBool>,
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<anyhow::Result<Sample>>,
}

impl Writers {
    fn start(endpoints: &[String], paced: bool) -> anyhow::Result<Self> {
        let endpoints = endpoints.to_vec();
        let answered = Arc::<AtomicU64>::default();
        let meanwhile = Arc::<AtomicBool>::default();
        let (count, begun) = (Arc::clone(&answered), Arc::clone(&meanwhile));
        let (stop, stopped) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("writers".to_owned()).spawn(move || {
            let wrote = async {
                let connections = open(&endpoints).await?;
                let pool = Pool::puts(10_000, VALUE_BYTES, "/registry/other/");
                if paced {
                    write_paced(&connections, pool, &count, &begun, stopped).await
                } else {
                    write(&connections, &pool, &count, stopped).await
                }
            };
            // The run may have failed and be over.
            drop(end.send(tokio::task::LocalSet::new().block_on(&runtime, wrote)));
        })?;
        Ok(Self { answered, meanwhile, stop, ended })
    }

    fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    async fn stop(self) -> anyhow::Result<Sample> {
        drop(self.stop);
        self.ended.await.context("the writers have ended")?
    }
}

async fn open(endpoints: &[String]) -> anyhow::Result<Vec<Connection>> {
    let mut connections = Vec::new();
    for turn in 0..WRITERS.div_ceil(10) {
        connections.push(Connection::open(&endpoints[turn % endpoints.len()]).await?);
    }
    Ok(connections)
}

/// As fast as they are answered; the sample has the timeline alone.
async fn write(
    connections: &[Connection],
    pool: &Pool,
    answered: &Arc<AtomicU64>,
    stopped: oneshot::Receiver<()>,
) -> anyhow::Result<Sample> {
    let sources = (0..WRITERS).map(|_| Counted::new(pool.clone(), Arc::clone(answered)));
    let load = Load::start(connections, sources);
    load.recorder.borrow_mut().start();
    drop(stopped.await);
    let mut sample = load.stop().await.borrow().sample()?;
    sample.figures.clear();
    sample.tail.clear();
    Ok(sample)
}

/// At a steady rate, whether or not earlier ones were answered; the sample has their p99 before the watchers began
/// and after.
async fn write_paced(
    connections: &[Connection],
    mut pool: Pool,
    answered: &Arc<AtomicU64>,
    meanwhile: &AtomicBool,
    mut stopped: oneshot::Receiver<()>,
) -> anyhow::Result<Sample> {
    let [before, after] = [(); 2].map(|()| Rc::new(RefCell::new(Recorder::new())));
    before.borrow_mut().start();
    after.borrow_mut().start();
    let mut pace = tokio::time::interval(Duration::from_secs(1) / PUTS_PER_SECOND);
    let mut puts = JoinSet::new();
    for turn in 0.. {
        tokio::select! {
            _ = pace.tick() => {}
            _ = &mut stopped => break,
        }
        let mut connection = connections[turn % connections.len()].clone();
        let (call, put) = pool.next();
        let begun = meanwhile.load(Ordering::Relaxed);
        let recorder = Rc::clone(if begun { &after } else { &before });
        let answered = Arc::clone(answered);
        puts.spawn_local(async move {
            let started = Instant::now();
            match connection.unary(call, put).await {
                Ok(_) => {
                    answered.fetch_add(1, Ordering::Relaxed);
                    recorder.borrow_mut().done(started.elapsed());
                }
                Err(failure) => recorder.borrow_mut().failed(failure),
            }
        });
        while puts.try_join_next().is_some() {}
    }
    while puts.join_next().await.is_some() {}
    let (before, mut sample) = (before.borrow().sample()?, after.borrow().sample()?);
    let p99 = |sample: &Sample| sample.figures.get(&Metric::P99).copied().unwrap_or_default();
    let [before, meanwhile] = [p99(&before), p99(&sample)];
    sample.figures.retain(|metric, _| *metric == Metric::FailedRequests);
    sample.set(Metric::PutP99Before, before);
    sample.set(Metric::PutP99Meanwhile, meanwhile);
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
