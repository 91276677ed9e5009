//! Random histories: every answer, event and read as in the model, over crashes, flushes,
//! removals and snapshots.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use pintle_mvcc::{Entry, EventQuery, Mvcc, Options, QueryError, validate};
use pintle_proto::raft::Command;
use pintle_store_api::{KeyRange, LeaseId, Rejection, Revision, pb};
use proptest::collection::vec;
use proptest::prelude::*;
use tempfile::TempDir;

use crate::model::{self, Model};
use crate::strategy;

/// Small, so that a test machine's memory does not matter.
pub(crate) fn options() -> Options {
    Options {
        block_cache_bytes: 4 << 20,
        write_buffer_bytes: 4 << 20,
        recent_bytes: 4_000,
        pending_bytes: 1_000,
        pending_thread: false,
        background_jobs: 2,
        count_bucket_keys_max: 3,
    }
}

/// In memory where the system offers that: nothing here is about disks, and flushes are many.
pub(crate) fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a temporary folder")
}

#[derive(Clone, Debug)]
enum Step {
    /// One apply: entries with their terms.
    Apply(Vec<(u64, Vec<Command>)>),
    Flush,
    CompactPhysically,
    /// Files as they are, memory lost; then the log is replayed.
    Crash,
    /// A clean stop and start.
    Reopen,
    /// A checkpoint takes the place of the state, as on a member that was behind.
    Install,
    Range(pb::RangeRequest),
    Txn(pb::TxnRequest),
    Events {
        key: Bytes,
        range_end: Bytes,
        from: i64,
        to: i64,
        budget_bytes: usize,
        prev_kv: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let entry = (1u64..3, vec(strategy::command(), 0..6));
    let events =
        (strategy::key(), strategy::range_end(), 1i64..50, 0i64..60, 0usize..200, any::<bool>());
    prop_oneof![
        12 => vec(entry, 0..3).prop_map(Step::Apply),
        1 => Just(Step::Flush),
        1 => Just(Step::CompactPhysically),
        1 => Just(Step::Crash),
        1 => Just(Step::Reopen),
        1 => Just(Step::Install),
        4 => strategy::range().prop_map(Step::Range),
        2 => strategy::txn().prop_map(Step::Txn),
        3 => events.prop_map(|(key, range_end, from, to, budget_bytes, prev_kv)| {
            Step::Events { key, range_end, from, to, budget_bytes, prev_kv }
        }),
    ]
}

/// A member and its log.
struct Member {
    /// Closed before its folder goes.
    mvcc: Mvcc,
    temp: TempDir,
    generation: usize,
    /// Each apply; its index is the opaque metadata.
    log: Vec<Vec<(u64, Vec<Command>)>>,
}

fn meta(index: usize) -> Bytes {
    Bytes::copy_from_slice(&(index as u64).to_be_bytes())
}

fn index(meta: Option<Bytes>) -> usize {
    meta.map_or(0, |meta| {
        u64::from_be_bytes(meta.as_ref().try_into().expect("eight bytes")) as usize
    })
}

fn entries(batch: &[(u64, Vec<Command>)]) -> Vec<Entry<'_>> {
    batch.iter().map(|(term, commands)| Entry { term: *term, commands }).collect()
}

impl Member {
    fn new() -> Self {
        let temp = scratch();
        let mvcc = Mvcc::open(temp.path().join("0"), options()).expect("open");
        Self { mvcc, temp, generation: 0, log: Vec::new() }
    }

    fn root(&self) -> PathBuf {
        self.temp.path().join(self.generation.to_string())
    }

    fn crash(&mut self) {
        let flushed = index(self.mvcc.reader().flushed_meta().expect("flushed"));
        let from = self.root();
        let to = self.temp.path().join((self.generation + 1).to_string());
        let mvcc = crashed(&from, &to);
        self.generation += 1;
        self.mvcc = mvcc;
        let recovered = index(self.mvcc.applied_meta());
        assert!(recovered >= flushed, "recovered {recovered}, but {flushed} was flushed");
        for (position, batch) in self.log.iter().enumerate().skip(recovered) {
            self.mvcc.apply(&entries(batch), meta(position + 1)).expect("replay");
        }
    }

    fn reopen(&mut self) {
        let elsewhere = self.temp.path().join("elsewhere");
        // The old one must be closed before its folder is opened again.
        self.mvcc = Mvcc::open(&elsewhere, options()).expect("open elsewhere");
        self.mvcc = Mvcc::open(self.root(), options()).expect("reopen");
        fs::remove_dir_all(elsewhere).expect("remove");
        assert_eq!(index(self.mvcc.applied_meta()), self.log.len(), "a clean stop loses nothing");
    }

    fn install(&mut self) {
        let dir = self.temp.path().join("checkpoint");
        let reader = self.mvcc.reader();
        let info = reader.checkpoint(&dir).expect("checkpoint");
        assert_eq!(info.revision, reader.current_revision());
        self.mvcc.install(&dir).expect("install");
        assert_eq!(Some(info.applied), self.mvcc.applied_meta().or(Some(Bytes::new())));
    }
}

/// The state that a crash now would come back to.
pub(crate) fn crashed(from: &Path, to: &Path) -> Mvcc {
    loop {
        // Background work may delete a file between its listing and its copy: copy again.
        if let Some(mvcc) = copy(from, to).ok().and_then(|()| Mvcc::open(to, options()).ok()) {
            return mvcc;
        }
        fs::remove_dir_all(to).expect("remove");
    }
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn rejected<T>(result: Result<T, QueryError>) -> Result<T, Rejection> {
    result.map_err(|error| match error {
        QueryError::Rejected(rejection) => rejection,
        QueryError::Fault(fault) => panic!("{fault}"),
    })
}

fn run(member: &mut Member, model: &mut Model, step: &Step) {
    match step {
        Step::Apply(batch) => {
            member.log.push(batch.clone());
            let applied = meta(member.log.len());
            let answer = member.mvcc.apply(&entries(batch), applied).expect("apply");
            let mut events = Vec::new();
            let mut outcomes = Vec::new();
            for (term, commands) in batch {
                for command in commands {
                    let (outcome, new) = model.apply(command, *term);
                    outcomes.push(outcome);
                    events.extend(new);
                }
            }
            assert_eq!(answer.outcomes, outcomes);
            assert_eq!(answer.events, events);
        }
        Step::Flush => {
            member.mvcc.reader().flush().expect("flush");
            assert_eq!(
                index(member.mvcc.reader().flushed_meta().expect("flushed")),
                member.log.len()
            );
        }
        Step::CompactPhysically => member.mvcc.reader().compact_physically().expect("compact"),
        Step::Crash => member.crash(),
        Step::Reopen => member.reopen(),
        Step::Install => member.install(),
        Step::Range(request) => {
            assert_eq!(
                rejected(member.mvcc.reader().range(request)),
                model.range(request),
                "{request:?}"
            );
        }
        Step::Txn(request) if validate::is_read_only(request) => {
            assert_eq!(rejected(member.mvcc.reader().txn(request)), model.txn(request));
        }
        Step::Txn(request) => {
            assert!(matches!(member.mvcc.reader().txn(request), Err(QueryError::Rejected(_))));
        }
        Step::Events { key, range_end, from, to, budget_bytes, prev_kv } => {
            let query = EventQuery {
                range: KeyRange::from_request(key.clone(), range_end.clone()),
                from: Revision(*from),
                to: Revision(*to),
                budget_bytes: *budget_bytes,
                prev_kv: *prev_kv,
            };
            let answer = rejected(member.mvcc.reader().events(&query));
            if *from < model.floor {
                assert_eq!(answer, Err(Rejection::Compacted(Revision(model.floor))));
                return;
            }
            let answer = answer.expect("not compacted");
            let end = *to.min(&model.revision());
            assert!(answer.through.0 >= *from || answer.through.0 >= end, "{query:?} {answer:?}");
            assert!(answer.through.0 <= end.max(from - 1));
            let expected = model.events(key, range_end, *from, answer.through.0, *prev_kv);
            assert_eq!(answer.events, expected, "{query:?}");

            let query = EventQuery { budget_bytes: usize::MAX, ..query };
            let found = rejected(member.mvcc.reader().events_by_key(&query, 10_000));
            let found = found.expect("not compacted").expect("few records");
            assert_eq!(found.through.0, end.max(from - 1), "{query:?}");
            let expected = model.events(key, range_end, *from, end, *prev_kv);
            assert_eq!(found.events, expected, "by key: {query:?}");
        }
    }
}

/// Everything that can be read, at every revision.
fn compare_all(member: &Member, model: &Model) {
    let reader = member.mvcc.reader();
    assert_eq!(reader.current_revision(), Revision(model.revision()));
    assert_eq!(reader.compact_revision(), Revision(model.floor));
    assert_eq!((reader.key_count(), reader.live_bytes()), model::sizes(model));
    let all = |revision| pb::RangeRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        revision,
        ..Default::default()
    };
    for revision in 0..=model.revision() + 1 {
        assert_eq!(
            rejected(reader.range(&all(revision))),
            model.range(&all(revision)),
            "at {revision}"
        );
    }
    let leases = reader.leases().expect("leases");
    let expected: Vec<_> =
        model.leases.iter().map(|(id, (ttl, left))| (*id, *ttl, *left)).collect();
    assert_eq!(
        leases
            .iter()
            .map(|lease| (lease.id.0, lease.granted_ttl, lease.remaining_ttl))
            .collect::<Vec<_>>(),
        expected
    );
    for lease in leases {
        assert_eq!(reader.lease(lease.id).expect("lease"), Some(lease));
    }
    for id in [-7, 1, 2, 3] {
        assert_eq!(
            reader.lease_keys(LeaseId(id)).expect("keys"),
            model.lease_keys(id),
            "lease {id}"
        );
    }
}

/// The same log without any of the disturbances.
fn quiet_twin(member: &Member) -> Member {
    let mut twin = Member::new();
    for batch in &member.log {
        twin.log.push(batch.clone());
        let applied = meta(twin.log.len());
        twin.mvcc.apply(&entries(batch), applied).expect("apply");
    }
    twin
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 2_000, ..Default::default() })]

    #[test]
    fn the_state_is_the_model(steps in vec(step(), 1..40)) {
        let mut member = Member::new();
        let mut model = Model::new();
        for step in &steps {
            run(&mut member, &mut model, step);
        }
        compare_all(&member, &model);
        member.crash();
        compare_all(&member, &model);

        let twin = quiet_twin(&member);
        for revision in 0..=model.revision() {
            let hash = |member: &Member| rejected(member.mvcc.reader().hash_kv(Revision(revision)));
            prop_assert_eq!(hash(&member), hash(&twin), "hash at {}", revision);
        }
    }
}
