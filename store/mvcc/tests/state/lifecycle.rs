//! Crashes, snapshots and removal, where the random histories are too short to tell.

use std::fs;

use bytes::Bytes;
use pintle_mvcc::{Entry, EventQuery, Mvcc, Options, QueryError};
use pintle_proto::raft::{Command, command::Kind};
use pintle_store_api::{KeyRange, Rejection, Revision, pb};

use crate::replay::{self, options, scratch};

fn put(key: &str, value: impl Into<Bytes>) -> Command {
    let put =
        pb::PutRequest { key: key.to_owned().into(), value: value.into(), ..Default::default() };
    Command { kind: Some(Kind::Put(put)), caller: None }
}

fn compact(revision: i64) -> Command {
    Command {
        kind: Some(Kind::Compact(pb::CompactionRequest { revision, physical: false })),
        caller: None,
    }
}

fn apply(mvcc: &mut Mvcc, commands: &[Command], applied: &'static [u8]) {
    let entry = Entry { term: 1, commands };
    mvcc.apply(&[entry], Bytes::from_static(applied)).expect("apply");
}

fn read(mvcc: &Mvcc, key: &'static str, revision: i64) -> Result<Option<Bytes>, Rejection> {
    let request = pb::RangeRequest { key: key.into(), revision, ..Default::default() };
    match mvcc.reader().range(&request) {
        Ok(answer) => Ok(answer.kvs.into_iter().next().map(|kv| kv.value)),
        Err(QueryError::Rejected(rejection)) => Err(rejection),
        Err(QueryError::Fault(fault)) => panic!("{fault}"),
    }
}

#[test]
fn a_fresh_state_has_revision_one_and_no_metadata() {
    let temp = scratch();
    let mvcc = Mvcc::open(temp.path(), options()).expect("open");
    let reader = mvcc.reader();
    assert_eq!(mvcc.applied_meta(), None);
    assert_eq!(reader.flushed_meta().expect("flushed"), None);
    assert_eq!(reader.current_revision(), Revision(1));
    assert_eq!(reader.compact_revision(), Revision(-1));
}

#[test]
fn a_crash_comes_back_to_what_was_flushed() {
    let temp = scratch();
    let (root, crashed) = (temp.path().join("root"), temp.path().join("crashed"));
    let mut mvcc = Mvcc::open(&root, options()).expect("open");
    apply(&mut mvcc, &[put("a", "1")], b"one");
    mvcc.reader().flush().expect("flush");
    apply(&mut mvcc, &[put("a", "2")], b"two");
    assert_eq!(mvcc.applied_meta().as_deref(), Some(&b"two"[..]));
    assert_eq!(mvcc.reader().flushed_meta().expect("flushed").as_deref(), Some(&b"one"[..]));

    let recovered = replay::crashed(&root, &crashed);
    assert_eq!(recovered.applied_meta().as_deref(), Some(&b"one"[..]));
    assert_eq!(read(&recovered, "a", 0), Ok(Some("1".into())));
}

#[test]
fn a_put_is_quick_once_memory_has_its_key() {
    let temp = scratch();
    let mut mvcc = Mvcc::open(temp.path(), options()).expect("open");
    assert!(mvcc.is_quick(&[put("a", "1")]), "nothing is on disk");
    apply(&mut mvcc, &[put("a", "1")], b"one");
    mvcc.reader().flush().expect("flush");
    assert!(mvcc.is_quick(&[put("a", "2")]), "it was written just now");
    drop(mvcc);

    let mut mvcc = Mvcc::open(temp.path(), options()).expect("open again");
    assert!(!mvcc.is_quick(&[put("a", "2")]), "it is on disk only");
    read(&mvcc, "a", 0).expect("there");
    assert!(mvcc.is_quick(&[put("a", "2")]), "it was read");
    assert!(!mvcc.is_quick(&[put("a", "2"), compact(2)]));
    // What it looked up is what apply finds.
    apply(&mut mvcc, &[put("a", "2")], b"two");
    assert_eq!(read(&mvcc, "a", 0), Ok(Some("2".into())));
    assert_eq!(read(&mvcc, "a", 2), Ok(Some("1".into())));
}

#[test]
fn events_below_the_floor_are_refused_with_the_newest_floor() {
    let temp = scratch();
    let mut mvcc = Mvcc::open(temp.path(), options()).expect("open");
    apply(&mut mvcc, &[put("a", "1"), put("a", "2"), put("a", "3"), compact(2)], b"one");
    mvcc.reader().flush().expect("flush");
    apply(&mut mvcc, &[compact(3)], b"two");
    let query = EventQuery {
        range: KeyRange::between(Bytes::new(), None),
        from: Revision(1),
        to: Revision(4),
        budget_bytes: usize::MAX,
        prev_kv: false,
    };
    match mvcc.reader().events(&query) {
        Err(QueryError::Rejected(refusal)) => {
            assert_eq!(refusal, Rejection::Compacted(Revision(3)));
        }
        other => panic!("{other:?}"),
    }
}

/// Otherwise a replayed transaction that reads at an old revision would find it gone.
#[test]
fn removal_waits_until_the_floor_is_flushed() {
    let temp = scratch();
    let (root, crashed) = (temp.path().join("root"), temp.path().join("crashed"));
    let mut mvcc = Mvcc::open(&root, options()).expect("open");
    apply(&mut mvcc, &[put("a", "1"), put("a", "2"), put("a", "3")], b"one");
    mvcc.reader().compact_physically().expect("nothing to remove yet");
    apply(&mut mvcc, &[compact(4)], b"two");
    assert_eq!(read(&mvcc, "a", 2), Err(Rejection::Compacted(Revision(4))));

    let recovered = replay::crashed(&root, &crashed);
    assert_eq!(recovered.applied_meta().as_deref(), Some(&b"one"[..]));
    recovered.reader().compact_physically().expect("compact");
    assert_eq!(read(&recovered, "a", 2), Ok(Some("1".into())));
    assert_eq!(read(&recovered, "a", 3), Ok(Some("2".into())));
}

/// Only what was read can have been removed meanwhile.
#[test]
fn a_branch_that_is_not_taken_may_name_a_compacted_revision() {
    let temp = scratch();
    let mut mvcc = Mvcc::open(temp.path(), options()).expect("open");
    apply(&mut mvcc, &[put("a", "1"), put("a", "2"), compact(3)], b"one");
    mvcc.reader().flush().expect("flush");
    mvcc.reader().compact_physically().expect("compact");
    let old = pb::RangeRequest { key: "a".into(), revision: 2, ..Default::default() };
    let op = pb::RequestOp { request: Some(pb::request_op::Request::RequestRange(old)) };
    let taken = pb::TxnRequest { success: vec![op.clone()], ..Default::default() };
    let rejected = mvcc.reader().txn(&taken);
    assert!(
        matches!(&rejected, Err(QueryError::Rejected(Rejection::Compacted(Revision(3))))),
        "{rejected:?}"
    );
    let passed_over = pb::TxnRequest { failure: vec![op], ..Default::default() };
    assert!(mvcc.reader().txn(&passed_over).expect("answered").succeeded);
}

#[test]
fn physical_compaction_gives_the_space_back() {
    let temp = scratch();
    let mut mvcc = Mvcc::open(temp.path(), options()).expect("open");
    let noise = |round: u32, at: u32| {
        let mut word = (round << 16 | at).wrapping_mul(2_654_435_761) | 1;
        let bytes = (0..4_096).map(|_| {
            word ^= word << 13;
            word ^= word >> 17;
            word ^= word << 5;
            word as u8
        });
        bytes.collect::<Vec<u8>>()
    };
    for round in 0..20 {
        let commands: Vec<_> =
            (0..50).map(|at| put(&format!("key{at:02}"), noise(round, at))).collect();
        apply(&mut mvcc, &commands, b"");
    }
    let reader = mvcc.reader();
    reader.flush().expect("flush");
    let before = reader.db_size().expect("size");
    assert!(before > 3 << 20, "twenty versions take {before}");
    let newest = reader.current_revision().0;
    apply(&mut mvcc, &[compact(newest)], b"");
    reader.compact_physically().expect("compact");
    let after = reader.db_size().expect("size");
    assert!(after < before / 2, "one version takes {after}, twenty took {before}");
    assert_eq!(reader.live_bytes(), 50 * (5 + 4_096));
}

#[test]
fn readers_follow_an_installed_snapshot() {
    let temp = scratch();
    let (ahead, behind) = (temp.path().join("ahead"), temp.path().join("behind"));
    let checkpoint = temp.path().join("checkpoint");
    let mut leader = Mvcc::open(ahead, options()).expect("open");
    apply(&mut leader, &[put("a", "1"), put("a", "2"), compact(3), put("b", "1")], b"leader");
    let info = leader.reader().checkpoint(&checkpoint).expect("checkpoint");
    assert_eq!((info.applied.as_ref(), info.revision), (&b"leader"[..], Revision(4)));

    let mut follower = Mvcc::open(&behind, options()).expect("open");
    apply(&mut follower, &[put("z", "old")], b"follower");
    let reader = follower.reader();
    follower.install(&checkpoint).expect("install");
    assert!(!checkpoint.exists(), "moved, not copied");
    assert_eq!(reader.current_revision(), Revision(4));
    assert_eq!(follower.applied_meta().as_deref(), Some(&b"leader"[..]));
    assert_eq!(reader.flushed_meta().expect("flushed").as_deref(), Some(&b"leader"[..]));
    assert_eq!(read(&follower, "z", 0), Ok(None));
    assert_eq!(read(&follower, "a", 2), Err(Rejection::Compacted(Revision(3))));
    let hash = |mvcc: &Mvcc| mvcc.reader().hash_kv(Revision(0)).expect("hash");
    assert_eq!(hash(&follower), hash(&leader));

    let folders = fs::read_dir(&behind)
        .expect("list")
        .filter(|entry| entry.as_ref().expect("entry").file_type().expect("type").is_dir());
    assert_eq!(folders.count(), 1, "the replaced state is removed");
    apply(&mut follower, &[put("a", "3")], b"next");
    drop((reader, follower));
    let reopened = Mvcc::open(&behind, options()).expect("reopen");
    assert_eq!(read(&reopened, "a", 0), Ok(Some("3".into())));
    assert_eq!(reopened.applied_meta().as_deref(), Some(&b"next"[..]));
}

#[test]
fn automatic_flushes_move_the_flushed_metadata() {
    let temp = scratch();
    let small = Options { write_buffer_bytes: 256 << 10, ..options() };
    let mut mvcc = Mvcc::open(temp.path(), small).expect("open");
    let reader = mvcc.reader();
    let mut applies = 0u64;
    while reader.flushed_meta().expect("flushed").is_none() {
        applies += 1;
        assert!(applies < 100_000, "no buffer was ever flushed");
        let command = put("a", vec![b'x'; 4_096]);
        let entry = Entry { term: 1, commands: &[command] };
        mvcc.apply(&[entry], applies.to_be_bytes().to_vec().into()).expect("apply");
    }
    let flushed = reader.flushed_meta().expect("flushed").expect("some");
    let flushed = u64::from_be_bytes(flushed.as_ref().try_into().expect("eight bytes"));
    assert!((1..=applies).contains(&flushed));
}

/// Buckets are cut and joined as keys come and go, in large batches and small ones.
#[test]
fn counts_hold_while_buckets_are_cut_and_joined() {
    let temp = scratch();
    let buckets = Options { count_bucket_keys_max: 16, ..options() };
    let mut mvcc = Mvcc::open(temp.path(), buckets.clone()).expect("open");
    let mut living = std::collections::BTreeSet::new();
    let mut random = 1u32;
    let mut next = |below: u32| {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        random % below
    };
    let name = |number: u32| format!("{number:04}");
    for round in 0..60 {
        let growing = round < 30;
        let commands = (0..1 + next(200)).map(|_| {
            let (number, put_it) = (next(2_000), next(10) < if growing { 9 } else { 2 });
            let key: Bytes = name(number).into();
            if put_it {
                living.insert(number);
                put(&name(number), "")
            } else {
                let end = name((number + 50).min(2_000));
                living.retain(|key| *key < number || name(*key) >= end);
                let delete = pb::DeleteRangeRequest { key, range_end: end.into(), prev_kv: false };
                Command { kind: Some(Kind::DeleteRange(delete)), caller: None }
            }
        });
        let commands: Vec<_> = commands.collect();
        let before = mvcc.reader().current_revision().0;
        apply(&mut mvcc, &commands, b"");
        for _ in 0..20 {
            let (start, end) = (next(2_100), next(2_100));
            let request = |revision| pb::RangeRequest {
                key: name(start).into(),
                range_end: name(end).into(),
                count_only: true,
                revision,
                ..Default::default()
            };
            let count = |revision| mvcc.reader().range(&request(revision)).expect("range").count;
            let expected = living.range(start.min(end)..end).count() as i64;
            assert_eq!(count(0), expected, "round {round}, {start}..{end}");
            let old = pb::RangeRequest { count_only: false, ..request(before) };
            let found = mvcc.reader().range(&old).expect("range").kvs.len() as i64;
            assert_eq!(count(before), found, "round {round}, {start}..{end} at {before}");
        }
    }
    drop(mvcc);
    let reopened = Mvcc::open(temp.path(), buckets).expect("reopen");
    assert_eq!(reopened.reader().key_count(), living.len() as u64);
}

#[test]
fn hashes_tell_different_states_apart() {
    let temp = scratch();
    let mut hashes = Vec::new();
    for (index, commands) in [
        vec![put("a", "1"), put("b", "2")],
        vec![put("a", "2"), put("b", "1")],
        vec![put("b", "2"), put("a", "1")],
        vec![put("a", "1"), put("a", "2")],
        vec![put("ab", ""), put("b", "2")],
    ]
    .into_iter()
    .enumerate()
    {
        let mut mvcc = Mvcc::open(temp.path().join(index.to_string()), options()).expect("open");
        apply(&mut mvcc, &commands, b"");
        let answer = mvcc.reader().hash_kv(Revision(0)).expect("hash");
        assert_eq!((answer.hash_revision, answer.compact_revision), (3, -1));
        hashes.push(answer.hash);
    }
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 5);
}
