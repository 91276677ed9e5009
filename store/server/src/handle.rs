//! The store from within its own process: every request that the socket serves passes through
//! here, with the same checks, limits and errors; only codec and connection are left out.
//!
//! A handle acts for somebody: for the process, which may do everything, or for the sender of a
//! request ([`Handle::on_behalf`]).

mod auth;
mod lease;
mod pages;
mod users;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use pintle_mvcc::{Fault, QueryError, Response, cost, validate};
use pintle_proto::raft::command::Kind;
use pintle_proto::raft::{self, Command};
use pintle_store_api::{
    KeyRange, LeaseId, ReadError, Rejection, Revision, Store, WatchError, WatchStream, WriteError,
    pb,
};
use prost::Message;
use tonic::Code;

pub(crate) use self::pages::{Budget, is_pageable};
use crate::auth::Asker;
use crate::core::Core;
use crate::host::{aside, blocking};
use crate::watch::{self, Spec};
use crate::{STORAGE_VERSION, VERSION, alarms, corruption, errors, members, quota};

/// A range that may give more keys than this is read on a blocking thread.
const INLINE_KEYS_MAX: i64 = 16;

/// Reads, writes, watches and leases of the member that runs in this process.
#[derive(Clone, Debug)]
pub struct Handle {
    core: Arc<Core>,
    asker: Asker,
}

fn fault(fault: &Fault) -> ReadError {
    ReadError::Unavailable(fault.to_string())
}

fn query(error: QueryError) -> ReadError {
    match error {
        QueryError::Rejected(rejection) => rejection.into(),
        QueryError::Fault(error) => fault(&error),
    }
}

/// Reads and writes share the refusals; a read that failed wrote nothing.
fn as_write(error: ReadError) -> WriteError {
    match error {
        ReadError::Rejected(rejection) => rejection.into(),
        ReadError::Unavailable(message) => WriteError::NotApplied(message),
    }
}

fn unexpected() -> WriteError {
    WriteError::Unknown(errors::UNEXPECTED.to_owned())
}

impl Handle {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core, asker: Asker::Process }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    async fn propose(&self, kind: Kind) -> Result<Response, WriteError> {
        self.core.check_voter()?;
        let caller = self.writer().await?.to_pb();
        self.propose_as(caller, kind).await
    }

    async fn propose_as(
        &self,
        caller: Option<raft::Caller>,
        kind: Kind,
    ) -> Result<Response, WriteError> {
        let answer = self.core.proposer.propose(Command { kind: Some(kind), caller }).await;
        if let Err(WriteError::NotApplied(_) | WriteError::Unknown(_)) = &answer {
            self.core.counters.proposals_failed.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }

    async fn check_size(&self, request: &impl Message) -> Result<(), Rejection> {
        if request.encoded_len() > self.core.config.max_request_bytes {
            // Whose token is no good hears that first.
            self.identity().await?;
            return Err(Rejection::RequestTooLarge);
        }
        Ok(())
    }

    /// Waits, without holding up others, until a short read can start at once. A fault is told by that read.
    async fn settle(&self) {
        if !self.core.reader().is_nearly_settled() {
            let reader = self.core.reader().clone();
            drop(blocking(move || reader.settle()).await);
        }
    }

    /// Runs a read of the state where it holds up nobody else.
    async fn read<T: Send + 'static>(
        &self,
        long: bool,
        read: impl FnOnce(&pintle_mvcc::Reader) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let reader = self.core.reader().clone();
        let read = move || read(&reader);
        let answer = if long { blocking(read).await } else { aside(read).await };
        answer.map_err(|error| ReadError::Unavailable(error.to_string()))?.map_err(query)
    }

    /// Writes one key.
    pub(crate) async fn put(&self, request: pb::PutRequest) -> Result<pb::PutResponse, WriteError> {
        validate::put(&request)?;
        self.check_size(&request).await?;
        quota::check(&self.core, cost::put(&request)).await?;
        self.core.counters.puts.fetch_add(1, Ordering::Relaxed);
        let Response::Put(mut response) = self.propose(Kind::Put(request)).await? else {
            return Err(unexpected());
        };
        self.core.complete(&mut response.header);
        Ok(response)
    }

    /// Deletes the keys of a range.
    pub(crate) async fn delete_range(
        &self,
        request: pb::DeleteRangeRequest,
    ) -> Result<pb::DeleteRangeResponse, WriteError> {
        validate::delete_range(&request)?;
        self.check_size(&request).await?;
        self.core.counters.deletes.fetch_add(1, Ordering::Relaxed);
        let Response::DeleteRange(mut response) = self.propose(Kind::DeleteRange(request)).await?
        else {
            return Err(unexpected());
        };
        self.core.complete(&mut response.header);
        Ok(response)
    }

    async fn read_txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, ReadError> {
        if !is_serializable(&request) {
            self.core.check_voter()?;
            self.core.read_index.wait().await?;
        }
        let request = Arc::new(request);
        let read = Arc::clone(&request);
        self.permitted(
            |may| may.txn(&request, &()),
            self.read(true, move |reader| reader.txn(&read)),
        )
        .await
    }

    /// A hash of everything between the compact floor and `revision`.
    pub(crate) async fn hash_kv(
        &self,
        revision: Revision,
    ) -> Result<pb::HashKvResponse, ReadError> {
        corruption::hash(&self.core, revision.0).await
    }
}

fn is_serializable(request: &pb::TxnRequest) -> bool {
    use pb::request_op::Request;
    let serializable = |op: &pb::RequestOp| match &op.request {
        Some(Request::RequestRange(range)) => range.serializable,
        _ => false,
    };
    request.success.iter().chain(&request.failure).all(serializable)
}

pub(crate) fn is_long(request: &pb::RangeRequest) -> bool {
    let point = request.range_end.is_empty();
    !point && !(1..=INLINE_KEYS_MAX).contains(&request.limit)
}

#[async_trait::async_trait]
impl Store for Handle {
    async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, ReadError> {
        self.before_range(&request).await?;
        if !request.range_end.is_empty() || request.revision > 0 {
            self.settle().await;
        }
        let (key, range_end) = (request.key.clone(), request.range_end.clone());
        let read = async {
            if let Some(answer) = self.core.reader().range_of_known(&request) {
                return Ok(answer);
            }
            self.read(is_long(&request), move |reader| reader.range(&request)).await
        };
        let mut response = self.permitted(|may| Ok(may.read(&key, &range_end)?), read).await?;
        self.core.complete(&mut response.header);
        Ok(response)
    }

    async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, WriteError> {
        validate::txn(&request, self.core.config.max_txn_ops)?;
        self.core.counters.txns.fetch_add(1, Ordering::Relaxed);
        if !validate::is_plain_read(&request) {
            self.check_size(&request).await?;
        }
        let mut response = if validate::is_read_only(&request) {
            self.read_txn(request).await.map_err(as_write)?
        } else {
            quota::check(&self.core, cost::txn(&request)).await?;
            match self.propose(Kind::Txn(request)).await? {
                Response::Txn(response) => response,
                _ => return Err(unexpected()),
            }
        };
        self.core.complete(&mut response.header);
        Ok(response)
    }

    async fn compact(
        &self,
        request: pb::CompactionRequest,
    ) -> Result<pb::CompactionResponse, WriteError> {
        let physical = request.physical;
        let Response::Compact(mut response) = self.propose(Kind::Compact(request)).await? else {
            return Err(unexpected());
        };
        let reader = self.core.reader().clone();
        // The floor stands already; a failed removal is only disk space.
        let removal = async move {
            match blocking(move || reader.compact_physically()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "compacted revisions were not removed"),
                Err(error) => tracing::warn!(%error, "compacted revisions were not removed"),
            }
        };
        if physical {
            removal.await;
        } else {
            tokio::spawn(removal);
        }
        self.core.complete(&mut response.header);
        Ok(response)
    }

    async fn watch(&self, request: pb::WatchCreateRequest) -> Result<WatchStream, WatchError> {
        self.core.check_voter().map_err(WatchError::Rejected)?;
        let spec = Spec::new(&request);
        self.check_watch_permitted(&request).await?;
        check_watch(&spec.range, request.start_revision)?;
        watch::solo(&self.core.hub, spec, request.progress_notify)
    }

    async fn read_index(&self) -> Result<Revision, ReadError> {
        self.core.read_index.wait().await?;
        Ok(self.core.reader().current_revision())
    }

    async fn lease_grant(
        &self,
        request: pb::LeaseGrantRequest,
    ) -> Result<pb::LeaseGrantResponse, WriteError> {
        quota::check(&self.core, cost::LEASE).await?;
        self.require(|may| may.login()).await?;
        validate::lease_grant(&request)?;
        let ttl = request.ttl.max(self.core.config.lease_ttl_min());
        loop {
            let id = if request.id == 0 { rand::random_range(1..=i64::MAX) } else { request.id };
            let granted = self.propose(Kind::LeaseGrant(raft::LeaseGrant { id, ttl })).await;
            match granted {
                Ok(Response::LeaseGrant(mut response)) => {
                    self.core.complete(&mut response.header);
                    return Ok(response);
                }
                Ok(_) => return Err(unexpected()),
                // A chosen id that is taken by chance: choose another.
                Err(WriteError::Rejected(Rejection::LeaseExists)) if request.id == 0 => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn lease_keep_alive(
        &self,
        id: LeaseId,
    ) -> Result<pb::LeaseKeepAliveResponse, WriteError> {
        self.check_lease_permitted(id).await?;
        // The revision of the question: at that of the answer, the lease may have been revoked since.
        let header = Some(self.core.header());
        let leases = &self.core.leases;
        let ttl = self.ask_leader(id, |id| leases.renew(id), true).await?;
        Ok(pb::LeaseKeepAliveResponse { header, id: id.0, ttl })
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<pb::LeaseRevokeResponse, WriteError> {
        self.require(|may| may.login()).await?;
        let revoke = raft::LeaseRevoke { ids: vec![id.0], expired_in_term: 0 };
        let Response::LeaseRevoke(mut response) = self.propose(Kind::LeaseRevoke(revoke)).await?
        else {
            return Err(unexpected());
        };
        self.core.complete(&mut response.header);
        Ok(response)
    }

    async fn status(&self) -> Result<pb::StatusResponse, ReadError> {
        self.require(|may| may.login()).await?;
        let core = &self.core;
        let size = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
        let leader = core.leadership.leader_id().unwrap_or(0);
        let mut problems = Vec::new();
        if leader == 0 {
            problems.push(errors::NO_LEADER.to_owned());
        }
        problems.extend(core.leadership.failure());
        let raised = core.reader().alarms();
        problems.extend(raised.iter().map(alarms::describe));
        Ok(pb::StatusResponse {
            header: Some(core.header()),
            version: VERSION.to_owned(),
            db_size: size(core.reader().db_size().map_err(|error| fault(&error))?),
            leader,
            raft_index: core.leadership.last_index(),
            raft_term: core.leadership.term(),
            raft_applied_index: core.applied_index(),
            errors: problems,
            db_size_in_use: size(core.reader().live_bytes()),
            is_learner: core.is_learner(),
            storage_version: STORAGE_VERSION.to_owned(),
            db_size_quota: core.quota.reported(),
            downgrade_info: Some(pb::DowngradeInfo::default()),
        })
    }

    async fn member_list(&self) -> Result<pb::MemberListResponse, ReadError> {
        self.core.read_index.wait().await?;
        self.require(|may| may.login()).await?;
        let members = members::list(&self.core);
        Ok(pb::MemberListResponse { header: Some(self.core.header()), members })
    }
}

/// What can be refused about a watch before it is looked at.
pub(crate) fn check_watch(range: &KeyRange, start: i64) -> Result<(), WatchError> {
    let refuse = |reason| WatchError::Rejected(errors::other(Code::InvalidArgument, reason));
    if start < 0 {
        // etcd's words: no revision below the first was ever kept.
        return Err(refuse("etcdserver: mvcc: required revision has been compacted"));
    }
    if range.is_empty() {
        return Err(refuse("mvcc: watcher range is empty"));
    }
    Ok(())
}
