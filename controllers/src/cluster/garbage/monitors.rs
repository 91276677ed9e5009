//! The watches that fill the graph: one for each resource that discovery shows, metadata only.

use super::graph::{Graph, Object, Uid};
use crate::{
    cluster::discovery::{AnyMeta, Discovered, discover},
    object::ObjectKey,
    runtime::{Queue, Task},
};
use async_trait::async_trait;
use futures::StreamExt;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};
use parking_lot::RwLock;
use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// How often discovery is asked again.
const RESCAN: Duration = Duration::from_secs(30);
/// Events of a collector's own making would only make work: nobody owns them, and there are many.
const IGNORED: [&str; 2] = ["events", "events.events.k8s.io"];

/// UIDs of deleted objects that are remembered, so that a thousand dependents need not ask for one owner.
/// Of more, the oldest is forgotten, and asked for again.
const GONE_MAX: usize = 65_536;

/// What the monitors and the workers share.
#[derive(Default)]
pub(super) struct Shared {
    /// Written by the monitors.
    pub(super) graph: RwLock<Graph>,
    /// The resources there are, by name.
    resources: RwLock<HashMap<String, Arc<Discovered>>>,
    /// The resources whose first list is not in the graph yet.
    unsynced: RwLock<HashSet<String>>,
    /// Whether discovery has been asked in this term.
    scanned: RwLock<bool>,
    /// Objects whose deletion has been seen. A UID never comes back.
    gone: RwLock<Gone>,
    /// A reason to ask discovery at once.
    pub(super) rescan: Notify,
}

#[derive(Default)]
struct Gone {
    uids: HashSet<Uid>,
    order: VecDeque<Uid>,
}

impl Gone {
    fn insert(&mut self, uid: &str) {
        if !self.uids.insert(uid.to_owned()) {
            return;
        }
        self.order.push_back(uid.to_owned());
        if self.order.len() > GONE_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.uids.remove(&oldest);
        }
    }
}

impl Shared {
    /// Whether everything that is there is in the graph.
    pub(super) fn is_complete(&self) -> bool {
        *self.scanned.read() && self.unsynced.read().is_empty()
    }

    /// Whether the deletion of this object has been seen.
    pub(super) fn is_gone(&self, uid: &str) -> bool {
        self.gone.read().uids.contains(uid)
    }

    /// The resource of this name.
    pub(super) fn resource(&self, name: &str) -> Option<Arc<Discovered>> {
        self.resources.read().get(name).cloned()
    }

    /// The resource of this kind; the version does not matter.
    pub(super) fn resource_of_kind(
        &self,
        api_version: &str,
        kind: &str,
    ) -> Option<Arc<Discovered>> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let resources = self.resources.read();
        let mut all = resources.values();
        all.find(|found| found.resource.group == group && found.resource.kind == kind).cloned()
    }

    fn begin_term(&self) {
        *self.graph.write() = Graph::default();
        self.resources.write().clear();
        self.unsynced.write().clear();
        *self.scanned.write() = false;
    }
}

/// Keeps a monitor running for every resource.
pub(super) struct Monitors {
    pub(super) client: Client,
    pub(super) shared: Arc<Shared>,
    pub(super) queue: Arc<Queue>,
}

#[async_trait]
impl Task for Monitors {
    async fn run(&self, lead: CancellationToken) {
        self.shared.begin_term();
        let mut tasks = JoinSet::new();
        let mut running: HashMap<String, (Discovered, CancellationToken)> = HashMap::new();
        while !lead.is_cancelled() {
            tokio::select! {
                () = lead.cancelled() => break,
                found = discover(&self.client) => match found {
                    Ok(found) => self.adjust(&mut tasks, &mut running, found, &lead),
                    Err(error) => warn!(%error, "cannot discover resources"),
                }
            }
            while tasks.try_join_next().is_some() {}
            let pause = if *self.shared.scanned.read() { RESCAN } else { Duration::from_secs(1) };
            tokio::select! {
                () = lead.cancelled() => break,
                () = self.shared.rescan.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        tasks.shutdown().await;
    }
}

impl Monitors {
    /// Stops the monitors of resources that are gone, and starts those of new ones.
    fn adjust(
        &self,
        tasks: &mut JoinSet<()>,
        running: &mut HashMap<String, (Discovered, CancellationToken)>,
        found: Vec<Discovered>,
        lead: &CancellationToken,
    ) {
        let wanted: HashMap<String, Discovered> = found
            .into_iter()
            .filter(|found| found.watchable && !IGNORED.contains(&found.name().as_str()))
            .map(|found| (found.name(), found))
            .collect();
        running.retain(|name, (discovered, stop)| {
            let stays = wanted.get(name) == Some(discovered);
            if !stays {
                debug!(resource = name, "no longer there");
                stop.cancel();
                self.shared.unsynced.write().remove(name);
            }
            stays
        });
        let shared: HashMap<_, _> =
            wanted.iter().map(|(name, found)| (name.clone(), Arc::new(found.clone()))).collect();
        *self.shared.resources.write() = shared;
        for (name, discovered) in wanted {
            if running.contains_key(&name) {
                continue;
            }
            let stop = lead.child_token();
            self.shared.unsynced.write().insert(name.clone());
            let monitor = Monitor {
                api: Api::all_with(self.client.clone(), &discovered.resource),
                resource: name.clone(),
                shared: self.shared.clone(),
                queue: self.queue.clone(),
                known: BTreeSet::new(),
                listed: BTreeSet::new(),
            };
            tasks.spawn(monitor.run(stop.clone()));
            running.insert(name, (discovered, stop));
        }
        if !std::mem::replace(&mut *self.shared.scanned.write(), true) {
            info!(resources = running.len(), "collecting garbage");
        }
    }
}

/// Follows one resource.
struct Monitor {
    api: Api<AnyMeta>,
    resource: String,
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    known: BTreeSet<Uid>,
    listed: BTreeSet<Uid>,
}

impl Monitor {
    async fn run(mut self, stop: CancellationToken) {
        let events = watcher(self.api.clone(), watcher::Config::default()).default_backoff();
        let mut events = events.boxed();
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => break,
                event = events.next() => event,
            };
            match event {
                Some(Ok(event)) => self.handle(event),
                Some(Err(error)) => debug!(resource = self.resource, %error, "watch interrupted"),
                None => break,
            }
        }
        // The resource itself is gone, and its objects with it. At the end of a term that does not matter.
        let known = std::mem::take(&mut self.known);
        known.iter().for_each(|uid| self.out_of_sight(uid));
    }

    fn handle(&mut self, event: watcher::Event<AnyMeta>) {
        match event {
            watcher::Event::Init => self.listed.clear(),
            watcher::Event::InitApply(object) => {
                let uid = self.seen(object);
                self.listed.insert(uid);
            }
            watcher::Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                let before = std::mem::replace(&mut self.known, listed);
                before.difference(&self.known).for_each(|uid| self.gone(uid));
                self.shared.unsynced.write().remove(&self.resource);
            }
            watcher::Event::Apply(object) => {
                let uid = self.seen(object);
                self.known.insert(uid);
            }
            watcher::Event::Delete(object) => {
                let uid = object.metadata.uid.unwrap_or_default();
                self.known.remove(&uid);
                self.gone(&uid);
            }
        }
    }

    fn seen(&self, object: AnyMeta) -> Uid {
        let object = Object::new(self.resource.clone(), object.metadata);
        let uid = object.uid.clone();
        let affected = self.shared.graph.write().observe(object);
        self.look_at(affected);
        uid
    }

    fn gone(&self, uid: &str) {
        self.shared.gone.write().insert(uid);
        self.out_of_sight(uid);
    }

    fn out_of_sight(&self, uid: &str) {
        let affected = self.shared.graph.write().forget(uid);
        self.look_at(affected);
    }

    fn look_at(&self, uids: BTreeSet<Uid>) {
        uids.into_iter().for_each(|uid| self.queue.add(key(&uid)));
    }
}

/// The queue's key of an object: its UID.
pub(super) fn key(uid: &str) -> ObjectKey {
    ObjectKey::new("", uid)
}
