//! How many pods should run now, and what to do about the difference.

use super::{
    BURST, View, backoff, indexes::completion_index, removal, template::failures_of_index,
};
use crate::{object::is_deleting, pod::is_terminating};
use k8s_openapi::api::core::v1::Pod;
use std::{sync::Arc, time::Duration};

/// The place of a new pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slot {
    /// Its index, in an indexed job.
    pub index: Option<i32>,
    /// The failed pod whose failures it inherits.
    pub replaces: Option<Arc<Pod>>,
}

/// What to do about the pods of a job.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// Nothing; the job may not be touched now.
    Hold,
    /// Nothing; it is as it should be.
    Keep,
    /// More pods are wanted, but not before this time has passed.
    Wait(Duration),
    /// Make pods for these places.
    Create(Vec<Slot>),
    /// Delete these pods, which are not needed and shall not count.
    Remove(Vec<Arc<Pod>>),
    /// The job is decided: delete all that still run; they are counted before they go.
    Stop(Vec<Arc<Pod>>),
}

/// What became of the work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Pods that were made.
    pub created: i32,
    /// Pods that were deleted.
    pub deleted: i32,
    /// Those of them that were ready.
    pub deleted_ready: i32,
}

impl View<'_> {
    /// Decides what to do.
    pub fn work(&self) -> Work {
        if self.decided.is_some() {
            return Work::Stop(self.active.clone());
        }
        if !self.inputs.settled || is_deleting(&self.inputs.job.metadata) {
            return Work::Hold;
        }
        let active = self.active.len();
        let wanted = if self.spec.suspended { 0 } else { self.wanted() };
        let mut surplus = removal::choose(self, active.saturating_sub(wanted));
        if !surplus.is_empty() {
            surplus.truncate(BURST);
            return Work::Remove(surplus);
        }
        let leaving = if self.spec.replace_when_failed { self.terminating as usize } else { 0 };
        match wanted.saturating_sub(leaving + active) {
            0 => Work::Keep,
            missing => self.create(missing.min(BURST)),
        }
    }

    fn wanted(&self) -> usize {
        let wanted = match self.spec.completions {
            // After the first success those that run go on, and none is added.
            None if self.succeeded > 0 => self.active.len() as i32,
            None => self.spec.parallelism,
            Some(completions) => (completions - self.succeeded).min(self.spec.parallelism),
        };
        usize::try_from(wanted).unwrap_or(0)
    }

    fn create(&self, missing: usize) -> Work {
        if self.spec.limit_per_index.is_none() {
            let wait = self.backoff.remaining(self.inputs.now);
            if !wait.is_zero() {
                return Work::Wait(wait);
            }
        }
        let Some(limit) = self.spec.indexes else {
            return Work::Create(vec![Slot::default(); missing]);
        };
        let mut slots = Vec::new();
        let mut shortest = None;
        for index in self.pending_indexes(limit, missing) {
            let replaces = self.replaced.get(&index).cloned();
            let wait = replaces.as_deref().map_or(Duration::ZERO, |pod| self.wait_of(pod));
            if wait.is_zero() {
                slots.push(Slot { index: Some(index), replaces });
            } else {
                shortest = Some(shortest.map_or(wait, |known: Duration| known.min(wait)));
            }
        }
        match shortest {
            Some(wait) if slots.is_empty() => Work::Wait(wait),
            _ if slots.is_empty() => Work::Keep,
            _ => Work::Create(slots),
        }
    }

    /// The first indexes that are neither done nor being worked on.
    fn pending_indexes(&self, limit: i32, count: usize) -> Vec<i32> {
        let leaving = self.inputs.pods.iter().filter(|pod| is_terminating(pod));
        let leaving = leaving.filter(|_| self.spec.replace_when_failed);
        let busy = self.active.iter().chain(leaving).filter_map(|pod| completion_index(pod));
        let mut taken = self.indexes.union(&busy.collect());
        if let Some(failed) = &self.failed_indexes {
            taken = taken.union(failed);
        }
        taken.absent(limit).take(count).collect()
    }

    fn wait_of(&self, replaced: &Pod) -> Duration {
        let failures = failures_of_index(replaced).total().saturating_add(1).unsigned_abs();
        backoff::remaining(failures, backoff::finished_at(replaced), self.inputs.now)
    }
}
