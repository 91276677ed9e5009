//! What locks and elections have in common: a queue of keys below a prefix. Whoever's key is the
//! oldest is in front; everybody waits for the one key before its own to go.
//!
//! A key is the prefix and the lease's number, so that one lease stands in a queue once and its
//! end takes it out. Whoever stops waiting leaves the queue: its key is deleted.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use pintle_store_api::mvccpb::KeyValue;
use pintle_store_api::mvccpb::event::EventType;
use pintle_store_api::pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pintle_store_api::pb::range_request::{SortOrder, SortTarget};
use pintle_store_api::pb::request_op::Request;
use pintle_store_api::pb::response_op::Response;
use pintle_store_api::{KeyRange, Store, WatchError, WatchItem, pb};
use tonic::{Code, Status};

use crate::errors;
use crate::handle::Handle;

/// Seconds that a lease lives which a caller did not bring: as in etcd's client.
const SESSION_TTL: i64 = 60;

/// etcd's services for locks and elections stand on its client, whose errors lose their code.
/// Clients go by the text; the codes that promise a retry are kept.
pub(super) fn lost_code(status: Status) -> Status {
    match status.code() {
        Code::Unavailable | Code::ResourceExhausted | Code::Unauthenticated => status,
        _ => Status::unknown(status.message().to_owned()),
    }
}

/// The caller's lease, or one of its own.
pub(super) async fn session(handle: &Handle, lease: i64) -> Result<i64, Status> {
    if lease != 0 {
        return Ok(lease);
    }
    let request = pb::LeaseGrantRequest { ttl: SESSION_TTL, id: 0 };
    let granted = handle.lease_grant(request).await;
    granted.map(|lease| lease.id).map_err(|error| lost_code(errors::write(&error)))
}

pub(super) async fn txn(handle: &Handle, txn: pb::TxnRequest) -> Result<pb::TxnResponse, Status> {
    handle.txn(txn).await.map_err(|error| lost_code(errors::write(&error)))
}

pub(super) async fn range(
    handle: &Handle,
    range: pb::RangeRequest,
) -> Result<pb::RangeResponse, Status> {
    handle.range(range).await.map_err(|error| lost_code(errors::read(&error)))
}

pub(super) fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

/// "The key was created at this revision"; 0: it does not exist.
pub(super) fn created_at(key: &Bytes, revision: i64) -> pb::Compare {
    pb::Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
        ..Default::default()
    }
}

/// The queue below `name`.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    handle: Arc<Handle>,
    prefix: Bytes,
}

impl Queue {
    pub(super) fn new(handle: Arc<Handle>, name: &Bytes) -> Self {
        Self { handle, prefix: [name, b"/".as_slice()].concat().into() }
    }

    fn key(&self, lease: i64) -> Bytes {
        let sign = if lease < 0 { "-" } else { "" };
        let number = format!("{sign}{:x}", lease.unsigned_abs());
        [&self.prefix, number.as_bytes()].concat().into()
    }

    fn everybody(&self) -> pb::RangeRequest {
        let range = KeyRange::prefix(self.prefix.clone());
        let range_end = range.end().cloned().unwrap_or(Bytes::from_static(&[0]));
        pb::RangeRequest {
            key: self.prefix.clone(),
            range_end,
            limit: 1,
            sort_target: SortTarget::Create.into(),
            ..Default::default()
        }
    }

    /// Who is in front.
    pub(super) fn front(&self) -> pb::RangeRequest {
        pb::RangeRequest { sort_order: SortOrder::Ascend.into(), ..self.everybody() }
    }

    /// Joins the queue with `value`, or finds the place that the lease has already.
    pub(super) async fn join(&self, lease: i64, value: Bytes) -> Result<Place, Status> {
        let key = self.key(lease);
        let put = pb::PutRequest { key: key.clone(), value, lease, ..Default::default() };
        let get = pb::RangeRequest { key: key.clone(), ..Default::default() };
        let request = pb::TxnRequest {
            compare: vec![created_at(&key, 0)],
            success: vec![op(Request::RequestPut(put))],
            failure: vec![op(Request::RequestRange(get))],
        };
        let answer = txn(&self.handle, request).await?;
        let found = answer.responses.into_iter().next().and_then(|op| op.response);
        let found = match found {
            Some(Response::ResponseRange(range)) => range.kvs.into_iter().next(),
            _ => None,
        };
        let written = answer.header.as_ref().map_or(0, |header| header.revision);
        let revision = found.as_ref().map_or(written, |kv| kv.create_revision);
        let leave = answer.succeeded.then(|| Arc::clone(&self.handle));
        Ok(Place { key, revision, lease, header: answer.header, found, leave })
    }

    /// Waits until nobody stands before `place`.
    pub(super) async fn wait(&self, place: &Place) -> Result<(), Status> {
        let stop = self.handle.core().clients_stop.clone();
        tokio::select! {
            done = self.wait_for_all_before(place.revision) => done,
            () = stop.cancelled() => Err(errors::transient(errors::STOPPED)),
        }
    }

    async fn wait_for_all_before(&self, revision: i64) -> Result<(), Status> {
        loop {
            let last = pb::RangeRequest {
                sort_order: SortOrder::Descend.into(),
                max_create_revision: revision - 1,
                ..self.everybody()
            };
            let answer = range(&self.handle, last).await?;
            let at = answer.header.map_or(0, |header| header.revision);
            let Some(before) = answer.kvs.into_iter().next() else { return Ok(()) };
            self.wait_for_end(before.key, at).await?;
        }
    }

    /// Waits until the key, which was there at revision `at`, is deleted, or has to be looked at
    /// again.
    async fn wait_for_end(&self, key: Bytes, at: i64) -> Result<(), Status> {
        let mut changes = watch(&self.handle, key, Bytes::new(), at).await?;
        while let Some(item) = changes.next().await {
            match item {
                Ok(WatchItem::Events { events, .. }) => {
                    if events.iter().any(|event| event.r#type() == EventType::Delete) {
                        return Ok(());
                    }
                }
                Ok(WatchItem::Created(_) | WatchItem::Progress(_)) => {}
                Err(WatchError::Compacted(_)) => return Ok(()),
                Err(error) => return Err(watch_error(&error)),
            }
        }
        Ok(())
    }
}

/// What happens to a range from a revision on.
pub(super) async fn watch(
    handle: &Handle,
    key: Bytes,
    range_end: Bytes,
    start_revision: i64,
) -> Result<pintle_store_api::WatchStream, Status> {
    let request = pb::WatchCreateRequest { key, range_end, start_revision, ..Default::default() };
    handle.watch(request).await.map_err(|error| watch_error(&error))
}

pub(super) fn watch_error(error: &WatchError) -> Status {
    match error {
        WatchError::Unavailable(message) => errors::transient(message),
        WatchError::Compacted(_) | WatchError::Rejected(_) => Status::unknown(error.to_string()),
    }
}

/// A place in the queue. Dropped before [`keep`](Self::keep), it is given up again, unless it was
/// there before.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) key: Bytes,
    /// When the key was created: the order in the queue.
    pub(super) revision: i64,
    pub(super) lease: i64,
    /// Of the answer to joining.
    pub(super) header: Option<pb::ResponseHeader>,
    /// What stood there already.
    pub(super) found: Option<KeyValue>,
    /// Who deletes the key if the wait ends early.
    leave: Option<Arc<Handle>>,
}

impl Place {
    /// The place is the caller's from now on.
    pub(super) fn keep(&mut self) {
        self.leave = None;
    }

    /// Leaves the queue, if this place is still the one that was taken.
    pub(super) fn resign(key: &Bytes, revision: i64) -> pb::TxnRequest {
        let delete = pb::DeleteRangeRequest { key: key.clone(), ..Default::default() };
        pb::TxnRequest {
            compare: vec![created_at(key, revision)],
            success: vec![op(Request::RequestDeleteRange(delete))],
            failure: Vec::new(),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(handle) = self.leave.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let request = Self::resign(&self.key, self.revision);
        runtime.spawn(async move {
            // The lease's end takes the key away if this does not.
            if let Err(error) = handle.txn(request).await {
                tracing::debug!(%error, "a place in a queue was not given up");
            }
        });
    }
}
