//! What holds whatever comes: no node is ever given more than it has, and a run is repeated by its seed.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use pintle_scheduler::engine::{Action, Engine, Update};
use pintle_scheduler::node::NodeFacts;
use pintle_scheduler::pod::PodInfo;
use proptest::prelude::*;
use serde_json::json;

#[derive(Clone, Debug)]
enum Step {
    Node {
        n: u8,
        cpu: u8,
        zone: u8,
    },
    NodeGone {
        n: u8,
    },
    Pod {
        p: u8,
        cpu: u8,
        shape: u8,
        priority: u8,
    },
    PodGone {
        p: u8,
    },
    /// So many cycles; every so-manieth binding fails.
    Cycles {
        count: u8,
        fail_every: u8,
    },
    Wait {
        seconds: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..5_u8, 1..5_u8, 0..3_u8).prop_map(|(n, cpu, zone)| Step::Node { n, cpu, zone }),
        1 => (0..5_u8).prop_map(|n| Step::NodeGone { n }),
        4 => (0..24_u8, 0..30_u8, 0..4_u8, 0..3_u8)
            .prop_map(|(p, cpu, shape, priority)| Step::Pod { p, cpu, shape, priority }),
        2 => (0..24_u8).prop_map(|p| Step::PodGone { p }),
        4 => (1..8_u8, 2..6_u8).prop_map(|(count, fail_every)| Step::Cycles { count, fail_every }),
        1 => (1..20_u8).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

fn node(n: u8, cpu: u8, zone: u8) -> Update {
    let node = json!({
        "metadata": {"name": format!("n{n}"), "labels": {
            "kubernetes.io/hostname": format!("n{n}"), "topology.kubernetes.io/zone": format!("z{zone}")}},
        "status": {"allocatable": {"cpu": cpu.to_string(), "memory": "1Gi", "pods": "4"}},
    });
    Update::Node(Box::new(NodeFacts::new(&serde_json::from_value(node).unwrap())))
}

fn pod(p: u8, cpu: u8, shape: u8, priority: u8, on: Option<&str>) -> Arc<PodInfo> {
    let selector = json!({"matchLabels": {"app": "x"}});
    let affinity = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": selector}]}});
    let spread = json!([{"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector}]);
    let pod = json!({
        "metadata": {"name": format!("p{p}"), "uid": format!("p{p}"), "namespace": "default",
            "labels": {"app": if shape > 0 { "x" } else { "y" }}},
        "spec": {
            "schedulerName": "s", "nodeName": on, "priority": priority,
            "affinity": if shape == 2 { affinity } else { json!({}) },
            "topologySpreadConstraints": if shape == 3 { spread } else { json!([]) },
            "containers": [{"name": "c", "resources": {"requests": {"cpu": format!("{cpu}00m")}}}],
        },
    });
    Arc::new(PodInfo::new(&serde_json::from_value(pod).unwrap()))
}

/// The cluster as an apiserver would hold it.
#[derive(Default)]
struct World {
    pods: BTreeMap<u8, (u8, u8, u8)>,
    placed: BTreeMap<u8, String>,
    log: Vec<String>,
}

struct Run {
    engine: Engine,
    world: World,
    now: Duration,
}

impl Run {
    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Node { n, cpu, zone } => {
                // A node does not shrink below what it has promised.
                if self.engine.cluster().find(&format!("n{n}")).is_none() {
                    self.apply(node(n, cpu, zone));
                }
            }
            Step::NodeGone { n } => {
                let name = format!("n{n}");
                let lost: Vec<u8> = self
                    .world
                    .placed
                    .iter()
                    .filter(|(_, on)| **on == name)
                    .map(|(p, _)| *p)
                    .collect();
                self.apply(Update::NodeGone(name));
                lost.into_iter().for_each(|p| self.remove(p));
            }
            Step::Pod { p, cpu, shape, priority } => {
                if let Entry::Vacant(entry) = self.world.pods.entry(p) {
                    entry.insert((cpu, shape, priority));
                    self.apply(Update::Pod(pod(p, cpu, shape, priority, None)));
                }
            }
            Step::PodGone { p } => self.remove(p),
            Step::Cycles { count, fail_every } => {
                for cycle in 1..=count {
                    self.cycle(cycle % fail_every == 0);
                    self.check()?;
                }
            }
            Step::Wait { seconds } => self.now += Duration::from_secs(seconds.into()),
        }
        self.check()
    }

    fn apply(&mut self, update: Update) {
        self.engine.apply(update, self.now);
    }

    fn remove(&mut self, p: u8) {
        self.world.pods.remove(&p);
        self.world.placed.remove(&p);
        self.apply(Update::PodGone(format!("p{p}").as_str().into()));
    }

    fn cycle(&mut self, binding_fails: bool) {
        let Some(action) = self.engine.next(self.now) else { return };
        self.world.log.push(format!("{action:?}"));
        match action {
            Action::Bind { pod, .. } if binding_fails => {
                self.engine.bind_failed(&pod.uid, self.now);
            }
            Action::Bind { pod: bound, node } => {
                self.engine.bound(&bound.uid, self.now);
                let p: u8 = bound.name[1..].parse().unwrap();
                let (cpu, shape, priority) = self.world.pods[&p];
                self.world.placed.insert(p, node.to_string());
                self.apply(Update::Pod(pod(p, cpu, shape, priority, Some(&node))));
            }
            Action::Unschedulable { victims, .. } => {
                for victim in victims {
                    self.remove(victim.name[1..].parse().unwrap());
                }
            }
        }
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let cluster = self.engine.cluster();
        for n in 0..5 {
            let Some(slot) = cluster.find(&format!("n{n}")) else { continue };
            let node = cluster.node(slot);
            prop_assert!(node.requested.milli_cpu <= node.facts.allocatable.milli_cpu);
            prop_assert!(node.pods.len() as i64 <= node.facts.allowed_pods);
            let hermits = node.pods.iter().filter(|pod| pod.with_anti_affinity()).count();
            let alike = node.pods.iter().filter(|pod| pod.labels["app"] == "x").count();
            prop_assert!(hermits == 0 || alike == 1, "{hermits} hermits among {alike}");
        }
        Ok(())
    }
}

trait Hermit {
    fn with_anti_affinity(&self) -> bool;
}

impl Hermit for PodInfo {
    fn with_anti_affinity(&self) -> bool {
        !self.affinity.required_anti.is_empty()
    }
}

fn run(steps: &[Step], seed: u64) -> Result<Run, TestCaseError> {
    let engine = Engine::new("s".into(), seed);
    let mut run = Run { engine, world: World::default(), now: Duration::ZERO };
    for step in steps {
        run.step(step)?;
    }
    Ok(run)
}

proptest! {
    #[test]
    fn nodes_are_never_given_more_than_they_have(
        steps in proptest::collection::vec(step(), 0..80), seed: u64,
    ) {
        run(&steps, seed)?;
    }

    #[test]
    fn a_seed_repeats_a_run(steps in proptest::collection::vec(step(), 0..40), seed: u64) {
        prop_assert_eq!(run(&steps, seed)?.world.log, run(&steps, seed)?.world.log);
    }

    /// Everything that fits somewhere is placed once there is no more news and enough time.
    #[test]
    fn nothing_is_left_behind(steps in proptest::collection::vec(step(), 0..60), seed: u64) {
        let mut run = run(&steps, seed)?;
        for _ in 0..200 {
            run.now += Duration::from_secs(30);
            for _ in 0..30 {
                run.cycle(false);
            }
        }
        run.engine.refresh();
        for (p, (cpu, shape, priority)) in &run.world.pods {
            if !run.world.placed.contains_key(p) {
                let waiting = pod(*p, *cpu, *shape, *priority, None);
                let verdicts = pintle_scheduler::schedule::verdicts(run.engine.cluster(), &waiting);
                let fits = verdicts.is_ok_and(|v| v.iter().any(|(_, verdict)| verdict.is_ok()));
                prop_assert!(!fits, "p{} fits and is not placed", p);
            }
        }
    }
}
