//! What one `PolicyRule` allows, and whether a set of rules covers another one. Pure.

use k8s_openapi::api::rbac::v1::PolicyRule;

use super::Attributes;

/// Whether `rule` allows what `attributes` ask for.
pub(crate) fn allows(rule: &PolicyRule, attributes: &Attributes) -> bool {
    if !matches_verb(rule, &attributes.verb) {
        return false;
    }
    if !attributes.resource_request {
        return list(&rule.non_resource_urls).iter().any(|url| covers_url(url, &attributes.path));
    }
    let combined = combined_resource(&attributes.resource, &attributes.subresource);
    has(list(&rule.api_groups), &attributes.group)
        && list(&rule.resources)
            .iter()
            .any(|resource| covers_resource(resource, &combined, &attributes.subresource))
        && matches_name(rule, &attributes.name)
}

fn matches_verb(rule: &PolicyRule, verb: &str) -> bool {
    has(&rule.verbs, verb)
}

/// No names in the rule means every name.
fn matches_name(rule: &PolicyRule, name: &str) -> bool {
    let names = list(&rule.resource_names);
    names.is_empty() || names.iter().any(|allowed| allowed == name)
}

/// `*`, `pods`, `pods/log`, `*/scale`.
fn covers_resource(pattern: &str, combined: &str, subresource: &str) -> bool {
    pattern == "*"
        || pattern == combined
        || (!subresource.is_empty() && pattern.strip_prefix("*/") == Some(subresource))
}

/// `*`, `/healthz`, `/healthz/*`.
fn covers_url(pattern: &str, path: &str) -> bool {
    pattern == "*"
        || pattern == path
        || pattern.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

fn combined_resource(resource: &str, subresource: &str) -> String {
    if subresource.is_empty() { resource.to_owned() } else { format!("{resource}/{subresource}") }
}

fn has(patterns: &[String], value: &str) -> bool {
    patterns.iter().any(|pattern| pattern == "*" || pattern == value)
}

fn list(values: &Option<Vec<String>>) -> &[String] {
    values.as_deref().unwrap_or_default()
}

/// The parts of `wanted` that no rule of `owned` covers, each split to a single verb on a single
/// resource or URL. Empty when whoever holds `owned` may hand out `wanted`.
pub(crate) fn uncovered(owned: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    wanted
        .iter()
        .flat_map(breakdown)
        .filter(|atom| !owned.iter().any(|rule| covers(rule, atom)))
        .collect()
}

/// One rule as single-verb, single-group, single-resource, single-name rules.
fn breakdown(rule: &PolicyRule) -> Vec<PolicyRule> {
    let one = |value: &String| Some(vec![value.clone()]);
    let mut atoms = Vec::new();
    for verb in &rule.verbs {
        for group in list(&rule.api_groups) {
            for resource in list(&rule.resources) {
                let atom = PolicyRule {
                    verbs: vec![verb.clone()],
                    api_groups: one(group),
                    resources: one(resource),
                    ..PolicyRule::default()
                };
                match list(&rule.resource_names) {
                    [] => atoms.push(atom),
                    names => atoms.extend(
                        names
                            .iter()
                            .map(|name| PolicyRule { resource_names: one(name), ..atom.clone() }),
                    ),
                }
            }
        }
        atoms.extend(list(&rule.non_resource_urls).iter().map(|url| PolicyRule {
            verbs: vec![verb.clone()],
            non_resource_urls: one(url),
            ..PolicyRule::default()
        }));
    }
    atoms
}

/// Whether `owner` covers the single-valued rule `atom`.
fn covers(owner: &PolicyRule, atom: &PolicyRule) -> bool {
    if !atom.verbs.iter().all(|verb| matches_verb(owner, verb)) {
        return false;
    }
    if let [url] = list(&atom.non_resource_urls) {
        return list(&owner.non_resource_urls).iter().any(|pattern| covers_url(pattern, url));
    }
    let resource_covered = |resource: &String| {
        let subresource = resource.split_once('/').map_or("", |(_, subresource)| subresource);
        list(&owner.resources).iter().any(|pattern| covers_resource(pattern, resource, subresource))
    };
    let names = list(&owner.resource_names);
    list(&atom.api_groups).iter().all(|group| has(list(&owner.api_groups), group))
        && list(&atom.resources).iter().all(resource_covered)
        && (names.is_empty()
            || matches!(list(&atom.resource_names), [name] if names.contains(name)))
}

/// The rule as upstream prints it in messages: `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`.
pub(crate) fn compact(rule: &PolicyRule) -> String {
    let mut parts = Vec::new();
    let mut part = |name: &str, values: &[String]| {
        if !values.is_empty() {
            let quoted: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
            parts.push(format!("{name}:[{}]", quoted.join(" ")));
        }
    };
    part("APIGroups", list(&rule.api_groups));
    part("Resources", list(&rule.resources));
    part("ResourceNames", list(&rule.resource_names));
    part("NonResourceURLs", list(&rule.non_resource_urls));
    part("Verbs", &rule.verbs);
    format!("{{{}}}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &str, groups: &str, resources: &str, names: &str) -> PolicyRule {
        let words = |text: &str| {
            Some(text.split_whitespace().map(|w| w.replace("core", "")).collect::<Vec<_>>())
        };
        PolicyRule {
            verbs: words(verbs).unwrap(),
            api_groups: words(groups),
            resources: words(resources),
            resource_names: words(names),
            non_resource_urls: None,
        }
    }

    fn urls(verbs: &str, urls: &str) -> PolicyRule {
        PolicyRule {
            verbs: vec![verbs.into()],
            non_resource_urls: Some(urls.split_whitespace().map(str::to_owned).collect()),
            ..PolicyRule::default()
        }
    }

    fn ask(verb: &str, group: &str, resource: &str, name: &str) -> Attributes {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Attributes {
            verb: verb.into(),
            resource_request: true,
            group: group.into(),
            resource: resource.into(),
            subresource: subresource.into(),
            name: name.into(),
            ..Attributes::default()
        }
    }

    #[test]
    fn a_rule_allows_what_all_its_parts_name() {
        let cases = [
            (rule("get", "core", "pods", ""), ask("get", "", "pods", "a"), true),
            (rule("get", "core", "pods", ""), ask("list", "", "pods", ""), false),
            (rule("get", "core", "pods", ""), ask("get", "apps", "pods", "a"), false),
            (rule("get", "core", "pods", ""), ask("get", "", "pods/log", "a"), false),
            (rule("get", "core", "pods/log", ""), ask("get", "", "pods/log", "a"), true),
            (rule("get", "core", "pods/log", ""), ask("get", "", "pods", "a"), false),
            (
                rule("update", "*", "*/scale", ""),
                ask("update", "apps", "deployments/scale", "a"),
                true,
            ),
            (rule("update", "*", "*/scale", ""), ask("update", "apps", "deployments", "a"), false),
            (rule("*", "*", "*", ""), ask("escalate", "x.io", "things/sub", "a"), true),
            (rule("get", "core", "secrets", "a b"), ask("get", "", "secrets", "b"), true),
            (rule("get", "core", "secrets", "a b"), ask("get", "", "secrets", "c"), false),
            (rule("create", "core", "secrets", "a"), ask("create", "", "secrets", ""), false),
        ];
        for (rule, attributes, expected) in cases {
            assert_eq!(allows(&rule, &attributes), expected, "{} {attributes:?}", compact(&rule));
        }
    }

    #[test]
    fn urls_match_whole_or_by_trailing_star() {
        let path = |verb: &str, path: &str| Attributes {
            verb: verb.into(),
            path: path.into(),
            ..Attributes::default()
        };
        assert!(allows(&urls("get", "/healthz /apis/*"), &path("get", "/apis/apps/v1")));
        assert!(!allows(&urls("get", "/healthz /apis/*"), &path("get", "/healthz/ping")));
        assert!(!allows(&urls("get", "/healthz"), &path("post", "/healthz")));
        assert!(allows(&urls("*", "*"), &path("post", "/anything")));
        assert!(!allows(&rule("*", "*", "*", ""), &path("get", "/healthz")));
    }

    #[test]
    fn covering_is_by_verb_resource_and_name() {
        let owned = [
            rule("get list", "core apps", "pods deployments", ""),
            rule("get", "core", "secrets", "a"),
        ];
        assert!(uncovered(&owned, &[rule("get", "core", "pods", "x")]).is_empty());
        assert!(uncovered(&owned, &[rule("list", "apps", "deployments pods", "")]).is_empty());
        assert_eq!(
            uncovered(&owned, &[rule("get delete", "core", "pods", "")]),
            vec![PolicyRule { resource_names: None, ..rule("delete", "core", "pods", "") }]
        );
        assert_eq!(uncovered(&owned, &[rule("get", "core", "secrets", "")]).len(), 1);
        assert!(uncovered(&owned, &[rule("get", "core", "secrets", "a")]).is_empty());
        assert_eq!(uncovered(&owned, &[rule("get", "core", "secrets", "b")]).len(), 1);
        assert_eq!(uncovered(&owned, &[urls("get", "/metrics")]).len(), 1);
        assert_eq!(
            uncovered(&[rule("get", "core", "pods", "")], &[rule("*", "core", "pods", "")]).len(),
            1
        );
        assert!(uncovered(&[urls("get", "/apis/*")], &[urls("get", "/apis/x/*")]).is_empty());
    }

    #[test]
    fn compact_form_names_only_what_is_set() {
        assert_eq!(
            compact(&rule("get", "core", "pods", "")),
            r#"{APIGroups:[""], Resources:["pods"], Verbs:["get"]}"#
        );
    }
}
