//! Steps of the plan, and updates against a fake cluster.

use super::*;
use crate::{history::HASH_LABEL, object::time, pod::tests::at};
use k8s_openapi::api::apps::v1::DaemonSetStatus;
use proptest::prelude::*;
use serde_json::{Value, from_value, json};

fn set(strategy: Value) -> DaemonSet {
    from_value(json!({
        "metadata": {"name": "agent", "namespace": "ns", "uid": "u", "generation": 2},
        "spec": {"selector": {"matchLabels": {"app": "agent"}}, "updateStrategy": strategy,
            "template": {"metadata": {"labels": {"app": "agent"}}, "spec": {"containers": [{"name": "c"}]}}},
    }))
    .unwrap()
}

fn rolling(unavailable: Value, surge: Value) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}})
}

/// `n1`, or `n1!` for one that takes no pods, or `n1!!` for one that takes those that run away, too.
fn node(text: &str) -> Arc<Node> {
    let effect = match text.matches('!').count() {
        0 => None,
        1 => Some("NoSchedule"),
        _ => Some("NoExecute"),
    };
    let taints: Vec<_> =
        effect.into_iter().map(|effect| json!({"key": "k", "effect": effect})).collect();
    Arc::new(
        from_value(
            json!({"metadata": {"name": text.trim_end_matches('!')}, "spec": {"taints": taints}}),
        )
        .unwrap(),
    )
}

/// `name@node`, then `*` (of the new revision), `~` (ready), `-` (on its way out), `F` or `S` (ended).
fn pod(text: &str) -> Arc<Pod> {
    let (name, rest) = text.split_once('@').unwrap();
    let (node, marks) =
        rest.split_at(rest.find(['*', '~', '-', 'F', 'S', '/']).unwrap_or(rest.len()));
    let has = |mark| marks.contains(mark);
    let phase = if has('F') {
        "Failed"
    } else if has('S') {
        "Succeeded"
    } else {
        "Running"
    };
    let mut pod: Pod = from_value(json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name, "creationTimestamp": at(10).to_string(),
            "labels": {HASH_LABEL: if has('*') { "new" } else { "old" }}},
        "spec": {"nodeName": node, "containers": []},
        "status": {"phase": phase, "conditions": [
            {"type": "Ready", "status": if has('~') { "True" } else { "False" }, "lastTransitionTime": at(20).to_string()}]},
    }))
    .unwrap();
    pod.metadata.deletion_timestamp = has('-').then(|| time(at(30)));
    Arc::new(pod)
}

fn run(
    set: &DaemonSet,
    nodes: &str,
    pods: &str,
    retries: &HashMap<String, Retry>,
) -> (Plan, DaemonSetStatus) {
    let nodes: Vec<_> = nodes.split_whitespace().map(node).collect();
    let pods: Vec<_> = pods.split_whitespace().map(pod).collect();
    let inputs = Inputs { set, nodes: &nodes, pods: &pods, hash: "new", retries, now: at(100) };
    (plan(&inputs), status::status(&inputs, true))
}

fn describe(plan: &Plan) -> String {
    let mut words: Vec<_> = plan.create.iter().map(|node| format!("+{node}")).collect();
    words.extend(plan.delete.iter().map(|pod| format!("-{}", pod.name_any())));
    words.join(" ")
}

/// nodes | pods | without a surge | with a surge of 1
const STEPS: &str = "
    a b      |                         | +a +b    | +a +b
    a b      | x@a*~ y@b*~             |          |
    a b      | x@a*~                   | +b       | +b
    a! b     |                         | +b       | +b
    a! b     | x@a*~ y@b*~             |          |
    a!! b    | x@a*~ y@b*~             | -x       | -x
    a b      | x@a*~ y@a*~ z@b*~       | -y       | -y
    a b      | x@a*~- y@b*~            |          | +a
    a        | x@a*F                   | -x       | +a -x
    a        | x@a*S                   | -x       | +a -x
    a b c    | x@a~ y@b~ z@c~          | -x       | +a
    a b c    | x@a*~ y@b~ z@c~         | -y       | +b
    a b c    | x@a* y@b~ z@c~          |          | +b
    a b c    | x@a y@b~ z@c~           | -x -y    | +a +b
    a b      | x@a~ y@a* z@b~          | -y       |
    a b      | x@a~ y@a*~ z@b~         | -y       | -x
    a b      | x@a y@a* z@b~           | -y       | -x
";

#[test]
fn nodes_come_first_and_then_the_update() {
    for line in STEPS.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let [nodes, pods, plain, surge] = line.split('|').map(str::trim).collect::<Vec<_>>()[..]
        else {
            panic!("{line}")
        };
        for (strategy, want) in
            [(rolling(json!(1), json!(0)), plain), (rolling(json!(0), json!(1)), surge)]
        {
            let (plan, _) = run(&set(strategy.clone()), nodes, pods, &HashMap::new());
            assert_eq!(describe(&plan), want, "{line} with {strategy}");
        }
        let (plan, _) = run(&set(json!({"type": "OnDelete"})), nodes, pods, &HashMap::new());
        assert!(
            plan.delete.iter().all(|pod| plain.contains(&format!("-{}", pod.name_any()))),
            "{line}"
        );
    }
}

#[test]
fn old_pods_stay_on_delete_strategy() {
    let (plan, status) =
        run(&set(json!({"type": "OnDelete"})), "a b", "x@a~ y@b*~", &HashMap::new());
    assert_eq!(describe(&plan), "");
    assert_eq!(status.updated_number_scheduled, Some(1));
}

#[test]
fn failed_pod_is_replaced_later_and_later() {
    let mut retries = HashMap::new();
    let (plan, _) = run(&set(json!({})), "a", "x@a*F", &retries);
    assert_eq!(
        (describe(&plan), plan.failed.as_slice()),
        ("-x".into(), ["a".to_owned()].as_slice())
    );
    assert_eq!(plan.news[0].1, "FailedDaemonPod");
    let mut waits = Vec::new();
    for _ in 0..12 {
        let next = Retry::next(retries.get("a"), at(100));
        waits.push(next.wait.as_secs());
        retries.insert("a".to_owned(), next);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]);
    let (plan, _) = run(&set(json!({})), "a", "x@a*F", &retries);
    assert_eq!((describe(&plan), plan.again), (String::new(), Some(Duration::from_secs(900))));
}

#[test]
fn pod_that_never_got_to_its_lost_node_goes() {
    let mut lost = (*pod("x@gone*")).clone();
    let bound = Arc::new(lost.clone());
    let made = pods::new(&set(json!({})), "new", "gone");
    lost.spec = made.spec;
    let pods = [Arc::new(lost), bound];
    let inputs = Inputs {
        set: &set(json!({})),
        nodes: &[],
        pods: &pods,
        hash: "new",
        retries: &HashMap::new(),
        now: at(100),
    };
    assert_eq!(plan(&inputs).delete, [pods[0].clone()]);
}

#[test]
fn new_pod_is_pinned_and_labelled() {
    let made = pods::new(&set(json!({})), "new", "n7");
    assert_eq!(made.labels()[HASH_LABEL], "new");
    assert_eq!(made.labels()["app"], "agent");
    assert_eq!(pods::target_node(&made), Some("n7"));
    assert!(made.spec.unwrap().tolerations.unwrap().len() >= 6);
}

#[test]
fn status_counts_nodes() {
    let (_, status) = run(&set(json!({})), "a b c d!", "x@a*~ y@b~ z@c v@d~", &HashMap::new());
    let want = DaemonSetStatus {
        observed_generation: Some(2),
        desired_number_scheduled: 3,
        current_number_scheduled: 3,
        number_misscheduled: 1,
        number_ready: 2,
        number_available: Some(2),
        number_unavailable: Some(1),
        updated_number_scheduled: Some(1),
        ..Default::default()
    };
    assert_eq!(status, want);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Pods become ready in any order; the update ends, and on the way no more nodes are without an available pod than may be.
    #[test]
    fn update_ends_within_its_bounds(
        count in 1..8usize,
        limit in 1..4i32,
        surges in any::<bool>(),
        ready in prop::collection::vec(any::<usize>(), 0..60),
    ) {
        let strategy = if surges { rolling(json!(0), json!(limit)) } else { rolling(json!(limit), json!(0)) };
        let set = set(strategy);
        let nodes: Vec<_> = (0..count).map(|n| node(&format!("n{n}"))).collect();
        let mut pods: Vec<_> = (0..count).map(|n| pod(&format!("old{n}@n{n}~"))).collect();
        let mut ready = ready.into_iter();
        let mut made = 0;
        for round in 0.. {
            prop_assert!(round < 400, "does not end: {:?}", pods);
            let retries = HashMap::new();
            let inputs = Inputs { set: &set, nodes: &nodes, pods: &pods, hash: "new", retries: &retries, now: at(100) };
            let plan = plan(&inputs);
            let idle = plan.create.is_empty() && plan.delete.is_empty();
            pods.retain(|pod| !plan.delete.iter().any(|gone| gone.metadata.uid == pod.metadata.uid));
            for node in plan.create {
                made += 1;
                pods.push(pod(&format!("new{made}@{node}*")));
            }
            let down = nodes.iter().filter(|node| {
                !pods.iter().any(|pod| node_name(pod) == node.name_any() && is_ready(pod))
            });
            let may = if surges { 0 } else { limit as usize };
            prop_assert!(down.count() <= may);
            let extra = pods.len().saturating_sub(count);
            let most = if surges { limit as usize } else { 0 };
            prop_assert!(extra <= most);
            let waiting: Vec<_> = (0..pods.len()).filter(|at| !is_ready(&pods[*at])).collect();
            if idle && waiting.is_empty() {
                break;
            }
            if !waiting.is_empty() {
                let at = waiting[ready.next().unwrap_or(0) % waiting.len()];
                pods[at] = pod(&format!("{}@{}*~", pods[at].name_any(), node_name(&pods[at])));
            }
        }
        prop_assert!(pods.len() == count && pods.iter().all(|pod| pod.labels()[HASH_LABEL] == "new"));
    }
}
