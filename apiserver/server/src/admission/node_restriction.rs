//! `NodeRestriction`: a node agent writes its own node, lease and mirror pods, the status of the
//! pods on its node, and tokens bound to them; no label that others rely on for trust.

use k8s_openapi::api::core::v1::Pod;
use pintle_machinery::object;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::authz::node::node_of;
use crate::error::{ApiError, ApiResult};
use crate::registry::Context;

const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
const NODE_LEASE_NAMESPACE: &str = "kube-node-lease";
/// Labels under `kubernetes.io` and `k8s.io` that an agent may set on its node.
const OWN_LABELS: [&str; 12] = [
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.kubernetes.io/region",
    "failure-domain.kubernetes.io/zone",
    "topology.kubernetes.io/region",
];
const OWN_LABEL_ZONE: &str = "topology.kubernetes.io/zone";
const OWN_LABEL_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

pub(super) struct NodeRestriction;

#[async_trait::async_trait]
impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn handles(&self, cx: &Context, operation: Operation) -> bool {
        operation != Operation::Connect && node_of(&cx.user).is_some()
    }

    async fn admit(&self, cx: &Context, attributes: &mut Attributes<'_>) -> ApiResult<()> {
        let Some(node) = node_of(&cx.user) else { return Ok(()) };
        let (resource, subresource) = (cx.resource.plural.as_str(), cx.subresource.as_str());
        let verdict = match (cx.resource.group.as_str(), resource, subresource) {
            ("", "pods", "") => pod(node, attributes),
            ("", "pods", "status") => pod_status(node, attributes),
            ("", "pods", "eviction") => self.own_pod(cx, node, "evict pods").await?,
            ("", "nodes", _) => own_node(node, cx, attributes),
            ("", "serviceaccounts", "token") => self.token(cx, node, attributes).await?,
            ("coordination.k8s.io", "leases", _) => lease(node, cx, attributes),
            ("storage.k8s.io", "csinodes", _) => same_name(node, cx, attributes, "csinode"),
            _ => Ok(()),
        };
        verdict.map_err(|why| ApiError::forbidden(&cx.group_resource(), &cx.name, why))
    }
}

impl NodeRestriction {
    async fn own_pod(&self, cx: &Context, node: &str, what: &str) -> ApiResult<Result<(), String>> {
        let pod = cx.registry.get::<Pod>(&cx.namespace, &cx.name).await?;
        let on = pod.and_then(|pod| pod.spec).and_then(|spec| spec.node_name);
        if on.as_deref() == Some(node) {
            return Ok(Ok(()));
        }
        Ok(Err(format!("node \"{node}\" can only {what} with spec.nodeName set to itself")))
    }

    /// A node asks for tokens of the pods it runs, never for one that outlives them.
    async fn token(
        &self,
        cx: &Context,
        node: &str,
        attributes: &Attributes<'_>,
    ) -> ApiResult<Result<(), String>> {
        let Some(request) = attributes.object.as_deref() else { return Ok(Ok(())) };
        let reference = |field: &str| object::get_str(request, &["spec", "boundObjectRef", field]);
        if reference("kind") != "Pod" || reference("apiVersion") != "v1" {
            return Ok(Err("node requested token not bound to a pod".into()));
        }
        if reference("uid").is_empty() {
            return Ok(Err("node requested token with a pod binding without a uid".into()));
        }
        let found = match cx.registry.get::<Pod>(&cx.namespace, reference("name")).await? {
            Some(pod) if pod.metadata.uid.as_deref() == Some(reference("uid")) => Some(pod),
            _ => cx.registry.get_live::<Pod>(&cx.namespace, reference("name")).await?,
        };
        let Some(pod) = found else {
            return Ok(Err(format!("pod \"{}\" not found", reference("name"))));
        };
        let uid = pod.metadata.uid.unwrap_or_default();
        if uid != reference("uid") {
            return Ok(Err(format!(
                "the UID in the bound object reference ({}) does not match the UID in record ({uid}). The object might have been deleted and then recreated",
                reference("uid")
            )));
        }
        if pod.spec.and_then(|spec| spec.node_name).as_deref() != Some(node) {
            return Ok(Err(
                "node requested token bound to a pod scheduled on a different node".into()
            ));
        }
        Ok(Ok(()))
    }
}

fn pod(node: &str, attributes: &Attributes<'_>) -> Result<(), String> {
    match (attributes.operation, attributes.object.as_deref(), attributes.old_object) {
        (Operation::Create, Some(pod), _) => mirror_pod(node, pod),
        (Operation::Delete, _, Some(pod)) if !runs_on(pod, node) => {
            Err(format!("node \"{node}\" can only delete pods with spec.nodeName set to itself"))
        }
        (Operation::Delete, _, _) => Ok(()),
        (operation, _, _) => Err(format!("unexpected operation {operation:?}")),
    }
}

fn runs_on(pod: &Value, node: &str) -> bool {
    object::get_str(pod, &["spec", "nodeName"]) == node
}

fn mirror_pod(node: &str, pod: &Value) -> Result<(), String> {
    if object::annotation(pod, MIRROR_ANNOTATION).is_none() {
        return Err(format!(
            "pod does not have \"{MIRROR_ANNOTATION}\" annotation, node \"{node}\" can only create mirror pods"
        ));
    }
    if !runs_on(pod, node) {
        return Err(format!(
            "node \"{node}\" can only create pods with spec.nodeName set to itself"
        ));
    }
    if !object::get_str(pod, &["spec", "serviceAccountName"]).is_empty() {
        return Err(format!(
            "node \"{node}\" can not create pods that reference a service account"
        ));
    }
    for owner in object::owner_references(pod) {
        if object::get_str(owner, &["kind"]) != "Node" || object::get_str(owner, &["name"]) != node
        {
            return Err(format!(
                "node \"{node}\" can only create pods with an owner reference set to itself"
            ));
        }
    }
    let volumes = object::get_list(pod, &["spec", "volumes"]);
    for (field, what) in [
        ("secret", "secrets"),
        ("configMap", "configmaps"),
        ("persistentVolumeClaim", "persistentvolumeclaims"),
        ("projected", "projected volumes"),
    ] {
        if volumes.iter().any(|volume| volume.get(field).is_some()) {
            return Err(format!("node \"{node}\" can not create pods that reference {what}"));
        }
    }
    Ok(())
}

fn pod_status(node: &str, attributes: &Attributes<'_>) -> Result<(), String> {
    let (Some(new), Some(old)) = (attributes.object.as_deref(), attributes.old_object) else {
        return Ok(());
    };
    if !runs_on(old, node) {
        return Err(format!(
            "node \"{node}\" can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    if object::labels(new) != object::labels(old) {
        return Err(format!("node \"{node}\" cannot update labels through pod status"));
    }
    Ok(())
}

fn written_name<'a>(cx: &'a Context, attributes: &'a Attributes<'_>) -> &'a str {
    let name = attributes.object.as_deref().map(object::name).unwrap_or_default();
    if cx.name.is_empty() { name } else { &cx.name }
}

fn own_node(node: &str, cx: &Context, attributes: &Attributes<'_>) -> Result<(), String> {
    let name = written_name(cx, attributes);
    if name != node {
        return Err(format!("node \"{node}\" is not allowed to modify node \"{name}\""));
    }
    let Some(new) = attributes.object.as_deref() else { return Ok(()) };
    if let Some(old) = attributes.old_object
        && object::get(new, &["spec", "taints"]) != object::get(old, &["spec", "taints"])
    {
        return Err(format!("node \"{node}\" is not allowed to modify taints"));
    }
    let refused = changed_labels(new, attributes.old_object)
        .into_iter()
        .filter(|label| !may_set(label))
        .collect::<Vec<_>>();
    if refused.is_empty() {
        return Ok(());
    }
    let verb = if attributes.old_object.is_some() { "modify" } else { "set the following" };
    Err(format!("is not allowed to {verb} labels: {}", refused.join(", ")))
}

fn changed_labels(new: &Value, old: Option<&Value>) -> Vec<String> {
    let (new, old) = (object::labels(new), old.and_then(object::labels));
    let keys = new.into_iter().chain(old).flat_map(|labels| labels.keys());
    let changed = keys.filter(|key| {
        let value = |labels: Option<&serde_json::Map<String, Value>>| {
            labels.and_then(|labels| labels.get(*key)).cloned()
        };
        value(new) != value(old)
    });
    let mut changed: Vec<String> = changed.cloned().collect();
    changed.sort();
    changed.dedup();
    changed
}

fn may_set(label: &str) -> bool {
    let Some((domain, _)) = label.split_once('/') else { return true };
    let within = |parent: &str| {
        domain == parent || domain.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'))
    };
    if within("node-restriction.kubernetes.io") {
        return false;
    }
    if !within("kubernetes.io") && !within("k8s.io") {
        return true;
    }
    OWN_LABELS.contains(&label)
        || label == OWN_LABEL_ZONE
        || OWN_LABEL_DOMAINS.iter().any(|domain| within(domain))
}

fn lease(node: &str, cx: &Context, attributes: &Attributes<'_>) -> Result<(), String> {
    if cx.namespace != NODE_LEASE_NAMESPACE {
        return Err(format!(
            "can only access leases in the \"{NODE_LEASE_NAMESPACE}\" system namespace"
        ));
    }
    same_name(node, cx, attributes, "node lease")
}

fn same_name(
    node: &str,
    cx: &Context,
    attributes: &Attributes<'_>,
    what: &str,
) -> Result<(), String> {
    if written_name(cx, attributes) == node {
        return Ok(());
    }
    Err(format!("can only access {what} with the same name as the requesting node"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_that_others_trust_are_not_the_nodes_to_set() {
        let cases = [
            ("mine", true),
            ("example.com/rack", true),
            ("kubernetes.io/hostname", true),
            ("topology.kubernetes.io/zone", true),
            ("node.kubernetes.io/anything", true),
            ("sub.kubelet.kubernetes.io/x", true),
            ("node-role.kubernetes.io/control-plane", false),
            ("x.node-restriction.kubernetes.io/pci", false),
            ("node-restriction.kubernetes.io/pci", false),
            ("foo.k8s.io/x", false),
            ("notkubernetes.io/x", true),
        ];
        for (label, allowed) in cases {
            assert_eq!(may_set(label), allowed, "{label}");
        }
    }

    #[test]
    fn only_labels_that_change_count() {
        let node = |labels: Value| json!({"metadata": {"labels": labels}});
        let old = node(json!({"a": "1", "b": "1", "c": "1"}));
        let new = node(json!({"a": "1", "b": "2", "d": "1"}));
        assert_eq!(changed_labels(&new, Some(&old)), ["b", "c", "d"]);
        assert_eq!(changed_labels(&new, None), ["a", "b", "d"]);
    }

    #[test]
    fn a_node_creates_bare_mirror_pods_of_its_own_only() {
        let pod = |node: &str, spec: Value| {
            let mut pod =
                json!({"metadata": {"annotations": {MIRROR_ANNOTATION: "x"}}, "spec": spec});
            pod["spec"]["nodeName"] = node.into();
            pod
        };
        assert!(mirror_pod("n1", &pod("n1", json!({}))).is_ok());
        assert!(mirror_pod("n1", &pod("n2", json!({}))).is_err());
        assert!(mirror_pod("n1", &pod("n1", json!({"serviceAccountName": "a"}))).is_err());
        assert!(mirror_pod("n1", &pod("n1", json!({"volumes": [{"secret": {}}]}))).is_err());
        assert!(mirror_pod("n1", &json!({"spec": {"nodeName": "n1"}})).is_err());
    }

    #[test]
    fn status_is_written_for_own_pods_without_touching_labels() {
        let old = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"nodeName": "n1"}});
        let mut relabelled = old.clone();
        relabelled["metadata"]["labels"]["a"] = "2".into();
        let check = |node: &str, new: &Value| {
            let mut new = new.clone();
            pod_status(
                node,
                &Attributes {
                    operation: Operation::Update,
                    object: Some(&mut new),
                    old_object: Some(&old),
                    options: &Value::Null,
                },
            )
        };
        assert!(check("n1", &old).is_ok());
        assert!(check("n2", &old).is_err());
        assert!(check("n1", &relabelled).is_err());
    }
}
