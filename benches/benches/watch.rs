//! The watch hub alone: what it costs to find the watchers of an event, and what they cost to read it.

#![expect(missing_docs, reason = "criterion's macros make public items")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pintle_mvcc::{Mvcc, Options, RevisionEvents};
use pintle_store::parts::Watches;
use pintle_store_api::mvccpb::{Event, KeyValue};
use pintle_store_api::pb::WatchCreateRequest;
use pintle_store_api::{Revision, prefix_end};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const VALUE_BYTES: usize = 256;
const PREFIX: &str = "/registry/pods/";

fn key(index: usize) -> Bytes {
    format!("{PREFIX}namespace-{:03}/pod-{:06}", index % 100, index).into()
}

/// A hub of which each event concerns as many watchers.
struct Fixture {
    watches: Watches,
    /// Events are of one of so many keys.
    keys: usize,
    /// How many watchers an event concerns.
    concerned: usize,
    revision: i64,
    value: Bytes,
    runtime: Runtime,
    _state: (Mvcc, TempDir),
}

impl Fixture {
    /// `keys` watchers, each of a key of its own.
    fn of_own_keys(keys: usize) -> Self {
        let requests =
            (0..keys).map(|index| WatchCreateRequest { key: key(index), ..Default::default() });
        Self::new(requests, keys, 1)
    }

    /// `watchers` of one prefix.
    fn of_one_prefix(watchers: usize) -> Self {
        let request = WatchCreateRequest {
            key: PREFIX.into(),
            range_end: prefix_end(PREFIX.as_bytes()).expect("not all 0xff"),
            ..Default::default()
        };
        Self::new(std::iter::repeat_n(request, watchers), 1_000, watchers)
    }

    fn new(
        requests: impl Iterator<Item = WatchCreateRequest>,
        keys: usize,
        concerned: usize,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mvcc = Mvcc::open(folder.path(), Options::default()).expect("open");
        let mut watches = Watches::new(mvcc.reader());
        requests.for_each(|request| watches.watch(&request).expect("watched"));
        Self {
            watches,
            keys,
            concerned,
            revision: mvcc.reader().current_revision().0,
            value: vec![b'v'; VALUE_BYTES].into(),
            runtime: Builder::new_current_thread().build().expect("a runtime"),
            _state: (mvcc, folder),
        }
    }

    /// A revision with one event. The keys have their turns in a scattered order.
    fn next(&mut self) -> RevisionEvents {
        self.revision += 1;
        let turn = usize::try_from(self.revision).expect("positive");
        let kv = KeyValue {
            key: key(turn * 7_919 % self.keys),
            create_revision: self.revision,
            mod_revision: self.revision,
            version: 1,
            value: self.value.clone(),
            lease: 0,
        };
        let event = Event { kv: Some(kv), ..Default::default() };
        RevisionEvents { revision: Revision(self.revision), events: vec![event] }
    }

    /// Publishes an event, then lets the watchers read it: how long each of both took.
    fn round(&mut self) -> (Duration, Duration) {
        let revision = self.next();
        let start = Instant::now();
        self.watches.publish(vec![revision]);
        let matched = Instant::now();
        let sent = self.runtime.block_on(self.watches.deliver()).expect("delivered");
        let delivered = Instant::now();
        assert_eq!(sent.len(), self.concerned);
        (matched - start, delivered - matched)
    }
}

/// What finding the watchers costs, of an event, and what reading it costs, of each of them.
fn bench(criterion: &mut Criterion, fixture: &mut Fixture, id: &BenchmarkId) {
    let mut group = criterion.benchmark_group("match");
    group.throughput(Throughput::Elements(1));
    group.bench_function(id.clone(), |bencher| {
        bencher.iter_custom(|rounds| (0..rounds).map(|_| fixture.round().0).sum());
    });
    group.finish();
    let mut group = criterion.benchmark_group("deliver");
    group.throughput(Throughput::Elements(fixture.concerned as u64));
    group.bench_function(id.clone(), |bencher| {
        bencher.iter_custom(|rounds| (0..rounds).map(|_| fixture.round().1).sum());
    });
    group.finish();
}

fn watch(criterion: &mut Criterion) {
    for keys in [1, 1_000, 100_000] {
        bench(criterion, &mut Fixture::of_own_keys(keys), &BenchmarkId::new("own keys", keys));
    }
    let id = BenchmarkId::new("one prefix", 1_000);
    bench(criterion, &mut Fixture::of_one_prefix(1_000), &id);
}

criterion_group!(benches, watch);
criterion_main!(benches);
