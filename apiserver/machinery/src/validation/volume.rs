//! Volumes, claims and storage classes.

use serde_json::Value;

use super::{immutable, label_selector, list, map, one_of, part, same, text};
use crate::object::{self, get};
use crate::quantity::Quantity;
use crate::{ErrorList, Path};

const ACCESS_MODES: [&str; 4] =
    ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

fn access_modes(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let modes = list(spec, "accessModes");
    if modes.is_empty() {
        errors.required(path.child("accessModes"), "at least 1 access mode is required");
    }
    for mode in modes.iter().filter_map(Value::as_str).filter(|m| !ACCESS_MODES.contains(m)) {
        errors.not_supported(path.child("accessModes"), mode, &ACCESS_MODES);
    }
}

pub(super) fn validate_claim(claim: &Value, errors: &mut ErrorList) {
    let path = Path::new("spec");
    let spec = part(claim, "spec");
    access_modes(spec, &path, errors);
    label_selector(spec.get("selector"), &path.child("selector"), None, errors);
    let storage = object::get_str(spec, &["resources", "requests", "storage"]);
    let field = || path.child("resources").key("storage");
    match Quantity::parse(storage) {
        Ok(quantity) if quantity.signum() <= 0 => {
            errors.invalid(field(), storage, "must be greater than zero");
        }
        Ok(_) => {}
        Err(_) => errors.required(field(), ""),
    }
}

pub(super) fn validate_claim_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let (new_spec, old_spec) = (part(new, "spec"), part(old, "spec"));
    // The binder sets the volume and the class once; the size may grow.
    let bound = !text(old_spec, "volumeName").is_empty();
    const MUTABLE: [&str; 2] = ["resources", "volumeAttributesClassName"];
    let keys = map(new, "spec").into_iter().chain(map(old, "spec")).flat_map(|m| m.keys());
    let changed = keys
        .filter(|key| !MUTABLE.contains(&key.as_str()))
        .filter(|key| {
            let settable = matches!(key.as_str(), "volumeName" | "storageClassName");
            !(settable && !bound && text(old_spec, key).is_empty())
        })
        .any(|key| !same(new_spec.get(key), old_spec.get(key)));
    if changed {
        errors.forbidden(Path::new("spec"), "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims");
    }
    let size = |spec: &Value| {
        Quantity::parse(object::get_str(spec, &["resources", "requests", "storage"])).ok()
    };
    if let (Some(new), Some(old)) = (size(new_spec), size(old_spec))
        && new < old
    {
        let path = Path::new("spec").child("resources").child("requests").child("storage");
        errors.forbidden(path, "field can not be less than status.capacity");
    }
}

pub(super) fn validate_volume(volume: &Value, errors: &mut ErrorList) {
    let path = Path::new("spec");
    let spec = part(volume, "spec");
    access_modes(spec, &path, errors);
    match get(spec, &["capacity", "storage"]).map(Quantity::from_value) {
        Some(Ok(quantity)) if quantity.signum() > 0 => {}
        Some(Ok(_)) => errors.invalid(
            path.child("capacity").key("storage"),
            object::get_str(spec, &["capacity", "storage"]),
            "must be greater than zero",
        ),
        _ => errors.required(path.child("capacity"), ""),
    }
    let policies = ["Delete", "Recycle", "Retain"];
    let policy = text(spec, "persistentVolumeReclaimPolicy");
    one_of(policy, &policies, path.child("persistentVolumeReclaimPolicy"), errors);
}

pub(super) fn validate_class(class: &Value, errors: &mut ErrorList) {
    if text(class, "provisioner").is_empty() {
        errors.required(Path::new("provisioner"), "");
    }
    let policy = text(class, "reclaimPolicy");
    one_of(policy, &["Delete", "Retain"], Path::new("reclaimPolicy"), errors);
    let modes = ["Immediate", "WaitForFirstConsumer"];
    one_of(text(class, "volumeBindingMode"), &modes, Path::new("volumeBindingMode"), errors);
}

pub(super) fn validate_class_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    if !same(new.get("parameters"), old.get("parameters")) {
        errors.forbidden(Path::new("parameters"), "updates to parameters are forbidden.");
    }
    for field in ["provisioner", "reclaimPolicy"] {
        if text(new, field) != text(old, field) {
            errors.forbidden(Path::new(field), format!("updates to {field} are forbidden."));
        }
    }
    immutable(&["volumeBindingMode"], new, old, errors);
}
