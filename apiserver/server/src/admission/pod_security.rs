//! `PodSecurity`: the standard that a namespace asks for by its labels holds for its pods; pods and
//! workloads that miss the one it warns about are told so.

mod checks;

use k8s_openapi::api::core::v1::Namespace;
use pintle_machinery::object;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::error::{ApiError, ApiResult};
use crate::registry::Context;
use checks::violations;

const ENFORCE: &str = "pod-security.kubernetes.io/enforce";
const WARN: &str = "pod-security.kubernetes.io/warn";

/// A standard. Each one includes what the ones before it forbid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "privileged" => Some(Self::Privileged),
            "baseline" => Some(Self::Baseline),
            "restricted" => Some(Self::Restricted),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }
}

/// What one label pair of a namespace asks for: the level, and the version as it is shown.
fn policy(namespace: &Namespace, label: &str) -> (Level, String) {
    let labels = namespace.metadata.labels.as_ref();
    let text = |key: &str| labels.and_then(|labels| labels.get(key)).map(String::as_str);
    // What cannot be read is taken for the strictest, as upstream does.
    let level = text(label)
        .map_or(Level::Privileged, |text| Level::parse(text).unwrap_or(Level::Restricted));
    let version = text(&format!("{label}-version")).unwrap_or("latest").to_owned();
    (level, version)
}

fn describe((level, version): &(Level, String), found: &[String]) -> String {
    format!("PodSecurity \"{}:{version}\": {}", level.as_str(), found.join(", "))
}

pub(super) struct PodSecurity;

#[async_trait::async_trait]
impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn handles(&self, cx: &Context, operation: Operation) -> bool {
        let writes = matches!(operation, Operation::Create | Operation::Update);
        let of_pod = cx.is("", "pods", "") || cx.is("", "pods", "ephemeralcontainers");
        let of_workload = cx.subresource.is_empty() && template_path(cx).is_some();
        writes && (of_pod || of_workload)
    }

    async fn validate(&self, cx: &Context, attributes: &Attributes<'_>) -> ApiResult<()> {
        let Some(object) = attributes.object.as_deref() else { return Ok(()) };
        let Some(namespace) = cx.registry.get::<Namespace>("", &cx.namespace).await? else {
            return Ok(());
        };
        let warn = policy(&namespace, WARN);
        if let Some(path) = template_path(cx) {
            if let Some(template) = object::get(object, path) {
                let found = violations(template, warn.0);
                if !found.is_empty() {
                    cx.warnings.add(format!("would violate {}", describe(&warn, &found)));
                }
            }
            return Ok(());
        }
        if attributes.old_object.is_some_and(|old| !changes_matter(object, old)) {
            return Ok(());
        }
        let enforce = policy(&namespace, ENFORCE);
        let found = violations(object, enforce.0);
        if !found.is_empty() {
            let why = format!("violates {}", describe(&enforce, &found));
            return Err(ApiError::forbidden(&cx.group_resource(), &cx.name, why));
        }
        let found = violations(object, warn.0);
        if !found.is_empty() {
            cx.warnings.add(format!("would violate {}", describe(&warn, &found)));
        }
        Ok(())
    }
}

/// Where a workload keeps the template of its pods.
fn template_path(cx: &Context) -> Option<&'static [&'static str]> {
    match (cx.resource.group.as_str(), cx.resource.plural.as_str()) {
        ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets")
        | ("batch", "jobs")
        | ("", "replicationcontrollers") => Some(&["spec", "template"]),
        ("batch", "cronjobs") => Some(&["spec", "jobTemplate", "spec", "template"]),
        ("", "podtemplates") => Some(&["template"]),
        _ => None,
    }
}

/// A pod that was let in before the labels changed may still lose a finalizer or gain a label.
fn changes_matter(new: &Value, old: &Value) -> bool {
    new.get("spec") != old.get("spec")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_name_level_and_version() {
        let namespace = |labels: Value| -> Namespace {
            serde_json::from_value(json!({"metadata": {"labels": labels}})).unwrap()
        };
        let of = |labels: Value| policy(&namespace(labels), ENFORCE);
        assert_eq!(of(json!({})), (Level::Privileged, "latest".into()));
        assert_eq!(of(json!({ENFORCE: "baseline"})), (Level::Baseline, "latest".into()));
        assert_eq!(of(json!({ENFORCE: "typo"})).0, Level::Restricted);
        let pinned = of(
            json!({ENFORCE: "restricted", "pod-security.kubernetes.io/enforce-version": "v1.30"}),
        );
        assert_eq!(pinned, (Level::Restricted, "v1.30".into()));
    }
}
