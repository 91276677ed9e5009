//! The differences from etcd that we know of, with the reason for each. Everything else that differs
//! is a fault.
//!
//! Left out of every comparison (`text.rs`): ids of cluster and members, the term, sizes, versions and log
//! positions, hashes (each server hashes its own format), the order in which leases are listed, and what
//! is left of a lease beyond the bounds that the time elapsed sets.

use super::call::{Auth, Call, Op, Rev, Txn};

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
    match call.inner() {
        Call::Txn(txn) if changes_a_key_twice(txn) => Some(&CHANGED_TWICE),
        Call::Watch(watch) | Call::WatchAlone(watch) if matches!(watch.start, Rev::Is(start) if start < 0) => {
            Some(&NEGATIVE_START)
        }
        _ if is_of_a_user(call) && goes_backward(call.inner()) => Some(&BACKWARD),
        _ => None,
    }
}

/// Two answers that may differ.
pub(super) fn is_known(call: &Call, etcd: &str, pintle: &str) -> Option<&'static Known> {
    let refused = |answer: &str| REFUSED_IN_ANOTHER_ORDER.iter().any(|text| answer.contains(text));
    match call.inner() {
        Call::Txn(_) if refused(etcd) && refused(pintle) => Some(&ORDER_OF_CHECKS),
        Call::HashKv { .. } if pintle.ends_with(COMPACTED) => Some(&KEPT_HASHES),
        Call::HashKv { .. } | Call::Defragment if same_without_code(etcd, pintle) => Some(&NO_CODE),
        Call::Auth(Auth::Status) if for_lack_of_rights(etcd) => Some(&STATUS_FOR_ALL),
        Call::Auth(Auth::RoleGet { role }) if role == "root" && !etcd.contains(ROLE_NOT_FOUND) => {
            Some(&ROLE_ROOT)
        }
        Call::Auth(Auth::UserAdd { .. } | Auth::UserChangePassword { .. })
            if etcd.ends_with(TOO_LONG) && for_lack_of_rights(pintle) =>
        {
            Some(&HASHED_FOR_ANYBODY)
        }
        Call::WatchAlone(watch) if watch.end == "\0" && pintle.contains(DENIED) => {
            Some(&WATCH_TO_THE_END)
        }
        _ => None,
    }
}

/// A call that etcd 3.5 carries out for people who may not make it. Ours is asked first, and
/// etcd only if ours did not refuse for lack of rights: the two would part otherwise.
pub(super) fn is_asked_first(call: &Call) -> Option<&'static Known> {
    match call.inner() {
        Call::Txn(txn) if hides_from_3_5(txn) => Some(&NESTED_RIGHTS),
        Call::LeaseGrant { .. }
        | Call::LeaseRevoke { .. }
        | Call::LeaseTimeToLive { .. }
        | Call::LeaseKeepAlive { .. }
        | Call::LeaseLeases
        | Call::Compact { .. }
        | Call::MemberList { .. }
        | Call::Status
        | Call::Alarms { .. }
        | Call::MoveLeader { .. } => Some(&OPEN_TO_ALL),
        _ => None,
    }
}

/// Whether a call was refused because of who made it.
pub(super) fn for_lack_of_rights(answer: &str) -> bool {
    RIGHTS.iter().any(|text| answer.ends_with(text))
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

const NESTED_RIGHTS: Known = Known {
    what: "etcd 3.5 looks neither into nested transactions nor at leases and prev_kv of puts in a transaction",
    why: "those are CVE-2026-33343 and its like: we ask for the rights on everything, as etcd 3.7 does",
};

const OPEN_TO_ALL: Known = Known {
    what: "leases, compactions, status, alarms and the list of members are open to everybody in etcd 3.5",
    why: "we ask who it is, and root where something changes, as etcd 3.7 does",
};

const NO_CODE: Known = Known {
    what: "maintenance calls of people without rights are refused with code Unknown by etcd 3.5",
    why: "we give the refusal its code and text, as etcd 3.7 does",
};

const STATUS_FOR_ALL: Known = Known {
    what: "only root may ask etcd 3.5 whether authentication is on",
    why: "everybody may, as in etcd 3.7",
};

const ROLE_ROOT: Known = Known {
    what: "etcd 3.5 shows the permissions that somebody gave the role root",
    why: "we show what it allows, which is everything, as etcd 3.7 does",
};

const WATCH_TO_THE_END: Known = Known {
    what: "who may read a key may watch everything from it on in etcd 3.5",
    why: "that is GHSA-xg4h-6gfc-h4m8: we ask for the whole range, as etcd 3.7 does",
};

const BACKWARD: Known = Known {
    what: "whether a user may read or delete a range that ends before it begins depends on the shape of a tree in etcd",
    why: "it names no key; here it takes the rights on the first one that it names",
};

const HASHED_FOR_ANYBODY: Known = Known {
    what: "etcd hashes a password, or finds it too long, before it looks at who sets it",
    why: "hashing is slow on purpose: nobody without credentials can make a member do it",
};

const TOO_LONG: &str = "bcrypt: password length exceeds 72 bytes";
const DENIED: &str = "etcdserver: permission denied";
const ROLE_NOT_FOUND: &str = "etcdserver: role name not found";

const RIGHTS: [&str; 4] = [
    "etcdserver: user name is empty",
    "etcdserver: permission denied",
    "etcdserver: user name not found",
    "etcdserver: invalid auth token",
];

const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

const REFUSED_IN_ANOTHER_ORDER: [&str; 4] = [
    COMPACTED,
    "etcdserver: mvcc: required revision is a future revision",
    "etcdserver: requested lease not found",
    "etcdserver: key not found",
];

/// What stands behind the code, and who says it.
fn same_without_code(etcd: &str, pintle: &str) -> bool {
    let etcd = etcd.strip_prefix("Unknown: auth: ");
    let pintle = pintle.split_once(": etcdserver: ");
    etcd.zip(pintle).is_some_and(|(etcd, (_, pintle))| etcd == pintle)
}

fn hides_from_3_5(txn: &Txn) -> bool {
    let hides = |op: &Op| match op {
        Op::Txn(_) => true,
        Op::Put(put) => put.lease != 0 || put.prev_kv,
        _ => false,
    };
    txn.success.iter().chain(&txn.failure).any(hides)
}

fn is_of_a_user(call: &Call) -> bool {
    matches!(call, Call::As { .. })
}

fn goes_backward(call: &Call) -> bool {
    match call {
        Call::Range(range) => is_backward(&range.key, &range.end),
        Call::Delete(delete) => is_backward(&delete.key, &delete.end),
        Call::WatchAlone(watch) => is_backward(&watch.key, &watch.end),
        Call::Txn(txn) => has_backward(txn),
        _ => false,
    }
}

fn has_backward(txn: &Txn) -> bool {
    let op = |op: &Op| match op {
        Op::Range(range) => is_backward(&range.key, &range.end),
        Op::Delete(delete) => is_backward(&delete.key, &delete.end),
        _ => false,
    };
    let compared = txn.compare.iter().any(|compare| is_backward(&compare.key, &compare.end));
    compared || any(&txn.success, &op) || any(&txn.failure, &op) || {
        let nested =
            |ops: &[Op]| ops.iter().any(|op| matches!(op, Op::Txn(nested) if has_backward(nested)));
        nested(&txn.success) || nested(&txn.failure)
    }
}

fn is_backward(key: &str, end: &str) -> bool {
    !end.is_empty() && end != "\0" && end <= key
}

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
