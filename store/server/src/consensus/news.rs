//! News of commits on the way to a follower: alone, or together with the next entry.
//!
//! openraft sends a request without entries for each commit that no entry takes along. To a client
//! that writes again as soon as it was answered, this doubles what a write costs the members: each
//! request wakes one, and the entry that would have brought the same news comes half a millisecond
//! later. So where entries have lately followed that soon, the news wait for the next one.
//!
//! Whoever writes may be waiting for the very watchers that the news would reach, and then nothing
//! follows. Each time that news waited in vain, more has to speak for it before they wait again.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Stream, StreamExt};
use openraft::entry::RaftEntry;
use openraft::raft::AppendEntriesRequest;
use tokio::time::{Instant, Sleep};

use super::types::{LogId, TypeConfig};
use crate::peer::PeerTraffic;

type Request = AppendEntriesRequest<TypeConfig>;

/// So long news wait for an entry. A timer's grain comes on top (tokio's: a millisecond).
const WAIT: Duration = Duration::from_millis(1);

/// So many news that did not wait in vain make up for all that did.
const TRUSTED: u32 = 256;
/// At most so many entries in succession have to come soon before news wait.
const WANTED_MAX: u32 = 4_096;

/// Whether it pays to wait.
#[derive(Debug)]
struct Habit {
    /// Entries in succession that came soon after news.
    soon: u32,
    /// As many as are wanted.
    wanted: u32,
    /// News in succession that waited and went with an entry.
    rewarded: u32,
}

impl Habit {
    fn new() -> Self {
        Self { soon: 0, wanted: 1, rewarded: 0 }
    }

    fn waits(&self) -> bool {
        self.soon >= self.wanted
    }

    /// An entry came, soon or not; news have `waited` for it or not.
    fn entry(&mut self, soon: bool, waited: bool) {
        self.soon = if soon { self.soon.saturating_add(1) } else { 0 };
        self.rewarded += u32::from(waited);
        if self.rewarded >= TRUSTED {
            (self.wanted, self.rewarded) = (1, 0);
        }
    }

    /// News have waited in vain.
    fn in_vain(&mut self) {
        self.wanted = (self.wanted * 4).min(WANTED_MAX);
        (self.soon, self.rewarded) = (0, 0);
    }
}

/// Requests to a follower, with fewer that tell of nothing but a commit.
pub(super) struct Together<S> {
    requests: S,
    /// The follower. One that waits itself for what its clients wrote is told at once.
    traffic: Arc<PeerTraffic>,
    /// How many of its relays were answered and told of.
    settled: u64,
    /// The last entry that was sent.
    sent: Option<LogId>,
    /// When the first news after it came.
    told: Option<Instant>,
    habit: Habit,
    waiting: Option<Request>,
    /// When what waits goes alone.
    due: Pin<Box<Sleep>>,
}

impl<S> Together<S> {
    pub(super) fn new(requests: S, traffic: Arc<PeerTraffic>) -> Self {
        let settled = traffic.relays.answered();
        let due = Box::pin(tokio::time::sleep(WAIT));
        let (sent, told, waiting) = Default::default();
        Self { requests, traffic, settled, sent, told, habit: Habit::new(), waiting, due }
    }

    fn entries(&mut self, last: LogId) {
        self.sent = Some(last);
        // Older news: the request brings newer.
        let waited = self.waiting.take().is_some();
        if let Some(told) = self.told.take() {
            self.habit.entry(told.elapsed() < WAIT, waited);
        }
    }

    /// Whether the follower has clients whose writes it has not seen applied.
    fn is_awaited(&mut self) -> bool {
        let (begun, answered) = (self.traffic.relays.begun(), self.traffic.relays.answered());
        if begun == self.settled {
            return false;
        }
        if begun == answered {
            self.settled = answered;
        }
        true
    }

    /// The request, unless it may wait.
    fn news(&mut self, request: Request) -> Option<Request> {
        let first = self.told.is_none();
        let now = *self.told.get_or_insert_with(Instant::now);
        let awaited = self.is_awaited();
        if !self.habit.waits() || awaited || request.prev_log_id != self.sent {
            self.waiting = None;
            return Some(request);
        }
        if first {
            self.due.as_mut().reset(now + WAIT);
        }
        self.waiting = Some(request);
        None
    }
}

impl<S: Stream<Item = Request> + Unpin> Stream for Together<S> {
    type Item = Request;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Request>> {
        let this = &mut *self;
        loop {
            match this.requests.poll_next_unpin(context) {
                Poll::Ready(Some(request)) => {
                    let passed = match request.entries.last().map(RaftEntry::log_id) {
                        Some(last) => {
                            this.entries(last);
                            Some(request)
                        }
                        None => this.news(request),
                    };
                    if passed.is_some() {
                        return Poll::Ready(passed);
                    }
                }
                Poll::Ready(None) => return Poll::Ready(this.waiting.take()),
                Poll::Pending => {
                    if this.waiting.is_none() || this.due.as_mut().poll(context).is_pending() {
                        return Poll::Pending;
                    }
                    this.habit.in_vain();
                    return Poll::Ready(this.waiting.take());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use openraft::EntryPayload;
    use openraft::impls::leader_id_std::LeaderId;
    use openraft::vote::RaftLeaderId;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;

    use super::super::types::{Entry, Vote};
    use super::*;
    use crate::peer::Traffic;

    fn id(index: u64) -> LogId {
        LogId::new(LeaderId::new(3, 1).to_committed(), index)
    }

    /// A leader's stream to a follower.
    struct Said {
        sender: mpsc::Sender<Request>,
        stream: Together<ReceiverStream<Request>>,
        traffic: Arc<PeerTraffic>,
    }

    impl Said {
        fn new() -> Self {
            let (sender, requests) = mpsc::channel(8);
            let traffic = Traffic::default().of(2);
            let stream = Together::new(requests.into(), Arc::clone(&traffic));
            Self { sender, stream, traffic }
        }

        fn say(&self, prev: u64, entry: bool, commit: u64) {
            let entry = entry.then(|| Entry::new(id(prev + 1), EntryPayload::Blank));
            let request = AppendEntriesRequest {
                vote: Vote::new_committed(3, 1),
                prev_log_id: Some(id(prev)),
                entries: entry.into_iter().collect(),
                leader_commit: Some(id(commit)),
            };
            self.sender.try_send(request).expect("the stream is there");
        }

        /// What goes out now: how many entries, and what was committed.
        fn sent(&mut self) -> Option<(usize, u64)> {
            let request = self.stream.next().now_or_never()??;
            let commit = request.leader_commit.map_or(0, |id| id.index());
            Some((request.entries.len(), commit))
        }

        /// Entry 1, news of it, and entry 2 soon after.
        fn begin(&mut self) {
            self.say(0, true, 0);
            assert_eq!(self.sent(), Some((1, 0)));
            self.say(1, false, 1);
            assert_eq!(self.sent(), Some((0, 1)), "nothing is known of what comes yet");
            self.say(1, true, 1);
            assert_eq!(self.sent(), Some((1, 1)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn news_go_with_an_entry_that_comes_soon() {
        let mut said = Said::new();
        said.begin();
        for index in 2..9 {
            said.say(index, false, index);
            assert_eq!(said.sent(), None);
            tokio::time::advance(WAIT / 2).await;
            said.say(index, true, index);
            assert_eq!(said.sent(), Some((1, index)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn news_that_no_entry_follows_go_alone_and_those_after_do_not_wait() {
        let mut said = Said::new();
        said.begin();
        said.say(2, false, 2);
        assert_eq!(said.sent(), None);
        let told = Instant::now();
        let request = said.stream.next().await.expect("the news");
        assert_eq!(request.leader_commit, Some(id(2)));
        assert!(told.elapsed() >= WAIT);
        said.say(2, true, 2);
        assert_eq!(said.sent(), Some((1, 2)));
        said.say(3, false, 3);
        assert_eq!(said.sent(), Some((0, 3)));
    }

    #[tokio::test(start_paused = true)]
    async fn writers_that_take_their_time_are_not_waited_for() {
        let mut said = Said::new();
        said.begin();
        for index in 2..9 {
            said.say(index, false, index);
            if index == 2 {
                assert!(said.stream.next().await.is_some());
            } else {
                assert_eq!(said.sent(), Some((0, index)));
            }
            tokio::time::advance(2 * WAIT).await;
            said.say(index, true, index);
            assert_eq!(said.sent(), Some((1, index)));
        }
    }

    #[test]
    fn waiting_in_vain_is_tried_less_and_less() {
        let mut habit = Habit::new();
        let mut tries = Vec::new();
        for entry in 0..20_000_u32 {
            if habit.waits() {
                habit.in_vain();
                tries.push(entry);
            } else {
                habit.entry(true, false);
            }
        }
        assert_eq!(tries[..4], [1, 6, 23, 88]);
        assert_eq!(tries.len(), 10, "{tries:?}");
    }

    #[test]
    fn who_waited_well_for_long_is_believed_again() {
        let mut habit = Habit::new();
        (0..9).for_each(|_| habit.in_vain());
        assert_eq!(habit.wanted, WANTED_MAX);
        (0..WANTED_MAX).for_each(|_| habit.entry(true, false));
        assert!(habit.waits());
        (0..TRUSTED).for_each(|_| habit.entry(true, true));
        assert_eq!(habit.wanted, 1);
        habit.entry(false, false);
        assert!(!habit.waits());
    }

    #[tokio::test(start_paused = true)]
    async fn newer_news_take_the_place_of_older_and_wait_no_longer() {
        let mut said = Said::new();
        said.begin();
        said.say(2, true, 1);
        assert_eq!(said.sent(), Some((1, 1)));
        said.say(3, false, 2);
        assert_eq!(said.sent(), None);
        let told = Instant::now();
        tokio::time::advance(WAIT - Duration::from_micros(1)).await;
        said.say(3, false, 3);
        assert_eq!(said.sent(), None);
        let request = said.stream.next().await.expect("the news");
        assert_eq!(request.leader_commit, Some(id(3)));
        assert!(told.elapsed() <= WAIT + Duration::from_millis(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_follower_that_relays_is_told_at_once() {
        let mut said = Said::new();
        said.begin();
        let relay = said.traffic.relay();
        said.say(2, false, 2);
        assert_eq!(said.sent(), Some((0, 2)), "while a call of its is under way");
        said.say(2, true, 2);
        assert_eq!(said.sent(), Some((1, 2)));
        drop(relay);
        said.say(3, false, 3);
        assert_eq!(said.sent(), Some((0, 3)), "and when it has just been answered");
        said.say(3, true, 3);
        assert_eq!(said.sent(), Some((1, 3)));
        said.say(4, false, 4);
        assert_eq!(said.sent(), None, "but not for ever");
    }

    #[tokio::test(start_paused = true)]
    async fn what_asks_where_a_follower_is_does_not_wait() {
        let mut said = Said::new();
        said.begin();
        said.say(1, false, 2);
        assert_eq!(said.sent(), Some((0, 2)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_not_lost_at_the_end() {
        let mut said = Said::new();
        said.begin();
        said.say(2, false, 2);
        assert_eq!(said.sent(), None);
        drop(std::mem::replace(&mut said.sender, mpsc::channel(8).0));
        assert_eq!(said.sent(), Some((0, 2)));
    }
}
