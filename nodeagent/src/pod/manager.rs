//! The dispatcher: pods that the apiserver binds to this node get a worker, those that it drops lose
//! it, and what runs without a pod is removed.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::PodExt;
use super::pleg::{Pleg, Snapshot};
use super::status::Failure;
use super::table::PodTable;
use super::teardown;
use super::worker::{Handle, Worker};
use crate::context::NodeContext;

/// How often workers that have ended are let go and orphans looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(2);
/// What containers get that run for no pod.
const ORPHAN_GRACE: Duration = Duration::from_secs(10);
/// Evictions are rare; a full queue makes the evictor wait.
const EVICTIONS: usize = 16;

/// A pod that the node does not want any longer.
#[derive(Debug)]
pub struct Eviction {
    /// The pod.
    pub uid: String,
    /// Why.
    pub failure: Failure,
}

/// The manager of a node's pods.
pub struct Manager {
    context: Arc<NodeContext>,
    workers: HashMap<String, Handle>,
    table: PodTable,
    pleg: Pleg,
    before: Arc<Snapshot>,
    evictions: mpsc::Receiver<Eviction>,
    /// Pods of the list that is being received.
    listed: HashSet<String>,
    /// Whether the apiserver's list has been seen: only then can a container be an orphan.
    synced: bool,
    orphans: HashSet<String>,
    removed_orphans: (mpsc::Sender<String>, mpsc::Receiver<String>),
    shutdown: CancellationToken,
}

enum Event {
    Watch(Box<watcher::Event<Pod>>),
    Runtime,
    Evict(Eviction),
    OrphanDone(String),
    Tick,
}

impl Manager {
    /// A manager, and where evictions are handed in.
    pub fn new(
        context: Arc<NodeContext>,
        table: PodTable,
        pleg: Pleg,
        shutdown: CancellationToken,
    ) -> (Self, mpsc::Sender<Eviction>) {
        let (sender, evictions) = mpsc::channel(EVICTIONS);
        let manager = Self {
            context,
            workers: HashMap::new(),
            table,
            pleg,
            before: Arc::default(),
            evictions,
            listed: HashSet::new(),
            synced: false,
            orphans: HashSet::new(),
            removed_orphans: mpsc::channel(EVICTIONS),
            shutdown,
        };
        (manager, sender)
    }

    /// Runs until shutdown; running pods are left as they are.
    pub async fn run(mut self) {
        let api: Api<Pod> = Api::all(self.context.client.clone());
        let selector = format!("spec.nodeName={}", self.context.name);
        let pods = watcher(api, watcher::Config::default().fields(&selector)).default_backoff();
        let mut pods = Box::pin(pods);
        let mut ticks = interval(HOUSEKEEPING);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let event = tokio::select! {
                () = self.shutdown.cancelled() => return,
                event = next_event(&mut pods) => Event::Watch(Box::new(event)),
                Ok(()) = self.pleg.snapshot.changed() => Event::Runtime,
                Some(eviction) = self.evictions.recv() => Event::Evict(eviction),
                Some(uid) = self.removed_orphans.1.recv() => Event::OrphanDone(uid),
                _ = ticks.tick() => Event::Tick,
            };
            self.handle(event);
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Watch(event) => self.handle_watch(*event),
            Event::Runtime => self.handle_runtime(),
            Event::Evict(eviction) => {
                if let Some(worker) = self.workers.get(&eviction.uid) {
                    worker.evict(eviction.failure);
                }
            }
            Event::OrphanDone(uid) => {
                self.orphans.remove(&uid);
            }
            Event::Tick => {
                self.workers.retain(|_, worker| !worker.is_finished());
                self.remove_orphans();
            }
        }
    }

    fn handle_watch(&mut self, event: watcher::Event<Pod>) {
        match event {
            watcher::Event::Init => self.listed.clear(),
            watcher::Event::InitApply(pod) => {
                self.listed.insert(pod.uid().to_owned());
                self.apply(pod);
            }
            watcher::Event::InitDone => {
                let gone: Vec<String> = self
                    .workers
                    .keys()
                    .filter(|uid| !self.listed.contains(*uid))
                    .cloned()
                    .collect();
                gone.iter().for_each(|uid| self.forget(uid));
                self.synced = true;
                self.sweep_folders();
            }
            watcher::Event::Apply(pod) => self.apply(pod),
            watcher::Event::Delete(pod) => self.forget(pod.uid()),
        }
    }

    fn apply(&mut self, pod: Pod) {
        if pod.pod_spec().node_name.as_deref() != Some(&self.context.name) {
            return;
        }
        let pod = Arc::new(pod);
        self.table.insert(pod.clone());
        match self.workers.get(pod.uid()) {
            Some(worker) if !worker.is_finished() => worker.update(pod),
            _ => {
                let uid = pod.uid().to_owned();
                let worker = Worker::start(self.context.clone(), pod, self.shutdown.clone());
                self.workers.insert(uid, worker);
            }
        }
    }

    fn forget(&mut self, uid: &str) {
        self.table.remove(uid);
        if let Some(worker) = self.workers.get(uid) {
            worker.remove();
        }
    }

    /// Files of pods that went while no agent was there.
    fn sweep_folders(&self) {
        if !self.context.runtime.is_real() {
            return;
        }
        let kept: HashSet<String> =
            self.workers.keys().cloned().chain(self.before.uids().map(str::to_owned)).collect();
        let paths = self.context.paths.clone();
        tokio::task::spawn_blocking(move || {
            for (uid, folder) in folders(&paths.pods(), |name| name.split('/').next()) {
                if !kept.contains(&uid)
                    && let Err(error) = crate::volume::remove_all(&uid, &paths)
                {
                    tracing::warn!(folder = %folder.display(), %error, "volumes of a gone pod stay");
                }
            }
            for (uid, folder) in folders(&paths.pod_logs(), |name| name.rsplit('_').next()) {
                if !kept.contains(&uid)
                    && let Err(error) = std::fs::remove_dir_all(&folder)
                {
                    tracing::warn!(folder = %folder.display(), %error, "logs of a gone pod stay");
                }
            }
        });
    }

    fn handle_runtime(&mut self) {
        let now = self.pleg.snapshot.borrow_and_update().clone();
        for uid in now.changed_since(&self.before) {
            if let Some(worker) = self.workers.get(uid) {
                worker.runtime_changed();
            }
        }
        self.before = now;
    }

    fn remove_orphans(&mut self) {
        if !self.synced {
            return;
        }
        let unknown: Vec<String> = self
            .before
            .uids()
            .filter(|uid| !self.workers.contains_key(*uid) && !self.orphans.contains(*uid))
            .map(str::to_owned)
            .collect();
        for uid in unknown {
            tracing::info!(uid, "removing containers that run for no pod");
            self.orphans.insert(uid.clone());
            let context = self.context.clone();
            let done = self.removed_orphans.0.clone();
            tokio::spawn(async move {
                match teardown::remove_orphan(&*context.runtime, &uid, ORPHAN_GRACE).await {
                    Ok(()) if context.runtime.is_real() => {
                        if let Err(error) = crate::volume::remove_all(&uid, &context.paths) {
                            tracing::warn!(uid, %error, "volumes of an orphan stay");
                        }
                    }
                    Ok(()) => {}
                    Err(error) => tracing::warn!(uid, %error, "an orphan stays for now"),
                }
                // The manager may have ended.
                let _ = done.send(uid).await;
            });
        }
    }
}

/// The folders inside `parent` with the pod uids in their names.
fn folders(parent: &Path, uid_of: fn(&str) -> Option<&str>) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| Some((uid_of(entry.file_name().to_str()?)?.to_owned(), entry.path())))
        .collect()
}

/// The next event; the watcher tries again by itself after errors.
async fn next_event<S>(pods: &mut S) -> watcher::Event<Pod>
where
    S: Stream<Item = watcher::Result<watcher::Event<Pod>>> + Unpin,
{
    loop {
        match pods.next().await {
            Some(Ok(event)) => return event,
            Some(Err(error)) => tracing::debug!(%error, "watching pods"),
            None => std::future::pending().await,
        }
    }
}
