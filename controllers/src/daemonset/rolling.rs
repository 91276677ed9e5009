//! A rolling update of a DaemonSet: old pods go a few at a time, or, with a surge, after a new one beside them is available.

use super::{Plan, View, is_staying, node};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use std::{collections::BTreeMap, sync::Arc};

/// The pods on one node that are not on their way out.
struct OnNode<'a> {
    name: &'a str,
    new: Option<&'a Arc<Pod>>,
    old: Option<&'a Arc<Pod>>,
    /// More than one of an age: the next pass cleans that up.
    crowded: bool,
    should_run: bool,
}

/// The next step of the update.
pub(super) fn plan(view: &View<'_>) -> Plan {
    let names: Vec<_> = view.inputs.nodes.iter().map(|node| node.name_any()).collect();
    let should_run: BTreeMap<&str, bool> = names
        .iter()
        .map(String::as_str)
        .zip(view.inputs.nodes.iter().map(|node| node::eligibility(node, &view.template).run))
        .collect();
    let desired = should_run.values().filter(|run| **run).count() as i32;
    let wanted = should_run.iter().filter(|(_, run)| **run).map(|(name, _)| *name);
    let mut all: Vec<&str> = wanted.chain(view.by_node.keys().copied()).collect();
    all.sort_unstable();
    all.dedup();
    let nodes: Vec<_> = all
        .into_iter()
        .map(|name| on_node(view, name, should_run.get(name).copied().unwrap_or(false)))
        .collect();
    let surge = view.limit("maxSurge", desired);
    let unavailable = view.limit("maxUnavailable", desired);
    match surge {
        0 => replace(view, &nodes, unavailable.max(1)),
        surge => surge_over(view, &nodes, surge, desired),
    }
}

fn on_node<'a>(view: &View<'a>, name: &'a str, should_run: bool) -> OnNode<'a> {
    let pods = view.by_node.get(name).into_iter().flatten().copied().filter(is_staying);
    let (new, old): (Vec<_>, Vec<_>) = pods.partition(|pod| view.is_new(pod));
    let crowded = new.len() > 1 || old.len() > 1;
    let one = |pods: Vec<&'a Arc<Pod>>| pods.first().copied().filter(|_| !crowded);
    OnNode { name, new: one(new), old: one(old), crowded, should_run }
}

/// Without a surge: pods that are unavailable go at once, others as far as the limit allows.
fn replace(view: &View<'_>, nodes: &[OnNode<'_>], max_unavailable: i32) -> Plan {
    let mut unavailable = 0;
    let mut broken = Vec::new();
    let mut candidates = Vec::new();
    for node in nodes {
        match (node.new, node.old) {
            (None, None) | (Some(_), Some(_)) => unavailable += 1,
            (Some(new), None) => unavailable += i32::from(!view.is_available(new)),
            (None, Some(old)) if view.is_available(old) => candidates.push(old.clone()),
            (None, Some(old)) => broken.push(old.clone()),
        }
    }
    let room = usize::try_from(max_unavailable - unavailable).unwrap_or(0);
    candidates.truncate(room);
    Plan { delete: broken.into_iter().chain(candidates).collect(), ..Plan::default() }
}

/// With a surge: a new pod beside the old one, which goes when the new one is available.
fn surge_over(view: &View<'_>, nodes: &[OnNode<'_>], max_surge: i32, desired: i32) -> Plan {
    let mut plan = Plan::default();
    let (mut surging, mut available) = (0, 0);
    let (mut at_once, mut candidates, mut misplaced) = (Vec::new(), Vec::new(), Vec::new());
    for node in nodes {
        if node.crowded {
            surging += 1;
            continue;
        }
        available += i32::from(node.old.or(node.new).is_some_and(|pod| view.is_available(pod)));
        let Some(old) = node.old else { continue };
        match node.new {
            Some(new) if view.is_available(new) => plan.delete.push(old.clone()),
            Some(_) => surging += 1,
            None => match (view.is_available(old), node.should_run) {
                (false, false) => plan.delete.push(old.clone()),
                (false, true) => at_once.push(node.name.to_owned()),
                (true, false) => misplaced.push(old.clone()),
                (true, true) => candidates.push(node.name.to_owned()),
            },
        }
    }
    // A node that is to lose its pod keeps it until another one has taken its place.
    misplaced.truncate(usize::try_from(available - desired).unwrap_or(0));
    plan.delete.extend(misplaced);
    candidates.truncate(usize::try_from(max_surge - surging).unwrap_or(0));
    plan.create = at_once.into_iter().chain(candidates).collect();
    plan
}
