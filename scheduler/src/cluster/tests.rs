//! The snapshot against a model: whatever happens, its sums are those of the objects that are there.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Node(u8, u8),
    NodeGone(u8),
    Pod(u8, u8, u8),
    Assume(u8, u8, u8),
    Forget(u8),
    PodGone(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4_u8, 0..3_u8).prop_map(|(n, zone)| Step::Node(n, zone)),
        (0..4_u8).prop_map(Step::NodeGone),
        (0..6_u8, 0..4_u8, 0..5_u8).prop_map(|(p, n, shape)| Step::Pod(p, n, shape)),
        (0..6_u8, 0..4_u8, 0..5_u8).prop_map(|(p, n, shape)| Step::Assume(p, n, shape)),
        (0..6_u8).prop_map(Step::Forget),
        (0..6_u8).prop_map(Step::PodGone),
    ]
}

fn node(n: u8, zone: u8) -> NodeFacts {
    let node = json!({
        "metadata": {"name": format!("n{n}"), "labels": {"topology.kubernetes.io/zone": format!("z{zone}")}},
        "status": {"allocatable": {"cpu": "4", "pods": "10"}, "images": [{"names": [format!("i{zone}")], "sizeBytes": 5}]},
    });
    NodeFacts::new(&serde_json::from_value(node).unwrap())
}

fn pod(p: u8, n: Option<u8>, shape: u8) -> Arc<PodInfo> {
    let term = json!([{"topologyKey": "zone", "labelSelector": {}}]);
    let anti = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}});
    let pod = json!({
        "metadata": {"name": format!("p{p}"), "uid": format!("p{p}"), "namespace": "default"},
        "spec": {
            "nodeName": n.map(|n| format!("n{n}")),
            "affinity": if shape % 2 == 1 { anti } else { json!({}) },
            "containers": [{
                "name": "c",
                "resources": {"requests": {"cpu": format!("{shape}00m"), "example.com/x": shape}},
                "ports": [{"containerPort": 80, "hostPort": 80 + i32::from(shape)}],
            }],
        },
    });
    Arc::new(PodInfo::new(&serde_json::from_value(pod).unwrap()))
}

/// What should be there: nodes with their zones; pods with their nodes, shapes, and whether they are assumed.
#[derive(Default)]
struct Model {
    nodes: BTreeMap<u8, u8>,
    pods: BTreeMap<u8, (u8, u8, bool)>,
}

impl Model {
    fn rebuilt(&self) -> Cluster {
        let mut cluster = Cluster::default();
        for (n, zone) in &self.nodes {
            cluster.set_node(node(*n, *zone));
        }
        for (p, (n, shape, _)) in &self.pods {
            cluster.set_pod(pod(*p, Some(*n), *shape));
        }
        cluster.refresh();
        cluster
    }
}

fn run(steps: &[Step]) -> (Cluster, Model) {
    let mut cluster = Cluster::default();
    let mut model = Model::default();
    for step in steps {
        match *step {
            Step::Node(n, zone) => {
                cluster.set_node(node(n, zone));
                model.nodes.insert(n, zone);
            }
            Step::NodeGone(n) => {
                cluster.remove_node(&format!("n{n}"));
                model.nodes.remove(&n);
            }
            Step::Pod(p, n, shape) => {
                cluster.set_pod(pod(p, Some(n), shape));
                model.pods.insert(p, (n, shape, false));
            }
            Step::Assume(p, n, shape) => {
                let Some(slot) = cluster.find(&format!("n{n}")) else { continue };
                cluster.assume(pod(p, None, shape), slot);
                model.pods.insert(p, (n, shape, true));
            }
            Step::Forget(p) => {
                cluster.forget(&format!("p{p}"));
                if model.pods.get(&p).is_some_and(|(_, _, assumed)| *assumed) {
                    model.pods.remove(&p);
                }
            }
            Step::PodGone(p) => {
                cluster.remove_pod(&format!("p{p}"));
                model.pods.remove(&p);
            }
        }
        cluster.refresh();
    }
    (cluster, model)
}

proptest! {
    #[test]
    fn incremental_equals_rebuilt(steps in proptest::collection::vec(step(), 0..60)) {
        let (cluster, model) = run(&steps);
        let rebuilt = model.rebuilt();
        prop_assert_eq!(cluster.totals(), rebuilt.totals());
        let names = |cluster: &Cluster| {
            let mut names: Vec<_> =
                cluster.nodes().iter().map(|slot| cluster.node(*slot).facts.name.clone()).collect();
            names.sort();
            names
        };
        prop_assert_eq!(names(&cluster), names(&rebuilt));
        for zone in 0..3 {
            let image = format!("i{zone}");
            prop_assert_eq!(cluster.nodes_with_image(&image), rebuilt.nodes_with_image(&image));
        }
        let anti = |cluster: &Cluster| cluster.nodes_with_required_anti_affinity().count();
        prop_assert_eq!(anti(&cluster), anti(&rebuilt));
    }
}

#[test]
fn nodes_are_visited_across_zones_in_turn() {
    let mut cluster = Cluster::default();
    for (n, zone) in [(0, 0), (1, 0), (2, 0), (3, 1)] {
        cluster.set_node(node(n, zone));
    }
    cluster.refresh();
    let names: Vec<_> =
        cluster.nodes().iter().map(|slot| cluster.node(*slot).facts.name.to_string()).collect();
    assert_eq!(names, ["n0", "n3", "n1", "n2"]);
}

#[test]
fn forgetting_leaves_a_confirmed_pod_alone() {
    let mut cluster = Cluster::default();
    cluster.set_node(node(0, 0));
    let slot = cluster.find("n0").unwrap();
    cluster.assume(pod(1, None, 2), slot);
    cluster.set_pod(pod(1, Some(0), 2));
    assert!(cluster.forget("p1").is_none());
    assert_eq!(cluster.node(slot).requested.milli_cpu, 200);
}

#[test]
fn pods_of_a_node_that_is_not_there_yet_count_once_it_is() {
    let mut cluster = Cluster::default();
    cluster.set_pod(pod(1, Some(0), 3));
    assert_eq!(cluster.find("n0"), None);
    cluster.set_node(node(0, 0));
    let slot = cluster.find("n0").unwrap();
    assert_eq!(cluster.node(slot).requested.milli_cpu, 300);
}
