//! Claims, volumes and storage classes, as far as they bind pods to nodes.

use std::collections::{HashMap, HashSet};

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use crate::selector::NodeSelector;

/// A PersistentVolumeClaim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimInfo {
    /// The volume that it is bound to, or will be.
    pub volume: Option<String>,
    /// Whether the binding is complete.
    pub bound: bool,
    /// Name of its storage class.
    pub class: Option<String>,
    /// Whether it is being deleted.
    pub terminating: bool,
}

/// A claim that is bound, with the nodes that can reach its volume.
#[derive(Debug)]
pub struct BoundClaim<'a> {
    /// Which nodes can; `None` is all of them.
    pub nodes: Option<&'a NodeSelector>,
}

/// The storage objects of the cluster.
#[derive(Debug, Default)]
pub struct Volumes {
    claims: HashMap<(String, String), ClaimInfo>,
    volumes: HashMap<String, Option<NodeSelector>>,
    waiting_classes: HashSet<String>,
}

impl ClaimInfo {
    /// From the object.
    pub fn new(claim: &PersistentVolumeClaim) -> Self {
        let spec = claim.spec.as_ref();
        let annotations = claim.metadata.annotations.as_ref();
        let complete =
            annotations.is_some_and(|a| a.contains_key("pv.kubernetes.io/bind-completed"));
        let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref());
        Self {
            volume: spec.and_then(|s| s.volume_name.clone()).filter(|name| !name.is_empty()),
            bound: complete || phase == Some("Bound"),
            class: spec.and_then(|s| s.storage_class_name.clone()),
            terminating: claim.metadata.deletion_timestamp.is_some(),
        }
    }
}

impl Volumes {
    /// Takes in a claim; `None` when it is gone. Tells whether that changes anything.
    pub fn set_claim(&mut self, namespace: &str, name: &str, claim: Option<ClaimInfo>) -> bool {
        let key = (namespace.to_owned(), name.to_owned());
        match claim {
            Some(claim) => self.claims.insert(key, claim.clone()) != Some(claim),
            None => self.claims.remove(&key).is_some(),
        }
    }

    /// Takes in a volume.
    pub fn set_volume(&mut self, name: &str, volume: &PersistentVolume) {
        let affinity = volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref());
        let nodes = affinity.and_then(|a| a.required.as_ref()).map(NodeSelector::compile);
        self.volumes.insert(name.to_owned(), nodes);
    }

    /// Forgets a volume.
    pub fn remove_volume(&mut self, name: &str) {
        self.volumes.remove(name);
    }

    /// Takes in whether a storage class binds its claims only once a pod that uses them is placed.
    pub fn set_class(&mut self, name: &str, waits_for_consumer: bool) {
        if waits_for_consumer {
            self.waiting_classes.insert(name.to_owned());
        } else {
            self.waiting_classes.remove(name);
        }
    }

    /// A claim.
    pub fn claim(&self, namespace: &str, name: &str) -> Option<&ClaimInfo> {
        self.claims.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// A volume; `None` if there is no such volume.
    pub fn volume(&self, name: &str) -> Option<BoundClaim<'_>> {
        self.volumes.get(name).map(|nodes| BoundClaim { nodes: nodes.as_ref() })
    }

    /// Whether the class of a claim waits for its first consumer.
    pub fn waits_for_consumer(&self, claim: &ClaimInfo) -> bool {
        claim.class.as_ref().is_some_and(|class| self.waiting_classes.contains(class))
    }
}
