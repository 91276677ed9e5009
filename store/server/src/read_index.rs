//! Linearizable reads. A read that starts now must see every write acknowledged before: it asks
//! the leader for its commit index, the leader makes sure with a round of heartbeats that it still
//! leads, and the read waits until this member has applied that far.
//!
//! One task asks for everybody: reads that arrive while a question is under way share the next.

use std::sync::Arc;
use std::time::Duration;

use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};
use pintle_proto::raft::ReadIndexRequest;
use pintle_store_api::ReadError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::consensus::Raft;
use crate::errors;
use crate::leadership::{Leader, Leadership};
use crate::peer::{Lane, Peers};
#[cfg(feature = "simulation")]
use crate::simulation::{Broken, is_broken};

/// Reads that wait for an answer. They are small; this is only there so that nothing is unbounded.
const QUEUE: usize = 65_536;
/// How long to wait before asking again after an error.
const RETRY_AFTER: Duration = Duration::from_millis(20);
/// One question to the leader; then it is asked again, perhaps of another.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// A read that waits, and until when.
#[derive(Debug)]
struct Waiting {
    reply: oneshot::Sender<Result<u64, ReadError>>,
    deadline: Instant,
}

fn unavailable(message: &str) -> ReadError {
    ReadError::Unavailable(message.to_owned())
}

/// Where reads ask.
#[derive(Clone, Debug)]
pub(crate) struct ReadIndex {
    queue: mpsc::Sender<Waiting>,
    applied: watch::Receiver<u64>,
    timeout: Duration,
}

/// The receiving end, until the task takes it.
pub(crate) struct Queue(mpsc::Receiver<Waiting>);

impl ReadIndex {
    pub(crate) fn new(applied: watch::Receiver<u64>, timeout: Duration) -> (Self, Queue) {
        let (queue, receiver) = mpsc::channel(QUEUE);
        (Self { queue, applied, timeout }, Queue(receiver))
    }

    /// The log index up to which a read that starts now must have seen everything.
    pub(crate) async fn index(&self) -> Result<u64, ReadError> {
        let (reply, index) = oneshot::channel();
        // The task keeps the time for all: a timer for each read costs more than its share of the rest.
        let deadline = Instant::now() + self.timeout;
        self.queue.try_send(Waiting { reply, deadline }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => unavailable(errors::TOO_MANY_REQUESTS),
            mpsc::error::TrySendError::Closed(_) => unavailable(errors::STOPPED),
        })?;
        index.await.unwrap_or_else(|_| Err(unavailable(errors::STOPPED)))
    }

    /// Resolves when this member has applied everything that a read started before the call must see.
    pub(crate) async fn wait(&self) -> Result<(), ReadError> {
        #[cfg(feature = "simulation")]
        if is_broken(Broken::StaleRead) {
            return Ok(());
        }
        let index = self.index().await?;
        if *self.applied.borrow() >= index {
            return Ok(());
        }
        let mut applied = self.applied.clone();
        let reached = applied.wait_for(|applied| *applied >= index);
        match tokio::time::timeout(self.timeout, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(unavailable(errors::STOPPED)),
            Err(_) => Err(unavailable(errors::TIMEOUT)),
        }
    }
}

/// What the task needs of the member.
pub(crate) struct Context {
    pub(crate) raft: Raft,
    pub(crate) peers: Arc<Peers>,
    pub(crate) leadership: Leadership,
}

/// Runs until every [`ReadIndex`] is gone.
pub(crate) async fn run(mut context: Context, queue: Queue) {
    let mut queue = queue.0;
    let mut waiting = Vec::new();
    while queue.recv_many(&mut waiting, QUEUE).await > 0 {
        while let Some(first) = waiting.first() {
            let answer = context.ask(first.deadline).await;
            let due = match &answer {
                Ok(_) => waiting.len(),
                Err(_) if context.leadership.failure().is_some() => waiting.len(),
                Err(_) => {
                    let now = Instant::now();
                    waiting.iter().take_while(|one| one.deadline <= now).count().max(1)
                }
            };
            for one in waiting.drain(..due) {
                // The reader may have given up.
                drop(one.reply.send(answer.clone()));
            }
        }
    }
}

impl Context {
    /// An error comes at the deadline, or when consensus has failed.
    async fn ask(&mut self, deadline: Instant) -> Result<u64, ReadError> {
        loop {
            let reason = match self.leadership.leader() {
                Leader::This => match tokio::time::timeout_at(deadline, self.confirm()).await {
                    Ok(Ok(index)) => return Ok(index),
                    Ok(Err(reason)) => reason,
                    Err(_) => errors::TIMEOUT,
                },
                Leader::Other(id, node) => {
                    let asked = async {
                        let mut client = self.peers.client(&node, Lane::Control).ok()?;
                        let addressed = Some(self.peers.addressed(id));
                        let answer = client.read_index(ReadIndexRequest { addressed }).await;
                        answer.ok().map(|answer| answer.into_inner().index)
                    };
                    let answer = tokio::select! {
                        answer = asked => answer,
                        () = self.leadership.clone().lost(id) => None,
                        () = tokio::time::sleep(ASK_TIMEOUT) => None,
                        () = tokio::time::sleep_until(deadline) => None,
                    };
                    match answer {
                        Some(index) => return Ok(index),
                        None => errors::TIMEOUT,
                    }
                }
                Leader::Unknown => errors::NO_LEADER,
            };
            if Instant::now() >= deadline || self.leadership.failure().is_some() {
                return Err(unavailable(reason));
            }
            tokio::select! {
                () = self.leadership.changed() => {}
                () = tokio::time::sleep(RETRY_AFTER) => {}
            }
        }
    }

    async fn confirm(&self) -> Result<u64, &'static str> {
        match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => Ok(linearizer.read_log_id().index()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_))) => {
                Err(errors::LEADER_CHANGED)
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                Err(errors::TIMEOUT)
            }
            Err(RaftError::Fatal(_)) => Err(errors::STOPPED),
        }
    }
}
