//! What a StatefulSet reports.

use super::{Inputs, identity::revision_of};
use crate::object::is_deleting;
use k8s_openapi::api::{apps::v1::StatefulSetStatus, core::v1::Pod};
use kube::ResourceExt;
use std::{collections::BTreeSet, sync::Arc};

/// The status; `deleted` are the UIDs of pods that this pass has deleted.
pub(super) fn status(inputs: &Inputs<'_>, deleted: &BTreeSet<String>) -> StatefulSetStatus {
    let count = |property: &dyn Fn(&Pod) -> bool| {
        inputs.pods.iter().filter(|pod: &&Arc<Pod>| property(pod)).count() as i32
    };
    let stays = |pod: &Pod| {
        let uid = pod.metadata.uid.as_ref();
        !is_deleting(&pod.metadata) && !uid.is_some_and(|uid| deleted.contains(uid))
    };
    let of = |revision: &str| count(&|pod| stays(pod) && revision_of(pod) == revision);
    let (current, update) = (inputs.current.name_any(), inputs.update.name_any());
    let last = inputs.set.status.clone().unwrap_or_default();
    let mut status = StatefulSetStatus {
        observed_generation: inputs.set.metadata.generation,
        replicas: inputs.pods.len() as i32,
        ready_replicas: positive(count(&|pod| inputs.is_running_and_ready(pod))),
        available_replicas: Some(count(&|pod| inputs.is_available(pod))),
        current_replicas: positive(of(&current)),
        updated_replicas: positive(of(&update)),
        current_revision: Some(current),
        update_revision: Some(update),
        collision_count: Some(last.collision_count.unwrap_or(0)),
        conditions: last.conditions,
    };
    complete(inputs, &mut status);
    status
}

/// When every pod is of the new revision, and ready, it becomes the current one.
fn complete(inputs: &Inputs<'_>, status: &mut StatefulSetStatus) {
    let all = inputs.replicas();
    let is_done = status.replicas == all
        && status.ready_replicas.unwrap_or(0) == all
        && status.updated_replicas.unwrap_or(0) == all;
    if inputs.rolls() && is_done {
        status.current_replicas = status.updated_replicas;
        status.current_revision = status.update_revision.clone();
    }
}

/// Upstream leaves zero counts out.
fn positive(count: i32) -> Option<i32> {
    (count > 0).then_some(count)
}
