//! What a stored role or binding lacks of the default policy. Pure.
//!
//! Nothing is taken away: administrators may add to the default roles, and may opt out with the
//! autoupdate annotation set to `false`.

use k8s_openapi::api::rbac::v1::PolicyRule;
use pintle_machinery::object;
use serde_json::{Value, json};

use crate::authz::rules::uncovered;
use crate::error::{ApiError, ApiResult};

const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

fn may_update(found: &Value) -> bool {
    object::annotation(found, AUTOUPDATE) != Some("false")
}

/// Adds labels and annotations that `wanted` has and `found` lacks. Whether anything was added.
fn add_metadata(found: &mut Value, wanted: &Value) -> bool {
    let mut changed = false;
    for (key, value) in object::labels(wanted).into_iter().flatten() {
        if object::label(found, key).is_none() {
            object::set_label(found, key, value.as_str().unwrap_or_default());
            changed = true;
        }
    }
    for (key, value) in object::annotations(wanted).into_iter().flatten() {
        if object::annotation(found, key).is_none() {
            object::set_annotation(found, key, value.as_str().unwrap_or_default());
            changed = true;
        }
    }
    changed
}

/// Adds the rules that `found` does not cover, the aggregation it lacks, and metadata.
pub(super) fn add_to_role(found: &mut Value, wanted: &Value) -> ApiResult<bool> {
    if !may_update(found) {
        return Ok(false);
    }
    let mut changed = add_metadata(found, wanted);
    if let Some(aggregation) = wanted.get("aggregationRule") {
        let selectors = ["aggregationRule", "clusterRoleSelectors"];
        let held = object::get_list(found, &selectors);
        let lacks: Vec<Value> = object::get_list(wanted, &selectors)
            .iter()
            .filter(|selector| !held.contains(selector))
            .cloned()
            .collect();
        if !lacks.is_empty() {
            let all: Vec<Value> = held.iter().cloned().chain(lacks).collect();
            let mut aggregation = aggregation.clone();
            aggregation["clusterRoleSelectors"] = all.into();
            found["aggregationRule"] = aggregation;
            changed = true;
        }
        return Ok(changed);
    }
    let typed = |role: &Value| -> ApiResult<Vec<PolicyRule>> {
        let rules = role.get("rules").filter(|rules| !rules.is_null()).cloned();
        serde_json::from_value(rules.unwrap_or_else(|| json!([]))).map_err(ApiError::internal_error)
    };
    let lacks = uncovered(&typed(found)?, &typed(wanted)?);
    if !lacks.is_empty() {
        let lacks = serde_json::to_value(lacks).map_err(ApiError::internal_error)?;
        let lacks = lacks.as_array().cloned().unwrap_or_default();
        match found.get_mut("rules") {
            Some(Value::Array(rules)) => rules.extend(lacks),
            _ => found["rules"] = lacks.into(),
        }
        changed = true;
    }
    Ok(changed)
}

/// Adds the subjects that `found` lacks, and metadata. A binding to another role cannot be mended,
/// because `roleRef` never changes: the caller replaces it.
pub(super) fn add_to_binding(found: &mut Value, wanted: &Value) -> bool {
    if !may_update(found) {
        return false;
    }
    let mut changed = add_metadata(found, wanted);
    let held = object::get_list(found, &["subjects"]).to_vec();
    for subject in object::get_list(wanted, &["subjects"]) {
        let is_same = |other: &Value| {
            ["kind", "name", "namespace"].iter().all(|field| other.get(field) == subject.get(field))
        };
        if held.iter().any(is_same) {
            continue;
        }
        match found.get_mut("subjects") {
            Some(Value::Array(subjects)) => subjects.push(subject.clone()),
            _ => found["subjects"] = json!([subject]),
        }
        changed = true;
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(rules: Value) -> Value {
        json!({"metadata": {"name": "r", "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}}, "rules": rules})
    }

    #[test]
    fn a_role_gains_only_what_it_lacks() {
        let wanted =
            role(json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}]));
        let mut found =
            role(json!([{"verbs": ["get"], "apiGroups": ["*"], "resources": ["pods"]}]));
        assert!(add_to_role(&mut found, &wanted).unwrap());
        assert_eq!(
            found["rules"][1],
            json!({"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]})
        );
        assert!(!add_to_role(&mut found, &wanted).unwrap());
    }

    #[test]
    fn an_opted_out_role_is_left_alone() {
        let wanted = role(json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]));
        let mut found = json!({"metadata": {"annotations": {AUTOUPDATE: "false"}}});
        assert!(!add_to_role(&mut found, &wanted).unwrap());
        assert!(!add_to_binding(&mut found, &wanted));
    }

    #[test]
    fn aggregation_is_completed_and_its_rules_left_to_the_controller() {
        let wanted = json!({"metadata": {}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}});
        let mut found = json!({"metadata": {}, "rules": [{"verbs": ["get"]}]});
        assert!(add_to_role(&mut found, &wanted).unwrap());
        assert_eq!(found["aggregationRule"], wanted["aggregationRule"]);
        assert!(!add_to_role(&mut found, &wanted).unwrap());
    }

    #[test]
    fn a_binding_gains_subjects() {
        let wanted = json!({"metadata": {}, "subjects": [{"kind": "Group", "name": "a"}, {"kind": "User", "name": "b"}]});
        let mut found =
            json!({"metadata": {}, "subjects": [{"kind": "Group", "name": "a", "apiGroup": "x"}]});
        assert!(add_to_binding(&mut found, &wanted));
        assert_eq!(found["subjects"].as_array().unwrap().len(), 2);
        assert!(!add_to_binding(&mut found, &wanted));
    }
}
