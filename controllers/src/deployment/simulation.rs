//! A Deployment against a fake cluster under random readiness, death, new versions and new sizes.
//!
//! Held in every pass: what is asked for grows only up to `replicas + maxSurge`, and a pass that is not a change of size
//! never takes availability below `replicas - maxUnavailable`. Held in the end: it converges.

use super::{
    tests::{deployment, template},
    *,
};
use crate::{
    pod::tests::{at, running},
    replicaset::{Plan, Replicated, active, plan, status as replica_status},
};
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::util::intstr::IntOrString};
use kube::ResourceExt;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Happening {
    BecomesReady(usize),
    Dies(usize),
    NewVersion(u32),
    NewSize(i32),
    Nothing,
}

struct Cluster {
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
    pods: BTreeMap<String, Vec<Pod>>,
    made: usize,
}

impl Cluster {
    fn happen(&mut self, happening: &Happening) {
        let spec = &mut self.deployment.spec;
        match *happening {
            Happening::BecomesReady(index) => self.set_ready(index, true),
            Happening::Dies(index) => self.set_ready(index, false),
            Happening::NewVersion(version) => spec.template = template(version),
            Happening::NewSize(size) => spec.replicas = Some(size),
            Happening::Nothing => {}
        }
    }

    fn set_ready(&mut self, index: usize, ready: bool) {
        let count = self.pods.values().map(Vec::len).sum::<usize>().max(1);
        if let Some(pod) = self.pods.values_mut().flatten().nth(index % count) {
            *pod = running(&pod.name_any(), ready.then_some(1));
        }
    }

    fn make_all_ready(&mut self) {
        for pod in self.pods.values_mut().flatten() {
            *pod = running(&pod.name_any(), Some(1));
        }
    }

    fn update_statuses(&mut self) {
        for set in &mut self.sets {
            let pods = shared(&self.pods[&set.name_any()]);
            let counts = replica_status(
                &set.counts(),
                set.metadata.generation,
                &BTreeMap::new(),
                0,
                &pods,
                None,
                at(50),
            );
            *set = set.with_counts(&counts);
        }
    }

    /// One pass of the deployment controller, then one of the ReplicaSet controller. Whether anything was written.
    fn pass(&mut self) -> bool {
        self.update_statuses();
        let replica_sets: Vec<_> = self.sets.iter().cloned().map(Arc::new).collect();
        let inputs = Inputs {
            deployment: &self.deployment,
            replica_sets: &replica_sets,
            old_pods_run: false,
            now: at(50),
        };
        let scaling = proportional::is_scaling(
            &self.deployment,
            &revision::sort_out(&self.deployment, &replica_sets),
        );
        let outcome = reconcile(&inputs);
        let before = (self.asked(), self.available());
        outcome.writes.iter().for_each(|write| self.apply(write));
        self.check_bounds(before, scaling);
        let changed =
            !outcome.writes.is_empty() || self.deployment.status.as_ref() != Some(&outcome.status);
        self.deployment.status = Some(outcome.status);
        self.run_replica_sets();
        changed
    }

    fn check_bounds(&self, (asked, available): (i32, i32), scaling: bool) {
        let (surge, unavailable) = bounds(&self.deployment);
        let want = desired(&self.deployment);
        let (asked_now, available_now) = (self.asked(), self.available());
        assert!(
            asked_now <= asked.max(want + surge),
            "asked for {asked_now} after {asked}, of {want}+{surge}"
        );
        if !scaling {
            let floor = available.min(want - unavailable);
            assert!(
                available_now >= floor,
                "{available_now} available after {available}, of {want}-{unavailable}"
            );
        }
    }

    fn asked(&self) -> i32 {
        self.sets.iter().map(replicas).sum()
    }

    fn available(&self) -> i32 {
        self.sets.iter().map(available).sum()
    }

    fn apply(&mut self, write: &Write) {
        match write {
            Write::Create(set) => {
                let mut set = set.clone();
                self.made += 1;
                set.metadata.uid = Some(format!("uid-{}", self.made));
                set.metadata.creation_timestamp = Some(crate::object::time(at(self.made as i64)));
                self.pods.insert(set.name_any(), Vec::new());
                self.sets.push(set);
            }
            Write::Update { to, .. } => {
                let set =
                    self.sets.iter_mut().find(|set| set.metadata.uid == to.metadata.uid).unwrap();
                *set = to.clone();
            }
            Write::Delete(meta) => self.sets.retain(|set| set.metadata.uid != meta.uid),
        }
    }

    fn run_replica_sets(&mut self) {
        for set in &self.sets {
            let pods = self.pods.get_mut(&set.name_any()).unwrap();
            let all = active(&shared(pods));
            match plan(replicas(set), &all, &all, at(50)) {
                Plan::Keep => {}
                Plan::Create(count) => {
                    for _ in 0..count {
                        self.made += 1;
                        pods.push(running(&format!("pod-{}", self.made), None));
                    }
                }
                Plan::Delete(surplus) => pods.retain(|pod| {
                    !surplus.iter().any(|gone| gone.metadata.uid == pod.metadata.uid)
                }),
            }
        }
    }

    fn run_until_stable(&mut self) {
        for _ in 0..400 {
            self.make_all_ready();
            if !self.pass() && self.pods.values().flatten().all(crate::pod::is_ready) {
                return;
            }
        }
        panic!("does not converge: {:#?}", self.sets);
    }
}

fn shared(pods: &[Pod]) -> Vec<Arc<Pod>> {
    pods.iter().cloned().map(Arc::new).collect()
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => any::<usize>().prop_map(Happening::BecomesReady),
        2 => any::<usize>().prop_map(Happening::Dies),
        1 => (1..5u32).prop_map(Happening::NewVersion),
        1 => (0..12i32).prop_map(Happening::NewSize),
        4 => Just(Happening::Nothing),
    ]
}

fn limit() -> impl Strategy<Value = IntOrString> {
    prop_oneof![
        (0..4i32).prop_map(IntOrString::Int),
        (0..=100i32).prop_map(|percent| IntOrString::String(format!("{percent}%"))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn availability_holds_and_the_rollout_converges(
        size in 0..12i32,
        surge in limit(),
        unavailable in limit(),
        story in prop::collection::vec(happening(), 0..120),
    ) {
        let deployment = deployment(size, surge, unavailable, 1);
        let mut cluster = Cluster { deployment, sets: Vec::new(), pods: BTreeMap::new(), made: 0 };
        for happening in &story {
            cluster.happen(happening);
            cluster.pass();
        }
        cluster.run_until_stable();
        let want = desired(&cluster.deployment);
        let wanted_template = &cluster.deployment.spec.template;
        for set in &cluster.sets {
            let own = set.spec.template.as_ref().unwrap();
            let is_new = revision::same_template(own, wanted_template);
            prop_assert_eq!(replicas(set), if is_new { want } else { 0 });
        }
        let status = cluster.deployment.status.as_ref().unwrap();
        prop_assert!(status::is_complete(&cluster.deployment, status));
        prop_assert!(condition::has_reason(condition::get(status, condition::PROGRESSING), condition::NEW_AVAILABLE));
    }
}
