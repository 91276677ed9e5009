//! The Raft log alone: what an append costs until it counts, on a folder under `TMPDIR`.

#![expect(missing_docs, reason = "criterion's macros make public items")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pintle_store::parts::Log;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const ENTRY_BYTES: usize = 256;
/// What the log may grow to before it is cut, unmeasured: a member cuts what its state has flushed.
const ENTRIES_MAX: u64 = 100_000;

struct Fixture {
    log: Log,
    first: u64,
    entry: Bytes,
    runtime: Runtime,
    _folder: TempDir,
}

impl Fixture {
    fn new(sync: bool) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self {
            log: Log::open(folder.path(), sync).expect("open"),
            first: 1,
            entry: vec![b'e'; ENTRY_BYTES].into(),
            runtime: Builder::new_current_thread().build().expect("a runtime"),
            _folder: folder,
        }
    }

    /// How long `rounds` appends of `count` entries take, one after the other.
    fn append(&mut self, rounds: u64, count: usize) -> Duration {
        let Self { log, first, entry, runtime, .. } = self;
        runtime.block_on(async {
            let mut spent = Duration::ZERO;
            for _ in 0..rounds {
                let entries = vec![entry.clone(); count];
                let start = Instant::now();
                log.append(entries).await.expect("appended");
                spent += start.elapsed();
                if log.last_index() - *first >= ENTRIES_MAX {
                    log.purge().await.expect("purged");
                    *first = log.last_index() + 1;
                }
            }
            spent
        })
    }
}

fn append(criterion: &mut Criterion) {
    for (name, sync) in [("synced", true), ("not synced", false)] {
        let mut fixture = Fixture::new(sync);
        let mut group = criterion.benchmark_group("append");
        for count in [1, 100] {
            group.throughput(Throughput::Elements(count as u64));
            group.bench_function(BenchmarkId::new(name, count), |bencher| {
                bencher.iter_custom(|rounds| fixture.append(rounds, count));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, append);
criterion_main!(benches);
