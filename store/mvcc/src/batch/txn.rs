//! Transactions: compare, check, execute.
//!
//! All compares, those of nested transactions included, see the state before the transaction.
//! Then every operation on the path they chose is checked against that same state, and only
//! then is anything executed: ranges see the writes before them, and all writes share a revision.

use pintle_store_api::pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pintle_store_api::pb::request_op::Request;
use pintle_store_api::pb::response_op::Response;
use pintle_store_api::{KeyRange, Rejection, Revision, pb};

use super::Batch;
use crate::keyspace::RecordRef;
use crate::outcome::header;
use crate::view::View;
use crate::{Fault, QueryError, range, validate};

/// The branches taken, outer before inner, in the order of the operations.
type Path<'p> = std::slice::Iter<'p, bool>;

impl Batch<'_> {
    pub(crate) fn txn(&mut self, request: &pb::TxnRequest) -> Result<pb::TxnResponse, QueryError> {
        // Limits of size are the proposer's; the rest must hold whoever proposed.
        validate::txn(request, usize::MAX)?;
        let mut path = Vec::new();
        choose(&self.view(), request, &mut path)?;
        self.check(request, &mut path.iter())?;
        let mut response = self.execute(request, &mut path.iter())?;
        response.header = header(self.revision());
        Ok(response)
    }

    fn check(&self, request: &pb::TxnRequest, path: &mut Path<'_>) -> Result<(), QueryError> {
        for op in branch(request, take(path)) {
            match &op.request {
                Some(Request::RequestRange(range)) => self.check_range(range)?,
                Some(Request::RequestPut(put)) => self.check_put(put)?,
                Some(Request::RequestTxn(nested)) => self.check(nested, path)?,
                Some(Request::RequestDeleteRange(_)) | None => {}
            }
        }
        Ok(())
    }

    /// Unlike a plain range, one in a transaction takes only 0 as "newest".
    fn check_range(&self, request: &pb::RangeRequest) -> Result<(), Rejection> {
        if request.revision > self.head.revision {
            return Err(Rejection::FutureRevision);
        }
        if request.revision != 0 && request.revision < self.head.floor {
            return Err(Rejection::Compacted(Revision(self.head.floor)));
        }
        Ok(())
    }

    fn execute(
        &mut self,
        request: &pb::TxnRequest,
        path: &mut Path<'_>,
    ) -> Result<pb::TxnResponse, QueryError> {
        let succeeded = take(path);
        let ops = branch(request, succeeded);
        let mut responses = Vec::with_capacity(ops.len());
        for op in ops {
            let response = match &op.request {
                Some(Request::RequestRange(request)) => {
                    Response::ResponseRange(range::range(&self.view(), request)?)
                }
                Some(Request::RequestPut(request)) => Response::ResponsePut(self.put(request)?),
                Some(Request::RequestDeleteRange(request)) => {
                    Response::ResponseDeleteRange(self.delete_range(request)?)
                }
                Some(Request::RequestTxn(nested)) => {
                    Response::ResponseTxn(self.execute(nested, path)?)
                }
                None => continue,
            };
            responses.push(pb::ResponseOp { response: Some(response) });
        }
        // As in etcd, only the outermost header says the revision.
        Ok(pb::TxnResponse { header: Some(Default::default()), succeeded, responses })
    }
}

fn branch(request: &pb::TxnRequest, succeeded: bool) -> &[pb::RequestOp] {
    if succeeded { &request.success } else { &request.failure }
}

fn take(path: &mut Path<'_>) -> bool {
    *path.next().expect("choose visited every transaction on the path")
}

fn choose(view: &View<'_>, request: &pb::TxnRequest, path: &mut Vec<bool>) -> Result<(), Fault> {
    let mut succeeded = true;
    for compare in &request.compare {
        if !holds(view, compare)? {
            succeeded = false;
            break;
        }
    }
    path.push(succeeded);
    for op in branch(request, succeeded) {
        if let Some(Request::RequestTxn(nested)) = &op.request {
            choose(view, nested, path)?;
        }
    }
    Ok(())
}

/// Whether a compare holds for its key, or for every key of its range.
fn holds(view: &View<'_>, compare: &pb::Compare) -> Result<bool, Fault> {
    if compare.range_end.is_empty() {
        let record = view.get(&compare.key)?;
        return Ok(match &record {
            Some(record) => holds_for(compare, &record.as_ref()),
            None => holds_for_missing(compare),
        });
    }
    let range = KeyRange::from_request(compare.key.clone(), compare.range_end.clone());
    let mut scan = view.scan(&range, view.revision)?;
    if scan.item()?.is_none() {
        return Ok(holds_for_missing(compare));
    }
    while let Some((_, record)) = scan.item()? {
        if !holds_for(compare, &record) {
            return Ok(false);
        }
        scan.advance()?;
    }
    Ok(true)
}

/// A missing key has all numbers 0; its value compares to nothing.
fn holds_for_missing(compare: &pb::Compare) -> bool {
    let missing = RecordRef { create: 0, modified: 0, version: 0, lease: 0, value: b"" };
    CompareTarget::try_from(compare.target) != Ok(CompareTarget::Value)
        && holds_for(compare, &missing)
}

fn holds_for(compare: &pb::Compare, record: &RecordRef<'_>) -> bool {
    use std::cmp::Ordering;
    let wanted = compare.target_union.as_ref();
    // A target without its operand compares with zero, as protobuf's absent fields do.
    let ordering = match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Version) => record.version.cmp(&match wanted {
            Some(TargetUnion::Version(version)) => *version,
            _ => 0,
        }),
        Ok(CompareTarget::Create) => record.create.cmp(&match wanted {
            Some(TargetUnion::CreateRevision(revision)) => *revision,
            _ => 0,
        }),
        Ok(CompareTarget::Mod) => record.modified.cmp(&match wanted {
            Some(TargetUnion::ModRevision(revision)) => *revision,
            _ => 0,
        }),
        Ok(CompareTarget::Value) => record.value.cmp(match wanted {
            Some(TargetUnion::Value(value)) => value,
            _ => b"",
        }),
        Ok(CompareTarget::Lease) => record.lease.cmp(&match wanted {
            Some(TargetUnion::Lease(lease)) => *lease,
            _ => 0,
        }),
        Err(_) => Ordering::Equal,
    };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => ordering.is_eq(),
        Ok(CompareResult::NotEqual) => ordering.is_ne(),
        Ok(CompareResult::Greater) => ordering.is_gt(),
        Ok(CompareResult::Less) => ordering.is_lt(),
        Err(_) => true,
    }
}
