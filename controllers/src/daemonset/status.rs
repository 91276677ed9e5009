//! What a DaemonSet reports.

use super::{Inputs, View, node};
use crate::{
    object::created_at,
    pod::{is_ready, node_name},
};
use k8s_openapi::api::apps::v1::DaemonSetStatus;
use kube::ResourceExt;

/// The status; `observed` says whether the set was looked at in full, or only counted.
pub(super) fn status(inputs: &Inputs<'_>, observed: bool) -> DaemonSetStatus {
    let view = View::new(inputs);
    let last = inputs.set.status.clone().unwrap_or_default();
    let mut status = DaemonSetStatus {
        collision_count: last.collision_count,
        conditions: last.conditions,
        observed_generation: if observed {
            inputs.set.metadata.generation
        } else {
            last.observed_generation
        },
        ..Default::default()
    };
    let (mut updated, mut available) = (0, 0);
    for node in inputs.nodes {
        let pods = view.by_node.get(node.name_any().as_str());
        if !node::eligibility(node, &view.template).run {
            status.number_misscheduled += i32::from(pods.is_some());
            continue;
        }
        status.desired_number_scheduled += 1;
        let oldest = pods.and_then(|pods| {
            pods.iter().min_by_key(|pod| {
                (node_name(pod).is_empty(), created_at(&pod.metadata), pod.name_any())
            })
        });
        let Some(pod) = oldest else { continue };
        status.current_number_scheduled += 1;
        status.number_ready += i32::from(is_ready(pod));
        available += i32::from(view.is_available(pod));
        updated += i32::from(view.is_new(pod));
    }
    status.updated_number_scheduled = positive(updated);
    status.number_available = positive(available);
    status.number_unavailable = positive(status.desired_number_scheduled - available);
    status
}

/// Upstream leaves zero counts out.
fn positive(count: i32) -> Option<i32> {
    (count > 0).then_some(count)
}
