//! `TaintNodesByCondition`: a new node takes no pods before the node lifecycle controller has seen
//! that it is ready.

use pintle_machinery::object;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::error::ApiResult;
use crate::registry::Context;

const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub(super) struct TaintNodesByCondition;

#[async_trait::async_trait]
impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn handles(&self, cx: &Context, operation: Operation) -> bool {
        operation == Operation::Create && cx.is("", "nodes", "")
    }

    async fn admit(&self, _cx: &Context, attributes: &mut Attributes<'_>) -> ApiResult<()> {
        if let Some(node) = attributes.object.as_deref_mut() {
            taint(node);
        }
        Ok(())
    }
}

fn taint(node: &mut Value) {
    let is_ours = |taint: &Value| taint["key"] == NOT_READY && taint["effect"] == "NoSchedule";
    if object::get_list(node, &["spec", "taints"]).iter().any(is_ours) {
        return;
    }
    let added = json!({"key": NOT_READY, "effect": "NoSchedule"});
    let spec = object::entry_object(object::as_object_mut(node), "spec");
    match spec.entry("taints").or_insert_with(|| json!([])) {
        Value::Array(list) => list.push(added),
        other => *other = json!([added]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_node_is_tainted_once() {
        let mut node = json!({"spec": {"taints": [{"key": "mine", "effect": "NoExecute"}]}});
        taint(&mut node);
        taint(&mut node);
        assert_eq!(
            node["spec"]["taints"],
            json!([{"key": "mine", "effect": "NoExecute"}, {"key": NOT_READY, "effect": "NoSchedule"}])
        );
    }
}
