//! The pod [`Graph`] kept up to date from the pod cache, by whoever asks: no task of its own, each
//! question first takes in what has happened since the last one.

use futures::FutureExt as _;
use parking_lot::Mutex;
use pintle_apiserver_storage::{CacheEvent, Watcher};

use super::graph::{Graph, Kind};
use crate::registry::Registry;

/// See the module.
pub(crate) struct PodGraph {
    registry: Registry,
    /// The graph and the cursor up to which it has been fed; no cursor before the first question.
    state: Mutex<(Graph, Option<Watcher>)>,
}

impl PodGraph {
    pub(crate) fn new(registry: Registry) -> Self {
        Self { registry, state: Mutex::default() }
    }

    /// Whether some pod on `node` refers to this object.
    pub(crate) async fn needs(&self, node: &str, kind: Kind, namespace: &str, name: &str) -> bool {
        self.ask(|graph| graph.needs(node, kind, namespace, name)).await
    }

    /// Whether the pod is on `node`.
    pub(crate) async fn runs(&self, node: &str, namespace: &str, name: &str) -> bool {
        self.ask(|graph| graph.runs(node, namespace, name)).await
    }

    /// A no is looked at again with a cache that knows all that has been acknowledged by now: the
    /// node may have heard of its pod from another member that was faster.
    async fn ask(&self, question: impl Fn(&Graph) -> bool) -> bool {
        if self.ask_cache(&question).await {
            return true;
        }
        match self.registry.caches().wait_consistent().await {
            Ok(_) => self.ask_cache(&question).await,
            Err(_) => false,
        }
    }

    async fn ask_cache(&self, question: impl Fn(&Graph) -> bool) -> bool {
        let cache = match self.registry.cache("", "pods").await {
            Ok(cache) => cache,
            Err(error) => {
                tracing::warn!(%error, "the node authorizer cannot see the pods");
                return false;
            }
        };
        let mut state = self.state.lock();
        let (graph, watcher) = &mut *state;
        let caught_up = watcher.as_mut().is_some_and(|watcher| catch_up(graph, watcher));
        if !caught_up {
            let (snapshot, _, fresh) = cache.watch_with_snapshot();
            *graph = Graph::default();
            for object in snapshot.iter() {
                match object.decode() {
                    Ok(pod) => graph.set(&pod),
                    Err(error) => tracing::error!(%error, "a stored pod cannot be read"),
                }
            }
            *watcher = Some(fresh);
        }
        question(graph)
    }
}

/// Takes in all changes that wait. False when some were missed.
fn catch_up(graph: &mut Graph, watcher: &mut Watcher) -> bool {
    loop {
        match watcher.next().now_or_never() {
            None => return true,
            Some(Ok(events)) => events.iter().for_each(|event| apply(graph, event)),
            Some(Err(_)) => return false,
        }
    }
}

fn apply(graph: &mut Graph, event: &CacheEvent) {
    let object = &event.object;
    if event.deleted {
        graph.remove(object.namespace(), object.name());
        return;
    }
    match object.decode() {
        Ok(pod) => graph.set(&pod),
        Err(error) => tracing::error!(%error, "a stored pod cannot be read"),
    }
}
