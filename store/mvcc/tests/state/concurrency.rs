//! Readers beside the writer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bytes::Bytes;
use pintle_mvcc::{Entry, EventQuery, Mvcc, Options, QueryError, Reader};
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

/// Nobody asks for ranges, so what is applied goes to the database when enough has come together, on another
/// thread: single keys must be found wherever they are, also those that the cache has forgotten.
#[test]
fn single_keys_are_found_before_and_after_they_are_written_out() {
    const MANY: i64 = 300;
    const PUTS: i64 = 20_000;
    let place = |revision: i64| revision * 7 % MANY;
    // The revision that wrote a key last, as of a revision; the first put makes revision 2.
    let newest =
        |key: i64, head: i64| (2..=head).rev().take(MANY as usize).find(|r| place(*r) == key);
    let name = |key: i64| Bytes::from(format!("key{key:03}"));
    let temp = scratch();
    let options = Options { pending_bytes: 30_000, pending_thread: true, ..options() };
    let mut mvcc = Mvcc::open(temp.path(), options.clone()).expect("open");
    let done = AtomicBool::new(false);
    let reader = mvcc.reader();
    let check = |key: i64| {
        let seen = reader.current_revision().0;
        let request = pb::RangeRequest { key: name(key), ..Default::default() };
        let answer = reader.range(&request).expect("range");
        let head = answer.header.expect("header").revision;
        assert!(head >= seen, "what was current is not undone");
        let found = answer.kvs.first().map(|kv| kv.mod_revision);
        assert_eq!(found, newest(key, head), "key {key} at {head}");
    };
    thread::scope(|scope| {
        for offset in 0..2 {
            let (check, done) = (&check, &done);
            scope.spawn(move || {
                for key in (offset..).step_by(11) {
                    if done.load(Ordering::Acquire) {
                        break;
                    }
                    check(key % MANY);
                }
            });
        }
        let mut revision = 1;
        while revision <= PUTS {
            let commands: Vec<_> = (0..1 + revision % 40)
                .map(|_| {
                    revision += 1;
                    let (key, value) = (name(place(revision)), vec![b'v'; 100].into());
                    let put = pb::PutRequest { key, value, ..Default::default() };
                    Command { kind: Some(Kind::Put(put)), caller: None }
                })
                .collect();
            mvcc.apply(&[Entry { term: 1, commands: &commands }], Bytes::new()).expect("apply");
        }
        done.store(true, Ordering::Release);
    });
    (0..MANY).for_each(check);
    let hash = |mvcc: &Mvcc| mvcc.reader().hash_kv(Revision(0)).expect("hash");
    let before = hash(&mvcc);
    drop(reader);
    drop(mvcc);
    let reopened = Mvcc::open(temp.path(), options).expect("reopen");
    assert_eq!(hash(&reopened), before, "a clean stop writes what waits");
}

/// Whoever reads a range after a while need not wait for it.
#[test]
fn what_waits_is_written_when_nothing_comes() {
    let temp = scratch();
    let options = Options { pending_bytes: 16 << 20, pending_thread: true, ..options() };
    let mut mvcc = Mvcc::open(temp.path(), options).expect("open");
    let reader = mvcc.reader();
    for round in 0..2 {
        let (key, value) = ("large".into(), vec![b'v'; 100 << 10].into());
        let put = pb::PutRequest { key, value, ..Default::default() };
        let put = Command { kind: Some(Kind::Put(put)), caller: None };
        let small = (0..1_000).map(|_| {
            let (key, value) = ("small".into(), vec![b'v'; 100].into());
            let put = pb::PutRequest { key, value, ..Default::default() };
            Command { kind: Some(Kind::Put(put)), caller: None }
        });
        let commands: Vec<_> = [put].into_iter().chain(small).collect();
        mvcc.apply(&[Entry { term: 1, commands: &commands[..1] }], Bytes::new()).expect("apply");
        assert!(reader.is_nearly_settled(), "large values are written at once, round {round}");
        mvcc.apply(&[Entry { term: 1, commands: &commands[1..] }], Bytes::new()).expect("apply");
        assert!(!reader.is_nearly_settled(), "round {round}");
        while !reader.is_nearly_settled() {
            thread::yield_now();
        }
    }
}

/// A lease counts as soon as it is applied, and its keys go with it, wherever both are.
#[test]
fn leases_are_known_before_they_are_written_out() {
    use pintle_proto::raft::{LeaseGrant, LeaseRevoke};
    let temp = scratch();
    let options = Options { pending_bytes: 2_000, pending_thread: true, ..options() };
    let mut mvcc = Mvcc::open(temp.path(), options).expect("open");
    let command = |kind| Command { kind: Some(kind), caller: None };
    let put = |id: i64| {
        let (key, value) = (format!("key{id:04}").into(), vec![b'v'; 50].into());
        command(Kind::Put(pb::PutRequest { key, value, lease: id, ..Default::default() }))
    };
    let mut apply = |commands: &[Command]| {
        let applied = mvcc.apply(&[Entry { term: 1, commands }], Bytes::new()).expect("apply");
        applied.outcomes.iter().all(Result::is_ok)
    };
    for id in 1..=500 {
        assert!(apply(&[command(Kind::LeaseGrant(LeaseGrant { id, ttl: 9 }))]), "grant {id}");
        assert!(apply(&[put(id)]), "put {id}");
        if id % 7 == 0 {
            let ids = vec![id / 7 * 3];
            let revoke = command(Kind::LeaseRevoke(LeaseRevoke { ids, expired_in_term: 0 }));
            assert!(apply(&[put(id / 7 * 3)]), "its lease is there, {id}");
            assert!(apply(&[revoke]), "revoke, {id}");
            assert!(!apply(&[put(id / 7 * 3)]), "its lease is gone, {id}");
        }
    }
    let reader = mvcc.reader();
    for lease in reader.leases().expect("leases") {
        let keys = reader.lease_keys(lease.id).expect("keys");
        assert_eq!(keys, [Bytes::from(format!("key{:04}", lease.id.0))]);
    }
}
