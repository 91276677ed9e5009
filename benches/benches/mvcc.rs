//! The state alone, without consensus and network: what one apply and one read cost.

#![expect(missing_docs, reason = "criterion's macros make public items")]

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pintle_mvcc::{Entry, EventQuery, Mvcc, Options, Reader};
use pintle_proto::raft::{Command, command::Kind};
use pintle_store_api::pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pintle_store_api::pb::request_op::Request;
use pintle_store_api::{KeyRange, Revision, pb, prefix_end};
use prost::Message;
use tempfile::TempDir;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const KEYS: usize = 100_000;
const VALUE_BYTES: usize = 512;
const PAGE: i64 = 500;

/// A state with all keys, each written twice.
struct Fixture {
    mvcc: Mvcc,
    _folder: TempDir,
    value: Bytes,
    /// Where the next write goes: steps through the keys in a scattered order.
    cursor: usize,
    /// The revision at which every key had its first version.
    filled: i64,
}

fn key(index: usize) -> Bytes {
    format!("/registry/pods/namespace-{:03}/pod-{:06}", index % 100, index).into()
}

fn put(key: Bytes, value: Bytes) -> pb::PutRequest {
    pb::PutRequest { key, value, ..Default::default() }
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mvcc = Mvcc::open(folder.path(), Options::default()).expect("open");
        let value = Bytes::from(vec![b'v'; VALUE_BYTES]);
        let mut fixture = Self { mvcc, _folder: folder, value, cursor: 0, filled: 0 };
        fixture.fill();
        fixture.filled = fixture.reader().current_revision().0;
        fixture.fill();
        fixture.reader().flush().expect("flush");
        fixture
    }

    fn fill(&mut self) {
        for _ in 0..KEYS / 1_000 {
            let commands = self.puts(1_000);
            self.apply(&commands);
        }
    }

    fn reader(&self) -> Reader {
        self.mvcc.reader()
    }

    fn next_key(&mut self) -> Bytes {
        // Prime to the number of keys, so that every key has its turn.
        self.cursor = (self.cursor + 7_919) % KEYS;
        key(self.cursor)
    }

    fn puts(&mut self, count: usize) -> Vec<Command> {
        let puts = (0..count).map(|_| {
            let put = put(self.next_key(), self.value.clone());
            Command { kind: Some(Kind::Put(put)), caller: None }
        });
        puts.collect()
    }

    /// The update of the kube-apiserver: if unchanged, put, else get.
    fn updates(&mut self, count: usize) -> Vec<Command> {
        let reader = self.reader();
        let updates = (0..count).map(|_| {
            let key = self.next_key();
            let read = pb::RangeRequest { key: key.clone(), ..Default::default() };
            let found = reader.range(&read).expect("range");
            let compare = pb::Compare {
                result: CompareResult::Equal.into(),
                target: CompareTarget::Mod.into(),
                key: key.clone(),
                range_end: Bytes::new(),
                target_union: Some(TargetUnion::ModRevision(found.kvs[0].mod_revision)),
            };
            let op = |request| vec![pb::RequestOp { request: Some(request) }];
            let txn = pb::TxnRequest {
                compare: vec![compare],
                success: op(Request::RequestPut(put(key, self.value.clone()))),
                failure: op(Request::RequestRange(read)),
            };
            Command { kind: Some(Kind::Txn(txn)), caller: None }
        });
        updates.collect()
    }

    fn apply(&mut self, commands: &[Command]) {
        let entry = Entry { term: 1, commands };
        let applied = self.mvcc.apply(&[entry], Bytes::from_static(b"applied")).expect("apply");
        assert!(applied.outcomes.iter().all(Result::is_ok));
    }
}

/// Makes commands, unmeasured, then applies them, measured.
fn bench_apply(
    criterion: &mut Criterion,
    fixture: &mut Fixture,
    name: &str,
    make: fn(&mut Fixture, usize) -> Vec<Command>,
) {
    let mut group = criterion.benchmark_group("apply");
    for count in [1, 16, 256] {
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("{name}/{count}"), |bencher| {
            bencher.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    let commands = make(fixture, count);
                    let start = Instant::now();
                    fixture.apply(&commands);
                    spent += start.elapsed();
                }
                spent
            });
        });
    }
    group.finish();
}

fn apply(criterion: &mut Criterion) {
    let mut fixture = Fixture::new();
    bench_apply(criterion, &mut fixture, "put", Fixture::puts);
    bench_apply(criterion, &mut fixture, "update", Fixture::updates);
}

fn read(criterion: &mut Criterion) {
    let mut fixture = Fixture::new();
    let reader = fixture.reader();
    let mut group = criterion.benchmark_group("range");
    let prefix = |prefix: &'static str| pb::RangeRequest {
        key: prefix.into(),
        range_end: prefix_end(prefix.as_bytes()).expect("not all 0xff"),
        ..Default::default()
    };
    let namespace = prefix("/registry/pods/namespace-042/");
    let all = prefix("/registry/pods/");
    for (name, old) in [("newest", 0), ("old", fixture.filled)] {
        group.bench_function(format!("point/{name}"), |bencher| {
            bencher.iter(|| {
                let key = fixture.next_key();
                let request = pb::RangeRequest { key, revision: old, ..Default::default() };
                reader.range(&request).expect("range")
            });
        });
        for (shape, request) in [
            ("namespace", namespace.clone()),
            ("namespace page", pb::RangeRequest { limit: PAGE, ..namespace.clone() }),
            ("page of all", pb::RangeRequest { limit: PAGE, ..all.clone() }),
            ("count all", pb::RangeRequest { count_only: true, ..all.clone() }),
            ("keys of namespace", pb::RangeRequest { keys_only: true, ..namespace.clone() }),
        ] {
            let request = pb::RangeRequest { revision: old, ..request };
            group.bench_function(format!("{shape}/{name}"), |bencher| {
                bencher.iter(|| reader.range(&request).expect("range"));
            });
        }
    }
    group.finish();
    list(criterion, &reader, &all);
    catch_up(criterion, &fixture);
}

/// Everything, as it goes onto the wire: read and encoded page by page.
fn list(criterion: &mut Criterion, reader: &Reader, all: &pb::RangeRequest) {
    let mut group = criterion.benchmark_group("list");
    group.throughput(Throughput::Elements(KEYS as u64));
    group.bench_function("encoded", |bencher| {
        bencher.iter(|| {
            let mut bytes = 0;
            let pages = reader.range_pages(all, 256 << 10, |page| {
                bytes += page.encode_to_vec().len();
                ControlFlow::Continue(())
            });
            pages.expect("pages");
            bytes
        });
    });
    group.finish();
}

fn catch_up(criterion: &mut Criterion, fixture: &Fixture) {
    let reader = fixture.reader();
    let revisions = 1_000;
    let mut group = criterion.benchmark_group("events");
    group.throughput(Throughput::Elements(revisions as u64));
    for (name, from) in [("newest", fixture.filled), ("superseded", 2)] {
        let query = EventQuery {
            range: KeyRange::prefix(Bytes::from_static(b"/registry/pods/")),
            from: Revision(from + 1),
            to: Revision(from + revisions),
            budget_bytes: usize::MAX,
            prev_kv: true,
        };
        group.bench_function(name, |bencher| {
            bencher.iter(|| reader.events(&query).expect("events"));
        });
        // As many watchers share it: what happened, then the events of a tenth.
        group.bench_function(format!("{name}, shared"), |bencher| {
            bencher.iter(|| {
                let changes = reader.changes(query.from, query.to).expect("changes");
                let tenth: Vec<_> = changes.iter().step_by(10).collect();
                reader.events_of(&tenth, query.prev_kv).expect("events")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, apply, read);
criterion_main!(benches);
