//! Closed loops: every client sends, waits for the answer, sends again.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::Context;
use super::recorder::{Recorder, Window};
use super::sources::{Pool, Source};
use crate::client::Connection;
use crate::results::Sample;
use crate::system::Running;

/// Before the clock starts: connections, caches and batches find their shape.
const WARM_UP: Duration = Duration::from_secs(1);
/// Answers that come later than this after the end are not waited for.
const GRACE: Duration = Duration::from_secs(10);
/// A client whose request failed waits this long, or it would only count refusals.
const AFTER_FAILURE: Duration = Duration::from_millis(20);

/// Clients at work until they are stopped.
pub(super) struct Load {
    pub(super) recorder: Rc<RefCell<Recorder>>,
    stop: Rc<Cell<bool>>,
    clients: JoinSet<()>,
}

/// The connections of a workload's clients, spread over the members.
pub(super) async fn connections(
    running: &Running,
    count: usize,
) -> anyhow::Result<Vec<Connection>> {
    let mut connections = Vec::with_capacity(count);
    for turn in 0..count {
        connections.push(running.connect(turn).await?);
    }
    Ok(connections)
}

impl Load {
    /// One client for each source, on the connections in turn.
    pub(super) fn start<S: Source + 'static>(
        connections: &[Connection],
        sources: impl IntoIterator<Item = S>,
    ) -> Self {
        let recorder = Rc::new(RefCell::new(Recorder::new()));
        let stop = Rc::new(Cell::new(false));
        let mut clients = JoinSet::new();
        for (index, source) in sources.into_iter().enumerate() {
            let connection = connections[index % connections.len()].clone();
            let (recorder, stop) = (Rc::clone(&recorder), Rc::clone(&stop));
            clients.spawn_local(client(connection, source, recorder, stop));
        }
        Self { recorder, stop, clients }
    }

    /// Lets the clients end.
    pub(super) async fn stop(mut self) -> Rc<RefCell<Recorder>> {
        self.recorder.borrow_mut().stop();
        self.stop.set(true);
        let all = async { while self.clients.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, all).await.is_err() {
            self.clients.abort_all();
        }
        self.recorder
    }
}

async fn client<S: Source>(
    mut connection: Connection,
    mut source: S,
    recorder: Rc<RefCell<Recorder>>,
    stop: Rc<Cell<bool>>,
) {
    while !stop.get() {
        let (call, body) = source.next();
        let started = Instant::now();
        match connection.unary(call, body).await {
            Ok(answer) => {
                recorder.borrow_mut().done(started.elapsed());
                source.answered(answer);
            }
            Err(failure) => {
                recorder.borrow_mut().failed(failure);
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    }
}

/// Runs clients for the time of the plan, after a warm-up.
pub(super) async fn closed_loop<S: Source + 'static>(
    context: &Context<'_>,
    running: &Running,
    connections: &[Connection],
    sources: impl IntoIterator<Item = S>,
) -> anyhow::Result<Sample> {
    let load = Load::start(connections, sources);
    tokio::time::sleep(WARM_UP.min(context.seconds())).await;
    let window = Window::open(running);
    load.recorder.borrow_mut().start();
    tokio::time::sleep(context.seconds()).await;
    let done = load.recorder.borrow().done;
    let mut usage = Sample::default();
    window.close(running, done, &mut usage);
    let recorder = load.stop().await;
    let mut sample = recorder.borrow().sample()?;
    sample.figures.append(&mut usage.figures);
    Ok(sample)
}

/// Reads of random ranges.
pub(super) async fn ranges(
    context: &Context<'_>,
    running: &Running,
    keys: usize,
    serializable: bool,
) -> anyhow::Result<Sample> {
    let connections = connections(running, context.connections()).await?;
    let pool = Pool::ranges(context.workload.keys, keys, serializable);
    let sources = (0..context.workload.clients).map(|_| pool.clone());
    closed_loop(context, running, &connections, sources).await
}
