//! The rules of `metadata` that hold for every kind.

use jiff::Timestamp;
use pintle_machinery::{ErrorList, Path, Resource, object, time};
use rand::seq::IndexedRandom as _;
use serde_json::Value;

use super::Context;
use crate::error::{ApiError, ApiResult};

/// Letters that make no words and are not mistaken for each other.
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 5;
const NAME_LENGTH_MAX: usize = 63;

/// Kinds whose `metadata.generation` counts changes of what they want.
const WITH_GENERATION: &[(&str, &str)] = &[
    ("", "pods"),
    ("", "podtemplates"),
    ("", "replicationcontrollers"),
    ("apps", "daemonsets"),
    ("apps", "deployments"),
    ("apps", "replicasets"),
    ("apps", "statefulsets"),
    ("batch", "cronjobs"),
    ("batch", "jobs"),
    ("networking.k8s.io", "ingresses"),
    ("networking.k8s.io", "ingressclasses"),
    ("networking.k8s.io", "networkpolicies"),
    ("policy", "poddisruptionbudgets"),
    ("flowcontrol.apiserver.k8s.io", "flowschemas"),
    ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations"),
    ("scheduling.k8s.io", "priorityclasses"),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicies"),
    ("resource.k8s.io", "resourceslices"),
];

/// Whether the kind counts generations.
pub(super) fn counts_generations(resource: &Resource) -> bool {
    resource.custom || WITH_GENERATION.contains(&(&resource.group, &resource.plural))
}

/// Whether only `/status` may write `status`.
pub(super) fn has_status(resource: &Resource) -> bool {
    resource.subresource("status").is_some()
}

/// Now, as `metav1.Time`.
pub(super) fn now() -> String {
    time::format(Timestamp::now())
}

/// Random letters after `base`, within the length of a name.
pub(super) fn generate_name(base: &str) -> String {
    let mut random = rand::rng();
    let mut end = base.len().min(NAME_LENGTH_MAX - SUFFIX_LENGTH);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let letters = (0..SUFFIX_LENGTH).filter_map(|_| SUFFIX_LETTERS.choose(&mut random));
    base[..end].chars().chain(letters.map(|letter| char::from(*letter))).collect()
}

/// The namespace of the URL and of the object must agree; the object may leave it out.
pub(super) fn check_namespace(cx: &Context, value: &mut Value) -> ApiResult<()> {
    if !cx.resource.namespaced {
        object::set_namespace(value, "");
        return Ok(());
    }
    let given = object::namespace(value);
    if !given.is_empty() && given != cx.namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if cx.namespace.is_empty() {
        return Err(ApiError::bad_request("an empty namespace may not be set during creation"));
    }
    object::set_namespace(value, &cx.namespace);
    Ok(())
}

/// What the server sets on a new object.
pub(super) fn fill_new(cx: &Context, value: &mut Value) {
    let generation = counts_generations(&cx.resource);
    let metadata = object::metadata_mut(value);
    for field in [
        "selfLink",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "resourceVersion",
    ] {
        metadata.remove(field);
    }
    metadata.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".into(), now().into());
    if generation {
        metadata.insert("generation".into(), 1.into());
    }
}

/// Fields of the stored object that no update changes.
pub(super) fn keep_fixed(value: &mut Value, old: &Value) {
    const FIXED: [&str; 5] = [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
    ];
    let old = object::metadata(old);
    let metadata = object::metadata_mut(value);
    metadata.remove("selfLink");
    for field in FIXED {
        match old.and_then(|old| old.get(field)) {
            Some(kept) => metadata.insert(field.to_owned(), kept.clone()),
            None => metadata.remove(field),
        };
    }
    drop_empty(metadata);
}

/// A list or map that a change has emptied is no longer there.
fn drop_empty(metadata: &mut serde_json::Map<String, Value>) {
    for field in ["finalizers", "ownerReferences", "labels", "annotations"] {
        let is_empty = metadata.get(field).is_some_and(|value| {
            value.as_array().is_some_and(Vec::is_empty)
                || value.as_object().is_some_and(serde_json::Map::is_empty)
        });
        if is_empty {
            metadata.remove(field);
        }
    }
}

/// Counts a change of anything but metadata and status.
pub(super) fn raise_generation(cx: &Context, value: &mut Value, old: &Value) {
    if counts_generations(&cx.resource) && differs_in_substance(value, old) {
        object::set_generation(value, object::generation(old) + 1);
    }
}

fn differs_in_substance(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return new != old };
    let substance =
        |key: &&String| !matches!(key.as_str(), "metadata" | "status" | "apiVersion" | "kind");
    new.keys().chain(old.keys()).filter(substance).any(|key| new.get(key) != old.get(key))
}

/// An object on its way out takes no new finalizers.
pub(super) fn check_finalizers(value: &Value, old: &Value, errors: &mut ErrorList) {
    if !object::is_terminating(old) {
        return;
    }
    let new: Vec<&str> = object::finalizers(value)
        .filter(|finalizer| !object::has_finalizer(old, finalizer))
        .collect();
    if !new.is_empty() {
        errors.forbidden(
            Path::new("metadata").child("finalizers"),
            format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{new:?}"
            ),
        );
    }
}

/// Whether nothing keeps the object any more that was marked for deletion.
pub(super) fn may_go(value: &Value) -> bool {
    object::is_terminating(value)
        && object::deletion_grace_period_seconds(value).unwrap_or(0) == 0
        && object::finalizers(value).next().is_none()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn generated_names_keep_the_base_and_fit_into_a_label() {
        let name = generate_name("web-");
        assert!(name.starts_with("web-") && name.len() == 9, "{name}");
        assert_eq!(generate_name(&"x".repeat(100)).len(), NAME_LENGTH_MAX);
    }

    #[test]
    fn emptied_lists_are_dropped() {
        let mut value = json!({"metadata": {"name": "a", "finalizers": [], "ownerReferences": [],
            "labels": {}, "annotations": {"a": "b"}}});
        keep_fixed(&mut value, &json!({"metadata": {"name": "a", "finalizers": ["x/y"]}}));
        assert_eq!(value, json!({"metadata": {"name": "a", "annotations": {"a": "b"}}}));
    }

    #[test]
    fn labels_and_status_do_not_count_as_a_new_generation() {
        let old = json!({"metadata": {"labels": {}}, "spec": {"a": 1}, "status": {"b": 1}});
        let relabelled =
            json!({"metadata": {"labels": {"x": "y"}}, "spec": {"a": 1}, "status": {"b": 2}});
        assert!(!differs_in_substance(&relabelled, &old));
        assert!(differs_in_substance(&json!({"metadata": {}, "spec": {"a": 2}}), &old));
        assert!(differs_in_substance(&json!({"metadata": {}}), &old));
    }
}
