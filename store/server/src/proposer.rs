//! The way of a write into the log: a bounded queue, and one task that turns everything that has
//! queued up while earlier batches were on their way into one log entry.
//!
//! A follower's task sends its batches to the leader instead. Either way the proposer learns
//! whether its command was applied, certainly was not, or may have been; what was certainly not
//! applied (no leader yet, a leader that has gone) is proposed again until its time is up.
//! While a leader hands over, its `gate` is closed.

mod gate;
mod queue;

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use openraft::errors::{ClientWriteError, RaftError};
use pintle_proto::raft::{Command, CommandBatch, ProposeRequest};
use pintle_store_api::WriteError;
use prost::Message;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use self::gate::Gate;
pub(crate) use self::gate::{Counted, none};
use self::queue::{Entrance, Exit, Proposal, Waiter};
use crate::consensus::{Batch, Node, Raft};
use crate::errors;
use crate::leadership::{Leader, Leadership};
use crate::peer::wire::{self, Answer};
use crate::peer::{Lane, Peers};

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

/// Where commands are handed in.
#[derive(Clone)]
pub(crate) struct Proposer {
    queue: Entrance,
    gate: Arc<Gate>,
    timeout: Duration,
}

impl std::fmt::Debug for Proposer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proposer").field("waiting", &self.queue.len()).finish_non_exhaustive()
    }
}

impl Proposer {
    pub(crate) fn new(timeout: Duration) -> (Self, Queue) {
        let (entrance, exit) = queue::new();
        let gate = Arc::new(Gate::default());
        (Self { queue: entrance, gate: Arc::clone(&gate), timeout }, Queue { exit, gate })
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
        answer(self.queue.put(command, self.timeout)?).await
    }

    /// Proposes all of them and waits until they are applied; answers in their order.
    pub(crate) async fn propose_all(&self, commands: Vec<Command>) -> Vec<Answer> {
        let mut answers = Vec::with_capacity(commands.len());
        for waiting in self.queue.put_all(commands, self.timeout) {
            answers.push(match waiting {
                Ok(waiting) => answer(waiting).await,
                Err(refused) => Err(refused),
            });
        }
        answers
    }

    /// How many commands wait.
    pub(crate) fn pending(&self) -> usize {
        self.queue.len()
    }
}

/// Comes by the proposal's time, unless the member stops.
async fn answer(waiting: oneshot::Receiver<Answer>) -> Answer {
    waiting.await.unwrap_or_else(|_| Err(WriteError::Unknown(errors::STOPPED.to_owned())))
}

/// The receiving end, until the task takes it.
pub(crate) struct Queue {
    exit: Exit,
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
    queue: Exit,
    gate: Arc<Gate>,
}

/// Runs until every [`Proposer`] is gone.
pub(crate) async fn run(context: Context, queue: Queue) {
    let mut leadership = context.leadership.clone();
    let mut gate = queue.gate.watch();
    let mut lingering = context.lingering.subscribe();
    let context = Arc::new(context);
    let mut task = Task { context, queue: queue.exit, gate: queue.gate };
    let mut in_flight = FuturesUnordered::new();
    loop {
        let room = in_flight.len() < IN_FLIGHT_MAX + *lingering.borrow_and_update();
        if room && let Some(route) = task.route(&leadership) {
            let batch = task.queue.take(BATCH_COMMANDS_MAX, BATCH_BYTES_MAX);
            if !batch.is_empty() {
                let (context, gate) = (Arc::clone(&task.context), Arc::clone(&task.gate));
                in_flight.push(send(context, gate, route, batch));
                continue;
            }
        }
        let waiting = async {
            tokio::select! {
                () = task.queue.arrived() => {}
                () = task.queue.time_up() => {}
            }
        };
        tokio::select! {
            Some(refused) = in_flight.next() => task.queue.put_back(refused),
            () = waiting => task.queue.expire(),
            () = leadership.changed() => {}
            Ok(()) = gate.changed() => {}
            Ok(()) = lingering.changed() => {}
            () = task.queue.closed() => break,
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
    let vote = context.leadership.vote();
    let (commands, waiters): (Vec<Command>, Vec<Option<Waiter>>) =
        batch.into_iter().map(|proposal| (proposal.command, Some(proposal.waiter))).unzip();
    let mut waiters = Waiters(waiters);
    let batch = CommandBatch { commands };
    let sent = {
        let mut work = std::pin::pin!(async {
            match route {
                Route::Local => {
                    let _passing = gate.pass();
                    propose(&context, &batch).await
                }
                Route::Remote(id, node) => forward(&context, id, &node, &batch).await,
            }
        });
        loop {
            tokio::select! {
                sent = &mut work => break sent,
                () = waiters.time_up() => waiters.expire(),
            }
        }
    };
    match sent {
        Sent::Answered(answers) => {
            debug_assert_eq!(answers.len(), waiters.0.len());
            for (waiter, answer) in waiters.0.into_iter().zip(answers) {
                if let Some(waiter) = waiter {
                    waiter.answer(answer);
                }
            }
            Vec::new()
        }
        Sent::Unknown(reason) => {
            for waiter in waiters.0.into_iter().flatten() {
                waiter.answer(Err(WriteError::Unknown(reason.to_owned())));
            }
            Vec::new()
        }
        Sent::Refused => {
            tokio::select! {
                () = context.leadership.clone().superseded(vote) => {}
                () = tokio::time::sleep(RETRY_AFTER) => {}
            }
            let again = batch.commands.into_iter().zip(waiters.0);
            again
                .filter_map(|(command, waiter)| Some(Proposal { command, waiter: waiter? }))
                .collect()
        }
    }
}

/// Those who wait for a batch; `None` has been told that its time is up.
struct Waiters(Vec<Option<Waiter>>);

impl Waiters {
    /// Resolves when the next of them has waited long enough.
    async fn time_up(&self) {
        match self.0.iter().flatten().map(|waiter| waiter.deadline).min() {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    }

    /// Whether their commands are applied is not known.
    fn expire(&mut self) {
        let now = Instant::now();
        for waiter in &mut self.0 {
            if waiter.as_ref().is_some_and(|waiter| waiter.deadline <= now)
                && let Some(waiter) = waiter.take()
            {
                waiter.answer(Err(WriteError::Unknown(errors::TIMEOUT.to_owned())));
            }
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
