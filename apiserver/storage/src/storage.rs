//! The write path: conditional puts and deletes, and reads that do not go through the cache.
//!
//! Every write names the revision it replaces. That makes a write whose outcome is unknown safe to
//! repeat: at most one of the attempts takes effect, and when the condition then fails because the
//! stored bytes are ours, the first attempt was the one.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use pintle_store_api::pb::{self, compare, request_op, response_op};
use pintle_store_api::{ReadError, Store, WriteError, mvccpb};

use crate::Error;
use crate::lease::Leases;
use crate::limits::{RETRY_PAUSE, UNAVAILABLE_RETRY};

/// What is stored under a key: JSON without resource version, and the revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// As it was written.
    pub bytes: Bytes,
    /// Modification revision.
    pub revision: i64,
}

/// How a conditional write ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done, at this revision.
    Done(i64),
    /// Not done: the key holds this now.
    Changed(Option<Stored>),
}

/// The store, as the registry writes to it. Cheap to clone.
#[derive(Clone)]
pub struct Storage {
    store: Arc<dyn Store>,
    leases: Arc<Leases>,
}

impl Storage {
    /// On top of a store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, leases: Arc::default() }
    }

    /// The store below.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// A linearizable read of one key.
    pub async fn get(&self, key: &str) -> Result<Option<Stored>, Error> {
        let request = pb::RangeRequest {
            key: Bytes::copy_from_slice(key.as_bytes()),
            ..pb::RangeRequest::default()
        };
        let response = self.range(request).await?;
        Ok(response.kvs.into_iter().next().map(stored))
    }

    /// A range, retried while the store has no leader.
    pub(crate) async fn range(
        &self,
        request: pb::RangeRequest,
    ) -> Result<pb::RangeResponse, Error> {
        let mut retry = Retry::start();
        loop {
            match self.store.range(request.clone()).await {
                Err(ReadError::Unavailable(why)) => retry.pause(why, Error::Unavailable).await?,
                done => return Ok(done?),
            }
        }
    }

    /// Writes a key that does not exist. `ttl` is in seconds.
    pub async fn create(&self, key: &str, bytes: Bytes, ttl: Option<i64>) -> Result<i64, Error> {
        match self.put(key, 0, bytes, ttl).await? {
            Outcome::Done(revision) => Ok(revision),
            Outcome::Changed(_) => Err(Error::Exists),
        }
    }

    /// Replaces what is stored at `revision` (0: nothing).
    pub async fn put(
        &self,
        key: &str,
        revision: i64,
        bytes: Bytes,
        ttl: Option<i64>,
    ) -> Result<Outcome, Error> {
        let lease = match ttl {
            Some(ttl) => self.leases.lease(self.store.as_ref(), ttl).await?,
            None => 0,
        };
        let put = pb::PutRequest {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: bytes.clone(),
            lease,
            ..pb::PutRequest::default()
        };
        let outcome = self.conditional(key, revision, request_op::Request::RequestPut(put)).await?;
        Ok(match outcome {
            (Outcome::Changed(Some(current)), true) if current.bytes == bytes => {
                Outcome::Done(current.revision)
            }
            (outcome, _) => outcome,
        })
    }

    /// Deletes what is stored at `revision`.
    pub async fn delete(&self, key: &str, revision: i64) -> Result<Outcome, Error> {
        let delete = pb::DeleteRangeRequest {
            key: Bytes::copy_from_slice(key.as_bytes()),
            ..pb::DeleteRangeRequest::default()
        };
        let outcome = self
            .conditional(key, revision, request_op::Request::RequestDeleteRange(delete))
            .await?;
        Ok(match outcome {
            (Outcome::Changed(None), true) => Outcome::Done(revision),
            (outcome, _) => outcome,
        })
    }

    /// The outcome, and whether an earlier attempt may have been applied.
    async fn conditional(
        &self,
        key: &str,
        revision: i64,
        write: request_op::Request,
    ) -> Result<(Outcome, bool), Error> {
        let request = guarded(key, revision, write);
        let (mut retry, mut ambiguous) = (Retry::start(), false);
        loop {
            match self.store.txn(request.clone()).await {
                Err(WriteError::NotApplied(why)) if ambiguous => {
                    retry.pause(why, Error::Unknown).await?;
                }
                Err(WriteError::NotApplied(why)) => retry.pause(why, Error::Unavailable).await?,
                Err(WriteError::Unknown(why)) => {
                    ambiguous = true;
                    retry.pause(why, Error::Unknown).await?;
                }
                done => return Ok((outcome(done?), ambiguous)),
            }
        }
    }
}

/// If the key is still at `revision`, write; else read it.
fn guarded(key: &str, revision: i64, write: request_op::Request) -> pb::TxnRequest {
    let key = Bytes::copy_from_slice(key.as_bytes());
    let compare = pb::Compare {
        result: compare::CompareResult::Equal.into(),
        target: compare::CompareTarget::Mod.into(),
        key: key.clone(),
        target_union: Some(compare::TargetUnion::ModRevision(revision)),
        range_end: Bytes::new(),
    };
    let read = pb::RangeRequest { key, ..pb::RangeRequest::default() };
    pb::TxnRequest {
        compare: vec![compare],
        success: vec![pb::RequestOp { request: Some(write) }],
        failure: vec![pb::RequestOp { request: Some(request_op::Request::RequestRange(read)) }],
    }
}

fn outcome(response: pb::TxnResponse) -> Outcome {
    if response.succeeded {
        return Outcome::Done(response.header.map_or(0, |header| header.revision));
    }
    let current = response.responses.into_iter().find_map(|op| match op.response {
        Some(response_op::Response::ResponseRange(range)) => range.kvs.into_iter().next(),
        _ => None,
    });
    Outcome::Changed(current.map(stored))
}

fn stored(kv: mvccpb::KeyValue) -> Stored {
    Stored { bytes: kv.value, revision: kv.mod_revision }
}

/// Pauses that grow, until the patience is used up.
pub(crate) struct Retry {
    started: Instant,
    pause: std::time::Duration,
}

impl Retry {
    pub(crate) fn start() -> Self {
        Self { started: Instant::now(), pause: RETRY_PAUSE.0 }
    }

    pub(crate) async fn pause<E>(&mut self, why: String, error: fn(String) -> E) -> Result<(), E> {
        if self.started.elapsed() > UNAVAILABLE_RETRY {
            return Err(error(why));
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(RETRY_PAUSE.1);
        Ok(())
    }
}
