//! The Node authorizer: what a node agent may do follows from the pods that run on its node.
//!
//! [`verdict`] decides without I/O; where the answer hangs on a relation it names the relation, and
//! [`NodeAuthorizer`] looks it up in the [`Graph`].

use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::api::rbac::v1::PolicyRule;

use super::graph::Kind;
use super::pods::PodGraph;
use super::{Attributes, Authorizer, Decision, Rules, rules};
use crate::authn::UserInfo;
use crate::bootstrap::policy::Policy;
use crate::registry::Registry;

const NODE_LEASE_NAMESPACE: &str = "kube-node-lease";

/// The node that a user speaks for: `None` when it is no node at all.
pub(crate) fn node_of(user: &UserInfo) -> Option<&str> {
    let name = user.name.strip_prefix("system:node:")?;
    user.in_group("system:nodes").then_some(name)
}

/// What a request of a node needs.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Allow,
    Refuse(String),
    /// A pod of the node must refer to the object.
    IfNeeded(Kind),
    /// A pod of the node must use the claim that is bound to this volume.
    IfVolumeNeeded,
    /// The pod must be on the node.
    IfRunning,
    /// The rules that all nodes share.
    IfRuled,
}

/// Answers for node agents, has no opinion on anybody else.
pub(crate) struct NodeAuthorizer {
    registry: Registry,
    graph: PodGraph,
    rules: Vec<PolicyRule>,
}

impl NodeAuthorizer {
    pub(crate) fn new(registry: Registry, graph: PodGraph) -> Self {
        let roles = Policy::default_policy().cluster_roles;
        let role = roles.into_iter().find(|r| r.metadata.name.as_deref() == Some("system:node"));
        let rules = role.and_then(|role| role.rules).unwrap_or_default();
        Self { registry, graph, rules }
    }

    async fn uses_volume(&self, node: &str, volume: &str) -> bool {
        let volume = self.registry.get::<PersistentVolume>("", volume).await.ok().flatten();
        let claim = volume.and_then(|v| v.spec).and_then(|spec| spec.claim_ref);
        let Some(claim) = claim else { return false };
        let (namespace, name) =
            (claim.namespace.unwrap_or_default(), claim.name.unwrap_or_default());
        self.graph.needs(node, Kind::PersistentVolumeClaim, &namespace, &name).await
    }
}

#[async_trait::async_trait]
impl Authorizer for NodeAuthorizer {
    async fn authorize(&self, attributes: &Attributes) -> Decision {
        let Some(node) = node_of(&attributes.user) else {
            return Decision::NoOpinion(String::new());
        };
        if node.is_empty() {
            let user = &attributes.user.name;
            return Decision::NoOpinion(format!("unknown node for user {user:?}"));
        }
        let Attributes { namespace, name, .. } = attributes;
        let allowed = match verdict(node, attributes) {
            Verdict::Allow => true,
            Verdict::Refuse(reason) => return Decision::NoOpinion(reason),
            Verdict::IfRuled => {
                let ruled = self.rules.iter().any(|rule| rules::allows(rule, attributes));
                return if ruled { allow() } else { Decision::NoOpinion(String::new()) };
            }
            Verdict::IfNeeded(kind) => self.graph.needs(node, kind, namespace, name).await,
            Verdict::IfRunning => self.graph.runs(node, namespace, name).await,
            Verdict::IfVolumeNeeded => self.uses_volume(node, name).await,
        };
        if allowed {
            return allow();
        }
        Decision::NoOpinion(format!("no relationship found between node '{node}' and this object"))
    }

    async fn rules_for(&self, user: &UserInfo, _namespace: &str) -> Rules {
        if node_of(user).is_none() {
            return Rules::default();
        }
        let error = "node authorizer does not support user rule resolution".to_owned();
        Rules { rules: Vec::new(), incomplete: true, error }
    }
}

fn allow() -> Decision {
    Decision::Allow(String::new())
}

fn verdict(node: &str, attributes: &Attributes) -> Verdict {
    if !attributes.resource_request {
        return Verdict::IfRuled;
    }
    match (attributes.group.as_str(), attributes.resource.as_str()) {
        ("", "secrets") => read_one(attributes, Kind::Secret),
        ("", "configmaps") => read_one(attributes, Kind::ConfigMap),
        ("", "persistentvolumeclaims") if attributes.subresource == "status" => {
            match attributes.verb.as_str() {
                "update" | "patch" => {
                    named(attributes, Verdict::IfNeeded(Kind::PersistentVolumeClaim))
                }
                _ => refuse("can only get/update/patch this type"),
            }
        }
        ("", "persistentvolumeclaims") => {
            get_one(attributes, Verdict::IfNeeded(Kind::PersistentVolumeClaim))
        }
        ("", "persistentvolumes") => get_one(attributes, Verdict::IfVolumeNeeded),
        ("resource.k8s.io", "resourceclaims") => {
            get_one(attributes, Verdict::IfNeeded(Kind::ResourceClaim))
        }
        ("", "serviceaccounts") => token(attributes),
        ("coordination.k8s.io", "leases") => lease(node, attributes),
        ("storage.k8s.io", "csinodes") => csi_node(node, attributes),
        ("resource.k8s.io", "resourceslices") => resource_slice(node, attributes),
        ("", "nodes") => own_node(node, attributes),
        ("", "pods") => pod(node, attributes),
        _ => Verdict::IfRuled,
    }
}

fn refuse(reason: impl Into<String>) -> Verdict {
    Verdict::Refuse(reason.into())
}

fn named(attributes: &Attributes, verdict: Verdict) -> Verdict {
    if attributes.name.is_empty() { refuse("No Object name found") } else { verdict }
}

fn read_one(attributes: &Attributes, kind: Kind) -> Verdict {
    if !matches!(attributes.verb.as_str(), "get" | "list" | "watch") {
        return refuse("can only read resources of this type");
    }
    if !attributes.subresource.is_empty() {
        return refuse("cannot read subresource");
    }
    if attributes.namespace.is_empty() {
        return refuse("can only read namespaced object of this type");
    }
    named(attributes, Verdict::IfNeeded(kind))
}

fn get_one(attributes: &Attributes, verdict: Verdict) -> Verdict {
    if attributes.verb != "get" {
        return refuse("can only get individual resources of this type");
    }
    if !attributes.subresource.is_empty() {
        return refuse("cannot get subresource");
    }
    named(attributes, verdict)
}

fn token(attributes: &Attributes) -> Verdict {
    if attributes.verb != "create" || attributes.name.is_empty() {
        return refuse("can only create tokens for individual service accounts");
    }
    if attributes.subresource != "token" {
        return refuse("can only create token subresource of serviceaccount");
    }
    Verdict::IfNeeded(Kind::ServiceAccount)
}

fn lease(node: &str, attributes: &Attributes) -> Verdict {
    let verb = attributes.verb.as_str();
    if !matches!(verb, "get" | "create" | "update" | "patch" | "delete") {
        return refuse("can only get, create, update, patch, or delete a node lease");
    }
    if attributes.namespace != NODE_LEASE_NAMESPACE {
        return refuse(format!(
            "can only access leases in the {NODE_LEASE_NAMESPACE:?} system namespace"
        ));
    }
    // The name is unknown on create; the NodeRestriction admission plugin looks at it there.
    if verb != "create" && attributes.name != node {
        return refuse("can only access node lease with the same name as the requesting node");
    }
    Verdict::Allow
}

fn csi_node(node: &str, attributes: &Attributes) -> Verdict {
    let verb = attributes.verb.as_str();
    if !matches!(verb, "get" | "create" | "update" | "patch" | "delete") {
        return refuse("can only get, create, update, patch, or delete a CSINode");
    }
    if !attributes.subresource.is_empty() {
        return refuse("cannot authorize CSINode subresources");
    }
    if verb != "create" && attributes.name != node {
        return refuse("can only access CSINode with the same name as the requesting node");
    }
    Verdict::Allow
}

fn resource_slice(node: &str, attributes: &Attributes) -> Verdict {
    match attributes.verb.as_str() {
        _ if !attributes.subresource.is_empty() => {
            refuse("cannot authorize ResourceSlice subresources")
        }
        "create" => Verdict::Allow,
        "watch" | "list" | "deletecollection" => {
            if selects(&attributes.field_selector, "spec.nodeName", node) {
                Verdict::Allow
            } else {
                refuse(
                    "can only list/watch/deletecollection resourceslices with nodeName field selector",
                )
            }
        }
        _ => refuse("can only create and list resourceslices"),
    }
}

fn own_node(node: &str, attributes: &Attributes) -> Verdict {
    match (attributes.subresource.as_str(), attributes.verb.as_str()) {
        // NodeRestriction holds writes to the node's own object.
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Verdict::Allow,
        ("", "get" | "list" | "watch") if attributes.name == node => Verdict::Allow,
        ("", "get" | "list" | "watch") if attributes.name.is_empty() => {
            refuse(format!("node '{node}' cannot read all nodes, only its own Node object"))
        }
        ("", "get" | "list" | "watch") => refuse(format!(
            "node '{node}' cannot read '{}', only its own Node object",
            attributes.name
        )),
        _ => refuse(""),
    }
}

fn pod(node: &str, attributes: &Attributes) -> Verdict {
    match (attributes.subresource.as_str(), attributes.verb.as_str()) {
        ("", "get") => named(attributes, Verdict::IfRunning),
        ("", "list" | "watch") if selects(&attributes.field_selector, "spec.nodeName", node) => {
            Verdict::Allow
        }
        ("", "list" | "watch") if !attributes.name.is_empty() => Verdict::IfRunning,
        ("", "list" | "watch") => {
            refuse("can only list/watch pods with spec.nodeName field selector")
        }
        // NodeRestriction holds these to the node's own pods.
        ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => {
            Verdict::Allow
        }
        _ => refuse(""),
    }
}

/// Whether a conjunction of field requirements demands `field` to equal `value`.
fn selects(selector: &str, field: &str, value: &str) -> bool {
    selector.split(',').any(|term| {
        let (name, wanted) =
            term.split_once("==").or_else(|| term.split_once('=')).unwrap_or_default();
        !name.ends_with('!') && name.trim() == field && wanted.trim() == value
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(verb: &str, group: &str, resource: &str, namespace: &str, name: &str) -> Attributes {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Attributes {
            verb: verb.into(),
            resource_request: true,
            group: group.into(),
            resource: resource.into(),
            subresource: subresource.into(),
            namespace: namespace.into(),
            name: name.into(),
            ..Attributes::default()
        }
    }

    #[test]
    fn only_members_of_the_nodes_group_are_nodes() {
        let user = |name: &str, group: &str| UserInfo {
            name: name.into(),
            groups: vec![group.into()],
            ..UserInfo::default()
        };
        assert_eq!(node_of(&user("system:node:n1", "system:nodes")), Some("n1"));
        assert_eq!(node_of(&user("system:node:n1", "others")), None);
        assert_eq!(node_of(&user("ann", "system:nodes")), None);
    }

    #[test]
    fn what_a_node_may_do() {
        use Verdict::{Allow, IfNeeded, IfRuled, IfRunning, IfVolumeNeeded};
        let cases = [
            (ask("get", "", "secrets", "a", "s"), Some(IfNeeded(Kind::Secret))),
            (ask("list", "", "secrets", "a", ""), None),
            (ask("list", "", "secrets", "", ""), None),
            (ask("update", "", "secrets", "a", "s"), None),
            (ask("watch", "", "configmaps", "a", "c"), Some(IfNeeded(Kind::ConfigMap))),
            (ask("get", "", "persistentvolumes", "", "v"), Some(IfVolumeNeeded)),
            (ask("list", "", "persistentvolumes", "", ""), None),
            (
                ask("create", "", "serviceaccounts/token", "a", "robot"),
                Some(IfNeeded(Kind::ServiceAccount)),
            ),
            (ask("get", "", "serviceaccounts", "a", "robot"), None),
            (ask("update", "coordination.k8s.io", "leases", "kube-node-lease", "n1"), Some(Allow)),
            (ask("update", "coordination.k8s.io", "leases", "kube-node-lease", "n2"), None),
            (ask("create", "coordination.k8s.io", "leases", "kube-node-lease", ""), Some(Allow)),
            (ask("get", "coordination.k8s.io", "leases", "kube-system", "n1"), None),
            (ask("get", "", "nodes", "", "n1"), Some(Allow)),
            (ask("get", "", "nodes", "", "n2"), None),
            (ask("list", "", "nodes", "", ""), None),
            (ask("delete", "", "nodes", "", "n1"), None),
            (ask("patch", "", "nodes/status", "", "n1"), Some(Allow)),
            (ask("get", "", "pods", "a", "p"), Some(IfRunning)),
            (ask("list", "", "pods", "", ""), None),
            (ask("patch", "", "pods/status", "a", "p"), Some(Allow)),
            (ask("create", "", "pods/exec", "a", "p"), None),
            (ask("list", "", "services", "", ""), Some(IfRuled)),
        ];
        for (attributes, expected) in cases {
            let got = verdict("n1", &attributes);
            match expected {
                Some(expected) => assert_eq!(got, expected, "{attributes:?}"),
                None => assert!(matches!(got, Verdict::Refuse(_)), "{got:?} {attributes:?}"),
            }
        }
    }

    #[test]
    fn pods_are_listed_by_the_nodes_own_name_only() {
        let list = |selector: &str| {
            verdict(
                "n1",
                &Attributes { field_selector: selector.into(), ..ask("list", "", "pods", "", "") },
            )
        };
        assert_eq!(list("spec.nodeName=n1"), Verdict::Allow);
        assert_eq!(list("status.phase!=Failed,spec.nodeName==n1"), Verdict::Allow);
        for selector in ["spec.nodeName=n2", "spec.nodeName!=n1", "spec.nodeName=n11", ""] {
            assert!(matches!(list(selector), Verdict::Refuse(_)), "{selector}");
        }
    }
}
