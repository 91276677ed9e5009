//! Transactions: compares against the state before, operations in order, one revision for all.

use std::cmp::Ordering;
use std::collections::HashSet;

use bytes::Bytes;

use super::keyspace::Keyspace;
use crate::pb::{self, compare::CompareResult, compare::TargetUnion, request_op, response_op};
use crate::{KeyRange, Rejection, mvccpb};

/// Applies a transaction. A rejected one leaves nothing behind.
pub(super) fn apply(
    keyspace: &mut Keyspace,
    request: &pb::TxnRequest,
) -> Result<pb::TxnResponse, Rejection> {
    check(keyspace, request)?;
    check_duplicates(request)?;
    let mut events = Vec::new();
    let response = run(keyspace, request, &mut events)?;
    keyspace.commit(events);
    Ok(response)
}

/// What could fail half-way is refused before anything is done.
fn check(keyspace: &Keyspace, request: &pb::TxnRequest) -> Result<(), Rejection> {
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(request_op::Request::RequestPut(put)) if put.key.is_empty() => {
                return Err(Rejection::EmptyKey);
            }
            Some(request_op::Request::RequestPut(put))
                if put.lease != 0 && !keyspace.has_lease(put.lease) =>
            {
                return Err(Rejection::LeaseNotFound);
            }
            Some(request_op::Request::RequestTxn(nested)) => check(keyspace, nested)?,
            _ => {}
        }
    }
    Ok(())
}

/// No path may write a key twice. Gives the keys that the transaction may put.
fn check_duplicates(request: &pb::TxnRequest) -> Result<HashSet<&Bytes>, Rejection> {
    let mut all = HashSet::new();
    for path in [&request.success, &request.failure] {
        let mut puts = HashSet::new();
        let mut add = |key| if puts.insert(key) { Ok(()) } else { Err(Rejection::DuplicateKey) };
        let mut deletes = Vec::new();
        for op in path {
            match &op.request {
                Some(request_op::Request::RequestPut(put)) => add(&put.key)?,
                Some(request_op::Request::RequestTxn(nested)) => {
                    check_duplicates(nested)?.into_iter().try_for_each(&mut add)?;
                }
                Some(request_op::Request::RequestDeleteRange(delete)) => {
                    let (key, end) = (delete.key.clone(), delete.range_end.clone());
                    deletes.push(KeyRange::from_request(key, end));
                }
                _ => {}
            }
        }
        if deletes.iter().any(|range| puts.iter().any(|key| range.contains(key))) {
            return Err(Rejection::DuplicateKey);
        }
        all.extend(puts);
    }
    Ok(all)
}

fn run(
    keyspace: &mut Keyspace,
    request: &pb::TxnRequest,
    events: &mut Vec<mvccpb::Event>,
) -> Result<pb::TxnResponse, Rejection> {
    let succeeded = request.compare.iter().all(|compare| holds(keyspace, compare));
    let ops = if succeeded { &request.success } else { &request.failure };
    let responses =
        ops.iter().map(|op| operate(keyspace, op, events)).collect::<Result<Vec<_>, _>>()?;
    Ok(pb::TxnResponse { header: None, succeeded, responses })
}

fn operate(
    keyspace: &mut Keyspace,
    op: &pb::RequestOp,
    events: &mut Vec<mvccpb::Event>,
) -> Result<pb::ResponseOp, Rejection> {
    let revision = keyspace.revision + 1;
    let response = match &op.request {
        Some(request_op::Request::RequestPut(put)) => {
            let event = keyspace.put(revision, put)?;
            let prev_kv = event.prev_kv.clone().filter(|_| put.prev_kv);
            events.push(event);
            let header = Some(pb::ResponseHeader { revision, ..pb::ResponseHeader::default() });
            Some(response_op::Response::ResponsePut(pb::PutResponse { header, prev_kv }))
        }
        Some(request_op::Request::RequestDeleteRange(delete)) => {
            let range = KeyRange::from_request(delete.key.clone(), delete.range_end.clone());
            let deleted = keyspace.delete(revision, &range);
            let changed = !deleted.is_empty() || !events.is_empty();
            let prev_kvs = deleted.iter().filter_map(|event| event.prev_kv.clone());
            let response = pb::DeleteRangeResponse {
                header: Some(pb::ResponseHeader {
                    revision: if changed { revision } else { keyspace.revision },
                    ..pb::ResponseHeader::default()
                }),
                deleted: i64::try_from(deleted.len()).expect("a length fits into i64"),
                prev_kvs: if delete.prev_kv { prev_kvs.collect() } else { Vec::new() },
            };
            events.extend(deleted);
            Some(response_op::Response::ResponseDeleteRange(response))
        }
        Some(request_op::Request::RequestRange(range)) => {
            let mut response = keyspace.range(range)?;
            let revision = if events.is_empty() { keyspace.revision } else { revision };
            response.header =
                Some(pb::ResponseHeader { revision, ..pb::ResponseHeader::default() });
            Some(response_op::Response::ResponseRange(response))
        }
        Some(request_op::Request::RequestTxn(nested)) => {
            Some(response_op::Response::ResponseTxn(run(keyspace, nested, events)?))
        }
        None => None,
    };
    Ok(pb::ResponseOp { response })
}

fn holds(keyspace: &Keyspace, compare: &pb::Compare) -> bool {
    let range = KeyRange::from_request(compare.key.clone(), compare.range_end.clone());
    let found = keyspace.current_in(&range);
    if found.is_empty() {
        let value_compare = matches!(compare.target_union, Some(TargetUnion::Value(_)));
        return !value_compare && one_holds(&mvccpb::KeyValue::default(), compare);
    }
    found.iter().all(|kv| one_holds(kv, compare))
}

fn one_holds(kv: &mvccpb::KeyValue, compare: &pb::Compare) -> bool {
    let empty = Bytes::new();
    let ordering = match &compare.target_union {
        Some(TargetUnion::Version(version)) => kv.version.cmp(version),
        Some(TargetUnion::CreateRevision(revision)) => kv.create_revision.cmp(revision),
        Some(TargetUnion::ModRevision(revision)) => kv.mod_revision.cmp(revision),
        Some(TargetUnion::Value(value)) => kv.value.cmp(value),
        Some(TargetUnion::Lease(lease)) => kv.lease.cmp(lease),
        None => match compare.target() {
            pb::compare::CompareTarget::Version => kv.version.cmp(&0),
            pb::compare::CompareTarget::Create => kv.create_revision.cmp(&0),
            pb::compare::CompareTarget::Mod => kv.mod_revision.cmp(&0),
            pb::compare::CompareTarget::Value => kv.value.cmp(&empty),
            pb::compare::CompareTarget::Lease => kv.lease.cmp(&0),
        },
    };
    match compare.result() {
        CompareResult::Equal => ordering == Ordering::Equal,
        CompareResult::Greater => ordering == Ordering::Greater,
        CompareResult::Less => ordering == Ordering::Less,
        CompareResult::NotEqual => ordering != Ordering::Equal,
    }
}
