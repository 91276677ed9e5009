//! Deployments: roll a template out over ReplicaSets, one per version of it.
//!
//! [`reconcile`] looks at a Deployment and its ReplicaSets once and says what to write. It works on copies of the
//! ReplicaSets; what differs from the originals in the end is the result. Each ReplicaSet is written at most once per
//! pass, with the resourceVersion that was read, so a decision on an old view is refused by the server and taken again.
//!
//! Availability is a bound, not a goal: a pass first grows (never above `replicas + maxSurge` asked for), and only
//! shrinks old ReplicaSets by what is available beyond `replicas - maxUnavailable`.

mod condition;
mod history;
mod proportional;
mod revision;
mod rolling;
#[cfg(test)]
mod simulation;
mod status;
mod sync;

use crate::{intstr::fenceposts, object::is_deleting};
use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    jiff::Timestamp,
};
use revision::Annotation;
use std::{sync::Arc, time::Duration};

pub use sync::register;

/// What [`reconcile`] looks at.
pub struct Inputs<'a> {
    /// The Deployment.
    pub deployment: &'a Deployment,
    /// Its own ReplicaSets.
    pub replica_sets: &'a [Arc<ReplicaSet>],
    /// Whether pods of old versions still run (only `Recreate` asks).
    pub old_pods_run: bool,
    /// The time.
    pub now: Timestamp,
}

/// What to write, in this order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Writes to ReplicaSets.
    pub writes: Vec<Write>,
    /// The revision to note on the Deployment, if it is another one.
    pub revision: Option<String>,
    /// The status that the Deployment should have.
    pub status: DeploymentStatus,
    /// When to look again, although nothing may have changed.
    pub again: Option<Duration>,
}

/// One write to a ReplicaSet.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// A new one.
    Create(ReplicaSet),
    /// Another size or other annotations.
    Update {
        /// How many replicas it asked for before.
        from: i32,
        /// What it should be.
        to: ReplicaSet,
    },
    /// An old one beyond the history limit.
    Delete(ObjectMeta),
}

/// Working copies of a Deployment's ReplicaSets.
#[derive(Clone, Debug, Default)]
struct Sets {
    /// The one of the current template.
    new: Option<ReplicaSet>,
    /// All others, oldest first.
    old: Vec<ReplicaSet>,
    /// Those that go.
    deleted: Vec<ObjectMeta>,
}

impl Sets {
    fn all(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.old.iter().chain(&self.new)
    }

    /// How many pods all of them ask for.
    fn asked(&self) -> i32 {
        self.all().map(replicas).sum()
    }
}

/// Decides what to do about one Deployment.
pub fn reconcile(inputs: &Inputs<'_>) -> Outcome {
    let Inputs { deployment, now, .. } = *inputs;
    let mut sets = revision::sort_out(deployment, inputs.replica_sets);
    let mut base = deployment.status.clone().unwrap_or_default();
    let mut again = None;
    let paused = deployment.spec.paused == Some(true);
    let status = if is_deleting(&deployment.metadata) {
        status::counts(deployment, &sets, base, now)
    } else {
        condition::pausing(deployment, paused, &mut base, now);
        if paused || proportional::is_scaling(deployment, &sets) {
            revision::annotate_existing(deployment, &mut sets, &mut base, now);
            proportional::scale(deployment, &mut sets);
            if paused {
                history::clean_up(deployment, &mut sets);
            }
            status::counts(deployment, &sets, base, now)
        } else {
            roll(inputs, &mut sets, &mut base);
            let status = status::rollout(deployment, &sets, base, now);
            again = status::deadline(deployment, &status, now);
            status
        }
    };
    let revision = sets.new.as_ref().and_then(|new| new.annotation(revision::REVISION));
    Outcome {
        revision: revision
            .filter(|revision| deployment.annotation(revision::REVISION) != Some(*revision))
            .map(str::to_owned),
        writes: writes(inputs.replica_sets, &sets),
        status,
        again,
    }
}

fn roll(inputs: &Inputs<'_>, sets: &mut Sets, base: &mut DeploymentStatus) {
    let Inputs { deployment, now, .. } = *inputs;
    if is_recreate(deployment) {
        revision::annotate_existing(deployment, sets, base, now);
        let asked_before = sets.old.iter().map(replicas).sum::<i32>();
        sets.old.iter_mut().for_each(|set| resize(deployment, set, 0));
        if asked_before > 0 || inputs.old_pods_run {
            return;
        }
        revision::ensure_new(deployment, sets, base, now);
        if let Some(new) = &mut sets.new {
            resize(deployment, new, desired(deployment));
        }
    } else {
        revision::ensure_new(deployment, sets, base, now);
        if !rolling::grow_new(deployment, sets) {
            rolling::shrink_old(deployment, sets);
        }
    }
    if status::is_complete(deployment, &deployment.status.clone().unwrap_or_default()) {
        history::clean_up(deployment, sets);
    }
}

fn writes(originals: &[Arc<ReplicaSet>], sets: &Sets) -> Vec<Write> {
    let original =
        |set: &ReplicaSet| originals.iter().find(|known| known.metadata.uid == set.metadata.uid);
    let changed = sets.new.iter().chain(&sets.old).filter_map(|set| match original(set) {
        _ if set.metadata.uid.is_none() => Some(Write::Create(set.clone())),
        Some(known) if **known != *set => {
            Some(Write::Update { from: replicas(known), to: set.clone() })
        }
        _ => None,
    });
    changed.chain(sets.deleted.iter().cloned().map(Write::Delete)).collect()
}

/// How many pods the Deployment asks for.
fn desired(deployment: &Deployment) -> i32 {
    deployment.spec.replicas.unwrap_or(1)
}

fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.strategy.as_ref();
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

/// `maxSurge` and `maxUnavailable` in pods.
fn bounds(deployment: &Deployment) -> (i32, i32) {
    if is_recreate(deployment) {
        return (0, 0);
    }
    let strategy = deployment.spec.strategy.as_ref();
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref());
    let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
    let (surge, unavailable) = fenceposts(surge, unavailable, desired(deployment));
    (surge, unavailable.min(desired(deployment)))
}

/// How many pods a ReplicaSet asks for.
fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.replicas.unwrap_or(1)
}

/// How many of a ReplicaSet's pods are available, and will stay: what it no longer asks for is as good as gone.
fn available(set: &ReplicaSet) -> i32 {
    let available = set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0);
    available.min(replicas(set))
}

/// Asks for `size` pods, and notes what the Deployment's size was at that time (for proportional scaling later).
fn resize(deployment: &Deployment, set: &mut ReplicaSet, size: i32) {
    let is_zero_already = size == 0 && replicas(set) == 0;
    set.spec.replicas = Some(size);
    if !is_zero_already {
        revision::note_size(deployment, set);
    }
}

#[cfg(test)]
mod tests;
