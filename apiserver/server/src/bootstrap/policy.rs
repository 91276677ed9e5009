//! The default RBAC policy: `policy.txt` parsed into the objects that are reconciled at start.
//!
//! The text is data, so a line of it can be checked against upstream's policy at a glance; a
//! malformed line is a bug that the first test of this file finds.

use std::collections::BTreeMap;

use k8s_openapi::api::rbac::v1::{
    AggregationRule, ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef,
    Subject,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

const POLICY: &str = include_str!("policy.txt");
const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

/// Everything that `policy.txt` declares.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    pub(crate) cluster_roles: Vec<ClusterRole>,
    pub(crate) roles: Vec<Role>,
    pub(crate) cluster_role_bindings: Vec<ClusterRoleBinding>,
    pub(crate) role_bindings: Vec<RoleBinding>,
}

impl Policy {
    /// The policy that every cluster starts with.
    pub(crate) fn default_policy() -> Self {
        Self::parse(POLICY).expect("policy.txt is part of the program and tested")
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut policy = Self::default();
        let mut in_role = false;
        for (number, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let at = |message: &str| format!("line {}: {message}: {line}", number + 1);
            match words.as_slice() {
                [] => {}
                [first, ..] if first.starts_with('#') => {}
                ["clusterrole", name, options @ ..] => {
                    policy.cluster_roles.push(cluster_role(name, options).map_err(|m| at(&m))?);
                    in_role = false;
                }
                ["role", namespace, name] => {
                    let metadata = metadata(name, Some(namespace));
                    policy.roles.push(Role { metadata, rules: Some(Vec::new()) });
                    in_role = true;
                }
                ["bind", role, "to", subjects @ ..] => {
                    policy.bind(role, subjects).map_err(|m| at(&m))?;
                }
                _ if line.starts_with("  ") => {
                    let rule = rule(line).map_err(|m| at(&m))?;
                    let rules = if in_role {
                        policy.roles.last_mut().and_then(|role| role.rules.as_mut())
                    } else {
                        policy.cluster_roles.last_mut().and_then(|role| role.rules.as_mut())
                    };
                    rules.ok_or_else(|| at("rule of no role"))?.push(rule);
                }
                _ => return Err(at("unknown statement")),
            }
        }
        Ok(policy)
    }

    fn bind(&mut self, role: &str, subjects: &[&str]) -> Result<(), String> {
        let subjects = Some(subjects.iter().map(|s| subject(s)).collect::<Result<_, _>>()?);
        match role.split_once('/') {
            None => self.cluster_role_bindings.push(ClusterRoleBinding {
                metadata: metadata(role, None),
                role_ref: role_ref("ClusterRole", role),
                subjects,
            }),
            Some((namespace, name)) => self.role_bindings.push(RoleBinding {
                metadata: metadata(name, Some(namespace)),
                role_ref: role_ref("Role", name),
                subjects,
            }),
        }
        Ok(())
    }
}

fn cluster_role(name: &str, options: &[&str]) -> Result<ClusterRole, String> {
    let mut role = ClusterRole {
        metadata: metadata(name, None),
        rules: Some(Vec::new()),
        aggregation_rule: None,
    };
    for option in options {
        let (key, value) = option.split_once('=').ok_or("option without a value")?;
        let label = format!("{RBAC_GROUP}/aggregate-to-{value}");
        let labels = BTreeMap::from([(label.clone(), "true".to_owned())]);
        match key {
            "into" => role.metadata.labels.get_or_insert_default().extend(labels),
            "aggregates" => {
                role.rules = None;
                role.aggregation_rule = Some(AggregationRule {
                    cluster_role_selectors: Some(vec![LabelSelector {
                        match_labels: Some(labels),
                        match_expressions: None,
                    }]),
                });
            }
            _ => return Err("unknown option".to_owned()),
        }
    }
    Ok(role)
}

fn metadata(name: &str, namespace: Option<&str>) -> ObjectMeta {
    let pair = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: namespace.map(str::to_owned),
        labels: Some(pair("kubernetes.io/bootstrapping", "rbac-defaults")),
        annotations: Some(pair("rbac.authorization.kubernetes.io/autoupdate", "true")),
        ..ObjectMeta::default()
    }
}

fn role_ref(kind: &str, name: &str) -> RoleRef {
    RoleRef { api_group: Some(RBAC_GROUP.to_owned()), kind: kind.to_owned(), name: name.to_owned() }
}

fn rule(line: &str) -> Result<PolicyRule, String> {
    let words = |part: &str| part.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let parts: Vec<&str> = line.trim().split(" : ").collect();
    match parts.as_slice() {
        [verbs, "url", paths] => Ok(PolicyRule {
            verbs: words(verbs),
            non_resource_urls: Some(words(paths)),
            ..PolicyRule::default()
        }),
        [verbs, groups, resources, names @ ..] if names.len() < 2 => {
            let core = |group: String| if group == "core" { String::new() } else { group };
            Ok(PolicyRule {
                verbs: words(verbs),
                api_groups: Some(words(groups).into_iter().map(core).collect()),
                resources: Some(words(resources)),
                resource_names: names.first().map(|names| words(names)),
                non_resource_urls: None,
            })
        }
        _ => Err("a rule has two to four parts".to_owned()),
    }
}

fn subject(text: &str) -> Result<Subject, String> {
    let (kind, name) = text.split_once('/').ok_or("subject without a kind")?;
    let api_group = Some(RBAC_GROUP.to_owned());
    match (kind, name.split_once('/')) {
        ("group", _) => {
            Ok(Subject { kind: "Group".into(), api_group, name: name.into(), namespace: None })
        }
        ("user", _) => {
            Ok(Subject { kind: "User".into(), api_group, name: name.into(), namespace: None })
        }
        ("sa", Some((namespace, name))) => Ok(Subject {
            kind: "ServiceAccount".into(),
            api_group: None,
            name: name.into(),
            namespace: Some(namespace.into()),
        }),
        _ => Err("unknown kind of subject".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_policy_parses() {
        let policy = Policy::parse(POLICY).unwrap();
        assert!(policy.cluster_roles.len() > 25);
        assert_eq!(policy.roles.len(), 6);
        for role in &policy.cluster_roles {
            let empty = role.rules.as_ref().is_some_and(Vec::is_empty);
            assert!(!empty, "{:?} grants nothing", role.metadata.name);
        }
    }

    #[test]
    fn bindings_name_roles_that_exist() {
        let policy = Policy::default_policy();
        for binding in &policy.cluster_role_bindings {
            let name = Some(binding.role_ref.name.clone());
            assert!(policy.cluster_roles.iter().any(|r| r.metadata.name == name), "{name:?}");
        }
        for binding in &policy.role_bindings {
            let same = |role: &&Role| {
                role.metadata.namespace == binding.metadata.namespace
                    && role.metadata.name.as_deref() == Some(&*binding.role_ref.name)
            };
            assert!(policy.roles.iter().any(|r| same(&r)), "{:?}", binding.metadata.name);
        }
    }

    #[test]
    fn view_flows_into_edit_and_edit_into_admin() {
        let policy = Policy::default_policy();
        let label = |name: &str, into: &str| {
            policy.cluster_roles.iter().any(|role| {
                role.metadata.name.as_deref() == Some(name)
                    && role.metadata.labels.as_ref().is_some_and(|labels| {
                        labels.contains_key(&format!("{RBAC_GROUP}/aggregate-to-{into}"))
                    })
            })
        };
        assert!(label("view", "edit"));
        assert!(label("edit", "admin"));
        assert!(label("system:aggregate-to-view", "view"));
    }

    #[test]
    fn a_bad_line_is_refused() {
        for text in ["clusterrole x\n  get", "bind x to nobody", "grant x", "  get : core : pods"] {
            assert!(Policy::parse(text).is_err(), "{text}");
        }
    }
}
