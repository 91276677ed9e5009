//! The differences from etcd that we know of, with the reason for each. Everything else that differs
//! is a fault.
//!
//! Left out of every comparison (`text.rs`): ids of cluster and members, the term, sizes, versions and log
//! positions, hashes (each server hashes its own format), the order in which leases are listed, and what
//! is left of a lease beyond the bounds that the time elapsed sets.

use super::call::{Call, Op, Rev, Txn};

/// One difference.
#[derive(Debug)]
pub struct Known {
    /// What differs.
    pub what: &'static str,
    /// Why it stays.
    pub why: &'static str,
}

/// A call of which the answers differ, so that no generator makes it.
pub fn unlike(call: &Call) -> Option<&'static Known> {
    match call {
        Call::Txn(txn) if changes_a_key_twice(txn) => Some(&CHANGED_TWICE),
        Call::Watch(watch) if matches!(watch.start, Rev::Is(start) if start < 0) => {
            Some(&NEGATIVE_START)
        }
        _ => None,
    }
}

/// Two answers that may differ.
pub(super) fn is_known(call: &Call, etcd: &str, pintle: &str) -> Option<&'static Known> {
    let refused = |answer: &str| REFUSED_IN_ANOTHER_ORDER.iter().any(|text| answer.contains(text));
    match call {
        Call::Txn(_) if refused(etcd) && refused(pintle) => Some(&ORDER_OF_CHECKS),
        Call::HashKv { .. } if pintle.ends_with(COMPACTED) => Some(&KEPT_HASHES),
        _ => None,
    }
}

/// Its check for keys written twice does not see a delete up to the end of the keyspace, nor one in a
/// nested transaction beside an earlier one that puts the key.
const CHANGED_TWICE: Known = Known {
    what: "etcd accepts some transactions that change a key twice; they are refused here",
    why: "a revision changes a key once: what a watcher sees of it would otherwise depend on the \
          order of operations inside of one revision",
};

/// etcd 3.7 refuses the watch as we do.
const NEGATIVE_START: Known = Known {
    what: "etcd 3.5 creates a watch from a negative revision and cancels it as compacted",
    why: "we answer as etcd 3.7 does: created and canceled in one response",
};

const ORDER_OF_CHECKS: Known = Known {
    what: "of a transaction with several operations that must be refused, etcd 3.5 names the first put, \
           and a range only when every put is right",
    why: "we name the first operation, as etcd 3.7 does",
};

const KEPT_HASHES: Known = Known {
    what: "etcd still answers HashKV for some revisions below the compact one",
    why: "it keeps the hashes that it made at earlier compactions; what they are of is gone here",
};

const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

const REFUSED_IN_ANOTHER_ORDER: [&str; 4] = [
    COMPACTED,
    "etcdserver: mvcc: required revision is a future revision",
    "etcdserver: requested lease not found",
    "etcdserver: key not found",
];

/// Whether it may be one of those: a superset that is simple to see.
fn changes_a_key_twice(txn: &Txn) -> bool {
    [&txn.success, &txn.failure].into_iter().any(|ops| {
        (any(ops, &is_put) && any(ops, &deletes_to_the_end)) || nested_delete_after_put(ops)
    })
}

fn is_put(op: &Op) -> bool {
    matches!(op, Op::Put(_))
}

fn deletes_to_the_end(op: &Op) -> bool {
    matches!(op, Op::Delete(delete) if delete.end == "\0")
}

/// Whether `of` holds for one of the operations, at any depth.
fn any(ops: &[Op], of: &impl Fn(&Op) -> bool) -> bool {
    ops.iter().any(|op| match op {
        Op::Txn(txn) => any(&txn.success, of) || any(&txn.failure, of),
        op => of(op),
    })
}

fn nested_delete_after_put(ops: &[Op]) -> bool {
    let mut put = false;
    for op in ops {
        let Op::Txn(txn) = op else { continue };
        let both = [Op::Txn(txn.clone())];
        if put && any(&both, &|op| matches!(op, Op::Delete(_))) {
            return true;
        }
        if nested_delete_after_put(&txn.success) || nested_delete_after_put(&txn.failure) {
            return true;
        }
        put |= any(&both, &is_put);
    }
    false
}
