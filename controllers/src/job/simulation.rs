//! A job against a fake cluster in which pods end, are deleted and hand in their news late, and requests fail.
//!
//! Held at every moment: no more pods run than may; counters never go down, and no end of a pod is counted twice or lost.
//! Held in the end: the job is over, for the right reason, and holds no pod back.

use super::{tests::job, *};
use crate::pod::{is_active, tests::at};
use k8s_openapi::{api::batch::v1::JobStatus, apimachinery::pkg::apis::meta::v1::Time};
use proptest::prelude::*;
use serde_json::json;
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

#[derive(Clone, Copy, Debug)]
enum Happening {
    Succeeds(usize),
    Fails(usize),
    IsDeleted(usize),
    Suspend(bool),
    /// A pass, whose `n`th request and all after it fail.
    Pass(usize),
    /// The cache catches up.
    Observe,
}

struct Cluster {
    job: Job,
    /// What the server has.
    pods: BTreeMap<String, Pod>,
    /// What the cache shows of it.
    seen: BTreeMap<String, Pod>,
    released: HashSet<String>,
    backoff: Backoff,
    now: i64,
    made: usize,
    /// Pods that ended so in truth, and have been held by the finalizer until then.
    ends: BTreeMap<String, &'static str>,
    requests_left: usize,
}

impl Cluster {
    fn new(job: Job) -> Self {
        Self {
            job,
            pods: BTreeMap::new(),
            seen: BTreeMap::new(),
            released: HashSet::new(),
            backoff: Backoff::default(),
            now: 100,
            made: 0,
            ends: BTreeMap::new(),
            requests_left: 0,
        }
    }

    fn happen(&mut self, happening: Happening) {
        self.now += 1;
        match happening {
            Happening::Succeeds(index) => self.end(index, "Succeeded"),
            Happening::Fails(index) => self.end(index, "Failed"),
            Happening::IsDeleted(index) => {
                if let Some(name) = self.running(index) {
                    self.mark_deleted(&name);
                }
            }
            Happening::Suspend(suspend) => {
                self.job.spec.as_mut().unwrap().suspend = Some(suspend);
            }
            Happening::Pass(requests) => self.pass(requests),
            Happening::Observe => self.observe(),
        }
    }

    fn running(&self, index: usize) -> Option<String> {
        let running: Vec<_> = self.pods.iter().filter(|(_, pod)| is_active(pod)).collect();
        (!running.is_empty()).then(|| running[index % running.len()].0.clone())
    }

    fn end(&mut self, index: usize, phase: &'static str) {
        let Some(name) = self.running(index) else { return };
        let pod = self.pods.get_mut(&name).unwrap();
        pod.status.get_or_insert_default().phase = Some(phase.to_owned());
        if has_finalizer(pod) {
            self.ends.insert(name, phase);
        }
    }

    fn mark_deleted(&mut self, name: &str) {
        let now = Time(at(self.now));
        if let Some(pod) = self.pods.get_mut(name) {
            pod.metadata.deletion_timestamp.get_or_insert(now);
        }
    }

    /// Deleted pods end and go, unless they are held.
    fn observe(&mut self) {
        self.pods.retain(|_, pod| pod.metadata.deletion_timestamp.is_none() || has_finalizer(pod));
        self.seen = self.pods.clone();
        let held = |uid: &String| self.seen.get(uid).is_some_and(has_finalizer);
        self.released.retain(held);
    }

    fn request(&mut self) -> bool {
        let left = self.requests_left > 0;
        self.requests_left = self.requests_left.saturating_sub(1);
        left
    }

    fn pass(&mut self, requests: usize) {
        if is_finished(&self.job) {
            return;
        }
        self.requests_left = requests;
        let pods: Vec<_> = self.seen.values().cloned().map(Arc::new).collect();
        let job = self.job.clone();
        let released = self.released.clone();
        let settled = self.seen.keys().eq(self.pods.keys())
            && self.pods.iter().all(|(name, pod)| {
                self.seen[name].metadata.deletion_timestamp.is_some()
                    == pod.metadata.deletion_timestamp.is_some()
            });
        let inputs = Inputs {
            job: &job,
            pods: &pods,
            released: &released,
            settled,
            backoff: self.backoff,
            now: at(self.now),
        };
        let view = View::new(&inputs).unwrap();
        let work = view.work();
        let done = self.perform(&work);
        let mut report = view.report(&work, done);
        if !self.store(report.status.clone()) {
            return;
        }
        self.backoff = view.backoff;
        let gone: HashSet<_> =
            report.release.clone().iter().filter_map(|pod| self.release(pod)).collect();
        let all = gone.len() == report.release.len();
        self.released.extend(gone.iter().cloned());
        let stored = self.job.status.clone().unwrap();
        let (status, _) = report.settle(&stored, &gone, all, at(self.now));
        self.store(status);
    }

    fn perform(&mut self, work: &Work) -> Done {
        let mut done = Done::default();
        match work {
            Work::Create(slots) => {
                for slot in slots {
                    if self.request() {
                        self.create(slot);
                        done.created += 1;
                    }
                }
            }
            Work::Remove(pods) | Work::Stop(pods) => {
                for pod in pods {
                    let name = pod.metadata.name.clone().unwrap();
                    if matches!(work, Work::Remove(_)) {
                        if self.release(pod).is_none() {
                            continue;
                        }
                        // What is surplus does not count, even if it has just ended.
                        self.ends.remove(&name);
                    }
                    if self.request() {
                        self.mark_deleted(&name);
                        done.deleted += 1;
                    }
                }
            }
            Work::Hold | Work::Keep | Work::Wait(_) => {}
        }
        done
    }

    fn create(&mut self, slot: &Slot) {
        let mut pod = template::pod(&self.job, slot).unwrap();
        self.made += 1;
        let name = format!("pod-{:03}", self.made);
        pod.metadata.name = Some(name.clone());
        pod.metadata.uid = Some(name.clone());
        pod.metadata.creation_timestamp = Some(Time(at(self.now)));
        self.pods.insert(name, pod);
        let parallelism = self.job.spec.as_ref().unwrap().parallelism.unwrap();
        let running = self.pods.values().filter(|pod| is_active(pod)).count();
        assert!(running <= parallelism as usize, "{running} pods run");
    }

    fn release(&mut self, pod: &Arc<Pod>) -> Option<String> {
        if !self.request() {
            return None;
        }
        let name = pod.metadata.name.clone()?;
        if let Some(pod) = self.pods.get_mut(&name) {
            pod.metadata.finalizers = Some(Vec::new());
        }
        Some(name)
    }

    fn store(&mut self, status: JobStatus) -> bool {
        if self.job.status.as_ref() == Some(&status) {
            return true;
        }
        if !self.request() {
            return false;
        }
        let before = self.job.status.clone().unwrap_or_default();
        assert!(status.succeeded >= before.succeeded, "{before:?} {status:?}");
        assert!(status.failed >= before.failed, "{before:?} {status:?}");
        self.job.status = Some(status);
        true
    }

    /// Time passes, pods succeed, and nothing fails any more.
    fn run_to_the_end(&mut self) {
        for _ in 0..200 {
            self.now += 700;
            self.job.spec.as_mut().unwrap().suspend = Some(false);
            self.observe();
            self.pass(usize::MAX);
            self.observe();
            (0..self.pods.len()).for_each(|_| self.end(0, "Succeeded"));
            if is_finished(&self.job) {
                return;
            }
        }
        panic!("never ends: {:?} {:?}", self.job.status, self.pods);
    }
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        3 => any::<usize>().prop_map(Happening::Succeeds),
        1 => any::<usize>().prop_map(Happening::Fails),
        1 => any::<usize>().prop_map(Happening::IsDeleted),
        1 => prop::bool::weighted(0.3).prop_map(Happening::Suspend),
        5 => (0..12usize).prop_map(Happening::Pass),
        5 => Just(Happening::Observe),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_end_counts_once_and_the_job_ends(
        completions in 1..6i32,
        parallelism in 1..4i32,
        limit in 0..6i32,
        indexed in any::<bool>(),
        story in prop::collection::vec(happening(), 0..80),
    ) {
        let mode = if indexed { "Indexed" } else { "NonIndexed" };
        let spec = json!({"completions": completions, "parallelism": parallelism,
            "backoffLimit": limit, "completionMode": mode});
        let mut cluster = Cluster::new(job(spec, json!({})));
        story.iter().for_each(|happening| cluster.happen(*happening));
        cluster.run_to_the_end();
        let status = cluster.job.status.clone().unwrap();
        let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
        prop_assert!(uncounted.succeeded.is_none() && uncounted.failed.is_none());
        let is = |type_: &str| status.conditions.iter().flatten().any(|c| c.type_ == type_ && c.status == "True");
        prop_assert!(is("Complete") != is("Failed"));
        let (succeeded, failed) = (status.succeeded.unwrap_or(0), status.failed.unwrap_or(0));
        if is("Complete") {
            prop_assert!(succeeded >= completions, "{:?}", status);
            prop_assert!(status.completion_time.is_some());
        } else {
            prop_assert!(failed > limit, "{:?}", status);
        }
        if !indexed {
            let ended = cluster.ends.values().filter(|end| **end == "Succeeded").count() as i32;
            // A job that fails counts what still runs, as far as it can see, as failed.
            prop_assert!(succeeded == ended || is("Failed") && succeeded < ended, "{:?} of {:?}", status, cluster.ends);
        }
        cluster.observe();
        let held: Vec<_> = cluster.pods.values().filter(|pod| has_finalizer(pod) && is_active(pod)).collect();
        prop_assert!(held.is_empty(), "{:?}", held);
    }
}
