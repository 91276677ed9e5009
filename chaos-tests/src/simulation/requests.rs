//! A client's calls as the store's requests, and its answers as a client's.

use bytes::Bytes;
use pintle_store::Handle;
use pintle_store_api::pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pintle_store_api::pb::request_op::Request;
use pintle_store_api::pb::response_op::Response;
use pintle_store_api::{ReadError, Store, WriteError, mvccpb, pb};

use crate::history::{Answer, Call, Record};

pub(super) fn record(kv: &mvccpb::KeyValue) -> Record {
    Record {
        value: String::from_utf8_lossy(&kv.value).into_owned(),
        create: kv.create_revision,
        modified: kv.mod_revision,
        version: kv.version,
        lease: kv.lease,
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn put(key: &str, value: &str, lease: i64) -> pb::RequestOp {
    let (key, value) = (bytes(key), bytes(value));
    op(Request::RequestPut(pb::PutRequest {
        key,
        value,
        lease,
        prev_kv: true,
        ..Default::default()
    }))
}

fn range(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: bytes(key), ..Default::default() }
}

fn read(key: &str) -> pb::RequestOp {
    op(Request::RequestRange(range(key)))
}

fn txn(call: &Call) -> pb::TxnRequest {
    let mut txn = pb::TxnRequest::default();
    match call {
        Call::Put { keys, value, lease } => {
            txn.success = keys.iter().map(|key| put(key, value, *lease)).collect();
        }
        Call::Delete { key } => {
            let (key, prev_kv) = (bytes(key), true);
            let delete = pb::DeleteRangeRequest { key, prev_kv, ..Default::default() };
            txn.success = vec![op(Request::RequestDeleteRange(delete))];
        }
        Call::Swap { key, expected, value, lease } => {
            txn.compare = vec![pb::Compare {
                result: CompareResult::Equal.into(),
                target: CompareTarget::Mod.into(),
                key: bytes(key),
                target_union: Some(TargetUnion::ModRevision(*expected)),
                ..Default::default()
            }];
            txn.success = vec![put(key, value, *lease)];
            txn.failure = vec![read(key)];
        }
        Call::Read { keys } => txn.success = keys.iter().map(|key| read(key)).collect(),
        Call::Compact { .. } => {}
    }
    txn
}

/// Asks the store.
pub(super) async fn ask(store: &Handle, call: &Call) -> Answer {
    match call {
        Call::Compact { revision } => {
            let request =
                pb::CompactionRequest { revision: *revision, physical: revision % 2 == 0 };
            store.compact(request).await.map_or_else(failed, |_| Answer::Done)
        }
        Call::Read { keys } if keys.len() == 1 => match store.range(range(&keys[0])).await {
            Ok(found) => {
                let records = vec![found.kvs.first().map(record)];
                Answer::Found { revision: revision(found.header.as_ref()), records }
            }
            Err(ReadError::Rejected(error)) => Answer::NotApplied(error.to_string()),
            Err(ReadError::Unavailable(reason)) => Answer::NotApplied(reason),
        },
        _ => store.txn(txn(call)).await.map_or_else(failed, |response| answer(&response)),
    }
}

fn failed(error: WriteError) -> Answer {
    match error {
        WriteError::Rejected(rejection) => Answer::NotApplied(rejection.to_string()),
        WriteError::NotApplied(reason) => Answer::NotApplied(reason),
        WriteError::Unknown(reason) => Answer::Unknown(reason),
    }
}

fn revision(header: Option<&pb::ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

fn answer(response: &pb::TxnResponse) -> Answer {
    let revision = revision(response.header.as_ref());
    let mut written = false;
    let mut records = Vec::new();
    for one in response.responses.iter().filter_map(|one| one.response.as_ref()) {
        records.push(match one {
            Response::ResponsePut(put) => {
                written = true;
                put.prev_kv.as_ref().map(record)
            }
            Response::ResponseDeleteRange(delete) => {
                written |= delete.deleted > 0;
                delete.prev_kvs.first().map(record)
            }
            Response::ResponseRange(range) => range.kvs.first().map(record),
            Response::ResponseTxn(_) => None,
        });
    }
    if written {
        Answer::Written { revision, previous: Some(records) }
    } else {
        Answer::Found { revision, records }
    }
}
