//! Who leads, and what they proclaim, from now on. Leaders in between may be passed over; the
//! latest one never is. Nothing is read ahead of the client: one that stops reading holds one
//! watch and no more.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use pintle_proto::v3electionpb::LeaderResponse;
use pintle_store_api::mvccpb::KeyValue;
use pintle_store_api::mvccpb::event::EventType;
use pintle_store_api::{WatchError, WatchItem, WatchStream};
use tonic::Status;

use super::super::concurrency::{Queue, range, watch, watch_error};
use crate::handle::Handle;

enum State {
    /// Nobody is known to lead.
    Looking,
    /// Nobody leads: the first to join the queue will.
    Waiting(WatchStream),
    /// The leader's key, followed.
    Following(WatchStream),
    Ended,
}

struct Observer {
    handle: Arc<Handle>,
    queue: Queue,
    state: State,
    ready: VecDeque<LeaderResponse>,
}

pub(super) fn leaders(
    handle: Arc<Handle>,
    name: &Bytes,
) -> impl Stream<Item = Result<LeaderResponse, Status>> + Send + use<> {
    let queue = Queue::new(Arc::clone(&handle), name);
    let observer = Observer { handle, queue, state: State::Looking, ready: VecDeque::new() };
    stream::unfold(observer, |mut observer| async move {
        let next = observer.next().await?;
        if next.is_err() {
            observer.state = State::Ended;
        }
        Some((next, observer))
    })
}

impl Observer {
    async fn next(&mut self) -> Option<Result<LeaderResponse, Status>> {
        loop {
            if let Some(leader) = self.ready.pop_front() {
                return Some(Ok(leader));
            }
            let step = match std::mem::replace(&mut self.state, State::Ended) {
                State::Ended => return None,
                State::Looking => self.look().await,
                State::Waiting(changes) => self.wait(changes).await,
                State::Following(changes) => self.follow(changes).await,
            };
            match step {
                Ok(state) => self.state = state,
                Err(status) => return Some(Err(status)),
            }
        }
    }

    async fn look(&mut self) -> Result<State, Status> {
        let request = self.queue.front();
        let (key, range_end) = (request.key.clone(), request.range_end.clone());
        let answer = range(&self.handle, request).await?;
        let at = answer.header.map_or(0, |header| header.revision);
        match answer.kvs.into_iter().next() {
            Some(leader) => self.found(leader, at).await,
            None => watch(&self.handle, key, range_end, at + 1).await.map(State::Waiting),
        }
    }

    /// Tells the leader and goes on behind revision `at`.
    async fn found(&mut self, leader: KeyValue, at: i64) -> Result<State, Status> {
        let key = leader.key.clone();
        self.tell(leader, at);
        watch(&self.handle, key, Bytes::new(), at + 1).await.map(State::Following)
    }

    fn tell(&mut self, leader: KeyValue, at: i64) {
        let header = Some(self.handle.core().header_at(at));
        self.ready.push_back(LeaderResponse { header, kv: Some(leader) });
    }

    async fn wait(&mut self, mut changes: WatchStream) -> Result<State, Status> {
        let (events, _) = match step(&mut changes).await? {
            Step::Events(events, revision) => (events, revision),
            Step::Nothing => return Ok(State::Waiting(changes)),
            Step::LookAgain => return Ok(State::Looking),
        };
        let first = events.into_iter().find(|(kind, _)| *kind == EventType::Put);
        match first {
            Some((_, leader)) => {
                let at = leader.mod_revision;
                self.found(leader, at).await
            }
            None => Ok(State::Waiting(changes)),
        }
    }

    async fn follow(&mut self, mut changes: WatchStream) -> Result<State, Status> {
        let (events, revision) = match step(&mut changes).await? {
            Step::Events(events, revision) => (events, revision),
            Step::Nothing => return Ok(State::Following(changes)),
            Step::LookAgain => return Ok(State::Looking),
        };
        for (kind, leader) in events {
            if kind == EventType::Delete {
                return Ok(State::Looking);
            }
            self.tell(leader, revision);
        }
        Ok(State::Following(changes))
    }
}

enum Step {
    Events(Vec<(EventType, KeyValue)>, i64),
    Nothing,
    LookAgain,
}

async fn step(changes: &mut WatchStream) -> Result<Step, Status> {
    match changes.next().await {
        Some(Ok(WatchItem::Events { revision, events })) => {
            let events = events.iter();
            let kvs = events.filter_map(|event| Some((event.r#type(), event.kv.clone()?)));
            Ok(Step::Events(kvs.collect(), revision.0))
        }
        Some(Ok(WatchItem::Created(_) | WatchItem::Progress(_))) => Ok(Step::Nothing),
        // The state says what was missed.
        Some(Err(WatchError::Compacted(_))) | None => Ok(Step::LookAgain),
        Some(Err(error)) => Err(watch_error(&error)),
    }
}
