//! Sequences of calls from a seed: pure, so that a seed is the whole description of a run.
//!
//! There are few keys, few leases and few watch ids, so that calls meet; revisions are drawn around
//! the current and the compacted one, where the rules change; and about one call in ten is wrong
//! in some way.

mod auth;
mod kubernetes;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::call::{Call, Compare, Delete, Op, Operand, Put, Range, Rev, Txn, Value, Watch};
use super::known;

/// No more than twelve living keys, or the order of equal ones in a sorted answer is chance.
const KEYS: [&str; 10] = ["a", "a/1", "a/2", "a/3", "ab", "b", "b/1", "c", "c\0", "\0"];
const LEASES: [i64; 5] = [1, 2, 3, 4, -9];
/// A time to live far beyond the length of a run: nothing expires by itself.
const TTL: i64 = 5_000;
/// Beyond the largest request that the servers are told to take.
const TOO_LARGE: usize = 70_000;

/// What kind of client the calls come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Anything that the API can express.
    General,
    /// What a kube-apiserver sends.
    Kubernetes,
    /// Users and roles come and go, and several of them use the store.
    Auth,
}

/// `count` calls; the same ones for the same seed.
pub fn generate(seed: u64, count: usize, profile: Profile) -> Vec<Call> {
    let mut source = Source(StdRng::seed_from_u64(seed));
    let mut calls = Vec::with_capacity(count);
    if profile == Profile::Auth {
        auth::calls(&mut source, &mut calls, count);
        return calls;
    }
    while calls.len() < count {
        calls.push(source.next(profile));
    }
    calls
}

struct Source(StdRng);

impl Source {
    fn chance(&mut self, percent: u32) -> bool {
        self.0.random_ratio(percent, 100)
    }

    fn of<T: Clone>(&mut self, items: &[T]) -> T {
        items.choose(&mut self.0).expect("there is always one").clone()
    }

    /// The next call that both should answer alike.
    fn next(&mut self, profile: Profile) -> Call {
        loop {
            let call = match profile {
                Profile::General => self.call(),
                Profile::Kubernetes => kubernetes::call(self),
                Profile::Auth => auth::call(self),
            };
            if known::unlike(&call).is_none() {
                return call;
            }
        }
    }

    fn call(&mut self) -> Call {
        match self.0.random_range(0..100) {
            0..22 => Call::Range(self.range()),
            22..42 => Call::Put(self.put()),
            42..50 => Call::Delete(self.delete()),
            50..70 => Call::Txn(self.txn(2)),
            70..74 => Call::Compact { revision: self.rev(), physical: self.chance(30) },
            74..78 => Call::LeaseGrant { id: self.lease(), ttl: self.ttl() },
            78..80 => Call::LeaseRevoke { id: self.lease() },
            80..82 => Call::LeaseTimeToLive { id: self.lease(), keys: self.chance(70) },
            82..83 => Call::LeaseKeepAlive { id: self.lease() },
            83..84 => Call::LeaseLeases,
            84..91 => Call::Watch(self.watch()),
            91..94 => Call::CancelWatch { id: self.watch_id() },
            94..96 => Call::WatchProgress,
            _ => self.maintenance(),
        }
    }

    fn maintenance(&mut self) -> Call {
        match self.0.random_range(0..10) {
            0..3 => Call::HashKv { revision: self.rev() },
            3 => Call::MemberList { linearizable: self.chance(50) },
            4 => Call::Status,
            5 => Call::Alarms { action: self.of(&[0, 2]), alarm: self.of(&[0, 1, 2]) },
            6 => Call::Defragment,
            7 => Call::MoveLeader { target: 77 },
            8 => Call::MemberUpdate { id: 77 },
            _ => self.of(&[Call::MemberRemove { id: 77 }, Call::MemberPromote { id: 77 }]),
        }
    }

    fn key(&mut self) -> String {
        if self.chance(2) {
            return String::new();
        }
        self.of(&KEYS).to_owned()
    }

    /// A key and where its range ends.
    fn span(&mut self) -> (String, String) {
        let key = self.key();
        let end = match self.0.random_range(0..100) {
            0..45 => String::new(),
            45..60 => "\0".to_owned(),
            60..80 => prefix_end(&key),
            80..95 => self.key(),
            _ => key.clone(),
        };
        (key, end)
    }

    fn rev(&mut self) -> Rev {
        match self.0.random_range(0..10) {
            0..5 => Rev::Now(self.0.random_range(-12..=2)),
            5..9 => Rev::Floor(self.0.random_range(-2..=6)),
            _ => Rev::Is(self.of(&[0, 1, -1, i64::MAX])),
        }
    }

    fn rev_or_newest(&mut self, percent: u32) -> Rev {
        if self.chance(percent) { self.rev() } else { Rev::default() }
    }

    fn lease(&mut self) -> i64 {
        if self.chance(5) { 0 } else { self.of(&LEASES) }
    }

    fn ttl(&mut self) -> i64 {
        if self.chance(20) { self.of(&[0, -3, 1, 9_000_000_000, 9_000_000_001]) } else { TTL }
    }

    fn value(&mut self) -> Value {
        match self.0.random_range(0..100) {
            0..4 => Value::Bytes(50_000),
            4 => Value::Bytes(TOO_LARGE),
            5..15 => Value::Text(String::new()),
            _ => Value::Text(self.of(&["1", "2", "3", "x"]).to_owned()),
        }
    }

    fn range(&mut self) -> Range {
        let (key, end) = self.span();
        let mut within: [Rev; 4] = Default::default();
        if self.chance(15) {
            for bound in &mut within {
                *bound = self.rev_or_newest(40);
            }
        }
        Range {
            key,
            end,
            limit: if self.chance(40) { self.0.random_range(-1..=4) } else { 0 },
            revision: self.rev_or_newest(40),
            order: if self.chance(25) { self.0.random_range(0..3) } else { 0 },
            target: if self.chance(25) { self.0.random_range(0..5) } else { 0 },
            serializable: self.chance(30),
            keys_only: self.chance(15),
            count_only: self.chance(15),
            within,
        }
    }

    fn put(&mut self) -> Put {
        let ignore_value = self.chance(10);
        let ignore_lease = self.chance(10);
        let keep = |ignored: bool, wrong: bool| ignored && !wrong;
        let wrong = self.chance(10);
        Put {
            key: self.key(),
            value: match keep(ignore_value, wrong) {
                true => Value::Text(String::new()),
                false => self.value(),
            },
            lease: match keep(ignore_lease, wrong) {
                true => 0,
                false if self.chance(30) => self.lease(),
                false => 0,
            },
            prev_kv: self.chance(30),
            ignore_value,
            ignore_lease,
        }
    }

    fn delete(&mut self) -> Delete {
        let (key, end) = self.span();
        Delete { key, end, prev_kv: self.chance(50) }
    }

    fn compare(&mut self) -> Compare {
        let (key, end) = self.span();
        let target = self.0.random_range(0..5);
        let operand = match if self.chance(90) { target } else { self.0.random_range(0..6) } {
            0 => Operand::Version(self.0.random_range(0..4)),
            1 => Operand::Create(self.rev()),
            2 => Operand::Mod(self.rev()),
            3 => Operand::Value(self.value()),
            4 => Operand::Lease(self.lease()),
            _ => Operand::None,
        };
        let end = if self.chance(60) { String::new() } else { end };
        Compare { key, end, result: self.0.random_range(0..4), target, operand }
    }

    fn txn(&mut self, depth: usize) -> Txn {
        let compares = self.0.random_range(0..3);
        Txn {
            compare: (0..compares).map(|_| self.compare()).collect(),
            success: self.ops(depth),
            failure: self.ops(depth),
        }
    }

    fn ops(&mut self, depth: usize) -> Vec<Op> {
        // More than the servers are told to take, now and then.
        let most = if self.chance(2) { 12 } else { 4 };
        let count = self.0.random_range(0..most);
        (0..count).map(|_| self.op(depth)).collect()
    }

    fn op(&mut self, depth: usize) -> Op {
        match self.0.random_range(0..100) {
            0..35 => Op::Range(self.range()),
            35..65 => Op::Put(self.put()),
            65..80 => Op::Delete(self.delete()),
            80 => Op::Nothing,
            _ if depth > 0 => Op::Txn(self.txn(depth - 1)),
            _ => Op::Put(self.put()),
        }
    }

    fn watch_id(&mut self) -> i64 {
        self.0.random_range(0..8)
    }

    fn watch(&mut self) -> Watch {
        let (key, end) = self.span();
        let mut filters = Vec::new();
        if self.chance(30) {
            filters = self.of(&[vec![0], vec![1], vec![0, 1], vec![1, 1]]);
        }
        Watch {
            key,
            end,
            start: self.rev_or_newest(60),
            id: if self.chance(30) { self.watch_id() } else { 0 },
            filters,
            prev_kv: self.chance(50),
            fragment: self.chance(40),
            progress_notify: self.chance(20),
        }
    }
}

/// The end of "every key that begins with `key`".
pub(super) fn prefix_end(key: &str) -> String {
    let mut end = key.to_owned();
    match end.pop() {
        Some(last) => {
            end.push(char::from_u32(last as u32 + 1).unwrap_or('\u{7f}'));
            end
        }
        None => "\0".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_the_whole_description() {
        for profile in [Profile::General, Profile::Kubernetes, Profile::Auth] {
            assert_eq!(generate(7, 300, profile), generate(7, 300, profile));
            assert_ne!(generate(7, 300, profile), generate(8, 300, profile));
        }
    }

    #[test]
    fn what_is_printed_can_be_replayed() {
        for profile in [Profile::General, Profile::Kubernetes, Profile::Auth] {
            let calls = generate(1, 2_000, profile);
            let text = serde_json::to_string(&calls).expect("plain data");
            assert_eq!(serde_json::from_str::<Vec<Call>>(&text).expect("the same"), calls);
        }
    }
}
