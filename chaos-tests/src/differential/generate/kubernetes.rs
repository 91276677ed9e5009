//! What a kube-apiserver sends: conditional writes of single objects, paged lists at a revision,
//! watches of prefixes, and the compactor's compare-and-swap.

use rand::Rng;

use super::{Source, prefix_end};
use crate::differential::call::{
    Call, Compare, Delete, Op, Operand, Put, Range, Rev, Txn, Value, Watch,
};

const OBJECTS: [&str; 6] = [
    "/registry/pods/default/a",
    "/registry/pods/default/b",
    "/registry/pods/kube-system/a",
    "/registry/leases/default/a",
    "/registry/leases/default/b",
    "/registry/events/default/a",
];
const PREFIXES: [&str; 4] =
    ["/registry/pods/", "/registry/pods/default/", "/registry/leases/", "/registry/"];
const COMPACT_KEY: &str = "compact_rev_key";
const EQUAL: i32 = 0;
const VERSION: i32 = 0;
const MOD: i32 = 2;

pub(super) fn call(source: &mut Source) -> Call {
    match source.0.random_range(0..100) {
        0..15 => Call::Txn(create(source)),
        15..40 => Call::Txn(update(source)),
        40..50 => Call::Txn(delete(source)),
        50..56 => Call::Range(get(source)),
        56..78 => Call::Range(list(source)),
        78..84 => Call::Watch(watch(source)),
        84..87 => Call::CancelWatch { id: source.0.random_range(0..6) },
        87..90 => Call::WatchProgress,
        90..93 => Call::Txn(compactor(source)),
        93..95 => {
            Call::Compact { revision: Rev::Now(source.0.random_range(-8..=0)), physical: false }
        }
        95..98 => Call::LeaseGrant { id: source.0.random_range(1..4), ttl: super::TTL },
        98 => Call::LeaseRevoke { id: source.0.random_range(1..4) },
        _ => Call::Status,
    }
}

fn object(source: &mut Source) -> String {
    source.of(&OBJECTS).to_owned()
}

fn if_mod(key: &str, revision: Rev) -> Compare {
    let (key, end) = (key.to_owned(), String::new());
    Compare { key, end, result: EQUAL, target: MOD, operand: Operand::Mod(revision) }
}

fn put(source: &mut Source, key: String) -> Op {
    let value = Value::Text(format!("{{\"n\":{}}}", source.0.random_range(0..1_000)));
    // Events carry a lease; it may be one that is gone.
    let lease = if source.chance(15) { source.0.random_range(1..4) } else { 0 };
    Op::Put(Put { key, value, lease, prev_kv: false, ignore_value: false, ignore_lease: false })
}

fn get_op(key: String) -> Op {
    Op::Range(Range { key, ..Range::default() })
}

fn create(source: &mut Source) -> Txn {
    let key = object(source);
    let compare = vec![if_mod(&key, Rev::Is(0))];
    Txn { compare, success: vec![put(source, key)], failure: vec![] }
}

/// The revision that a writer saw: the newest, or one that is out of date.
fn seen(source: &mut Source, key: &str) -> Rev {
    if source.chance(75) {
        return Rev::Of(key.to_owned());
    }
    Rev::Now(source.0.random_range(-6..=0))
}

fn update(source: &mut Source) -> Txn {
    let key = object(source);
    let compare = vec![if_mod(&key, seen(source, &key))];
    Txn { compare, success: vec![put(source, key.clone())], failure: vec![get_op(key)] }
}

fn delete(source: &mut Source) -> Txn {
    let key = object(source);
    let compare = vec![if_mod(&key, seen(source, &key))];
    let delete = Delete { key: key.clone(), end: String::new(), prev_kv: false };
    Txn { compare, success: vec![Op::Delete(delete)], failure: vec![get_op(key)] }
}

fn get(source: &mut Source) -> Range {
    let serializable = source.chance(20);
    Range { key: object(source), serializable, ..Range::default() }
}

fn list(source: &mut Source) -> Range {
    let prefix = source.of(&PREFIXES);
    let end = prefix_end(prefix);
    let mut range = Range { key: prefix.to_owned(), end, ..Range::default() };
    match source.0.random_range(0..6) {
        0 => range.count_only = true,
        1 => (range.limit, range.keys_only) = (1, true),
        2 => range.limit = source.0.random_range(1..4),
        // The page after the one that ended with this key.
        3 => {
            range.key = object(source) + "\0";
            range.limit = 2;
            range.revision = Rev::Now(source.0.random_range(-10..=0));
        }
        4 => range.revision = Rev::Now(source.0.random_range(-10..=1)),
        _ => {}
    }
    range
}

fn watch(source: &mut Source) -> Watch {
    let key = source.of(&PREFIXES).to_owned();
    let start = Rev::Now(source.0.random_range(-10..=1));
    Watch {
        end: prefix_end(&key),
        key,
        start,
        id: 0,
        filters: Vec::new(),
        prev_kv: true,
        fragment: false,
        progress_notify: true,
    }
}

fn compactor(source: &mut Source) -> Txn {
    let key = COMPACT_KEY.to_owned();
    let compare = Compare {
        key: key.clone(),
        end: String::new(),
        result: EQUAL,
        target: VERSION,
        operand: Operand::Version(source.0.random_range(0..3)),
    };
    let success = put(source, key.clone());
    Txn { compare: vec![compare], success: vec![success], failure: vec![get_op(key)] }
}
