//! The objects of a resource at one moment.

use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdMap;

use crate::Object;

/// The objects of a resource at one revision.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub(super) objects: OrdMap<Arc<str>, Arc<Object>>,
    pub(super) revision: i64,
}

impl Snapshot {
    /// At least the revision of the newest object in it.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// One object; `namespace` is empty for cluster-scoped resources.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        if namespace.is_empty() {
            self.objects.get(name)
        } else {
            self.objects.get(format!("{namespace}/{name}").as_str())
        }
    }

    /// All objects in key order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.values()
    }

    /// The objects of a namespace (all, when it is empty), from the key `start` on.
    pub fn range<'a>(
        &'a self,
        namespace: &str,
        start: &str,
    ) -> impl Iterator<Item = &'a Arc<Object>> {
        let prefix = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
        let from = if start > prefix.as_str() { start } else { prefix.as_str() };
        self.objects
            .range::<_, str>((Bound::Included(from), Bound::Unbounded))
            .map(|(_, object)| object)
            .take_while(move |object| object.key().starts_with(&*prefix))
    }
}
