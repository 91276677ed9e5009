//! Readers beside the writer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bytes::Bytes;
use pintle_mvcc::{Entry, EventQuery, Mvcc, QueryError, Reader};
use pintle_proto::raft::{Command, command::Kind};
use pintle_store_api::{KeyRange, Rejection, Revision, pb};

use crate::replay::{options, scratch};

const KEYS: i64 = 8;
const ROUNDS: i64 = 400;

/// Writes the round into all keys, in one revision.
fn round(round: i64) -> Command {
    let put = |key: i64| {
        let (key, value) = (format!("key{key}").into(), round.to_string().into());
        let put = pb::PutRequest { key, value, ..Default::default() };
        pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) }
    };
    let success = (0..KEYS).map(put).collect();
    Command {
        kind: Some(Kind::Txn(pb::TxnRequest { success, ..Default::default() })),
        caller: None,
    }
}

fn compact(revision: i64) -> Command {
    Command {
        kind: Some(Kind::Compact(pb::CompactionRequest { revision, physical: false })),
        caller: None,
    }
}

fn all(revision: i64) -> pb::RangeRequest {
    let (key, range_end) = (Bytes::from_static(b"key"), Bytes::from_static(b"kez"));
    pb::RangeRequest { key, range_end, revision, ..Default::default() }
}

/// Round r is revision r + 1, so that all keys must say their revision − 1. False once compacted.
fn check_read(reader: &Reader, revision: i64) -> bool {
    let answer = match reader.range(&all(revision)) {
        Ok(answer) => answer,
        Err(QueryError::Rejected(Rejection::Compacted(floor))) => {
            assert!(floor.0 > revision);
            return false;
        }
        Err(error) => panic!("{error}"),
    };
    let newest = answer.header.expect("header").revision;
    let expected = if revision > 0 { revision } else { newest };
    assert_eq!(answer.kvs.len() as i64, if expected > 1 { KEYS } else { 0 });
    for kv in answer.kvs {
        assert_eq!(kv.mod_revision, expected, "one revision writes all keys");
        assert_eq!(kv.value, (expected - 1).to_string());
    }
    true
}

/// A single key needs no snapshot, and must be as consistent with its header.
fn check_key(reader: &Reader) {
    let request = pb::RangeRequest { key: Bytes::from_static(b"key3"), ..Default::default() };
    let answer = reader.range(&request).expect("range");
    let newest = answer.header.expect("header").revision;
    let expected = if newest > 1 { vec![newest] } else { vec![] };
    assert_eq!(answer.kvs.iter().map(|kv| kv.mod_revision).collect::<Vec<_>>(), expected);
}

fn check_events(reader: &Reader, from: i64) {
    let query = EventQuery {
        range: KeyRange::prefix(Bytes::from_static(b"key")),
        from: Revision(from),
        to: Revision(i64::MAX),
        budget_bytes: 1,
        prev_kv: true,
    };
    match reader.events(&query) {
        Ok(answer) if answer.through.0 >= from => {
            assert_eq!(answer.events.len() as i64, KEYS, "exactly one whole revision");
            for event in answer.events {
                assert_eq!(event.kv.expect("kv").mod_revision, from);
            }
        }
        Ok(_) | Err(QueryError::Rejected(Rejection::Compacted(_))) => {}
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn readers_see_whole_revisions_while_old_ones_are_removed() {
    let temp = scratch();
    let mut mvcc = Mvcc::open(temp.path(), options()).expect("open");
    let done = AtomicBool::new(false);
    let reader = mvcc.reader();
    thread::scope(|scope| {
        for offset in 0..2 {
            let (reader, done) = (reader.clone(), &done);
            scope.spawn(move || {
                while !done.load(Ordering::Acquire) {
                    check_read(&reader, 0);
                    (0..20).for_each(|_| check_key(&reader));
                    let newest = reader.current_revision().0;
                    check_read(&reader, (newest - 5 - offset).max(1));
                    check_events(&reader, (newest - 7 - offset).max(2));
                    reader.hash_kv(Revision(0)).expect("hash");
                }
            });
        }
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                reader.compact_physically().expect("compact");
            }
        });
        for number in 1..=ROUNDS {
            let mut commands = vec![round(number)];
            if number % 10 == 0 {
                commands.push(compact(number - 4));
            }
            let entry = Entry { term: 1, commands: &commands };
            let applied = mvcc.apply(&[entry], Bytes::new()).expect("apply");
            assert!(applied.outcomes.iter().all(Result::is_ok));
        }
        done.store(true, Ordering::Release);
    });
    assert_eq!(reader.current_revision(), Revision(ROUNDS + 1));
    assert!(!check_read(&reader, ROUNDS - 5), "below the floor");
    assert!(check_read(&reader, ROUNDS - 4), "at the floor");
}
