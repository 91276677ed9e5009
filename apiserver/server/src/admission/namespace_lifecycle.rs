//! `NamespaceLifecycle`: nothing is created in a namespace that is missing or terminating, and the
//! namespaces that the cluster stands on are not deleted.

use k8s_openapi::api::core::v1::Namespace;
use pintle_machinery::GroupResource;
use pintle_machinery::status::Cause;

use super::{Attributes, Operation, Plugin};
use crate::error::{ApiError, ApiResult};
use crate::registry::Context;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(super) struct NamespaceLifecycle;

#[async_trait::async_trait]
impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn handles(&self, _cx: &Context, operation: Operation) -> bool {
        operation != Operation::Connect
    }

    async fn admit(&self, cx: &Context, attributes: &mut Attributes<'_>) -> ApiResult<()> {
        let deletes = attributes.operation == Operation::Delete;
        if cx.is("", "namespaces", "") {
            return if deletes { may_delete(cx) } else { Ok(()) };
        }
        if cx.namespace.is_empty() || deletes || is_review(cx) {
            return Ok(());
        }
        let namespace = find(cx).await?;
        match namespace {
            None => Err(ApiError::not_found(&GroupResource::new("", "namespaces"), &cx.namespace)),
            Some(namespace)
                if attributes.operation == Operation::Create && terminates(&namespace) =>
            {
                Err(terminating(cx))
            }
            Some(_) => Ok(()),
        }
    }
}

fn may_delete(cx: &Context) -> ApiResult<()> {
    if IMMORTAL.contains(&cx.name.as_str()) {
        let why = "this namespace may not be deleted";
        return Err(ApiError::forbidden(&cx.group_resource(), &cx.name, why));
    }
    Ok(())
}

/// Asking about a namespace is allowed whether it exists or not.
fn is_review(cx: &Context) -> bool {
    cx.is("authorization.k8s.io", "localsubjectaccessreviews", "")
}

/// The cache may lag behind a namespace created a moment ago on another member, so a miss is
/// looked up in the store.
async fn find(cx: &Context) -> ApiResult<Option<Namespace>> {
    match cx.registry.get::<Namespace>("", &cx.namespace).await? {
        Some(namespace) => Ok(Some(namespace)),
        None => cx.registry.get_live::<Namespace>("", &cx.namespace).await,
    }
}

fn terminates(namespace: &Namespace) -> bool {
    let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref());
    phase == Some("Terminating") || namespace.metadata.deletion_timestamp.is_some()
}

fn terminating(cx: &Context) -> ApiError {
    let namespace = &cx.namespace;
    let why = format!(
        "unable to create new content in namespace {namespace} because it is being terminated"
    );
    ApiError::forbidden(&cx.group_resource(), &cx.name, why).with_cause(Cause {
        reason: "NamespaceTerminating".into(),
        message: format!("namespace {namespace} is being terminated"),
        field: "metadata.namespace".into(),
    })
}
