//! `ObjectMeta`: names, labels, annotations, owners, finalizers.

use serde_json::{Map, Value};

use super::names::{self, NameRule};
use super::{IMMUTABLE, kind_of, list, text};
use crate::object;
use crate::resource::Resource;
use crate::{ErrorList, Path};

const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;

/// What names of a kind must look like.
pub fn name_rule(resource: &Resource) -> NameRule {
    match kind_of(resource) {
        ("", "Namespace") => names::dns1123_label,
        ("", "Service") => names::dns1035_label,
        ("rbac.authorization.k8s.io" | "apiregistration.k8s.io", _) => names::path_segment,
        ("networking.k8s.io", "IPAddress") => names::path_segment,
        ("certificates.k8s.io", _) => names::path_segment,
        _ => names::dns1123_subdomain,
    }
}

/// Validates the metadata of an object.
pub fn validate_metadata(value: &Value, resource: &Resource) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("metadata");
    let rule = name_rule(resource);
    let (name, generate_name) = (object::name(value), object::generate_name(value));
    if name.is_empty() {
        if generate_name.is_empty() {
            errors.required(path.child("name"), "name or generateName is required");
        }
    } else {
        super::named(name, rule, &path.child("name"), &mut errors);
    }
    if !generate_name.is_empty() {
        // The generated suffix makes a trailing dash or dot legal.
        let masked = generate_name.trim_end_matches(['-', '.']);
        let probe = format!("{masked}a");
        for message in rule(&probe) {
            errors.invalid(path.child("generateName"), generate_name, message);
        }
    }
    if resource.namespaced {
        match object::namespace(value) {
            "" => errors.required(path.child("namespace"), ""),
            namespace => {
                super::named(
                    namespace,
                    names::dns1123_label,
                    &path.child("namespace"),
                    &mut errors,
                );
            }
        }
    } else if !object::namespace(value).is_empty() {
        errors.forbidden(path.child("namespace"), "not allowed on this type");
    }
    validate_labels(object::labels(value), &path.child("labels"), &mut errors);
    validate_annotations(object::annotations(value), &path.child("annotations"), &mut errors);
    validate_owners(value, &path, &mut errors);
    for (index, finalizer) in object::finalizers(value).enumerate() {
        let path = path.child("finalizers").index(index);
        super::named(finalizer, names::qualified_name, &path, &mut errors);
    }
    errors
}

/// Validates what an update may not change in the metadata.
pub fn validate_metadata_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let path = Path::new("metadata");
    let fields = [
        ("name", object::name(new), object::name(old)),
        ("namespace", object::namespace(new), object::namespace(old)),
        ("uid", object::uid(new), object::uid(old)),
    ];
    for (field, new, old) in fields {
        if new != old {
            errors.invalid(path.child(field), new, IMMUTABLE);
        }
    }
}

/// Validates a map of labels.
pub fn validate_labels(labels: Option<&Map<String, Value>>, path: &Path, errors: &mut ErrorList) {
    for (key, value) in labels.into_iter().flatten() {
        super::named(key, names::qualified_name, path, errors);
        super::named(value.as_str().unwrap_or_default(), names::label_value, path, errors);
    }
}

fn validate_annotations(
    annotations: Option<&Map<String, Value>>,
    path: &Path,
    errors: &mut ErrorList,
) {
    let mut size = 0;
    for (key, value) in annotations.into_iter().flatten() {
        size += key.len() + value.as_str().map_or(0, str::len);
        for message in names::qualified_name(&key.to_lowercase()) {
            errors.invalid(path.clone(), key.as_str(), message);
        }
    }
    if size > ANNOTATIONS_BYTES_MAX {
        errors.too_long(path.clone(), ANNOTATIONS_BYTES_MAX);
    }
}

fn validate_owners(value: &Value, path: &Path, errors: &mut ErrorList) {
    let mut controller: Option<&Value> = None;
    let owners = object::owner_references(value);
    for (index, owner) in owners.iter().enumerate() {
        let path = || path.child("ownerReferences").index(index);
        for (field, detail) in [
            ("apiVersion", "version must not be empty"),
            ("kind", "kind must not be empty"),
            ("name", "name must not be empty"),
            ("uid", "uid must not be empty"),
        ] {
            if text(owner, field).is_empty() {
                errors.invalid(path().child(field), "", detail);
            }
        }
        if owner.get("controller") == Some(&Value::Bool(true)) {
            if let Some(first) = controller {
                errors.invalid(
                    Path::new("metadata").child("ownerReferences"),
                    Value::Array(list(&value["metadata"], "ownerReferences").to_vec()),
                    format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {}/{} and {}/{}",
                        text(first, "kind"), text(first, "name"), text(owner, "kind"), text(owner, "name")
                    ),
                );
            }
            controller = Some(owner);
        }
    }
}
