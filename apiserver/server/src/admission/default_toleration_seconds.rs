//! `DefaultTolerationSeconds`: a pod survives five minutes on a node that is not ready or
//! unreachable, unless it says otherwise.

use pintle_machinery::object;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::error::ApiResult;
use crate::registry::Context;

const SECONDS: i64 = 300;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

pub(super) struct DefaultTolerationSeconds;

#[async_trait::async_trait]
impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn handles(&self, cx: &Context, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update) && cx.is("", "pods", "")
    }

    async fn admit(&self, _cx: &Context, attributes: &mut Attributes<'_>) -> ApiResult<()> {
        if let Some(pod) = attributes.object.as_deref_mut() {
            tolerate(pod);
        }
        Ok(())
    }
}

fn tolerate(pod: &mut Value) {
    for taint in TAINTS {
        let tolerations = object::get_list(pod, &["spec", "tolerations"]);
        if tolerations.iter().any(|toleration| is_about(toleration, taint)) {
            continue;
        }
        let added = json!({
            "key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS,
        });
        let spec = object::entry_object(object::as_object_mut(pod), "spec");
        match spec.entry("tolerations").or_insert_with(|| json!([])) {
            Value::Array(list) => list.push(added),
            other => *other = json!([added]),
        }
    }
}

fn is_about(toleration: &Value, taint: &str) -> bool {
    let key = object::get_str(toleration, &["key"]);
    let effect = object::get_str(toleration, &["effect"]);
    (key == taint || key.is_empty()) && (effect == "NoExecute" || effect.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_taints_are_tolerated_once() {
        let mut pod = json!({"spec": {}});
        tolerate(&mut pod);
        tolerate(&mut pod);
        let keys: Vec<_> = object::get_list(&pod, &["spec", "tolerations"])
            .iter()
            .map(|t| (t["key"].as_str().unwrap(), t["tolerationSeconds"].as_i64().unwrap()))
            .collect();
        assert_eq!(keys, [(TAINTS[0], 300), (TAINTS[1], 300)]);
    }

    #[test]
    fn a_pod_that_has_an_opinion_keeps_it() {
        let cases = [
            (json!([{"operator": "Exists"}]), 1),
            (
                json!([{"key": TAINTS[0], "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}]),
                2,
            ),
            (json!([{"key": TAINTS[0], "operator": "Exists", "effect": "NoSchedule"}]), 3),
            (json!([{"key": "other", "operator": "Exists"}]), 3),
        ];
        for (tolerations, expected) in cases {
            let mut pod = json!({"spec": {"tolerations": tolerations}});
            tolerate(&mut pod);
            assert_eq!(
                object::get_list(&pod, &["spec", "tolerations"]).len(),
                expected,
                "{tolerations}"
            );
        }
    }
}
