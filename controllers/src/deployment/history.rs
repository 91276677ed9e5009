//! Old ReplicaSets are kept for rollbacks, up to `revisionHistoryLimit`.

use super::{Sets, replicas, revision::revision};
use crate::object::is_deleting;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

/// Drops the oldest revisions beyond the limit, as far as they have no pods and are settled.
pub(super) fn clean_up(deployment: &Deployment, sets: &mut Sets) {
    let limit = deployment.spec.revision_history_limit;
    let Some(limit) = limit.filter(|limit| *limit != i32::MAX) else { return };
    let mut kept: Vec<_> = sets.old.iter().filter(|set| !is_deleting(&set.metadata)).collect();
    let surplus = kept.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    kept.sort_by_key(|set| revision(set));
    let gone: Vec<_> = kept
        .into_iter()
        .take(surplus)
        .filter(|set| is_settled(set))
        .map(|set| set.metadata.clone())
        .collect();
    sets.old.retain(|set| !gone.iter().any(|meta| meta.uid == set.metadata.uid));
    sets.deleted.extend(gone);
}

fn is_settled(set: &ReplicaSet) -> bool {
    let status = set.status.clone().unwrap_or_default();
    replicas(set) == 0
        && status.replicas == 0
        && status.observed_generation.unwrap_or(0) >= set.metadata.generation.unwrap_or(0)
}
