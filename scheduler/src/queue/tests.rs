//! The queue on injected time.

use super::*;
use crate::framework::Plugin;
use serde_json::json;

fn pod(name: &str, priority: i32) -> Arc<PodInfo> {
    gated(name, priority, &[])
}

fn gated(name: &str, priority: i32, gates: &[&str]) -> Arc<PodInfo> {
    let gates: Vec<_> = gates.iter().map(|gate| json!({"name": gate})).collect();
    let pod = json!({
        "metadata": {"name": name, "uid": name, "namespace": "default"},
        "spec": {"priority": priority, "schedulingGates": gates, "containers": []},
    });
    Arc::new(PodInfo::new(&serde_json::from_value(pod).unwrap()))
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn pop(queue: &mut Queue, now: u64) -> Option<String> {
    queue.pop(s(now)).map(|pod| pod.name.to_string())
}

fn by(plugin: Plugin) -> PluginSet {
    [plugin].into_iter().collect()
}

#[test]
fn highest_priority_first_then_longest_waiting() {
    let mut queue = Queue::default();
    queue.set(pod("low-1", 0), s(0));
    queue.set(pod("low-2", 0), s(0));
    queue.set(pod("old", 5), s(1));
    queue.set(pod("new", 5), s(2));
    let order: Vec<_> = std::iter::from_fn(|| pop(&mut queue, 3)).collect();
    assert_eq!(order, ["old", "new", "low-1", "low-2"]);
}

#[test]
fn failed_pods_back_off_from_one_to_ten_seconds() {
    let mut queue = Queue::default();
    queue.set(pod("a", 0), s(0));
    let mut now = 0;
    let mut waited = Vec::new();
    for _ in 0..6 {
        assert_eq!(pop(&mut queue, now).as_deref(), Some("a"));
        queue.fail("a", s(now));
        let due = queue.next_due().unwrap();
        waited.push(due.as_secs() - now);
        assert_eq!(queue.pop(due - Duration::from_millis(1)).map(|p| p.key()), None);
        now = due.as_secs();
    }
    assert_eq!(waited, [1, 2, 4, 8, 10, 10]);
}

#[test]
fn rejected_pods_wait_for_an_event_that_concerns_them() {
    let mut queue = Queue::default();
    queue.set(pod("ports", 0), s(0));
    queue.set(pod("taints", 0), s(0));
    for plugin in [Plugin::NodePorts, Plugin::TaintToleration] {
        let popped = queue.pop(s(0)).unwrap();
        queue.reject(&popped.uid, by(plugin), s(0));
    }
    queue.retry_if(s(60), by(Plugin::TaintToleration), |_, _| true);
    assert_eq!(pop(&mut queue, 60).as_deref(), Some("taints"));
    assert_eq!(pop(&mut queue, 60), None);
    assert_eq!(queue.depth(), Depth { in_flight: 1, rejected: 1, ..Depth::default() });
}

#[test]
fn event_during_the_backoff_does_not_shorten_it() {
    let mut queue = Queue::default();
    queue.set(pod("a", 0), s(0));
    queue.pop(s(0));
    queue.reject("a", by(Plugin::NodePorts), s(10));
    queue.retry_if(s(10), by(Plugin::NodePorts), |_, _| true);
    assert_eq!(pop(&mut queue, 10), None);
    assert_eq!(queue.next_due(), Some(s(11)));
    assert_eq!(pop(&mut queue, 11).as_deref(), Some("a"));
}

#[test]
fn rejected_pods_are_tried_again_after_five_minutes() {
    let mut queue = Queue::default();
    queue.set(pod("a", 0), s(0));
    queue.pop(s(0));
    queue.reject("a", by(Plugin::NodePorts), s(10));
    assert_eq!(queue.next_due(), Some(s(310)));
    assert_eq!(pop(&mut queue, 309), None);
    assert_eq!(pop(&mut queue, 310).as_deref(), Some("a"));
}

#[test]
fn update_that_asks_for_something_else_is_a_reason_to_retry() {
    let mut queue = Queue::default();
    queue.set(pod("a", 0), s(0));
    queue.pop(s(0));
    queue.reject("a", by(Plugin::NodePorts), s(0));
    queue.set(pod("a", 0), s(20));
    assert_eq!(pop(&mut queue, 20), None, "the same again");
    let mut other = (*pod("a", 0)).clone();
    other.labels.insert("x".into(), "y".into());
    queue.set(Arc::new(other), s(21));
    assert_eq!(pop(&mut queue, 21).as_deref(), Some("a"));
}

#[test]
fn gated_pods_wait_until_their_gates_are_gone() {
    let mut queue = Queue::default();
    queue.set(gated("a", 0, &["example.com/g"]), s(0));
    assert_eq!(pop(&mut queue, 400), None);
    queue.retry_if(s(400), by(Plugin::SchedulingGates), |_, _| true);
    assert_eq!((pop(&mut queue, 400), queue.depth().gated), (None, 1));
    queue.set(pod("a", 0), s(401));
    assert_eq!(pop(&mut queue, 401).as_deref(), Some("a"));
}

#[test]
fn removed_pods_are_gone_from_every_state() {
    let mut queue = Queue::default();
    for name in ["active", "flight", "backoff", "rejected"] {
        queue.set(pod(name, 0), s(0));
    }
    queue.set(gated("gated", 0, &["g"]), s(0));
    queue.remove("active");
    assert_eq!(pop(&mut queue, 0).as_deref(), Some("flight"));
    assert_eq!(pop(&mut queue, 0).as_deref(), Some("backoff"));
    queue.fail("backoff", s(0));
    assert_eq!(pop(&mut queue, 0).as_deref(), Some("rejected"));
    queue.reject("rejected", by(Plugin::NodePorts), s(0));
    for name in ["flight", "backoff", "rejected", "gated"] {
        assert!(queue.remove(name).is_some(), "{name}");
    }
    assert_eq!((queue.depth(), queue.next_due()), (Depth::default(), None));
    queue.fail("flight", s(1));
    assert_eq!(queue.depth(), Depth::default(), "a late report changes nothing");
}
