//! What may be written: the seam between the registry and the admission plugins.
//!
//! For every write the registry runs all `admit` in order, then the strategy's validation, then
//! all `validate` in order. The first error ends the request.

mod certificate;
mod default_ingress_class;
mod default_toleration_seconds;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod pod_security;
mod priority;
mod runtime_class;
mod service_account;
mod storage;
mod taint_nodes;

use std::sync::Arc;

use serde_json::Value;

use crate::error::ApiError;
use crate::registry::{Context, Registry};
use crate::{Config, ServeError};

/// The kind of write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// POST, or a PUT or apply that creates.
    Create,
    /// PUT and PATCH.
    Update,
    /// DELETE, once for every object of a collection.
    Delete,
    /// exec, attach, port-forward, proxy.
    Connect,
}

/// One write, as the plugins see it. User, resource, namespace, name and dry run are in the [`Context`].
#[derive(Debug)]
pub struct Attributes<'a> {
    /// What is being done.
    pub operation: Operation,
    /// The new object (create, update) or the options of a connect; `None` for a delete.
    pub object: Option<&'a mut Value>,
    /// The stored object (update, delete).
    pub old_object: Option<&'a Value>,
    /// `CreateOptions`, `UpdateOptions`, `PatchOptions` or `DeleteOptions`.
    pub options: &'a Value,
}

/// One admission plugin.
#[async_trait::async_trait]
pub trait Plugin: Send + Sync + 'static {
    /// Upstream's name (`NamespaceLifecycle`).
    fn name(&self) -> &'static str;

    /// Whether the plugin wants to see such a write at all.
    fn handles(&self, cx: &Context, operation: Operation) -> bool;

    /// May change the object.
    async fn admit(&self, _cx: &Context, _attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        Ok(())
    }

    /// Sees the final object.
    async fn validate(&self, _cx: &Context, _attributes: &Attributes<'_>) -> Result<(), ApiError> {
        Ok(())
    }
}

/// The plugins in their order.
#[derive(Clone, Default)]
pub struct Chain {
    plugins: Vec<Arc<dyn Plugin>>,
}

impl Chain {
    /// No plugins.
    pub const fn none() -> Self {
        Self { plugins: Vec::new() }
    }

    /// Plugins in the order in which they run.
    pub fn new(plugins: Vec<Arc<dyn Plugin>>) -> Self {
        Self { plugins }
    }

    /// The mutating pass.
    pub async fn admit(
        &self,
        cx: &Context,
        attributes: &mut Attributes<'_>,
    ) -> Result<(), ApiError> {
        for plugin in &self.plugins {
            if plugin.handles(cx, attributes.operation) {
                plugin.admit(cx, attributes).await?;
            }
        }
        Ok(())
    }

    /// The validating pass.
    pub async fn validate(
        &self,
        cx: &Context,
        attributes: &Attributes<'_>,
    ) -> Result<(), ApiError> {
        for plugin in &self.plugins {
            if plugin.handles(cx, attributes.operation) {
                plugin.validate(cx, attributes).await?;
            }
        }
        Ok(())
    }
}

/// The chain that is on by default, in upstream's order.
pub fn build(_config: &Config, _registry: &Registry) -> Result<Chain, ServeError> {
    Ok(Chain::new(vec![
        Arc::new(namespace_lifecycle::NamespaceLifecycle),
        Arc::new(limit_ranger::LimitRanger),
        Arc::new(service_account::ServiceAccount),
        Arc::new(node_restriction::NodeRestriction),
        Arc::new(taint_nodes::TaintNodesByCondition),
        Arc::new(pod_security::PodSecurity),
        Arc::new(priority::Priority),
        Arc::new(default_toleration_seconds::DefaultTolerationSeconds),
        Arc::new(storage::DefaultStorageClass),
        Arc::new(storage::StorageObjectInUseProtection),
        Arc::new(runtime_class::RuntimeClass),
        Arc::new(certificate::CertificateApproval),
        Arc::new(certificate::CertificateSigning),
        Arc::new(certificate::CertificateSubjectRestriction),
        Arc::new(default_ingress_class::DefaultIngressClass),
    ]))
}
