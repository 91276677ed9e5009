//! ClusterRole aggregation: a role with an `aggregationRule` has the rules of all the roles that it selects.

use crate::{
    object::{ObjectKey, selects},
    runtime::{Controller, Queue, Setup, Store, SyncError, Verdict},
};
use async_trait::async_trait;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
    core::{ParseExpressionError, Selector},
};
use serde_json::json;
use std::sync::Arc;

/// The rules that `role` has to have; `None` if it has them, or aggregates nothing.
fn reconcile(
    role: &ClusterRole,
    all: &[Arc<ClusterRole>],
) -> Result<Option<Vec<PolicyRule>>, ParseExpressionError> {
    let Some(aggregation) = &role.aggregation_rule else { return Ok(None) };
    let selectors = aggregation.cluster_role_selectors.iter().flatten();
    let selectors: Vec<Selector> =
        selectors.map(|selector| Selector::try_from(selector.clone())).collect::<Result<_, _>>()?;
    let mut selected: Vec<&Arc<ClusterRole>> = all
        .iter()
        .filter(|other| other.metadata.name != role.metadata.name)
        .filter(|other| selectors.iter().any(|s| selects(s, other.metadata.labels.as_ref())))
        .collect();
    selected.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let mut rules: Vec<PolicyRule> = Vec::new();
    for rule in selected.into_iter().flat_map(|other| other.rules.iter().flatten()) {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    let present = role.rules.as_deref().unwrap_or_default();
    Ok((rules != present).then_some(rules))
}

/// Registers the controller.
pub(super) fn register(setup: &mut Setup) {
    let queue = setup.queue();
    let roles = setup.informer::<ClusterRole>();
    let store = roles.store();
    let again = queue.clone();
    roles.on_change(move |_| enqueue_aggregating(&store, &again));
    let controller = ClusterRoleAggregation { client: setup.client(), roles: roles.store() };
    setup.controller("clusterrole-aggregation", queue, controller);
}

/// Any role may be selected by any of those that aggregate, and there are few of these.
fn enqueue_aggregating(roles: &Store<ClusterRole>, queue: &Queue) {
    aggregating(roles).into_iter().for_each(|key| queue.add(key));
}

fn aggregating(roles: &Store<ClusterRole>) -> Vec<ObjectKey> {
    let aggregating = roles.list().into_iter().filter(|role| role.aggregation_rule.is_some());
    aggregating.map(|role| ObjectKey::of(&*role)).collect()
}

struct ClusterRoleAggregation {
    client: Client,
    roles: Arc<Store<ClusterRole>>,
}

#[async_trait]
impl Controller for ClusterRoleAggregation {
    fn workers(&self) -> usize {
        2
    }

    fn keys(&self) -> Vec<ObjectKey> {
        aggregating(&self.roles)
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Verdict, SyncError> {
        let Some(role) = self.roles.get(key) else { return Ok(Verdict::Done) };
        let Some(rules) = reconcile(&role, &self.roles.list())? else { return Ok(Verdict::Done) };
        let metadata = json!({
            "uid": role.metadata.uid,
            "resourceVersion": role.metadata.resource_version,
        });
        let patch = Patch::Merge(json!({"metadata": metadata, "rules": rules}));
        let api = Api::<ClusterRole>::all(self.client.clone());
        api.patch(&role.name_any(), &PatchParams::default(), &patch).await?;
        Ok(Verdict::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str, label: &str, verbs: &[&str]) -> Arc<ClusterRole> {
        let rules: Vec<_> = verbs.iter().map(|verb| json!({"verbs": [verb]})).collect();
        let role = json!({"metadata": {"name": name, "labels": {label: "true"}}, "rules": rules});
        Arc::new(serde_json::from_value(role).unwrap())
    }

    #[test]
    fn rules_of_selected_roles_are_joined_once_in_order_of_names() {
        let admin: ClusterRole = serde_json::from_value(json!({
            "metadata": {"name": "admin"},
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to-admin": "true"}}]},
        }))
        .unwrap();
        let all = [
            role("b", "to-admin", &["get", "list"]),
            role("a", "to-admin", &["list", "watch"]),
            role("c", "to-view", &["delete"]),
            Arc::new(admin.clone()),
        ];
        let rules = reconcile(&admin, &all).unwrap().unwrap();
        let verbs: Vec<_> = rules.iter().flat_map(|rule| rule.verbs.clone()).collect();
        assert_eq!(verbs, ["list", "watch", "get"]);
        let settled = ClusterRole { rules: Some(rules), ..admin.clone() };
        assert_eq!(reconcile(&settled, &all).unwrap(), None);
        let emptied = reconcile(&settled, &[]).unwrap();
        assert_eq!(emptied, Some(Vec::new()), "rights go with the role that gave them");
        let plain = role("plain", "x", &["get"]);
        assert_eq!(reconcile(&plain, &all).unwrap(), None);
    }
}
