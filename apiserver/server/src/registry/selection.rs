//! Label and field selectors of a request, applied to cached objects.

use std::sync::Arc;

use pintle_apiserver_storage::{CacheSpec, Object, Scope};
use pintle_machinery::{FieldSelector, LabelSelector, Resource};

use crate::error::ApiResult;
use crate::request_info::Query;

/// Which objects of a resource a list, watch or deletecollection is about.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
    resource: Arc<Resource>,
}

impl Selection {
    /// From `labelSelector` and `fieldSelector`; a field that the kind does not offer is a 400.
    pub(crate) fn parse(query: &Query, resource: &Arc<Resource>) -> ApiResult<Self> {
        let labels = LabelSelector::parse(query.get("labelSelector").unwrap_or_default())?;
        let fields = FieldSelector::parse(query.get("fieldSelector").unwrap_or_default())?;
        fields.check(resource)?;
        Ok(Self { labels, fields, resource: resource.clone() })
    }

    /// Whether every object is selected.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The narrowest part of the resource that holds everything selected in `namespace`.
    pub(crate) fn scope(&self, namespace: &str, spec: &CacheSpec) -> Scope {
        let exact =
            |label: &str| self.fields.requires_exact(label).filter(|value| !value.is_empty());
        let placed = !self.resource.namespaced || !namespace.is_empty();
        if let Some(name) = exact("metadata.name").filter(|_| placed) {
            let key =
                if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") };
            return Scope::Object(key.into());
        }
        let indexed = (!spec.index.is_empty()).then(|| spec.index.join("."));
        match indexed.as_deref().and_then(exact) {
            Some(value) => Scope::Indexed(value.into()),
            None => Scope::All,
        }
    }

    /// Whether this object is selected.
    pub(crate) fn matches(&self, object: &Object) -> bool {
        (self.labels.is_empty() || self.labels.matches(object.labels()))
            && (self.fields.is_empty() || self.fields.matches(object.head(), &self.resource))
    }
}
