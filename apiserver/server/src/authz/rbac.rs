//! Role-based access control: which rules hold for a user in a namespace, and what they allow.
//!
//! [`Policies`] is an immutable snapshot of all roles and bindings, replaced as a whole when one of
//! them changes; answering is a walk over the bindings that name the user.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};

use super::{Attributes, Decision, rules};
use crate::authn::{SYSTEM_PRIVILEGED_GROUP, UserInfo};

/// All roles and bindings at one moment.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    cluster_roles: HashMap<String, Vec<PolicyRule>>,
    roles: HashMap<(String, String), Vec<PolicyRule>>,
    cluster_bindings: Bindings,
    bindings: HashMap<String, Bindings>,
}

/// The bindings of one scope, found by the subject they name.
#[derive(Debug, Default)]
struct Bindings {
    by_subject: HashMap<SubjectKey, Vec<Arc<Binding>>>,
}

#[derive(Debug)]
struct Binding {
    name: String,
    /// `None` for a ClusterRoleBinding.
    namespace: Option<String>,
    role: RoleRef,
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum SubjectKey {
    User(String),
    Group(String),
}

impl Policies {
    /// A snapshot of these objects.
    pub(crate) fn new(
        cluster_roles: impl IntoIterator<Item = ClusterRole>,
        roles: impl IntoIterator<Item = Role>,
        cluster_bindings: impl IntoIterator<Item = ClusterRoleBinding>,
        bindings: impl IntoIterator<Item = RoleBinding>,
    ) -> Self {
        let mut policies = Self::default();
        for role in cluster_roles {
            let name = role.metadata.name.unwrap_or_default();
            policies.cluster_roles.insert(name, role.rules.unwrap_or_default());
        }
        for role in roles {
            let namespace = role.metadata.namespace.unwrap_or_default();
            let name = role.metadata.name.unwrap_or_default();
            policies.roles.insert((namespace, name), role.rules.unwrap_or_default());
        }
        for binding in cluster_bindings {
            let name = binding.metadata.name.unwrap_or_default();
            let role = binding.role_ref;
            policies
                .cluster_bindings
                .add(Binding { name, namespace: None, role }, binding.subjects.unwrap_or_default());
        }
        for binding in bindings {
            let namespace = binding.metadata.namespace.unwrap_or_default();
            let name = binding.metadata.name.unwrap_or_default();
            policies.bindings.entry(namespace.clone()).or_default().add(
                Binding { name, namespace: Some(namespace), role: binding.role_ref },
                binding.subjects.unwrap_or_default(),
            );
        }
        policies
    }

    /// Whether some rule of the user allows it.
    pub(crate) fn authorize(&self, attributes: &Attributes) -> Decision {
        let namespace = if attributes.resource_request { &*attributes.namespace } else { "" };
        self.grants(&attributes.user, namespace)
            .find(|grant| rules::allows(grant.rule, attributes))
            .map_or(Decision::NoOpinion(String::new()), |grant| Decision::Allow(grant.reason()))
    }

    /// The rules that hold for `user`, cluster-wide and, when given, in `namespace`.
    pub(crate) fn rules_for(&self, user: &UserInfo, namespace: &str) -> Vec<PolicyRule> {
        self.grants(user, namespace).map(|grant| grant.rule.clone()).collect()
    }

    /// The rules of the role that a binding in `namespace` (empty: cluster-wide) refers to.
    pub(crate) fn role_rules(&self, role: &RoleRef, namespace: &str) -> Option<&[PolicyRule]> {
        match role.kind.as_str() {
            "ClusterRole" => self.cluster_roles.get(&role.name),
            "Role" => self.roles.get(&(namespace.to_owned(), role.name.clone())),
            _ => None,
        }
        .map(Vec::as_slice)
    }

    fn grants<'a>(
        &'a self,
        user: &'a UserInfo,
        namespace: &'a str,
    ) -> impl Iterator<Item = Grant<'a>> + 'a {
        let scoped = self.bindings.get(namespace).into_iter();
        std::iter::once(&self.cluster_bindings)
            .chain(scoped)
            .flat_map(move |bindings| bindings.of(user))
            .flat_map(move |(subject, binding)| {
                let scope = binding.namespace.as_deref().unwrap_or_default();
                let rules = self.role_rules(&binding.role, scope).unwrap_or_default();
                rules.iter().map(move |rule| Grant { rule, binding, subject: subject.clone() })
            })
    }
}

struct Grant<'a> {
    rule: &'a PolicyRule,
    binding: &'a Binding,
    subject: String,
}

impl Grant<'_> {
    fn reason(&self) -> String {
        let Binding { name, namespace, role } = self.binding;
        let binding = match namespace {
            None => format!("ClusterRoleBinding {name:?}"),
            Some(namespace) => format!("RoleBinding \"{name}/{namespace}\""),
        };
        format!("RBAC: allowed by {binding} of {} {:?} to {}", role.kind, role.name, self.subject)
    }
}

impl Bindings {
    fn add(&mut self, binding: Binding, subjects: Vec<Subject>) {
        let binding = Arc::new(binding);
        for subject in subjects {
            let namespace = subject.namespace.as_ref().or(binding.namespace.as_ref());
            let key = match (subject.kind.as_str(), namespace) {
                ("User", _) => SubjectKey::User(subject.name),
                ("Group", _) => SubjectKey::Group(subject.name),
                ("ServiceAccount", Some(namespace)) => {
                    SubjectKey::User(format!("system:serviceaccount:{namespace}:{}", subject.name))
                }
                _ => continue,
            };
            self.by_subject.entry(key).or_default().push(binding.clone());
        }
    }

    /// The bindings that name the user or one of its groups, with the subject as reasons spell it.
    fn of<'a>(&'a self, user: &'a UserInfo) -> impl Iterator<Item = (String, &'a Binding)> + 'a {
        let user_key = SubjectKey::User(user.name.clone());
        let keys = std::iter::once(user_key)
            .chain(user.groups.iter().map(|group| SubjectKey::Group(group.clone())));
        keys.flat_map(move |key| {
            let subject = key.to_string();
            let found = self.by_subject.get(&key).map(Vec::as_slice).unwrap_or_default();
            found.iter().map(move |binding| (subject.clone(), &**binding))
        })
    }
}

impl std::fmt::Display for SubjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Group(name) => write!(f, "Group {name:?}"),
            Self::User(name) => match name.strip_prefix("system:serviceaccount:") {
                None => write!(f, "User {name:?}"),
                Some(account) => match account.split_once(':') {
                    Some((namespace, name)) => write!(f, "ServiceAccount \"{name}/{namespace}\""),
                    None => write!(f, "User {name:?}"),
                },
            },
        }
    }
}

/// Whether the user is above all rules.
pub(crate) fn is_privileged(user: &UserInfo) -> bool {
    user.in_group(SYSTEM_PRIVILEGED_GROUP)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn typed<T: serde::de::DeserializeOwned>(values: Vec<Value>) -> Vec<T> {
        values.into_iter().map(|value| serde_json::from_value(value).unwrap()).collect()
    }

    fn policies() -> Policies {
        let reader = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]);
        Policies::new(
            typed(vec![
                json!({"metadata": {"name": "reader"}, "rules": reader}),
                json!({"metadata": {"name": "urls"}, "rules": [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]}),
            ]),
            typed(vec![json!({"metadata": {"namespace": "shop", "name": "secrets"},
                "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["*"]}]})]),
            typed(vec![
                json!({"metadata": {"name": "readers"}, "roleRef": {"apiGroup": "", "kind": "ClusterRole", "name": "reader"},
                    "subjects": [{"kind": "Group", "name": "readers"}]}),
                json!({"metadata": {"name": "urls"}, "roleRef": {"apiGroup": "", "kind": "ClusterRole", "name": "urls"},
                    "subjects": [{"kind": "User", "name": "prom"}]}),
            ]),
            typed(vec![
                json!({"metadata": {"namespace": "shop", "name": "keys"}, "roleRef": {"apiGroup": "", "kind": "Role", "name": "secrets"},
                    "subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": "shop"}, {"kind": "User", "name": "eve"}]}),
                json!({"metadata": {"namespace": "shop", "name": "local"}, "roleRef": {"apiGroup": "", "kind": "ClusterRole", "name": "reader"},
                    "subjects": [{"kind": "User", "name": "eve"}]}),
                json!({"metadata": {"namespace": "shop", "name": "dangling"}, "roleRef": {"apiGroup": "", "kind": "Role", "name": "gone"},
                    "subjects": [{"kind": "User", "name": "eve"}]}),
            ]),
        )
    }

    fn ask(user: &str, group: &str, verb: &str, namespace: &str, resource: &str) -> Attributes {
        Attributes {
            user: UserInfo { name: user.into(), groups: vec![group.into()], ..UserInfo::default() },
            verb: verb.into(),
            resource_request: true,
            namespace: namespace.into(),
            resource: resource.into(),
            ..Attributes::default()
        }
    }

    #[test]
    fn bindings_decide_where_a_rule_holds() {
        let cases = [
            ("ann", "readers", "get", "any", "pods", true),
            ("ann", "readers", "get", "", "pods", true),
            ("ann", "readers", "delete", "any", "pods", false),
            ("ann", "others", "get", "any", "pods", false),
            ("eve", "x", "get", "shop", "pods", true),
            ("eve", "x", "get", "other", "pods", false),
            ("eve", "x", "delete", "shop", "secrets", true),
            ("eve", "x", "delete", "", "secrets", false),
            ("system:serviceaccount:shop:robot", "x", "get", "shop", "secrets", true),
            ("system:serviceaccount:other:robot", "x", "get", "shop", "secrets", false),
        ];
        let policies = policies();
        for (user, group, verb, namespace, resource, expected) in cases {
            let decision = policies.authorize(&ask(user, group, verb, namespace, resource));
            let allowed = matches!(decision, Decision::Allow(_));
            assert_eq!(allowed, expected, "{user} {verb} {namespace}/{resource}: {decision:?}");
        }
    }

    #[test]
    fn a_reason_names_binding_role_and_subject() {
        assert_eq!(
            policies().authorize(&ask("ann", "readers", "get", "any", "pods")),
            Decision::Allow(
                r#"RBAC: allowed by ClusterRoleBinding "readers" of ClusterRole "reader" to Group "readers""#.into()
            )
        );
        assert_eq!(
            policies().authorize(&ask("system:serviceaccount:shop:robot", "x", "get", "shop", "secrets")),
            Decision::Allow(
                r#"RBAC: allowed by RoleBinding "keys/shop" of Role "secrets" to ServiceAccount "robot/shop""#.into()
            )
        );
    }

    #[test]
    fn paths_are_granted_cluster_wide_only() {
        let mut attributes = ask("prom", "x", "get", "shop", "");
        attributes.resource_request = false;
        attributes.path = "/metrics".into();
        assert!(matches!(policies().authorize(&attributes), Decision::Allow(_)));
        attributes.path = "/secret".into();
        assert_eq!(policies().authorize(&attributes), Decision::NoOpinion(String::new()));
    }

    #[test]
    fn rules_for_a_namespace_join_both_scopes() {
        let user =
            UserInfo { name: "eve".into(), groups: vec!["readers".into()], ..UserInfo::default() };
        assert_eq!(policies().rules_for(&user, "shop").len(), 3);
        assert_eq!(policies().rules_for(&user, "").len(), 1);
    }
}
