//! Roles and bindings: nobody hands out more than they hold, unless they may `escalate` or `bind`.

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role as TypedRole, RoleRef};
use pintle_machinery::{ErrorList, Path, object};
use serde_json::{Value, json};

use super::{Context, Strategy};
use crate::authn::SYSTEM_PRIVILEGED_GROUP;
use crate::authz::rules::{compact, uncovered};
use crate::authz::{Attributes, Decision};
use crate::error::{ApiError, ApiResult};

const GROUP: &str = "rbac.authorization.k8s.io";

/// The strategy of `roles` and `clusterroles`.
pub(super) struct Role;

/// The strategy of `rolebindings` and `clusterrolebindings`.
pub(super) struct Binding;

fn rules_of(object: &Value) -> ApiResult<Vec<PolicyRule>> {
    let rules = object.get("rules").filter(|rules| !rules.is_null()).cloned();
    serde_json::from_value(rules.unwrap_or_else(|| json!([])))
        .map_err(|error| ApiError::bad_request(error.to_string()))
}

/// Whether the user may `verb` roles of that kind and name.
async fn may(cx: &Context, verb: &str, resource: &str, name: &str) -> bool {
    if cx.user.in_group(SYSTEM_PRIVILEGED_GROUP) {
        return true;
    }
    let question = Attributes {
        user: (*cx.user).clone(),
        verb: verb.to_owned(),
        resource_request: true,
        group: GROUP.into(),
        version: "*".into(),
        resource: resource.to_owned(),
        namespace: cx.namespace.clone(),
        name: name.to_owned(),
        ..Attributes::default()
    };
    matches!(cx.registry.authorizer().authorize(&question).await, Decision::Allow(_))
}

/// Refuses rules that the user does not hold.
async fn holds(cx: &Context, wanted: &[PolicyRule]) -> ApiResult<()> {
    let owned = cx.registry.authorizer().rules_for(&cx.user, &cx.namespace).await;
    let missing = uncovered(&owned.rules, wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let mut missing: Vec<String> = missing.iter().map(compact).collect();
    missing.sort();
    missing.dedup();
    let user = &cx.user;
    let groups: Vec<String> = user.groups.iter().map(|group| format!("{group:?}")).collect();
    let why = format!(
        "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        groups.join(" "),
        missing.join("\n")
    );
    Err(ApiError::forbidden(&cx.group_resource(), &cx.name, why))
}

async fn check_role(cx: &Context, role: &Value) -> ApiResult<()> {
    if may(cx, "escalate", &cx.resource.plural, object::name(role)).await {
        return Ok(());
    }
    if role.get("aggregationRule").is_some_and(|aggregation| !aggregation.is_null()) {
        // The controller fills such a role with rules of whatever matches.
        let everything = |urls: bool| {
            let any = || Some(vec!["*".to_owned()]);
            PolicyRule {
                verbs: vec!["*".to_owned()],
                api_groups: if urls { None } else { any() },
                resources: if urls { None } else { any() },
                non_resource_urls: if urls { any() } else { None },
                resource_names: None,
            }
        };
        holds(cx, &[everything(false), everything(true)]).await?;
    }
    holds(cx, &rules_of(role)?).await
}

#[async_trait::async_trait]
impl Strategy for Role {
    async fn prepare_for_create(&self, cx: &Context, role: &mut Value) -> ApiResult<()> {
        check_role(cx, role).await
    }

    async fn prepare_for_update(
        &self,
        cx: &Context,
        role: &mut Value,
        old: &Value,
    ) -> ApiResult<()> {
        let same = |field: &str| role.get(field) == old.get(field);
        if same("rules") && same("aggregationRule") {
            return Ok(());
        }
        check_role(cx, role).await
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }
}

async fn check_binding(cx: &Context, binding: &Value) -> ApiResult<()> {
    let text = |field: &str| object::get_str(binding, &["roleRef", field]).to_owned();
    let role =
        RoleRef { api_group: Some(text("apiGroup")), kind: text("kind"), name: text("name") };
    let resource = if role.kind == "Role" { "roles" } else { "clusterroles" };
    if may(cx, "bind", resource, &role.name).await {
        return Ok(());
    }
    let rules = if role.kind == "Role" {
        let found = cx.registry.get_live::<TypedRole>(&cx.namespace, &role.name).await?;
        found.map(|role| role.rules)
    } else {
        cx.registry.get_live::<ClusterRole>("", &role.name).await?.map(|role| role.rules)
    };
    let Some(rules) = rules else {
        let resource = pintle_machinery::GroupResource::new(GROUP, resource);
        return Err(ApiError::not_found(&resource, &role.name));
    };
    holds(cx, &rules.unwrap_or_default()).await
}

#[async_trait::async_trait]
impl Strategy for Binding {
    async fn prepare_for_create(&self, cx: &Context, binding: &mut Value) -> ApiResult<()> {
        check_binding(cx, binding).await
    }

    async fn prepare_for_update(
        &self,
        cx: &Context,
        binding: &mut Value,
        old: &Value,
    ) -> ApiResult<()> {
        let same = |field: &str| binding.get(field) == old.get(field);
        if same("roleRef") && same("subjects") {
            return Ok(());
        }
        check_binding(cx, binding).await
    }

    fn validate_update(&self, _cx: &Context, binding: &Value, old: &Value) -> ErrorList {
        if binding.get("roleRef") == old.get("roleRef") {
            return ErrorList::new();
        }
        let mut errors = ErrorList::new();
        let role = binding.get("roleRef").cloned().unwrap_or_default();
        errors.invalid(Path::new("roleRef"), role, "cannot change roleRef");
        errors
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }
}
