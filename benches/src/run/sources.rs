//! Requests, encoded before the clock starts where they do not depend on answers.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use pintle_proto::etcdserverpb as pb;
use pintle_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use pintle_proto::etcdserverpb::request_op::Request;
use pintle_proto::etcdserverpb::response_op::Response;
use prost::Message;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

use crate::client::{Call, encode};

/// Requests in a pool: enough that no cache of the server holds just these.
const POOL: usize = 16_384;
/// The same requests every time.
const SEED: u64 = 7;

/// What a client sends next.
pub(super) trait Source {
    fn next(&mut self) -> (Call, Bytes);
    fn answered(&mut self, _answer: Bytes) {}
}

pub(super) fn key(index: usize) -> Bytes {
    format!("/registry/bench/{index:08}").into()
}

/// Bytes that do not compress.
pub(super) fn value(random: &mut StdRng, length: usize) -> Bytes {
    let mut value = vec![0; length];
    random.fill_bytes(&mut value);
    value.into()
}

fn random() -> StdRng {
    StdRng::seed_from_u64(SEED)
}

/// Encoded requests that all clients take from in turn.
#[derive(Clone)]
pub(super) struct Pool {
    call: Call,
    bodies: Rc<[Bytes]>,
    next: Rc<Cell<usize>>,
}

impl Pool {
    fn new(call: Call, bodies: impl Iterator<Item = Bytes>) -> Self {
        Self { call, bodies: bodies.collect(), next: Rc::default() }
    }

    /// Puts on keys chosen at random, under `prefix` where one is given.
    pub(super) fn puts(keys: usize, value_bytes: usize, prefix: &str) -> Self {
        let mut random = random();
        let mut put = || {
            let key = format!("{prefix}{:08}", random.random_range(0..keys)).into();
            let value = value(&mut random, value_bytes);
            encode(&pb::PutRequest { key, value, ..Default::default() })
        };
        Self::new(Call::Put, (0..POOL).map(|_| put()))
    }

    /// Ranges of `length` keys, chosen at random.
    pub(super) fn ranges(keys: usize, length: usize, serializable: bool) -> Self {
        let mut random = random();
        let mut range = || {
            let first = random.random_range(0..=keys.saturating_sub(length));
            let range_end = if length == 1 { Bytes::new() } else { key(first + length) };
            let key = key(first);
            encode(&pb::RangeRequest { key, range_end, serializable, ..Default::default() })
        };
        Self::new(Call::Range, (0..POOL).map(|_| range()))
    }
}

impl Source for Pool {
    fn next(&mut self) -> (Call, Bytes) {
        let at = self.next.get();
        self.next.set((at + 1) % self.bodies.len());
        (self.call, self.bodies[at].clone())
    }
}

/// A source whose answers others count, too.
pub(super) struct Counted<S> {
    source: S,
    answered: Arc<AtomicU64>,
}

impl<S> Counted<S> {
    pub(super) fn new(source: S, answered: Arc<AtomicU64>) -> Self {
        Self { source, answered }
    }
}

impl<S: Source> Source for Counted<S> {
    fn next(&mut self) -> (Call, Bytes) {
        self.source.next()
    }

    fn answered(&mut self, answer: Bytes) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.source.answered(answer);
    }
}

/// The kube-apiserver's update of keys that only this client writes.
pub(super) struct Updates {
    keys: Vec<(Bytes, i64)>,
    at: usize,
    value: Bytes,
}

impl Updates {
    pub(super) fn new(client: usize, keys: usize, value_bytes: usize) -> Self {
        let mut random = StdRng::seed_from_u64(client as u64);
        let key = |index| (format!("/registry/pods/client-{client:04}/{index:04}").into(), 0);
        let value = value(&mut random, value_bytes);
        Self { keys: (0..keys).map(key).collect(), at: 0, value }
    }
}

impl Source for Updates {
    fn next(&mut self) -> (Call, Bytes) {
        self.at = (self.at + 1) % self.keys.len();
        let (key, revision) = self.keys[self.at].clone();
        let compare = pb::Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            key: key.clone(),
            target_union: Some(TargetUnion::ModRevision(revision)),
            ..Default::default()
        };
        let put =
            pb::PutRequest { key: key.clone(), value: self.value.clone(), ..Default::default() };
        let get = pb::RangeRequest { key, ..Default::default() };
        let op = |request| vec![pb::RequestOp { request: Some(request) }];
        let txn = pb::TxnRequest {
            compare: vec![compare],
            success: op(Request::RequestPut(put)),
            failure: op(Request::RequestRange(get)),
        };
        (Call::Txn, encode(&txn))
    }

    fn answered(&mut self, answer: Bytes) {
        let Ok(answer) = pb::TxnResponse::decode(answer) else { return };
        let read = answer.responses.first().and_then(|op| match &op.response {
            Some(Response::ResponseRange(range)) => range.kvs.first(),
            _ => None,
        });
        let header = answer.header.map_or(0, |header| header.revision);
        self.keys[self.at].1 = match read {
            Some(kv) => kv.mod_revision,
            None if answer.succeeded => header,
            None => 0,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(updates: &mut Updates) -> i64 {
        let (_, body) = updates.next();
        let txn = pb::TxnRequest::decode(body.slice(5..)).expect("a transaction");
        match txn.compare[0].target_union {
            Some(TargetUnion::ModRevision(revision)) => revision,
            _ => panic!("compares the revision"),
        }
    }

    fn answer(succeeded: bool, revision: i64) -> Bytes {
        let header = Some(pb::ResponseHeader { revision, ..Default::default() });
        pb::TxnResponse { header, succeeded, ..Default::default() }.encode_to_vec().into()
    }

    #[test]
    fn an_update_expects_what_the_last_one_made() {
        let mut updates = Updates::new(1, 1, 8);
        assert_eq!(compared(&mut updates), 0, "a key that is not there");
        updates.answered(answer(true, 7));
        assert_eq!(compared(&mut updates), 7);
    }

    #[test]
    fn all_clients_take_from_one_pool() {
        let mut first = Pool::puts(1_000, 16, "/k/");
        let mut second = first.clone();
        assert_ne!(first.next().1, second.next().1);
    }
}
