//! The part of the scheduler that does I/O: one task owns the [`Engine`], others watch, bind and report for it.

mod bind;
mod events;
mod report;
mod watch;

use kube::Client;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::engine::{Action, Engine};
use crate::pod::Uid;

/// Updates on their way from the watches to the engine. The watches wait when it is full: the apiserver keeps their events.
const UPDATES_MAX: usize = 4096;
/// Bindings in flight at a time: enough to hide a round trip at thousands of pods a second.
/// When there are so many, no further pod is taken from the queue.
const BINDINGS_MAX: usize = 256;
/// Cycles in a row before updates are taken in again.
const CYCLES_MAX: usize = 64;

/// What the scheduler needs.
pub struct Config {
    /// The connection to the apiserver.
    pub client: Client,
    /// Unique among the schedulers of the cluster; goes into the lease and into events.
    pub identity: String,
    /// The pods that ask for this name are ours; `default-scheduler` if they ask for none.
    pub scheduler_name: String,
}

/// Why the scheduler stopped before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A task that the others depend on has panicked.
    #[error("a task of the scheduler has failed")]
    Task(#[source] JoinError),
}

/// Watches the cluster until `shutdown`, and schedules while it holds the lease `kube-scheduler`.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let stop = shutdown.child_token();
    let _stop_on_return = stop.clone().drop_guard();
    let (updates, inbox) = mpsc::channel(UPDATES_MAX);
    let (leadership, commands) = mpsc::channel(1);
    let filled = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let sources = watch::spawn_all(&mut tasks, &config.client, &updates, &stop);
    let reporter = report::Reporter::spawn(&mut tasks, &config, stop.clone());
    let engine = Engine::new(config.scheduler_name.clone(), rand::random());
    let driver = Driver {
        client: config.client.clone(),
        engine,
        epoch: Instant::now(),
        inbox,
        commands,
        bindings: JoinSet::new(),
        reporter,
        unsynced: sources,
        filled: filled.clone(),
        leading: false,
    };
    tasks.spawn(driver.run(stop.clone()));

    let election = pintle_election::Config {
        client: config.client,
        lease_name: "kube-scheduler".to_owned(),
        identity: config.identity,
    };
    let lead = |term: CancellationToken| {
        let leadership = leadership.clone();
        async move { lead(&leadership, term).await }
    };
    let stand = async {
        // Who cannot see the cluster must not keep those from scheduling who can.
        if stop.run_until_cancelled(filled.cancelled()).await.is_some() {
            pintle_election::run_while_leading(election, stop.clone(), lead).await;
        }
    };
    tokio::select! {
        () = stand => {}
        failed = first_failure(&mut tasks) => return Err(Error::Task(failed)),
    }
    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(Error::Task)?;
    }
    Ok(())
}

/// Holds the driver to its work for the length of a term.
async fn lead(leadership: &mpsc::Sender<Command>, term: CancellationToken) {
    if leadership.send(Command::Start).await.is_err() {
        return;
    }
    term.cancelled().await;
    let (stopped, has_stopped) = oneshot::channel();
    if leadership.send(Command::Stop(stopped)).await.is_ok() {
        // The driver is gone if it does not answer, and has stopped then too.
        let _ = has_stopped.await;
    }
}

/// Waits for a task to fail; tasks that just end are fine.
async fn first_failure(tasks: &mut JoinSet<()>) -> JoinError {
    loop {
        match tasks.join_next().await {
            Some(Ok(())) => {}
            Some(Err(failed)) => return failed,
            None => std::future::pending().await,
        }
    }
}

enum Command {
    Start,
    Stop(oneshot::Sender<()>),
}

/// A binding that has ended.
type Ended = (Uid, Result<(), bind::Failure>);

enum Event {
    Watched(watch::Watched),
    Command(Command),
    Bound(Option<Ended>),
    Due,
    Shutdown,
}

struct Driver {
    client: Client,
    engine: Engine,
    epoch: Instant,
    inbox: mpsc::Receiver<watch::Watched>,
    commands: mpsc::Receiver<Command>,
    bindings: JoinSet<Ended>,
    reporter: report::Reporter,
    /// Sources that have not delivered their first list.
    unsynced: usize,
    /// Cancelled once all of them have.
    filled: CancellationToken,
    leading: bool,
}

impl Driver {
    async fn run(mut self, stop: CancellationToken) {
        loop {
            match self.next_event(&stop).await {
                Event::Shutdown => return,
                event => self.handle(event),
            }
            self.take_in_more();
            self.schedule();
        }
    }

    async fn next_event(&mut self, stop: &CancellationToken) -> Event {
        let due = if self.may_schedule() { self.engine.next_due() } else { None };
        let due = due.map(|due| self.epoch + due);
        tokio::select! {
            biased;
            () = stop.cancelled() => Event::Shutdown,
            Some(command) = self.commands.recv() => Event::Command(command),
            Some(ended) = self.bindings.join_next() => Event::Bound(ended.ok()),
            Some(watched) = self.inbox.recv() => Event::Watched(watched),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Event::Due,
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Watched(watched) => self.take_in(watched),
            Event::Bound(Some((uid, result))) => self.binding_ended(&uid, result),
            Event::Command(Command::Start) => {
                info!(waiting = self.engine.queue().depth().active, "scheduling");
                self.leading = true;
            }
            Event::Command(Command::Stop(stopped)) => {
                self.stand_down();
                // Nobody waits any more if the election itself is gone.
                let _ = stopped.send(());
            }
            Event::Bound(None) | Event::Due | Event::Shutdown => {}
        }
    }

    /// What has come in meanwhile, so that a cycle sees the newest state.
    fn take_in_more(&mut self) {
        for _ in 0..UPDATES_MAX {
            let Ok(watched) = self.inbox.try_recv() else { break };
            self.take_in(watched);
        }
        while let Some(ended) = self.bindings.try_join_next() {
            if let Ok((uid, result)) = ended {
                self.binding_ended(&uid, result);
            }
        }
    }

    fn take_in(&mut self, watched: watch::Watched) {
        match watched {
            watch::Watched::Update(update) => self.engine.apply(*update, self.epoch.elapsed()),
            watch::Watched::Synced => {
                self.unsynced -= 1;
                if self.unsynced == 0 {
                    info!("caches are filled");
                    self.filled.cancel();
                }
            }
        }
    }

    fn may_schedule(&self) -> bool {
        self.leading && self.bindings.len() < BINDINGS_MAX
    }

    fn schedule(&mut self) {
        for _ in 0..CYCLES_MAX {
            if !self.may_schedule() {
                return;
            }
            match self.engine.next(self.epoch.elapsed()) {
                Some(action) => self.act(action),
                None => return,
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Bind { pod, node } => {
                let client = self.client.clone();
                let reporter = self.reporter.clone();
                self.bindings.spawn(async move {
                    let result = bind::bind(client, &pod, &node).await;
                    match &result {
                        Ok(()) => reporter.scheduled(&pod, &node),
                        Err(failure) => reporter.bind_failed(&pod, failure),
                    }
                    (pod.uid.clone(), result)
                });
            }
            Action::Unschedulable { pod, message, nominated, victims } => {
                debug!(pod = pod.key(), message, "unschedulable");
                self.reporter.unschedulable(&pod, message, nominated.clone());
                for victim in victims {
                    self.reporter.preempt(&victim, &pod, nominated.as_deref());
                }
            }
        }
    }

    fn binding_ended(&mut self, uid: &Uid, result: Result<(), bind::Failure>) {
        let now = self.epoch.elapsed();
        match result {
            Ok(()) => self.engine.bound(uid, now),
            Err(failure) => {
                let pod = self.engine.queue().get(uid).map(|pod| pod.key());
                warn!(pod, error = %failure, "cannot bind");
                self.engine.bind_failed(uid, now);
            }
        }
    }

    /// Stops acting at once: bindings that are still on their way are given up, and their pods are back in the queue.
    fn stand_down(&mut self) {
        self.leading = false;
        self.take_in_more();
        self.bindings.abort_all();
        self.bindings = JoinSet::new();
        self.engine.abandon_bindings(self.epoch.elapsed());
    }
}
