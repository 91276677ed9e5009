//! Checks of requests that need no state: done by the server before it proposes, with the
//! errors of etcd's API layer.

use std::collections::BTreeSet;

use bytes::Bytes;
use pintle_store_api::pb::range_request::{SortOrder, SortTarget};
use pintle_store_api::pb::request_op::Request;
use pintle_store_api::{KeyRange, Rejection, pb};

/// The longest time to live, in seconds.
pub const LEASE_TTL_MAX: i64 = 9_000_000_000;

/// A range needs a key and known sort options.
pub fn range(request: &pb::RangeRequest) -> Result<(), Rejection> {
    if request.key.is_empty() {
        return Err(Rejection::EmptyKey);
    }
    let known = SortOrder::try_from(request.sort_order).is_ok()
        && SortTarget::try_from(request.sort_target).is_ok();
    if known { Ok(()) } else { Err(Rejection::InvalidSortOption) }
}

/// A put needs a key; it may not both keep and set a value, or a lease.
pub fn put(request: &pb::PutRequest) -> Result<(), Rejection> {
    if request.key.is_empty() {
        return Err(Rejection::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Rejection::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Rejection::LeaseProvided);
    }
    Ok(())
}

/// A delete needs a key.
pub fn delete_range(request: &pb::DeleteRangeRequest) -> Result<(), Rejection> {
    if request.key.is_empty() { Err(Rejection::EmptyKey) } else { Ok(()) }
}

/// Every operation on its own, at most `ops_max` of them (nested levels share the rest), and no
/// key written twice on one path.
///
/// One case is stricter than etcd: a put in one nested transaction and a delete of the same key
/// in a *later* sibling are refused here too, so that a revision never changes a key twice.
pub fn txn(request: &pb::TxnRequest, ops_max: usize) -> Result<(), Rejection> {
    shape(request, ops_max)?;
    writes(&request.success)?;
    writes(&request.failure)?;
    Ok(())
}

/// A lease needs a time to live that etcd allows.
pub fn lease_grant(request: &pb::LeaseGrantRequest) -> Result<(), Rejection> {
    if request.ttl > LEASE_TTL_MAX { Err(Rejection::LeaseTtlTooLarge) } else { Ok(()) }
}

/// Whether no path through the transaction writes, so that it needs no log entry.
pub fn is_read_only(request: &pb::TxnRequest) -> bool {
    request.success.iter().chain(&request.failure).all(|op| match &op.request {
        Some(Request::RequestRange(_)) => true,
        Some(Request::RequestTxn(nested)) => is_read_only(nested),
        _ => false,
    })
}

/// Whether etcd answers it without its log: it has ranges alone, and no transaction inside. What is
/// logged has a limit of its size there, whether it writes or not.
pub fn is_plain_read(request: &pb::TxnRequest) -> bool {
    let range = |op: &pb::RequestOp| matches!(op.request, Some(Request::RequestRange(_)));
    request.success.iter().chain(&request.failure).all(range)
}

fn shape(request: &pb::TxnRequest, ops_max: usize) -> Result<(), Rejection> {
    let ops = request.compare.len().max(request.success.len()).max(request.failure.len());
    let rest = ops_max.checked_sub(ops).ok_or(Rejection::TooManyOps)?;
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Rejection::EmptyKey);
    }
    request.success.iter().chain(&request.failure).try_for_each(|op| match &op.request {
        Some(Request::RequestRange(request)) => range(request),
        Some(Request::RequestPut(request)) => put(request),
        Some(Request::RequestDeleteRange(request)) => delete_range(request),
        Some(Request::RequestTxn(nested)) => shape(nested, rest),
        None => Err(Rejection::KeyNotFound),
    })
}

/// What a list of operations may write.
#[derive(Default)]
struct Writes {
    puts: BTreeSet<Bytes>,
    deletes: Vec<KeyRange>,
}

impl Writes {
    fn meets(&self, other: &Self) -> bool {
        !self.puts.is_disjoint(&other.puts) || self.deletes_of(other) || other.deletes_of(self)
    }

    /// Whether a delete of ours takes a put of theirs.
    fn deletes_of(&self, other: &Self) -> bool {
        let mut deletes = self.deletes.iter();
        deletes.any(|range| other.puts.iter().any(|key| range.contains(key)))
    }

    fn extend(&mut self, other: Self) {
        self.puts.extend(other.puts);
        self.deletes.extend(other.deletes);
    }
}

/// Fails on the first operation that may write a key which another of the list may put. The two
/// sides of a nested transaction exclude each other, so they may meet.
fn writes(ops: &[pb::RequestOp]) -> Result<Writes, Rejection> {
    let mut all = Writes::default();
    for op in ops {
        let one = match &op.request {
            Some(Request::RequestPut(put)) => {
                Writes { puts: BTreeSet::from([put.key.clone()]), deletes: Vec::new() }
            }
            Some(Request::RequestDeleteRange(delete)) => {
                let range = KeyRange::from_request(delete.key.clone(), delete.range_end.clone());
                Writes { puts: BTreeSet::new(), deletes: vec![range] }
            }
            Some(Request::RequestTxn(nested)) => {
                let mut either = writes(&nested.success)?;
                either.extend(writes(&nested.failure)?);
                either
            }
            Some(Request::RequestRange(_)) | None => continue,
        };
        if one.meets(&all) {
            return Err(Rejection::DuplicateKey);
        }
        all.extend(one);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(request: Request) -> pb::RequestOp {
        pb::RequestOp { request: Some(request) }
    }

    fn put_op(key: &'static str) -> pb::RequestOp {
        op(Request::RequestPut(pb::PutRequest { key: key.into(), ..Default::default() }))
    }

    fn delete_op(key: &'static str, end: &'static str) -> pb::RequestOp {
        let (key, range_end) = (key.into(), end.into());
        op(Request::RequestDeleteRange(pb::DeleteRangeRequest { key, range_end, prev_kv: false }))
    }

    fn range_op(key: &'static str) -> pb::RequestOp {
        op(Request::RequestRange(pb::RangeRequest { key: key.into(), ..Default::default() }))
    }

    fn branches(success: Vec<pb::RequestOp>, failure: Vec<pb::RequestOp>) -> pb::TxnRequest {
        pb::TxnRequest { compare: vec![], success, failure }
    }

    fn nested(success: Vec<pb::RequestOp>, failure: Vec<pb::RequestOp>) -> pb::RequestOp {
        op(Request::RequestTxn(branches(success, failure)))
    }

    #[test]
    fn keys_written_twice_on_one_path_are_refused() {
        let duplicate = Err(Rejection::DuplicateKey);
        for (ops, expected) in [
            (vec![put_op("a"), put_op("b")], Ok(())),
            (vec![put_op("a"), put_op("a")], duplicate.clone()),
            (vec![put_op("a"), delete_op("a", "")], duplicate.clone()),
            (vec![delete_op("a", "c"), put_op("b")], duplicate.clone()),
            (vec![delete_op("a", "c"), put_op("c")], Ok(())),
            (vec![delete_op("b", "\0"), put_op("z")], duplicate.clone()),
            (vec![delete_op("a", ""), delete_op("a", "c")], Ok(())),
            (vec![put_op("a"), range_op("a")], Ok(())),
            (vec![nested(vec![put_op("a")], vec![put_op("a")])], Ok(())),
            (vec![nested(vec![put_op("a")], vec![delete_op("a", "")])], Ok(())),
            (vec![put_op("a"), nested(vec![put_op("a")], vec![])], duplicate.clone()),
            (vec![nested(vec![], vec![put_op("a")]), put_op("a")], duplicate.clone()),
            (
                vec![nested(vec![put_op("a")], vec![]), nested(vec![], vec![put_op("a")])],
                duplicate.clone(),
            ),
            (vec![nested(vec![put_op("a")], vec![]), delete_op("a", "b")], duplicate.clone()),
            (
                vec![nested(vec![put_op("a")], vec![]), nested(vec![delete_op("a", "")], vec![])],
                duplicate,
            ),
        ] {
            assert_eq!(txn(&branches(ops.clone(), vec![]), 128), expected, "success {ops:?}");
            assert_eq!(txn(&branches(vec![], ops.clone()), 128), expected, "failure {ops:?}");
        }
    }

    #[test]
    fn branches_of_one_transaction_may_write_the_same_key() {
        assert_eq!(txn(&branches(vec![put_op("a")], vec![put_op("a")]), 128), Ok(()));
    }

    #[test]
    fn nested_levels_share_the_operations_that_are_left() {
        let three = vec![range_op("a"), range_op("a"), range_op("a")];
        assert_eq!(txn(&branches(three.clone(), vec![]), 3), Ok(()));
        assert_eq!(txn(&branches(three.clone(), vec![]), 2), Err(Rejection::TooManyOps));
        let two_levels = branches(vec![nested(three, vec![])], vec![]);
        assert_eq!(txn(&two_levels, 4), Ok(()));
        assert_eq!(txn(&two_levels, 3), Err(Rejection::TooManyOps));
    }

    #[test]
    fn operations_are_checked_on_their_own() {
        let put_both = pb::PutRequest {
            key: "a".into(),
            value: "v".into(),
            ignore_value: true,
            ..Default::default()
        };
        let lease_both =
            pb::PutRequest { key: "a".into(), lease: 1, ignore_lease: true, ..Default::default() };
        let unknown_order =
            pb::RangeRequest { key: "a".into(), sort_order: 9, ..Default::default() };
        for (request, expected) in [
            (Some(Request::RequestPut(put_both)), Rejection::ValueProvided),
            (Some(Request::RequestPut(lease_both)), Rejection::LeaseProvided),
            (Some(Request::RequestPut(pb::PutRequest::default())), Rejection::EmptyKey),
            (Some(Request::RequestDeleteRange(Default::default())), Rejection::EmptyKey),
            (Some(Request::RequestRange(Default::default())), Rejection::EmptyKey),
            (Some(Request::RequestRange(unknown_order)), Rejection::InvalidSortOption),
            (None, Rejection::KeyNotFound),
        ] {
            let request = branches(vec![pb::RequestOp { request }], vec![]);
            assert_eq!(txn(&request, 128), Err(expected));
        }
        let compare = vec![pb::Compare::default()];
        let request = pb::TxnRequest { compare, ..Default::default() };
        assert_eq!(txn(&request, 128), Err(Rejection::EmptyKey));
    }

    #[test]
    fn only_ranges_are_read_only() {
        assert!(is_read_only(&branches(
            vec![range_op("a")],
            vec![nested(vec![range_op("b")], vec![])]
        )));
        assert!(is_plain_read(&branches(vec![range_op("a")], vec![range_op("b")])));
        assert!(!is_plain_read(&branches(vec![nested(vec![range_op("b")], vec![])], vec![])));
        assert!(!is_read_only(&branches(vec![range_op("a")], vec![put_op("a")])));
        assert!(!is_read_only(&branches(vec![nested(vec![delete_op("a", "")], vec![])], vec![])));
    }

    #[test]
    fn a_time_to_live_has_a_maximum() {
        let request = |ttl| pb::LeaseGrantRequest { ttl, id: 0 };
        assert_eq!(lease_grant(&request(LEASE_TTL_MAX)), Ok(()));
        assert_eq!(lease_grant(&request(LEASE_TTL_MAX + 1)), Err(Rejection::LeaseTtlTooLarge));
    }
}
