//! Which secrets, configmaps, claims and service accounts the pods of a node refer to. Pure; kept
//! up to date from the pod cache by [`super::node`].

use std::collections::{HashMap, HashSet};

use pintle_machinery::object;
use serde_json::Value;

/// A kind of object that a pod may refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Secret,
    ConfigMap,
    PersistentVolumeClaim,
    ServiceAccount,
    ResourceClaim,
}

type Reference = (Kind, String);

#[derive(Debug, Default)]
struct PodEntry {
    node: String,
    references: HashSet<Reference>,
}

/// The pods that have a node, and what they refer to in their namespace.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    /// namespace → pod name → entry.
    pods: HashMap<String, HashMap<String, PodEntry>>,
    /// (node, namespace, reference) → how many pods need it.
    needed: HashMap<(String, String, Reference), usize>,
}

impl Graph {
    /// Takes in the newest state of a pod.
    pub(crate) fn set(&mut self, pod: &Value) {
        let (namespace, name) = (object::namespace(pod).to_owned(), object::name(pod).to_owned());
        self.remove(&namespace, &name);
        let node = object::get_str(pod, &["spec", "nodeName"]).to_owned();
        if node.is_empty() || is_finished(pod) && object::is_terminating(pod) {
            return;
        }
        let entry = PodEntry { node, references: references_of(pod) };
        for reference in &entry.references {
            *self.needed.entry(key(&entry.node, &namespace, reference)).or_default() += 1;
        }
        self.pods.entry(namespace).or_default().insert(name, entry);
    }

    /// Forgets a pod.
    pub(crate) fn remove(&mut self, namespace: &str, name: &str) {
        let Some(pods) = self.pods.get_mut(namespace) else { return };
        let Some(entry) = pods.remove(name) else { return };
        if pods.is_empty() {
            self.pods.remove(namespace);
        }
        for reference in &entry.references {
            let key = key(&entry.node, namespace, reference);
            if let Some(count) = self.needed.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    self.needed.remove(&key);
                }
            }
        }
    }

    /// Whether some pod on `node` refers to this object.
    pub(crate) fn needs(&self, node: &str, kind: Kind, namespace: &str, name: &str) -> bool {
        self.needed.contains_key(&key(node, namespace, &(kind, name.to_owned())))
    }

    /// Whether the pod is on `node`.
    pub(crate) fn runs(&self, node: &str, namespace: &str, name: &str) -> bool {
        let pod = self.pods.get(namespace).and_then(|pods| pods.get(name));
        pod.is_some_and(|entry| entry.node == node)
    }
}

fn key(node: &str, namespace: &str, reference: &Reference) -> (String, String, Reference) {
    (node.to_owned(), namespace.to_owned(), reference.clone())
}

fn is_finished(pod: &Value) -> bool {
    matches!(object::get_str(pod, &["status", "phase"]), "Succeeded" | "Failed")
}

fn references_of(pod: &Value) -> HashSet<Reference> {
    let mut found = HashSet::new();
    let mut add = |kind: Kind, name: &str| {
        if !name.is_empty() {
            found.insert((kind, name.to_owned()));
        }
    };
    let Some(spec) = pod.get("spec") else { return found };
    add(Kind::ServiceAccount, object::get_str(spec, &["serviceAccountName"]));
    for secret in object::get_list(spec, &["imagePullSecrets"]) {
        add(Kind::Secret, object::get_str(secret, &["name"]));
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in object::get_list(spec, &[list]) {
            for source in object::get_list(container, &["envFrom"]) {
                add(Kind::ConfigMap, object::get_str(source, &["configMapRef", "name"]));
                add(Kind::Secret, object::get_str(source, &["secretRef", "name"]));
            }
            for variable in object::get_list(container, &["env"]) {
                let from = ["valueFrom"];
                let Some(source) = object::get(variable, &from) else { continue };
                add(Kind::ConfigMap, object::get_str(source, &["configMapKeyRef", "name"]));
                add(Kind::Secret, object::get_str(source, &["secretKeyRef", "name"]));
            }
        }
    }
    for volume in object::get_list(spec, &["volumes"]) {
        volume_references(pod, volume, &mut add);
    }
    for claim in object::get_list(pod, &["status", "resourceClaimStatuses"]) {
        add(Kind::ResourceClaim, object::get_str(claim, &["resourceClaimName"]));
    }
    for claim in object::get_list(spec, &["resourceClaims"]) {
        add(Kind::ResourceClaim, object::get_str(claim, &["resourceClaimName"]));
    }
    found
}

fn volume_references(pod: &Value, volume: &Value, add: &mut impl FnMut(Kind, &str)) {
    add(Kind::Secret, object::get_str(volume, &["secret", "secretName"]));
    add(Kind::ConfigMap, object::get_str(volume, &["configMap", "name"]));
    add(
        Kind::PersistentVolumeClaim,
        object::get_str(volume, &["persistentVolumeClaim", "claimName"]),
    );
    if volume.get("ephemeral").is_some() {
        let claim = format!("{}-{}", object::name(pod), object::get_str(volume, &["name"]));
        add(Kind::PersistentVolumeClaim, &claim);
    }
    for driver in ["azureFile", "cephfs", "rbd", "iscsi", "flexVolume", "scaleIO", "storageos"] {
        add(Kind::Secret, object::get_str(volume, &[driver, "secretRef", "name"]));
    }
    add(Kind::Secret, object::get_str(volume, &["csi", "nodePublishSecretRef", "name"]));
    for source in object::get_list(volume, &["projected", "sources"]) {
        add(Kind::Secret, object::get_str(source, &["secret", "name"]));
        add(Kind::ConfigMap, object::get_str(source, &["configMap", "name"]));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, node: &str) -> Value {
        json!({
            "metadata": {"namespace": "shop", "name": name},
            "spec": {
                "nodeName": node,
                "serviceAccountName": "robot",
                "imagePullSecrets": [{"name": "pull"}],
                "initContainers": [{"envFrom": [{"configMapRef": {"name": "init-env"}}]}],
                "containers": [{"env": [
                    {"name": "A", "valueFrom": {"secretKeyRef": {"name": "key", "key": "k"}}},
                    {"name": "B", "value": "plain"},
                ]}],
                "volumes": [
                    {"name": "s", "secret": {"secretName": "vol"}},
                    {"name": "c", "persistentVolumeClaim": {"claimName": "data"}},
                    {"name": "e", "ephemeral": {}},
                    {"name": "p", "projected": {"sources": [{"configMap": {"name": "kube-root-ca.crt"}}]}},
                ],
            },
        })
    }

    #[test]
    fn every_way_to_refer_is_found() {
        let mut graph = Graph::default();
        graph.set(&pod("p", "n1"));
        let expected = [
            (Kind::Secret, "pull"),
            (Kind::Secret, "key"),
            (Kind::Secret, "vol"),
            (Kind::ConfigMap, "init-env"),
            (Kind::ConfigMap, "kube-root-ca.crt"),
            (Kind::PersistentVolumeClaim, "data"),
            (Kind::PersistentVolumeClaim, "p-e"),
            (Kind::ServiceAccount, "robot"),
        ];
        for (kind, name) in expected {
            assert!(graph.needs("n1", kind, "shop", name), "{kind:?} {name}");
            assert!(!graph.needs("n2", kind, "shop", name), "{kind:?} {name} on n2");
            assert!(!graph.needs("n1", kind, "other", name), "{kind:?} {name} elsewhere");
        }
        assert!(!graph.needs("n1", Kind::Secret, "shop", "data"));
        assert!(graph.runs("n1", "shop", "p"));
    }

    #[test]
    fn access_ends_with_the_last_pod_that_needs_it() {
        let mut graph = Graph::default();
        graph.set(&pod("p", "n1"));
        graph.set(&pod("q", "n1"));
        graph.remove("shop", "p");
        assert!(graph.needs("n1", Kind::Secret, "shop", "vol"));
        graph.remove("shop", "q");
        assert!(!graph.needs("n1", Kind::Secret, "shop", "vol"));
        assert!(graph.needed.is_empty() && graph.pods.is_empty());
    }

    #[test]
    fn an_unscheduled_pod_gives_nobody_access() {
        let mut graph = Graph::default();
        graph.set(&pod("p", ""));
        assert!(graph.needed.is_empty());
        graph.set(&pod("p", "n1"));
        graph.set(&pod("p", "n2"));
        assert!(!graph.needs("n1", Kind::Secret, "shop", "vol"));
        assert!(graph.needs("n2", Kind::Secret, "shop", "vol"));
    }
}
