//! The rolling update: grow the new ReplicaSet, shrink the old ones, within the bounds.

use super::{Sets, available, bounds, desired, is_recreate, replicas, resize};
use k8s_openapi::api::apps::v1::Deployment;

/// The size of the new ReplicaSet that has `current` pods while all together ask for `asked`.
pub(super) fn new_size(deployment: &Deployment, asked: i32, current: i32) -> i32 {
    if is_recreate(deployment) {
        return desired(deployment);
    }
    let room = desired(deployment) + bounds(deployment).0 - asked;
    current + room.min(desired(deployment) - current).max(0)
}

/// Brings the new ReplicaSet closer to the desired size; whether that changed anything.
pub(super) fn grow_new(deployment: &Deployment, sets: &mut Sets) -> bool {
    let asked = sets.asked();
    let Some(new) = &mut sets.new else { return false };
    let current = replicas(new);
    let size = match current > desired(deployment) {
        true => desired(deployment),
        false => new_size(deployment, asked, current),
    };
    if new.metadata.uid.is_none() {
        return size > 0;
    }
    if size == current {
        return false;
    }
    resize(deployment, new, size);
    true
}

/// Takes pods away from old ReplicaSets: unhealthy ones first, for they serve nobody and block the rollout; then as many
/// available ones as there are beyond the minimum.
pub(super) fn shrink_old(deployment: &Deployment, sets: &mut Sets) {
    if sets.old.iter().all(|set| replicas(set) == 0) {
        return;
    }
    let minimum = desired(deployment) - bounds(deployment).1;
    let new_unavailable = sets.new.as_ref().map_or(0, |new| replicas(new) - available(new));
    let mut budget = sets.asked() - minimum - new_unavailable;
    for set in sets.old.iter_mut().filter(|set| replicas(set) > 0) {
        let count = (replicas(set) - available(set)).min(budget);
        if count > 0 {
            resize(deployment, set, replicas(set) - count);
            budget -= count;
        }
    }
    let mut spare = sets.all().map(available).sum::<i32>() - minimum;
    for set in sets.old.iter_mut().filter(|set| replicas(set) > 0) {
        let count = replicas(set).min(spare).min(budget);
        if count > 0 {
            resize(deployment, set, replicas(set) - count);
            spare -= count;
            budget -= count;
        }
    }
}
