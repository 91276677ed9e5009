//! Calls that are answered without much work are futures in the task of their connection.
//!
//! hyper makes a task of every request. A put then costs a task of its own, a wake and a place in a queue when its
//! answer comes, and another wake for its connection: a tenth of what its members do for it.
//! Here a connection is woken once for all answers that have come together, and takes them in one turn.
//!
//! A call that may read from disk, or encode much, must not be one of these: it would hold up the
//! others of its connection. It has a task of its own, which any thread may take.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use hyper::rt::Executor;
use parking_lot::Mutex;

/// What a connection's service and its executor tell each other. All of it happens in one task.
#[derive(Debug, Default)]
struct Shared {
    /// The next future that the executor gets is that of a short call.
    short: AtomicBool,
    /// Calls under way, of either kind.
    calls: AtomicUsize,
    arrived: Mutex<Arrived>,
}

#[derive(Default)]
struct Arrived(Vec<BoxFuture<'static, ()>>);

impl std::fmt::Debug for Arrived {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Arrived").field(&self.0.len()).finish()
    }
}

/// Says of a request that its call is short: hyper hands it to the executor next. Knows of all calls.
#[derive(Clone, Debug, Default)]
pub(super) struct Marker(Arc<Shared>);

impl Marker {
    pub(super) fn mark(&self) {
        self.0.short.store(true, Ordering::Relaxed);
    }

    /// Whether calls are under way.
    pub(super) fn has_calls(&self) -> bool {
        self.0.calls.load(Ordering::Relaxed) > 0
    }

    fn begin(&self) -> Call {
        self.0.calls.fetch_add(1, Ordering::Relaxed);
        Call(self.clone())
    }

    pub(super) fn executor(&self) -> ByLength {
        ByLength(self.clone())
    }
}

/// Counts a call until it is dropped.
struct Call(Marker);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Keeps short calls for their connection; the runtime gets all others.
#[derive(Clone, Debug)]
pub(super) struct ByLength(Marker);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for ByLength {
    fn execute(&self, call: F) {
        let counted = self.0.begin();
        let call = async move {
            call.await;
            drop(counted);
        };
        let shared = &self.0.0;
        if shared.short.load(Ordering::Relaxed) {
            shared.short.store(false, Ordering::Relaxed);
            shared.arrived.lock().0.push(Box::pin(call));
        } else {
            tokio::spawn(call);
        }
    }
}

/// The short calls of a connection that are under way. Dropped with it, as calls are whose client has gone.
pub(super) struct Short {
    marker: Marker,
    running: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl Short {
    pub(super) fn new(marker: Marker) -> Self {
        Self { marker, running: FuturesUnordered::new() }
    }

    /// Lets calls go on, then the connection, then begins the calls that came. Ends with the connection.
    pub(super) fn poll<C: Future>(
        &mut self,
        connection: Pin<&mut C>,
        context: &mut Context<'_>,
    ) -> Poll<C::Output> {
        self.advance(context);
        let polled = connection.poll(context);
        if polled.is_pending() {
            let arrived = std::mem::take(&mut self.marker.0.arrived.lock().0);
            if !arrived.is_empty() {
                self.running.extend(arrived);
                self.advance(context);
            }
        }
        polled
    }

    fn advance(&mut self, context: &mut Context<'_>) {
        while let Poll::Ready(Some(())) = self.running.poll_next_unpin(context) {}
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Waker;

    use tokio::sync::oneshot;

    use super::*;

    /// A connection that hands `calls` to its executor at its first turn, and ends when all of them are answered.
    struct Connection {
        marker: Marker,
        calls: Vec<BoxFuture<'static, ()>>,
        answered: Arc<AtomicUsize>,
        expected: usize,
        turns: usize,
    }

    impl Future for Connection {
        type Output = usize;

        fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<usize> {
            let this = &mut *self;
            this.turns += 1;
            for call in std::mem::take(&mut this.calls) {
                this.marker.mark();
                this.marker.executor().execute(call);
            }
            let all = this.answered.load(Ordering::Relaxed) == this.expected;
            if all { Poll::Ready(this.turns) } else { Poll::Pending }
        }
    }

    struct Calls {
        marker: Marker,
        answers: Vec<oneshot::Sender<()>>,
        answered: Arc<AtomicUsize>,
    }

    fn serve(calls: usize) -> (Calls, impl Future<Output = usize>) {
        let (marker, answered) = (Marker::default(), Arc::new(AtomicUsize::new(0)));
        let (mut answers, mut futures) = (Vec::new(), Vec::new());
        for _ in 0..calls {
            let (sender, answer) = oneshot::channel();
            let answered = Arc::clone(&answered);
            answers.push(sender);
            let call = async move {
                drop(answer.await);
                answered.fetch_add(1, Ordering::Relaxed);
            };
            futures.push(Box::pin(call) as BoxFuture<'static, ()>);
        }
        let count = Arc::clone(&answered);
        let mut connection = Connection {
            marker: marker.clone(),
            calls: futures,
            answered: count,
            expected: calls,
            turns: 0,
        };
        let mut short = Short::new(marker.clone());
        let served = poll_fn(move |context| short.poll(Pin::new(&mut connection), context));
        (Calls { marker, answers, answered }, served)
    }

    #[tokio::test]
    async fn answers_that_come_together_are_taken_in_one_turn() {
        let (Calls { marker, answers, answered }, served) = serve(300);
        let served = tokio::spawn(served);
        tokio::task::yield_now().await;
        assert_eq!(answered.load(Ordering::Relaxed), 0);
        answers.into_iter().for_each(|answer| answer.send(()).expect("it waits"));
        // The runtime lets a task take 128 things, then it is the others' turn.
        let turns = served.await.expect("it ends");
        assert!(turns < 10, "{turns} turns");
        assert!(!marker.has_calls());
        assert_eq!(answered.load(Ordering::Relaxed), 300);
    }

    #[test]
    fn calls_end_with_their_connection() {
        let (Calls { marker, answers, .. }, served) = serve(2);
        let mut served = Box::pin(served);
        assert!(served.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert!(answers.iter().all(|answer| !answer.is_closed()));
        assert!(marker.has_calls());
        drop(served);
        assert!(!marker.has_calls());
        assert!(answers.iter().all(oneshot::Sender::is_closed));
    }

    #[tokio::test]
    async fn what_is_not_marked_is_a_task_of_its_own() {
        let marker = Marker::default();
        let (sender, answer) = oneshot::channel();
        marker.executor().execute(async move { sender.send(()).expect("it waits") });
        answer.await.expect("it ran without a connection");
    }
}
