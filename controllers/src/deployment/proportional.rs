//! Scaling a Deployment while it is in the middle of a rollout (or paused): every ReplicaSet gets its share.

use super::{
    Sets, bounds, desired, is_recreate, replicas, resize,
    revision::{Annotation, DESIRED, MAX},
    status::is_saturated,
};
use crate::object::created_at;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::ResourceExt;
use std::cmp::Reverse;

/// Whether the Deployment's size has changed since its ReplicaSets got theirs. `Recreate` has no shares to keep: its next pass
/// sets the size as a matter of course.
pub(super) fn is_scaling(deployment: &Deployment, sets: &Sets) -> bool {
    if is_recreate(deployment) {
        return false;
    }
    let active = sets.all().filter(|set| replicas(set) > 0);
    active.filter_map(noted_desired).any(|noted| noted != desired(deployment))
}

fn noted_desired(set: &ReplicaSet) -> Option<i32> {
    set.annotation(DESIRED)?.parse().ok()
}

/// Brings the ReplicaSets to the Deployment's size without changing how far the rollout has come.
pub(super) fn scale(deployment: &Deployment, sets: &mut Sets) {
    if let Some(only) = active_or_latest(sets) {
        return resize(deployment, only, desired(deployment));
    }
    if sets.new.as_ref().is_some_and(|new| is_saturated(deployment, new)) {
        return sets.old.iter_mut().for_each(|set| resize(deployment, set, 0));
    }
    if !is_recreate(deployment) {
        spread(deployment, sets);
    }
}

/// The one ReplicaSet that has pods, or the newest of all if none has; `None` if several have.
fn active_or_latest(sets: &mut Sets) -> Option<&mut ReplicaSet> {
    match sets.all().filter(|set| replicas(set) > 0).count() {
        0 => sets.new.as_mut().or(sets.old.last_mut()),
        1 => sets.old.iter_mut().chain(&mut sets.new).find(|set| replicas(set) > 0),
        _ => None,
    }
}

fn spread(deployment: &Deployment, sets: &mut Sets) {
    let allowed =
        if desired(deployment) > 0 { desired(deployment) + bounds(deployment).0 } else { 0 };
    let change = allowed - sets.asked();
    let mut active: Vec<_> =
        sets.old.iter_mut().chain(&mut sets.new).filter(|set| replicas(set) > 0).collect();
    // The larger first; among equals, the newer grow first and the older shrink first.
    if change > 0 {
        active
            .sort_by_key(|set| Reverse((replicas(set), created_at(&set.metadata), set.name_any())));
    } else {
        active
            .sort_by_key(|set| (Reverse(replicas(set)), created_at(&set.metadata), set.name_any()));
    }
    let mut given = 0;
    let mut sizes = Vec::with_capacity(active.len());
    for set in &active {
        let part = share(deployment, set, change, given);
        given += part;
        sizes.push(replicas(set) + part);
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + change - given).max(0);
    }
    for (set, size) in active.into_iter().zip(sizes) {
        resize(deployment, set, size);
    }
}

/// A ReplicaSet's part of the change, at most what is left of it.
fn share(deployment: &Deployment, set: &ReplicaSet, change: i32, given: i32) -> i32 {
    let left = change - given;
    let fraction = fraction(deployment, set);
    if change > 0 { fraction.min(left).max(0) } else { fraction.max(left).min(0) }
}

fn fraction(deployment: &Deployment, set: &ReplicaSet) -> i32 {
    let size = replicas(set);
    if desired(deployment) == 0 {
        return -size;
    }
    let max = desired(deployment) + bounds(deployment).0;
    let noted = set.annotation(MAX).and_then(|max| max.parse::<i32>().ok());
    let observed = deployment.status.as_ref().and_then(|status| status.replicas);
    let before = noted.or(observed).filter(|before| *before > 0).unwrap_or(max);
    let scaled = f64::from(size) * f64::from(max) / f64::from(before);
    scaled.round() as i32 - size
}
