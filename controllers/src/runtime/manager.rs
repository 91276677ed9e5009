//! Starts the informers, wins the lease, runs every controller's workers, and stops it all in order.
//!
//! Tasks: one per informer and one for the event recorder, as long as the process; while this member leads, N workers
//! for each controller and one task for each [`Task`]. All are joined before the lease is released.

use super::{
    EventType, Informer, Kind, Queue, Recorder,
    informer::AnyInformer,
    recorder::{self, Entry},
};
use crate::{Config, Error, LEASE, object::ObjectKey};
use async_trait::async_trait;
use futures::FutureExt;
use kube::{Client, Resource};
use std::{any::TypeId, collections::HashMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

/// Every object is looked at again this often, should an event ever have been missed.
const RESYNC: Duration = Duration::from_secs(600);
/// No sync may take longer; it is dropped and retried.
const SYNC_TIMEOUT: Duration = Duration::from_secs(60);
/// What syncs get to finish their writes when this member stops leading.
const STOP_GRACE: Duration = Duration::from_millis(500);
/// How old a term must be before the cache is trusted to show what the leader before us wrote.
const YOUNG_TERM: Duration = Duration::from_secs(5);

/// Why an object could not be brought in order. The key is retried with backoff.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// A request failed.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// A label selector cannot be understood.
    #[error("invalid label selector: {0}")]
    Selector(#[from] kube::core::ParseExpressionError),
    /// The cache does not show something yet that it will show soon.
    #[error("{0}")]
    NotYet(String),
}

impl SyncError {
    /// Whether the failure is an everyday one: our view was old, or the object went away.
    fn is_routine(&self) -> bool {
        match self {
            Self::Api(kube::Error::Api(status)) => matches!(status.code, 404 | 409),
            Self::NotYet(_) => true,
            Self::Api(_) | Self::Selector(_) => false,
        }
    }
}

/// What to do with a key after its sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing until something changes.
    Done,
    /// Look again after this time.
    After(Duration),
}

impl Verdict {
    /// `After` for some time, `Done` for none.
    pub fn after(delay: Option<Duration>) -> Self {
        delay.map_or(Self::Done, Self::After)
    }
}

/// A loop over the objects of one kind.
#[async_trait]
pub trait Controller: Send + Sync + 'static {
    /// How many keys are worked on at the same time.
    fn workers(&self) -> usize {
        4
    }

    /// All keys there are, from the cache; queued when this member begins to lead and at each resync.
    fn keys(&self) -> Vec<ObjectKey>;

    /// Brings one object in order. Level-triggered: it reads what is, not what happened.
    async fn sync(&self, key: &ObjectKey) -> Result<Verdict, SyncError>;
}

/// Work that is no loop over keys; runs while this member leads.
#[async_trait]
pub trait Task: Send + Sync + 'static {
    /// Runs until `lead` is cancelled.
    async fn run(&self, lead: CancellationToken);
}

/// How long this member has been leading.
#[derive(Clone, Default)]
pub struct Term {
    since: Arc<parking_lot::Mutex<Option<tokio::time::Instant>>>,
}

impl Term {
    /// Whether the caches may lag behind writes of the leader before us.
    pub fn is_young(&self) -> bool {
        self.since.lock().is_none_or(|since| since.elapsed() < YOUNG_TERM)
    }

    fn begin(&self) {
        *self.since.lock() = Some(tokio::time::Instant::now());
    }
}

/// What controllers are registered with.
pub struct Setup {
    config: Config,
    informers: HashMap<TypeId, Arc<dyn AnyInformer>>,
    controllers: Vec<Registered>,
    tasks: Vec<(&'static str, Arc<dyn Task>)>,
    events: mpsc::Sender<Entry>,
    events_receiver: mpsc::Receiver<Entry>,
    term: Term,
}

struct Registered {
    name: &'static str,
    queue: Arc<Queue>,
    controller: Arc<dyn Controller>,
}

impl Setup {
    /// Nothing registered yet.
    pub fn new(config: &Config) -> Self {
        let (events, events_receiver) = recorder::channel();
        Self {
            config: config.clone(),
            informers: HashMap::new(),
            controllers: Vec::new(),
            tasks: Vec::new(),
            events,
            events_receiver,
            term: Term::default(),
        }
    }

    /// The configuration of all controllers.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The client of all controllers.
    pub fn client(&self) -> Client {
        self.config.client.clone()
    }

    /// The shared informer of kind `K`.
    pub fn informer<K: Kind>(&mut self) -> Arc<Informer<K>> {
        let client = self.client();
        let informer = self
            .informers
            .entry(TypeId::of::<K>())
            .or_insert_with(|| Arc::new(Informer::<K>::new(client)));
        informer.clone().as_any().downcast().expect("the entry of K's TypeId is an Informer<K>")
    }

    /// A new queue, for [`Setup::controller`].
    pub fn queue(&self) -> Arc<Queue> {
        Arc::default()
    }

    /// An event recorder that signs as `component`, such as "deployment-controller".
    pub fn recorder(&self, component: &'static str) -> Recorder {
        Recorder::new(component, self.events.clone())
    }

    /// The age of this member's leadership.
    pub fn term(&self) -> Term {
        self.term.clone()
    }

    /// Adds a controller that works on the keys of `queue`.
    pub fn controller(
        &mut self,
        name: &'static str,
        queue: Arc<Queue>,
        controller: impl Controller,
    ) {
        self.controllers.push(Registered { name, queue, controller: Arc::new(controller) });
    }

    /// Adds a task that runs while this member leads.
    pub fn task(&mut self, name: &'static str, task: impl Task) {
        self.tasks.push((name, Arc::new(task)));
    }

    /// Ends the registration.
    pub fn finish(self) -> Manager {
        let Self { config, informers, controllers, tasks, events_receiver, term, .. } = self;
        let informers = informers.into_values().collect();
        Manager { config, informers, controllers, tasks, events: events_receiver, term }
    }
}

/// Runs what was registered.
pub struct Manager {
    config: Config,
    informers: Vec<Arc<dyn AnyInformer>>,
    controllers: Vec<Registered>,
    tasks: Vec<(&'static str, Arc<dyn Task>)>,
    events: mpsc::Receiver<Entry>,
    term: Term,
}

impl Manager {
    /// Runs until `shutdown`; acts while this member holds the lease.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let Self { config, informers, controllers, tasks, events, term } = self;
        let mut background = JoinSet::new();
        let stop_background = CancellationToken::new();
        background.spawn(named(
            "events",
            recorder::run(config.client.clone(), events, stop_background.clone()),
        ));
        for informer in &informers {
            let run = informer.clone().run(stop_background.clone());
            background.spawn(named(informer.kind(), run));
        }
        let lead =
            lead_when_synced(&config, &informers, &controllers, &tasks, &term, shutdown.clone());
        let outcome = tokio::select! {
            () = lead => Ok(()),
            ended = background.join_next() => Err(Error::TaskEnded(describe(ended))),
        };
        stop_background.cancel();
        while background.join_next().await.is_some() {}
        outcome
    }
}

async fn named(name: impl Into<String>, work: impl Future<Output = ()>) -> String {
    work.await;
    name.into()
}

fn describe(ended: Option<Result<String, tokio::task::JoinError>>) -> String {
    match ended {
        Some(Ok(name)) => name,
        Some(Err(error)) => error.to_string(),
        None => "everything".to_owned(),
    }
}

async fn lead_when_synced(
    config: &Config,
    informers: &[Arc<dyn AnyInformer>],
    controllers: &[Registered],
    tasks: &[(&'static str, Arc<dyn Task>)],
    term: &Term,
    shutdown: CancellationToken,
) {
    tokio::select! {
        () = shutdown.cancelled() => return,
        _ = futures::future::join_all(informers.iter().map(|informer| informer.synced())) => {}
    }
    info!(kinds = informers.len(), "caches are filled");
    let election = pintle_election::Config {
        client: config.client.clone(),
        lease_name: LEASE.to_owned(),
        identity: config.identity.clone(),
    };
    pintle_election::run_while_leading(election, shutdown, |lost| {
        lead(controllers, tasks, term, lost)
    })
    .await;
}

async fn lead(
    controllers: &[Registered],
    tasks: &[(&'static str, Arc<dyn Task>)],
    term: &Term,
    lost: CancellationToken,
) {
    info!("leading: {} controllers begin to work", controllers.len() + tasks.len());
    term.begin();
    let mut work = JoinSet::new();
    for registered in controllers {
        registered.queue.open();
        for _ in 0..registered.controller.workers() {
            let Registered { name, queue, controller } = registered;
            work.spawn(worker(name, queue.clone(), controller.clone(), lost.clone()));
        }
        work.spawn(resync(registered.queue.clone(), registered.controller.clone(), lost.clone()));
    }
    for (name, task) in tasks {
        work.spawn(run_task(name, task.clone(), lost.clone()));
    }
    lost.cancelled().await;
    let stopped =
        tokio::time::timeout(STOP_GRACE, async { while work.join_next().await.is_some() {} }).await;
    if stopped.is_err() {
        work.shutdown().await;
    }
    controllers.iter().for_each(|registered| registered.queue.close());
    info!("no longer leading");
}

async fn run_task(name: &'static str, task: Arc<dyn Task>, lost: CancellationToken) {
    while !lost.is_cancelled() {
        let outcome = AssertUnwindSafe(task.run(lost.clone())).catch_unwind().await;
        if outcome.is_err() {
            error!(task = name, "panicked, starting it again");
        } else if !lost.is_cancelled() {
            warn!(task = name, "ended early, starting it again");
        }
        if !lost.is_cancelled() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

async fn resync(queue: Arc<Queue>, controller: Arc<dyn Controller>, lost: CancellationToken) {
    loop {
        controller.keys().into_iter().for_each(|key| queue.add(key));
        tokio::select! {
            () = lost.cancelled() => return,
            () = tokio::time::sleep(RESYNC) => {}
        }
    }
}

async fn worker(
    name: &'static str,
    queue: Arc<Queue>,
    controller: Arc<dyn Controller>,
    lost: CancellationToken,
) {
    loop {
        let key = tokio::select! {
            biased;
            () = lost.cancelled() => return,
            key = queue.next() => key,
        };
        let outcome = tokio::time::timeout(
            SYNC_TIMEOUT,
            AssertUnwindSafe(controller.sync(&key)).catch_unwind(),
        );
        match outcome.await {
            Ok(Ok(Ok(verdict))) => {
                queue.forget(&key);
                if let Verdict::After(delay) = verdict {
                    queue.add_after(key.clone(), delay);
                }
            }
            failed => {
                report(name, &key, failed);
                queue.retry(key.clone());
            }
        }
        queue.done(&key);
    }
}

type Outcome = Result<
    Result<Result<Verdict, SyncError>, Box<dyn std::any::Any + Send>>,
    tokio::time::error::Elapsed,
>;

fn report(controller: &'static str, key: &ObjectKey, failed: Outcome) {
    match failed {
        Ok(Ok(Err(error))) if error.is_routine() => {
            debug!(controller, %key, %error, "will be retried")
        }
        Ok(Ok(Err(error))) => warn!(controller, %key, %error, "sync failed"),
        Ok(Err(_)) => error!(controller, %key, "sync panicked"),
        Err(_) => warn!(controller, %key, "sync took too long"),
        Ok(Ok(Ok(_))) => {}
    }
}

impl Recorder {
    /// Records a routine event.
    pub fn normal<K: Resource<DynamicType = ()>>(
        &self,
        about: &K,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        self.record(about, EventType::Normal, reason, message.into());
    }

    /// Records something that went wrong.
    pub fn warning<K: Resource<DynamicType = ()>>(
        &self,
        about: &K,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        self.record(about, EventType::Warning, reason, message.into());
    }
}
