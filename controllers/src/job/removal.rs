//! Which active pods go when there are too many, or two of one index.

use super::{View, indexes::completion_index};
use crate::replicaset::rank;
use k8s_openapi::api::core::v1::Pod;
use std::{collections::BTreeMap, sync::Arc};

/// At least `count` pods; more if some have no place in the job.
pub(super) fn choose(view: &View<'_>, count: usize) -> Vec<Arc<Pod>> {
    let now = view.inputs.now;
    let ordered = |mut pods: Vec<Arc<Pod>>| {
        rank::first_to_go_first(&mut pods, &[], now);
        pods
    };
    let (mut going, staying) = match view.spec.indexes {
        None => (Vec::new(), view.active.clone()),
        Some(limit) => {
            let mut by_index = BTreeMap::<Option<i32>, Vec<Arc<Pod>>>::new();
            for pod in &view.active {
                let index = completion_index(pod).filter(|index| *index < limit);
                by_index.entry(index).or_default().push(pod.clone());
            }
            let mut going = by_index.remove(&None).unwrap_or_default();
            let mut staying = Vec::new();
            for pods in by_index.into_values() {
                let mut pods = ordered(pods);
                staying.extend(pods.pop());
                going.extend(pods);
            }
            (going, staying)
        }
    };
    let more = count.saturating_sub(going.len());
    going.extend(ordered(staying).into_iter().take(more));
    going
}
