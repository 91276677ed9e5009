//! What the changes of children mean for their parents: expectations come true, and keys are queued.

use super::{Namespaced, orphan_parents};
use crate::{
    object::{ObjectKey, controller_of, controller_of_kind, is_deleting, uid},
    runtime::{Change, Expectations, Informer, Kind, Queue, Store},
};
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, core::Selector};
use std::sync::Arc;

/// Settles expectations and queues the owners of pods that change; orphans queue those that may adopt them.
pub(crate) fn follow_pods<P: Namespaced>(
    pods: &Informer<Pod>,
    parents: &Arc<Store<P>>,
    queue: &Arc<Queue>,
    expectations: Arc<Expectations>,
    selector_of: impl Fn(&P) -> Option<Selector> + Send + Sync + 'static,
) {
    settle_expectations::<P>(pods, expectations);
    pods.enqueue_controller::<P>(queue);
    orphans_changed(pods, parents, queue, selector_of);
}

/// Queues the parents that may adopt a child that appears, or whose labels or owner change.
fn orphans_changed<P: Namespaced, C: Namespaced>(
    children: &Informer<C>,
    parents: &Arc<Store<P>>,
    queue: &Arc<Queue>,
    selector_of: impl Fn(&P) -> Option<Selector> + Send + Sync + 'static,
) {
    let (parents, queue) = (parents.clone(), queue.clone());
    children.on_change(move |change| {
        let child = match change {
            Change::Added(child) => child,
            Change::Updated { old, new }
                if old.meta().labels != new.meta().labels
                    || controller_of(old.meta()) != controller_of(new.meta()) =>
            {
                new
            }
            Change::Updated { .. } | Change::Deleted(_) => return,
        };
        let adopters = orphan_parents(&parents, child.meta(), &selector_of);
        adopters.into_iter().for_each(|key| queue.add(key));
    });
}

/// Tells the expectations of `P`'s controller what the cache shows.
fn settle_expectations<P: Kind>(pods: &Informer<Pod>, expectations: Arc<Expectations>) {
    pods.on_change(move |change| {
        let meta = &change.object().metadata;
        let Some(owner) = controller_of_kind::<P>(meta) else { return };
        let owner = ObjectKey::new(meta.namespace.as_deref().unwrap_or_default(), &owner.name);
        if let Change::Added(pod) = change {
            expectations.creation_observed(&owner, &pod.name_any());
        }
        if matches!(change, Change::Deleted(_)) || is_deleting(meta) {
            expectations.deletion_observed(&owner, uid(meta));
        }
    });
}

/// A parent that is gone expects nothing any more.
pub(crate) fn forget_deleted<P: Kind>(parents: &Informer<P>, expectations: Arc<Expectations>) {
    parents.on_change(move |change| {
        if let Change::Deleted(parent) = change {
            expectations.forget(&ObjectKey::of(&**parent));
        }
    });
}
