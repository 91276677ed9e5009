//! One request's view of the registry.

use std::sync::Arc;

use parking_lot::Mutex;
use pintle_machinery::{GroupResource, Resource};

use super::Registry;
use crate::authn::UserInfo;

/// Texts for `Warning` headers, collected on the way; each once.
#[derive(Clone, Debug, Default)]
pub struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    /// Adds a warning.
    pub fn add(&self, text: impl Into<String>) {
        let text = text.into();
        let mut texts = self.0.lock();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }

    /// What was collected so far.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock())
    }
}

/// Who does what to which object. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// Everything else in the cluster.
    pub registry: Registry,
    /// Who asks.
    pub user: Arc<UserInfo>,
    /// The resource at the version of the request.
    pub resource: Arc<Resource>,
    /// Namespace, or empty.
    pub namespace: String,
    /// Object name; empty on create until `generateName` has been resolved.
    pub name: String,
    /// Subresource, or empty.
    pub subresource: String,
    /// Whether nothing must be stored.
    pub dry_run: bool,
    /// The field manager: `fieldManager`, else what the user agent says.
    pub field_manager: String,
    /// Warnings for the answer.
    pub warnings: Warnings,
}

impl Context {
    /// The apiserver's own business with an object.
    pub fn internal(
        registry: &Registry,
        resource: &Arc<Resource>,
        namespace: &str,
        name: &str,
    ) -> Self {
        Self {
            registry: registry.clone(),
            user: Arc::new(UserInfo::apiserver()),
            resource: resource.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: String::new(),
            dry_run: false,
            field_manager: "kube-apiserver".to_owned(),
            warnings: Warnings::default(),
        }
    }

    /// The resource as errors name it.
    pub fn group_resource(&self) -> GroupResource {
        self.resource.group_resource()
    }

    /// Whether the request is for this group, resource and subresource.
    pub fn is(&self, group: &str, plural: &str, subresource: &str) -> bool {
        self.resource.group == group
            && self.resource.plural == plural
            && self.subresource == subresource
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("user", &self.user.name)
            .field("resource", &self.group_resource())
            .field("namespace", &self.namespace)
            .field("name", &self.name)
            .field("subresource", &self.subresource)
            .field("dry_run", &self.dry_run)
            .finish_non_exhaustive()
    }
}
