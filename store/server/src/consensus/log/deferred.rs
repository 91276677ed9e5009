//! What a leader appends alone waits until its followers have been sent it.
//!
//! Waking the writer thread takes as long as sending a small entry to a member, and a leader's disk
//! is done before its followers' acknowledgements are back: the entry goes to them first.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

use super::writer::Request;

/// Passes requests on to the writer, each one turn of the runtime later, in which replication that
/// was told of the same entries has its own.
#[derive(Clone, Debug)]
pub(super) struct Deferred {
    queue: mpsc::Sender<Request>,
    /// Requests that were not passed on yet.
    waiting: Arc<AtomicUsize>,
}

impl Deferred {
    pub(super) fn new(writer: mpsc::Sender<Request>, room: usize) -> Self {
        let (queue, mut requests) = mpsc::channel(room);
        let waiting = Arc::new(AtomicUsize::new(0));
        let left = Arc::clone(&waiting);
        tokio::spawn(async move {
            while let Some(request) = requests.recv().await {
                tokio::task::yield_now().await;
                let sent = writer.send(request).await;
                left.fetch_sub(1, Ordering::Release);
                if sent.is_err() {
                    return;
                }
            }
        });
        Self { queue, waiting }
    }

    /// Nothing waits, so that a request may go to the writer directly.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.load(Ordering::Acquire) == 0
    }

    pub(super) async fn send(&self, request: Request) -> io::Result<()> {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        self.queue.send(request).await.map_err(|_| super::stopped())
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::consensus::Vote;

    fn vote(term: u64) -> Request {
        Request::Vote { vote: Vote::new(term, 1), done: oneshot::channel().0 }
    }

    fn term(request: Option<Request>) -> Option<u64> {
        match request? {
            Request::Vote { vote, .. } => Some(vote.leader_id.term),
            _ => None,
        }
    }

    #[tokio::test]
    async fn whoever_is_ready_goes_first_and_the_order_stays() {
        let (writer, mut written) = mpsc::channel(2);
        let deferred = Deferred::new(writer, 8);
        assert!(deferred.is_idle());
        // Its task waits for requests.
        tokio::task::yield_now().await;
        for term in 1..=6 {
            deferred.send(vote(term)).await.expect("room");
        }
        assert!(!deferred.is_idle());
        let ready = tokio::spawn(async move {
            assert!(written.try_recv().is_err(), "nothing is written yet");
            written
        });
        let mut written = ready.await.expect("as said");
        for expected in 1..=6 {
            assert_eq!(term(written.recv().await), Some(expected));
        }
        while !deferred.is_idle() {
            tokio::task::yield_now().await;
        }
        drop(deferred);
        assert!(written.recv().await.is_none(), "the writer ends with the log");
    }

    #[tokio::test]
    async fn what_nobody_writes_is_refused() {
        let (writer, written) = mpsc::channel(2);
        let deferred = Deferred::new(writer, 1);
        drop(written);
        while deferred.send(vote(1)).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
}
