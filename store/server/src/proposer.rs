//! The way of a write into the log: a bounded queue, and one task that turns everything that has
//! queued up while earlier batches were on their way into one log entry.
//!
//! A follower's task sends its batches to the leader instead. Either way the proposer learns
//! whether its command was applied, certainly was not, or may have been; what was certainly not
//! applied (no leader yet, a leader that has gone) is proposed again until its time is up.
//! While a leader hands over, its `gate` is closed.

mod gate;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use openraft::errors::{ClientWriteError, RaftError};
use pintle_proto::raft::{Command, CommandBatch, ProposeRequest};
use pintle_store_api::WriteError;
use prost::Message;
use tokio::sync::{mpsc, oneshot, watch};

use self::gate::Gate;
pub(crate) use self::gate::{Counted, none};
use crate::consensus::{Batch, Node, Raft};
use crate::errors;
use crate::leadership::{Leader, Leadership};
use crate::peer::wire::{self, Answer};
use crate::peer::{Lane, Peers};

/// Commands that wait to be proposed. At 100,000 writes a second this is 80 ms of work: more
/// would only be answered too late, so it is refused ("too many requests").
const QUEUE: usize = 8192;
/// One log entry holds at most this many commands,
const BATCH_COMMANDS_MAX: usize = 2048;
/// and about this many bytes, so that an entry is replicated within a heartbeat.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Batches under way. With two, one is written while the one before is applied; more would only
/// make batches smaller.
const IN_FLIGHT_MAX: usize = 2;
/// How long to wait before a batch that was refused is tried again: a leadership change is
/// usually known by then.
const RETRY_AFTER: Duration = Duration::from_millis(10);
/// A leader that has stepped down still answers for what it was sent; one that hangs is not waited
/// for longer.
const LINGER_MAX: Duration = Duration::from_secs(2);
/// A member that forwarded a write answers when it has applied it too, so that its own reads see
/// it; but a member that lags so much does not hold the answer back.
const OWN_APPLY_MAX: Duration = Duration::from_secs(1);

const QUEUED: u8 = 0;
const CLAIMED: u8 = 1;
const ABANDONED: u8 = 2;

struct Proposal {
    command: Command,
    waiter: Waiter,
}

struct Waiter {
    reply: oneshot::Sender<Answer>,
    /// Who decides over a proposal whose time is up: still queued, it is certainly not applied.
    claim: Arc<AtomicU8>,
}

impl Waiter {
    fn claim(&self) -> bool {
        let claimed =
            self.claim.compare_exchange(QUEUED, CLAIMED, Ordering::AcqRel, Ordering::Acquire);
        claimed.is_ok() && !self.reply.is_closed()
    }

    fn answer(self, answer: Answer) {
        // The caller may have given up.
        drop(self.reply.send(answer));
    }
}

/// Where commands are handed in.
#[derive(Clone, Debug)]
pub(crate) struct Proposer {
    queue: mpsc::Sender<Proposal>,
    gate: Arc<Gate>,
    timeout: Duration,
}

impl Proposer {
    pub(crate) fn new(timeout: Duration) -> (Self, Queue) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let gate = Arc::new(Gate::default());
        (Self { queue: sender, gate: Arc::clone(&gate), timeout }, Queue { receiver, gate })
    }

    /// Proposes nothing on this member until the value is dropped: what comes waits, or goes to
    /// another leader.
    pub(crate) fn hold_back(&self) -> Counted<'_> {
        self.gate.close()
    }

    /// Resolves when everything that this member has proposed is applied.
    pub(crate) async fn drained(&self) {
        self.gate.drained().await;
    }

    /// Proposes `command` and waits until it is applied.
    pub(crate) async fn propose(&self, command: Command) -> Answer {
        let claim = Arc::new(AtomicU8::new(QUEUED));
        let (reply, answer) = oneshot::channel();
        let waiter = Waiter { reply, claim: Arc::clone(&claim) };
        let not_applied = |message: &str| Err(WriteError::NotApplied(message.to_owned()));
        match self.queue.try_send(Proposal { command, waiter }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                return not_applied(errors::TOO_MANY_REQUESTS);
            }
            Err(mpsc::error::TrySendError::Closed(_)) => return not_applied(errors::STOPPED),
        }
        let reason = match tokio::time::timeout(self.timeout, answer).await {
            Ok(Ok(answer)) => return answer,
            Ok(Err(_)) => errors::STOPPED,
            Err(_) => errors::TIMEOUT,
        };
        let abandoned =
            claim.compare_exchange(QUEUED, ABANDONED, Ordering::AcqRel, Ordering::Acquire);
        match abandoned {
            Ok(_) => not_applied(reason),
            Err(_) => Err(WriteError::Unknown(reason.to_owned())),
        }
    }

    /// How many commands wait.
    pub(crate) fn pending(&self) -> usize {
        QUEUE - self.queue.capacity()
    }
}

/// The receiving end, until the task takes it.
pub(crate) struct Queue {
    receiver: mpsc::Receiver<Proposal>,
    gate: Arc<Gate>,
}

/// What the task needs of the member.
pub(crate) struct Context {
    pub(crate) raft: Raft,
    pub(crate) peers: Arc<Peers>,
    pub(crate) leadership: Leadership,
    pub(crate) applied: watch::Receiver<u64>,
    pub(crate) timeout: Duration,
    /// Batches that wait for a leader that has stepped down, and so hold up nothing else.
    pub(crate) lingering: watch::Sender<usize>,
}

enum Route {
    Local,
    Remote(u64, Node),
}

struct Task {
    context: Arc<Context>,
    queue: mpsc::Receiver<Proposal>,
    gate: Arc<Gate>,
    /// Refused batches, to be proposed before anything newer.
    held: Vec<Proposal>,
}

/// Runs until every [`Proposer`] is gone.
pub(crate) async fn run(context: Context, queue: Queue) {
    let mut leadership = context.leadership.clone();
    let mut gate = queue.gate.watch();
    let mut lingering = context.lingering.subscribe();
    let context = Arc::new(context);
    let mut task = Task { context, queue: queue.receiver, gate: queue.gate, held: Vec::new() };
    let mut in_flight = FuturesUnordered::new();
    loop {
        let route = task.route(&leadership);
        let room = in_flight.len() < IN_FLIGHT_MAX + *lingering.borrow_and_update();
        let first = if task.held.is_empty() {
            tokio::select! {
                Some(refused) = in_flight.next() => {
                    task.hold(refused);
                    continue;
                }
                first = task.queue.recv(), if room && route.is_some() => match first {
                    Some(first) => first,
                    None => break,
                },
                () = leadership.changed() => continue,
                Ok(()) = gate.changed() => continue,
                Ok(()) = lingering.changed() => continue,
            }
        } else {
            match (&route, room) {
                (Some(_), true) => task.held.remove(0),
                _ => {
                    tokio::select! {
                        Some(refused) = in_flight.next() => task.hold(refused),
                        () = leadership.changed() => {}
                        Ok(()) = gate.changed() => {}
                        Ok(()) = lingering.changed() => {}
                    }
                    continue;
                }
            }
        };
        if let Some(route) = route {
            let batch = task.gather(first);
            in_flight.push(send(Arc::clone(&task.context), Arc::clone(&task.gate), route, batch));
        }
    }
    // What is under way still gets its answers.
    while in_flight.next().await.is_some() {}
}

impl Task {
    fn route(&self, leadership: &Leadership) -> Option<Route> {
        match leadership.leader() {
            Leader::This if self.gate.is_closed() => None,
            Leader::This => Some(Route::Local),
            Leader::Other(id, node) => Some(Route::Remote(id, node)),
            Leader::Unknown => None,
        }
    }

    fn hold(&mut self, refused: Vec<Proposal>) {
        self.held.extend(refused);
    }

    fn gather(&mut self, first: Proposal) -> Vec<Proposal> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut held = std::mem::take(&mut self.held).into_iter();
        let mut next = Some(first);
        while let Some(proposal) = next {
            if proposal.waiter.claim() {
                bytes += proposal.command.encoded_len();
                batch.push(proposal);
            }
            if batch.len() >= BATCH_COMMANDS_MAX || bytes >= BATCH_BYTES_MAX {
                break;
            }
            next = held.next().or_else(|| self.queue.try_recv().ok());
        }
        self.held = held.collect();
        batch
    }
}

/// What became of a batch.
enum Sent {
    Answered(Vec<Answer>),
    Refused,
    Unknown(&'static str),
}

/// Sends a batch and answers its proposers. Gives back what was certainly not applied.
async fn send(
    context: Arc<Context>,
    gate: Arc<Gate>,
    route: Route,
    batch: Vec<Proposal>,
) -> Vec<Proposal> {
    if batch.is_empty() {
        return Vec::new();
    }
    let vote = context.leadership.vote();
    let (commands, waiters): (Vec<Command>, Vec<Waiter>) =
        batch.into_iter().map(|proposal| (proposal.command, proposal.waiter)).unzip();
    let batch = CommandBatch { commands };
    let sent = match route {
        Route::Local => {
            let _passing = gate.pass();
            propose(&context, &batch).await
        }
        Route::Remote(id, node) => forward(&context, id, &node, &batch).await,
    };
    match sent {
        Sent::Answered(answers) => {
            debug_assert_eq!(answers.len(), waiters.len());
            waiters.into_iter().zip(answers).for_each(|(waiter, answer)| waiter.answer(answer));
            Vec::new()
        }
        Sent::Unknown(reason) => {
            for waiter in waiters {
                waiter.answer(Err(WriteError::Unknown(reason.to_owned())));
            }
            Vec::new()
        }
        Sent::Refused => {
            tokio::select! {
                () = context.leadership.clone().superseded(vote) => {}
                () = tokio::time::sleep(RETRY_AFTER) => {}
            }
            let queued = |waiter: Waiter| {
                waiter.claim.store(QUEUED, Ordering::Release);
                waiter
            };
            let again = batch.commands.into_iter().zip(waiters.into_iter().map(queued));
            again.map(|(command, waiter)| Proposal { command, waiter }).collect()
        }
    }
}

async fn propose(context: &Context, batch: &CommandBatch) -> Sent {
    match context.raft.client_write(Batch(batch.encode_to_vec().into())).await {
        Ok(written) => {
            let outcomes = written.data.outcomes.into_iter();
            Sent::Answered(outcomes.map(|outcome| outcome.map_err(WriteError::from)).collect())
        }
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Sent::Refused,
        Err(RaftError::APIError(_)) => Sent::Unknown(errors::LEADER_CHANGED),
        Err(RaftError::Fatal(_)) => Sent::Unknown(errors::STOPPED),
    }
}

async fn forward(context: &Context, leader: u64, node: &Node, batch: &CommandBatch) -> Sent {
    let Ok(mut client) = context.peers.client(node, Lane::Control) else { return Sent::Refused };
    let request = ProposeRequest {
        addressed: Some(context.peers.addressed(leader)),
        batch: Some(batch.clone()),
    };
    let mut call = std::pin::pin!(client.propose(request));
    let answered = tokio::select! {
        answered = &mut call => Ok(answered),
        () = context.leadership.clone().lost(leader) => {
            let _lingers = Counted::new(&context.lingering);
            tokio::time::timeout(LINGER_MAX, call).await
        }
        () = tokio::time::sleep(context.timeout) => return Sent::Unknown(errors::TIMEOUT),
    };
    let response = match answered {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) if errors::never_sent(&status) => return Sent::Refused,
        Ok(Err(_)) | Err(_) => return Sent::Unknown(errors::LEADER_CHANGED),
    };
    let Some(outcomes) = response.outcomes else { return Sent::Refused };
    let mut applied = context.applied.clone();
    let own_apply = applied.wait_for(|index| *index >= outcomes.index);
    // A member that lags answers anyway: the write itself stands.
    drop(tokio::time::timeout(OWN_APPLY_MAX, own_apply).await);
    let mut answers: Vec<Answer> = outcomes.outcomes.into_iter().map(wire::from_pb).collect();
    let missing = || Err(WriteError::Unknown(errors::LEADER_CHANGED.to_owned()));
    answers.resize_with(batch.commands.len(), missing);
    Sent::Answered(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_queue_refuses_at_once_and_says_that_a_retry_is_safe() {
        // Nobody takes anything out of the queue.
        let (proposer, _queue) = Proposer::new(Duration::from_secs(600));
        let waiting: Vec<_> = (0..QUEUE)
            .map(|_| {
                let proposer = proposer.clone();
                tokio::spawn(async move { proposer.propose(Command::default()).await })
            })
            .collect();
        while proposer.pending() < QUEUE {
            tokio::task::yield_now().await;
        }
        let refused = proposer.propose(Command::default()).await.expect_err("full");
        assert_eq!(refused, WriteError::NotApplied(errors::TOO_MANY_REQUESTS.to_owned()));
        assert!(refused.certainly_not_applied());
        waiting.into_iter().for_each(|one| one.abort());
    }
}
