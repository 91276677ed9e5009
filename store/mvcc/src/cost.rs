//! What a request is charged against a quota, as etcd estimates it.

use pintle_store_api::pb;
use pintle_store_api::pb::request_op::Request;

/// A lease, in bytes.
pub const LEASE: u64 = 64;
/// What a key takes beside its own bytes and those of its value.
const KEY_OVERHEAD: u64 = 256;

/// A put, in bytes.
pub fn put(request: &pb::PutRequest) -> u64 {
    KEY_OVERHEAD + request.key.len() as u64 + request.value.len() as u64
}

/// The costlier branch of a transaction, in bytes; 0 when neither puts anything.
pub fn txn(request: &pb::TxnRequest) -> u64 {
    branch(&request.success).max(branch(&request.failure))
}

fn branch(ops: &[pb::RequestOp]) -> u64 {
    let cost = |op: &pb::RequestOp| match &op.request {
        Some(Request::RequestPut(request)) => put(request),
        Some(Request::RequestTxn(nested)) => txn(nested),
        Some(Request::RequestRange(_) | Request::RequestDeleteRange(_)) | None => 0,
    };
    ops.iter().map(cost).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(request: Request) -> pb::RequestOp {
        pb::RequestOp { request: Some(request) }
    }

    fn put_op(value: &'static str) -> pb::RequestOp {
        let (key, value) = ("k".into(), value.into());
        op(Request::RequestPut(pb::PutRequest { key, value, ..Default::default() }))
    }

    #[test]
    fn the_costlier_branch_counts_and_deletes_are_free() {
        let nested = pb::TxnRequest { failure: vec![put_op("12345")], ..Default::default() };
        let request = pb::TxnRequest {
            compare: vec![],
            success: vec![put_op("1"), op(Request::RequestDeleteRange(Default::default()))],
            failure: vec![op(Request::RequestTxn(nested)), put_op("")],
        };
        assert_eq!(txn(&request), (256 + 1 + 5) + (256 + 1));
        let free = vec![op(Request::RequestDeleteRange(Default::default()))];
        assert_eq!(txn(&pb::TxnRequest { success: free, ..Default::default() }), 0);
    }
}
