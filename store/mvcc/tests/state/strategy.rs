//! Random commands over few keys, so that they meet each other.

use bytes::Bytes;
use pintle_proto::raft::{
    Command, LeaseCheckpoint, LeaseGrant, LeaseRemaining, LeaseRevoke, command::Kind,
};
use pintle_store_api::pb;
use pintle_store_api::pb::compare::TargetUnion;
use pintle_store_api::pb::request_op::Request;
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;

pub(crate) fn key() -> impl Strategy<Value = Bytes> {
    let keys: &[&'static [u8]] =
        &[b"a", b"a\0", b"a\0b", b"a\x01", b"ab", b"b", b"c", b"\0", b"\xff", b"\xff\xff"];
    proptest::sample::select(keys).prop_map(Bytes::from_static)
}

/// Mostly none (a point), else bounds that lie before, on and after keys.
pub(crate) fn range_end() -> impl Strategy<Value = Bytes> {
    let ends: &[&'static [u8]] = &[b"\0", b"a\0", b"ab", b"b", b"c", b"\xff", b"\xff\xff\xff"];
    weighted(0.4, proptest::sample::select(ends))
        .prop_map(|end| Bytes::from_static(end.unwrap_or_default()))
}

fn value() -> impl Strategy<Value = Bytes> {
    proptest::sample::select(&["", "x", "y", "a longer value"][..]).prop_map(Bytes::from)
}

fn lease_id() -> impl Strategy<Value = i64> {
    prop_oneof![4 => 1i64..4, 1 => Just(-7), 1 => Just(0)]
}

fn put() -> impl Strategy<Value = pb::PutRequest> {
    (key(), value(), weighted(0.3, lease_id()), any::<bool>(), 0..10u8, 0..10u8).prop_map(
        |(key, value, lease, prev_kv, ignore_value, ignore_lease)| pb::PutRequest {
            key,
            value: if ignore_value == 0 { Bytes::new() } else { value },
            lease: if ignore_lease == 0 { 0 } else { lease.unwrap_or(0) },
            prev_kv,
            ignore_value: ignore_value == 0,
            ignore_lease: ignore_lease == 0,
        },
    )
}

fn delete() -> impl Strategy<Value = pb::DeleteRangeRequest> {
    (key(), range_end(), any::<bool>())
        .prop_map(|(key, range_end, prev_kv)| pb::DeleteRangeRequest { key, range_end, prev_kv })
}

/// `revision` and the filters are within what short runs reach, and somewhat beyond.
pub(crate) fn range() -> impl Strategy<Value = pb::RangeRequest> {
    let filter = || weighted(0.1, 0i64..30).prop_map(|filter| filter.unwrap_or(0));
    let shape = (key(), range_end(), 0i64..4, weighted(0.6, -1i64..60), any::<[bool; 2]>());
    (shape, 0i32..3, 0i32..5, filter(), filter(), filter(), filter()).prop_map(
        |((key, range_end, limit, revision, flags), order, target, a, b, c, d)| pb::RangeRequest {
            key,
            range_end,
            limit,
            revision: revision.unwrap_or(0),
            sort_order: order,
            sort_target: target,
            serializable: true,
            keys_only: flags[0],
            count_only: flags[0] && flags[1],
            min_mod_revision: a,
            max_mod_revision: b,
            min_create_revision: c,
            max_create_revision: d,
        },
    )
}

fn compare() -> impl Strategy<Value = pb::Compare> {
    let target = prop_oneof![
        (0i64..4).prop_map(|version| (0, TargetUnion::Version(version))),
        (0i64..40).prop_map(|revision| (1, TargetUnion::CreateRevision(revision))),
        (0i64..40).prop_map(|revision| (2, TargetUnion::ModRevision(revision))),
        value().prop_map(|value| (3, TargetUnion::Value(value))),
        lease_id().prop_map(|lease| (4, TargetUnion::Lease(lease))),
    ];
    (0i32..4, target, key(), range_end()).prop_map(|(result, (target, union), key, range_end)| {
        pb::Compare { result, target, key, target_union: Some(union), range_end }
    })
}

fn op() -> impl Strategy<Value = pb::RequestOp> {
    let leaf = prop_oneof![
        3 => range().prop_map(Request::RequestRange),
        4 => put().prop_map(Request::RequestPut),
        2 => delete().prop_map(Request::RequestDeleteRange),
    ]
    .prop_map(|request| pb::RequestOp { request: Some(request) });
    leaf.prop_recursive(2, 12, 3, |inner| {
        txn_of(inner).prop_map(|txn| pb::RequestOp { request: Some(Request::RequestTxn(txn)) })
    })
}

fn txn_of(
    op: impl Strategy<Value = pb::RequestOp> + Clone,
) -> impl Strategy<Value = pb::TxnRequest> {
    (vec(compare(), 0..3), vec(op.clone(), 0..4), vec(op, 0..3))
        .prop_map(|(compare, success, failure)| pb::TxnRequest { compare, success, failure })
}

pub(crate) fn txn() -> impl Strategy<Value = pb::TxnRequest> {
    txn_of(op().boxed())
}

pub(crate) fn command() -> impl Strategy<Value = Command> {
    let compact =
        (-1i64..50).prop_map(|revision| pb::CompactionRequest { revision, physical: false });
    let revoke = (vec(lease_id(), 1..3), 0u64..3)
        .prop_map(|(ids, expired_in_term)| LeaseRevoke { ids, expired_in_term });
    let checkpoint = vec((lease_id(), 0i64..9), 1..3).prop_map(|leases| LeaseCheckpoint {
        remaining: leases.into_iter().map(|(id, ttl)| LeaseRemaining { id, ttl }).collect(),
    });
    prop_oneof![
        8 => put().prop_map(Kind::Put),
        3 => delete().prop_map(Kind::DeleteRange),
        6 => txn().prop_map(Kind::Txn),
        1 => compact.prop_map(Kind::Compact),
        3 => (lease_id(), 1i64..100).prop_map(|(id, ttl)| Kind::LeaseGrant(LeaseGrant { id, ttl })),
        2 => revoke.prop_map(Kind::LeaseRevoke),
        1 => checkpoint.prop_map(Kind::LeaseCheckpoint),
    ]
    .prop_map(|kind| Command { kind: Some(kind), caller: None })
}
