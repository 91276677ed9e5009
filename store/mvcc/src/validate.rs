//! Checks of requests that need no state: done by the server before it proposes, with the
//! errors of etcd's API layer.

use pintle_store_api::{Rejection, pb};

/// A range needs a key and known sort options.
pub fn range(request: &pb::RangeRequest) -> Result<(), Rejection> {
    let _ = request;
    unimplemented!()
}

/// A put needs a key; it may not both keep and set a value, or a lease.
pub fn put(request: &pb::PutRequest) -> Result<(), Rejection> {
    let _ = request;
    unimplemented!()
}

/// A delete needs a key.
pub fn delete_range(request: &pb::DeleteRangeRequest) -> Result<(), Rejection> {
    let _ = request;
    unimplemented!()
}

/// Every operation on its own, at most `ops_max` of them (nested levels share the rest), and no
/// key written twice on one path.
pub fn txn(request: &pb::TxnRequest, ops_max: usize) -> Result<(), Rejection> {
    let _ = (request, ops_max);
    unimplemented!()
}

/// A lease needs a time to live that etcd allows.
pub fn lease_grant(request: &pb::LeaseGrantRequest) -> Result<(), Rejection> {
    let _ = request;
    unimplemented!()
}

/// Whether no path through the transaction writes, so that it needs no log entry.
pub fn is_read_only(request: &pb::TxnRequest) -> bool {
    let _ = request;
    unimplemented!()
}
