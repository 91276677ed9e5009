//! What becomes of one object. Pure: what the graph does not know about owners is a parameter.

use super::graph::{FOREGROUND, Graph, ORPHAN, Uid};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::PropagationPolicy;
use std::collections::HashMap;

/// What the apiserver says about owners that the graph does not know: whether they exist.
pub(super) type Existence = HashMap<Uid, bool>;

/// What is to be done with an object.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Decision {
    /// Nothing.
    Keep,
    /// Ask whether these owners exist, and decide again.
    LookUp(Vec<OwnerReference>),
    /// All of its owners are gone.
    Delete(PropagationPolicy),
    /// Some of its owners are gone: forget these.
    DropOwners(Vec<Uid>),
    /// It is part of a ring that waits for itself: its owners must no longer wait for it.
    Unblock,
    /// Its dependents, which it waits for, are to be looked at.
    Wait(Vec<Uid>),
    /// Nothing holds it back any more.
    RemoveFinalizer(&'static str),
    /// These dependents have to forget it first.
    Orphan(Vec<Uid>),
}

enum Owner {
    Alive,
    Gone,
    /// Alive, but only until its dependents are gone.
    Waiting,
}

/// Decides about the object `uid`.
pub(super) fn decide(graph: &Graph, uid: &str, existence: &Existence) -> Decision {
    let Some(object) = graph.get(uid) else { return Decision::Keep };
    if object.orphans_dependents() {
        let dependents: Vec<Uid> = graph.dependents(uid).map(|o| o.uid.clone()).collect();
        return if dependents.is_empty() {
            Decision::RemoveFinalizer(ORPHAN)
        } else {
            Decision::Orphan(dependents)
        };
    }
    if object.waits_for_dependents() {
        let blocking = graph.dependents(uid).filter(|dependent| object.is_blocked_by(dependent));
        let blocking: Vec<Uid> = blocking.map(|dependent| dependent.uid.clone()).collect();
        return if blocking.is_empty() {
            Decision::RemoveFinalizer(FOREGROUND)
        } else {
            Decision::Wait(blocking)
        };
    }
    if object.deleting || object.owners.is_empty() {
        return Decision::Keep;
    }
    judge(graph, uid, existence)
}

/// Decides about an object that is not being deleted, by its owners.
fn judge(graph: &Graph, uid: &str, existence: &Existence) -> Decision {
    let Some(object) = graph.get(uid) else { return Decision::Keep };
    let (mut alive, mut gone, mut waiting, mut unknown) = (0, Vec::new(), Vec::new(), Vec::new());
    for owner in &object.owners {
        match state(graph, &object.namespace, owner, existence) {
            Some(Owner::Alive) => alive += 1,
            Some(Owner::Gone) => gone.push(owner.uid.clone()),
            Some(Owner::Waiting) => waiting.push(owner.uid.clone()),
            None => unknown.push(owner.clone()),
        }
    }
    if !unknown.is_empty() {
        return Decision::LookUp(unknown);
    }
    if alive > 0 {
        gone.extend(waiting);
        return if gone.is_empty() { Decision::Keep } else { Decision::DropOwners(gone) };
    }
    if !waiting.is_empty() && graph.dependents(uid).next().is_some() {
        let in_a_ring = graph.dependents(uid).any(|dependent| dependent.waits_for_dependents());
        let blocks = object.owners.iter().any(|owner| owner.block_owner_deletion == Some(true));
        if in_a_ring && blocks {
            return Decision::Unblock;
        }
        return Decision::Delete(PropagationPolicy::Foreground);
    }
    Decision::Delete(if object.has_finalizer(ORPHAN) {
        PropagationPolicy::Orphan
    } else if object.has_finalizer(FOREGROUND) {
        PropagationPolicy::Foreground
    } else {
        PropagationPolicy::Background
    })
}

fn state(
    graph: &Graph,
    namespace: &str,
    owner: &OwnerReference,
    existence: &Existence,
) -> Option<Owner> {
    let known = graph.get(&owner.uid);
    // An owner in another namespace is none: the reference is looked up where it points to.
    let reachable = known.filter(|found| {
        found.name == owner.name && (found.namespace.is_empty() || found.namespace == namespace)
    });
    match reachable {
        Some(owner) if owner.waits_for_dependents() => Some(Owner::Waiting),
        Some(_) => Some(Owner::Alive),
        None => {
            existence.get(&owner.uid).map(|alive| if *alive { Owner::Alive } else { Owner::Gone })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::garbage::graph::Object;

    fn object(uid: &str, owners: &[&str], finalizers: &[&str]) -> Object {
        let owners = owners.iter().map(|owner| {
            // An exclamation mark says that the owner waits for this one.
            let (name, block) = owner.strip_suffix('!').map_or((*owner, None), |n| (n, Some(true)));
            OwnerReference {
                api_version: "v1".into(),
                kind: "Thing".into(),
                name: name.into(),
                uid: name.into(),
                block_owner_deletion: block,
                controller: None,
            }
        });
        Object {
            resource: "things".into(),
            namespace: "ns".into(),
            name: uid.into(),
            uid: uid.into(),
            owners: owners.collect(),
            finalizers: finalizers.iter().map(|f| (*f).to_owned()).collect(),
            ..Object::default()
        }
    }

    fn deleting(object: Object) -> Object {
        Object { deleting: true, ..object }
    }

    fn graph(objects: Vec<Object>) -> Graph {
        let mut graph = Graph::default();
        for object in objects {
            graph.observe(object);
        }
        graph
    }

    fn gone(uids: &[&str]) -> Existence {
        uids.iter().map(|uid| ((*uid).to_owned(), false)).collect()
    }

    fn uids(uids: &[&str]) -> Vec<Uid> {
        uids.iter().map(|uid| (*uid).to_owned()).collect()
    }

    const BACKGROUND: Decision = Decision::Delete(PropagationPolicy::Background);

    #[test]
    fn dependent_of_nobody_else_goes_with_its_owner() {
        let graph = graph(vec![object("pod", &["rs"], &[])]);
        let decision = decide(&graph, "pod", &Existence::default());
        assert!(matches!(decision, Decision::LookUp(owners) if owners[0].uid == "rs"));
        assert_eq!(decide(&graph, "pod", &gone(&["rs"])), BACKGROUND);
        let alive = [("rs".to_owned(), true)].into();
        assert_eq!(decide(&graph, "pod", &alive), Decision::Keep);
    }

    #[test]
    fn live_owner_keeps_the_dependent_and_the_dead_reference_is_dropped() {
        let graph = graph(vec![object("a", &[], &[]), object("pod", &["a", "b"], &[])]);
        assert_eq!(decide(&graph, "pod", &gone(&["b"])), Decision::DropOwners(uids(&["b"])));
    }

    #[test]
    fn objects_without_owners_and_objects_on_their_way_out_are_left_alone() {
        let graph = graph(vec![
            object("a", &[], &[]),
            deleting(object("b", &["x"], &["example.com/hold"])),
        ]);
        for uid in ["a", "b", "unknown"] {
            assert_eq!(decide(&graph, uid, &gone(&["x"])), Decision::Keep, "{uid}");
        }
    }

    #[test]
    fn owner_of_another_namespace_is_looked_up_where_the_reference_points_to() {
        let elsewhere = Object { namespace: "other".into(), ..object("rs", &[], &[]) };
        let graph = graph(vec![elsewhere, object("pod", &["rs"], &[])]);
        assert!(matches!(decide(&graph, "pod", &Existence::default()), Decision::LookUp(_)));
        assert_eq!(decide(&graph, "pod", &gone(&["rs"])), BACKGROUND);
    }

    #[test]
    fn foreground_owner_waits_for_those_that_block_it() {
        let owner = deleting(object("rs", &[], &[FOREGROUND]));
        let mut graph =
            graph(vec![owner, object("blocking", &["rs!"], &[]), object("other", &["rs"], &[])]);
        let none = Existence::default();
        assert_eq!(decide(&graph, "rs", &none), Decision::Wait(uids(&["blocking"])));
        assert_eq!(decide(&graph, "blocking", &none), BACKGROUND);
        assert_eq!(decide(&graph, "other", &none), BACKGROUND);
        assert!(graph.forget("blocking").contains("rs"));
        assert_eq!(decide(&graph, "rs", &none), Decision::RemoveFinalizer(FOREGROUND));
    }

    #[test]
    fn foreground_deletion_goes_down_the_tree() {
        let graph = graph(vec![
            deleting(object("deployment", &[], &[FOREGROUND])),
            object("rs", &["deployment!"], &[]),
            object("pod", &["rs!"], &[]),
        ]);
        let foreground = Decision::Delete(PropagationPolicy::Foreground);
        assert_eq!(decide(&graph, "rs", &Existence::default()), foreground);
        assert_eq!(decide(&graph, "pod", &Existence::default()), Decision::Keep);
    }

    #[test]
    fn ring_does_not_wait_for_itself() {
        let graph =
            graph(vec![deleting(object("a", &["b!"], &[FOREGROUND])), object("b", &["a!"], &[])]);
        assert_eq!(decide(&graph, "b", &Existence::default()), Decision::Unblock);
    }

    #[test]
    fn orphaning_owner_waits_until_nobody_refers_to_it() {
        let mut graph = graph(vec![
            deleting(object("rs", &[], &[ORPHAN])),
            object("p1", &["rs"], &[]),
            object("p2", &["rs"], &[]),
        ]);
        let none = Existence::default();
        assert_eq!(decide(&graph, "rs", &none), Decision::Orphan(uids(&["p1", "p2"])));
        graph.observe(object("p1", &[], &[]));
        graph.observe(object("p2", &[], &[]));
        assert_eq!(decide(&graph, "rs", &none), Decision::RemoveFinalizer(ORPHAN));
    }

    #[test]
    fn finalizer_of_the_dependent_decides_how_it_goes() {
        let policy = |finalizers: &[&str]| {
            let graph = graph(vec![object("pod", &["rs"], finalizers)]);
            decide(&graph, "pod", &gone(&["rs"]))
        };
        assert_eq!(policy(&[ORPHAN]), Decision::Delete(PropagationPolicy::Orphan));
        assert_eq!(policy(&[FOREGROUND]), Decision::Delete(PropagationPolicy::Foreground));
        assert_eq!(policy(&["example.com/hold"]), BACKGROUND);
    }

    #[test]
    fn changes_name_the_objects_to_look_at() {
        let mut graph = graph(vec![object("rs", &[], &[])]);
        assert!(graph.observe(object("pod", &["rs"], &[])).is_empty(), "its owner is there");
        assert_eq!(
            graph.observe(object("stray", &["x"], &[])),
            uids(&["stray"]).into_iter().collect()
        );
        let waiting = graph.observe(deleting(object("rs", &[], &[FOREGROUND])));
        assert_eq!(waiting, uids(&["pod", "rs"]).into_iter().collect());
        let released = graph.observe(object("pod", &[], &[]));
        assert_eq!(released, uids(&["rs"]).into_iter().collect());
        let mut graph = self::graph(vec![object("rs", &[], &[]), object("pod", &["rs"], &[])]);
        assert_eq!(graph.forget("rs"), uids(&["pod"]).into_iter().collect());
    }
}
