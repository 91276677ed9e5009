//! What waits to be proposed, in order: bounded, and each for a limited time. One task takes it out
//! and keeps the time for all; a timer for each would cost more than its share of the rest.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pintle_proto::raft::Command;
use pintle_store_api::WriteError;
use prost::Message;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::errors;
use crate::peer::wire::Answer;

/// Commands that wait to be proposed. At 100,000 writes a second this is 80 ms of work: more
/// would only be answered too late, so it is refused ("too many requests").
pub(super) const QUEUE: usize = 8192;

/// Who is told what became of a command, and how long it is waited for.
pub(super) struct Waiter {
    pub(super) reply: oneshot::Sender<Answer>,
    pub(super) deadline: Instant,
}

impl Waiter {
    pub(super) fn answer(self, answer: Answer) {
        // The caller may have given up.
        drop(self.reply.send(answer));
    }
}

pub(super) struct Proposal {
    pub(super) command: Command,
    pub(super) waiter: Waiter,
}

fn not_applied(message: &str) -> WriteError {
    WriteError::NotApplied(message.to_owned())
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Told when the queue is empty no longer.
    arrived: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Proposal>,
    /// Nobody takes anything out any more.
    closed: bool,
}

/// Where commands are put in.
#[derive(Clone)]
pub(super) struct Entrance {
    shared: Arc<Shared>,
    /// Tells the exit when the last entrance is gone.
    _open: Arc<DropGuard>,
}

/// Where one task takes them out. Whoever still waits when it goes is told that the member stops.
pub(super) struct Exit {
    shared: Arc<Shared>,
    all_gone: CancellationToken,
}

pub(super) fn new() -> (Entrance, Exit) {
    let shared = Arc::new(Shared::default());
    let all_gone = CancellationToken::new();
    let open = Arc::new(all_gone.clone().drop_guard());
    (Entrance { shared: Arc::clone(&shared), _open: open }, Exit { shared, all_gone })
}

impl State {
    fn admit(
        &mut self,
        command: Command,
        deadline: Instant,
    ) -> Result<oneshot::Receiver<Answer>, WriteError> {
        if self.closed {
            return Err(not_applied(errors::STOPPED));
        }
        if self.waiting.len() >= QUEUE {
            return Err(not_applied(errors::TOO_MANY_REQUESTS));
        }
        let (reply, answer) = oneshot::channel();
        self.waiting.push_back(Proposal { command, waiter: Waiter { reply, deadline } });
        Ok(answer)
    }
}

impl Entrance {
    /// Puts a command in; it gets an answer by its time.
    pub(super) fn put(
        &self,
        command: Command,
        patience: Duration,
    ) -> Result<oneshot::Receiver<Answer>, WriteError> {
        let deadline = Instant::now() + patience;
        self.with(|state| state.admit(command, deadline))
    }

    /// The same for many: as many as there is room for.
    pub(super) fn put_all(
        &self,
        commands: Vec<Command>,
        patience: Duration,
    ) -> Vec<Result<oneshot::Receiver<Answer>, WriteError>> {
        let deadline = Instant::now() + patience;
        self.with(|state| {
            commands.into_iter().map(|command| state.admit(command, deadline)).collect()
        })
    }

    fn with<T>(&self, put: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.shared.state.lock();
        let was_empty = state.waiting.is_empty();
        let answer = put(&mut state);
        let is_empty = state.waiting.is_empty();
        drop(state);
        if was_empty && !is_empty {
            self.shared.arrived.notify_one();
        }
        answer
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.shared.state.lock().waiting.len()
    }
}

impl Exit {
    /// The oldest that somebody still waits for, at most so many of about so many bytes. Whose time is up is
    /// answered instead.
    pub(super) fn take(&mut self, commands_max: usize, bytes_max: usize) -> Vec<Proposal> {
        self.expire();
        let mut state = self.shared.state.lock();
        let mut taken = Vec::with_capacity(state.waiting.len().min(commands_max));
        let mut bytes = 0;
        while taken.len() < commands_max
            && bytes < bytes_max
            && let Some(proposal) = state.waiting.pop_front()
        {
            if !proposal.waiter.reply.is_closed() {
                bytes += proposal.command.encoded_len();
                taken.push(proposal);
            }
        }
        taken
    }

    /// Gives back, in order, what was taken and not proposed.
    pub(super) fn put_back(&mut self, refused: Vec<Proposal>) {
        let mut state = self.shared.state.lock();
        refused.into_iter().rev().for_each(|proposal| state.waiting.push_front(proposal));
    }

    /// Answers those whose time is up: they were certainly not applied.
    pub(super) fn expire(&mut self) {
        let now = Instant::now();
        let mut state = self.shared.state.lock();
        while let Some(oldest) = state.waiting.front()
            && oldest.waiter.deadline <= now
            && let Some(proposal) = state.waiting.pop_front()
        {
            proposal.waiter.answer(Err(not_applied(errors::TIMEOUT)));
        }
    }

    /// Resolves when the time of the oldest that waits now is up.
    pub(super) async fn time_up(&self) {
        let oldest = self.shared.state.lock().waiting.front().map(|one| one.waiter.deadline);
        match oldest {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    }

    /// Resolves when something has come since the queue was empty.
    pub(super) async fn arrived(&self) {
        self.shared.arrived.notified().await;
    }

    /// Resolves when nothing can come any more.
    pub(super) async fn closed(&self) {
        self.all_gone.cancelled().await;
    }
}

impl Drop for Exit {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.closed = true;
        for proposal in state.waiting.drain(..) {
            proposal.waiter.answer(Err(not_applied(errors::STOPPED)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn lease(id: i64) -> Command {
        use pintle_proto::raft::{LeaseGrant, command::Kind};
        Command { kind: Some(Kind::LeaseGrant(LeaseGrant { id, ttl: 1 })), caller: None }
    }

    fn commands(proposals: &[Proposal]) -> Vec<Command> {
        proposals.iter().map(|proposal| proposal.command.clone()).collect()
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once_and_says_that_a_retry_is_safe() {
        let (entrance, _exit) = new();
        let waiting = entrance.put_all(vec![Command::default(); QUEUE], PATIENCE);
        assert!(waiting.iter().all(Result::is_ok));
        assert_eq!(entrance.len(), QUEUE);
        let refused = entrance.put(Command::default(), PATIENCE).expect_err("full");
        assert_eq!(refused, not_applied(errors::TOO_MANY_REQUESTS));
        assert!(refused.certainly_not_applied());
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_too_long_is_told_that_it_was_not_applied() {
        let (entrance, mut exit) = new();
        let first = entrance.put(lease(1), PATIENCE).expect("room");
        tokio::time::sleep(PATIENCE / 2).await;
        let mut second = entrance.put(lease(2), PATIENCE).expect("room");
        exit.time_up().await;
        exit.expire();
        assert_eq!(first.await.expect("answered"), Err(not_applied(errors::TIMEOUT)));
        assert!(second.try_recv().is_err(), "it has time left");
        assert_eq!(commands(&exit.take(10, 1000)), [lease(2)]);
        let mut time_up = std::pin::pin!(exit.time_up());
        assert!(futures::poll!(&mut time_up).is_pending(), "nothing waits");
    }

    #[tokio::test]
    async fn order_holds_and_who_has_given_up_is_passed_over() {
        let (entrance, mut exit) = new();
        let mut answers = Vec::new();
        for id in 0..5 {
            answers.push(entrance.put(lease(id), PATIENCE).expect("room"));
        }
        exit.arrived().await;
        answers.remove(1);
        let taken = exit.take(2, 1000);
        assert_eq!(commands(&taken), [lease(0), lease(2)]);
        exit.put_back(taken);
        assert_eq!(commands(&exit.take(10, 1)), [lease(0)], "one is enough");
        assert_eq!(commands(&exit.take(10, 1000)), [lease(2), lease(3), lease(4)]);
    }

    #[tokio::test]
    async fn either_side_sees_that_the_other_has_gone() {
        let (entrance, exit) = new();
        let answer = entrance.put(lease(1), PATIENCE).expect("room");
        {
            let mut closed = std::pin::pin!(exit.closed());
            assert!(futures::poll!(&mut closed).is_pending());
        }
        let clone = entrance.clone();
        drop(exit);
        assert_eq!(answer.await.expect("answered"), Err(not_applied(errors::STOPPED)));
        assert_eq!(clone.put(lease(2), PATIENCE).err(), Some(not_applied(errors::STOPPED)));

        let (entrance, exit) = new();
        drop(entrance);
        exit.closed().await;
    }
}
