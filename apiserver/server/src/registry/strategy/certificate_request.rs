//! Certificate signing requests: they say who asked, and are approved or denied once.

use pintle_machinery::object;
use serde_json::{Value, json};

use super::pod::with_metadata;
use super::{Context, Strategy};
use crate::error::ApiResult;

/// The strategy of `certificatesigningrequests`.
pub(super) struct CertificateRequest;

#[async_trait::async_trait]
impl Strategy for CertificateRequest {
    /// Who asks is known here, whatever the client says.
    async fn prepare_for_create(&self, cx: &Context, request: &mut Value) -> ApiResult<()> {
        let user = &cx.user;
        let spec = object::entry_object(object::as_object_mut(request), "spec");
        spec.insert("username".into(), json!(user.name));
        for (field, value) in
            [("uid", json!(user.uid)), ("groups", json!(user.groups)), ("extra", json!(user.extra))]
        {
            let empty = matches!(&value, Value::String(text) if text.is_empty())
                || value.as_array().is_some_and(Vec::is_empty)
                || value.as_object().is_some_and(serde_json::Map::is_empty);
            if empty {
                spec.remove(field);
            } else {
                spec.insert(field.into(), value);
            }
        }
        request["status"] = json!({});
        Ok(())
    }

    /// What was asked for never changes.
    async fn prepare_for_update(
        &self,
        _cx: &Context,
        request: &mut Value,
        old: &Value,
    ) -> ApiResult<()> {
        request["spec"] = old["spec"].clone();
        Ok(())
    }

    fn merge_subresource(
        &self,
        cx: &Context,
        object: &Value,
        old: &Value,
    ) -> Option<ApiResult<Value>> {
        let now = pintle_machinery::time::format(jiff::Timestamp::now());
        match cx.subresource.as_str() {
            "approval" => Some(Ok(with_conditions(object, old, true, &now))),
            "status" => Some(Ok(with_certificate(object, old, &now))),
            _ => None,
        }
    }
}

fn is_decision(condition: &Value) -> bool {
    matches!(condition["type"].as_str(), Some("Approved" | "Denied"))
}

/// The stored request with the decisions (or everything but them) of `object`.
fn with_conditions(object: &Value, old: &Value, decisions: bool, now: &str) -> Value {
    let mut merged = with_metadata(object, old);
    let path = ["status", "conditions"];
    let kept = object::get_list(old, &path).iter().filter(|c| is_decision(c) != decisions).cloned();
    let taken = object::get_list(object, &path).iter().filter(|c| is_decision(c) == decisions);
    let taken = taken.map(|condition| {
        let held = object::get_list(old, &path).iter().find(|o| o["type"] == condition["type"]);
        timed(condition.clone(), held, now)
    });
    let conditions: Vec<Value> = kept.chain(taken).collect();
    let status = object::entry_object(object::as_object_mut(&mut merged), "status");
    if conditions.is_empty() {
        status.remove("conditions");
    } else {
        status.insert("conditions".into(), conditions.into());
    }
    merged
}

/// Times that the client left out.
fn timed(mut condition: Value, held: Option<&Value>, now: &str) -> Value {
    if condition.get("lastUpdateTime").is_none_or(Value::is_null) {
        condition["lastUpdateTime"] = now.into();
    }
    if condition.get("lastTransitionTime").is_none_or(Value::is_null) {
        condition["lastTransitionTime"] = match held {
            Some(held) if held["status"] == condition["status"] => {
                held["lastTransitionTime"].clone()
            }
            _ => now.into(),
        };
    }
    condition
}

/// The stored request with the certificate and the failure conditions of `object`.
fn with_certificate(object: &Value, old: &Value, now: &str) -> Value {
    let mut merged = with_conditions(object, old, false, now);
    let status = object::entry_object(object::as_object_mut(&mut merged), "status");
    match object::get(object, &["status", "certificate"]) {
        Some(certificate) => status.insert("certificate".into(), certificate.clone()),
        None => status.remove("certificate"),
    };
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-01T00:00:00Z";

    #[test]
    fn approval_takes_decisions_and_status_takes_the_rest() {
        let old = json!({"metadata": {"name": "c"}, "spec": {"request": "r"}, "status": {}});
        let wish = json!({"metadata": {"name": "c"}, "spec": {"request": "other"}, "status": {
            "certificate": "x",
            "conditions": [{"type": "Approved", "status": "True"}, {"type": "Failed", "status": "True"}],
        }});
        let approved = with_conditions(&wish, &old, true, NOW);
        assert_eq!(approved["spec"]["request"], "r");
        assert!(approved["status"].get("certificate").is_none());
        assert_eq!(approved["status"]["conditions"].as_array().unwrap().len(), 1);
        assert_eq!(approved["status"]["conditions"][0]["lastUpdateTime"], NOW);
        let signed = with_certificate(&wish, &approved, NOW);
        assert_eq!(signed["status"]["certificate"], "x");
        let types: Vec<&str> = signed["status"]["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["type"].as_str().unwrap())
            .collect();
        assert_eq!(types, ["Approved", "Failed"]);
    }
}
