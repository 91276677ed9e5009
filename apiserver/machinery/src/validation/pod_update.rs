//! What may change in a pod after it was created.

use serde_json::{Map, Value};

use super::{list, number, part, same, text};
use crate::{ErrorList, Path};

const UPDATE_MESSAGE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Whatever way the update came, only these parts of a pod ever change.
pub(super) fn validate_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    compare(new, old, true, errors);
}

/// Validates an update of the pod itself, which may not do what its subresources may
/// (`ephemeralcontainers`, `resize`, `binding`).
pub fn validate_pod_object_update(new: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    compare(new, old, false, &mut errors);
    errors
}

fn compare(new: &Value, old: &Value, through_subresource: bool, errors: &mut ErrorList) {
    let (new_spec, old_spec) = (part(new, "spec"), part(old, "spec"));
    if new_spec == old_spec {
        return;
    }
    let path = Path::new("spec");
    let before = errors.len();
    validate_deadline_update(new_spec, old_spec, &path, errors);
    validate_toleration_update(new_spec, old_spec, &path, errors);
    validate_gate_update(new_spec, old_spec, &path, errors);
    for field in ["containers", "initContainers"] {
        if list(new_spec, field).len() != list(old_spec, field).len() {
            errors.forbidden(path.child(field), "pod updates may not add or remove containers");
        }
    }
    if errors.len() > before {
        return;
    }
    let gated = !list(old_spec, "schedulingGates").is_empty();
    let unbound = text(old_spec, "nodeName").is_empty();
    let fixed = |spec: &Value| fixed_parts(spec, through_subresource, gated, unbound);
    let (new_fixed, old_fixed) = (fixed(new_spec), fixed(old_spec));
    let keys = new_fixed.keys().chain(old_fixed.keys());
    if keys.into_iter().any(|key| !same(new_fixed.get(key), old_fixed.get(key))) {
        errors.forbidden(path, UPDATE_MESSAGE);
    }
}

/// The parts of a pod spec that an update must leave as they are.
fn fixed_parts(
    spec: &Value,
    through_subresource: bool,
    gated: bool,
    unbound: bool,
) -> Map<String, Value> {
    let mut fixed = spec.as_object().cloned().unwrap_or_default();
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        fixed.remove(field);
    }
    if gated {
        // While gates hold a pod back, where it may run can still be narrowed.
        fixed.remove("nodeSelector");
        fixed.remove("affinity");
    }
    if number(spec, "terminationGracePeriodSeconds").is_some_and(|s| s < 0 || s == 1) {
        fixed.remove("terminationGracePeriodSeconds");
    }
    if through_subresource {
        fixed.remove("ephemeralContainers");
        fixed.remove("resources");
        if unbound {
            fixed.remove("nodeName");
        }
    }
    for field in ["containers", "initContainers"] {
        for container in fixed.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(container) = container.as_object_mut() else { continue };
            container.remove("image");
            if through_subresource {
                container.remove("resources");
                container.remove("resizePolicy");
            }
        }
    }
    fixed
}

fn validate_deadline_update(new: &Value, old: &Value, path: &Path, errors: &mut ErrorList) {
    let field = "activeDeadlineSeconds";
    match (number(new, field), number(old, field)) {
        (None, Some(_)) => {
            errors.invalid(
                path.child(field),
                Value::Null,
                "must not update from a positive integer to nil value",
            );
        }
        (Some(new), Some(old)) if new > old => {
            errors.invalid(path.child(field), new, "must be less than or equal to previous value");
        }
        _ => {}
    }
}

fn validate_toleration_update(new: &Value, old: &Value, path: &Path, errors: &mut ErrorList) {
    let without_seconds = |toleration: &Value| {
        let mut map = toleration.as_object().cloned().unwrap_or_default();
        map.remove("tolerationSeconds");
        map
    };
    let kept = list(new, "tolerations");
    let all_kept = list(old, "tolerations").iter().all(|old| {
        kept.iter().any(|new| new == old || without_seconds(new) == without_seconds(old))
    });
    if !all_kept {
        errors.forbidden(
            path.child("tolerations"),
            "existing toleration can not be modified except its tolerationSeconds",
        );
    }
}

fn validate_gate_update(new: &Value, old: &Value, path: &Path, errors: &mut ErrorList) {
    let old_gates = list(old, "schedulingGates");
    let added = list(new, "schedulingGates").iter().filter(|gate| !old_gates.contains(gate));
    let added: Vec<&str> = added.map(|gate| text(gate, "name")).collect();
    if !added.is_empty() {
        errors.forbidden(
            path.child("schedulingGates"),
            format!(
                "only deletion is allowed, but found new scheduling gates '{}'",
                added.join(", ")
            ),
        );
    }
}
