//! The typed cache of one kind: objects by key, with indices by namespace, owner, labels and node.
//!
//! Objects are immutable and shared; readers get `Arc`s and never hold the lock across work.

use crate::object::ObjectKey;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Resource,
    core::{Expression, Selector, SelectorExt},
};
use parking_lot::RwLock;
use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// A property that objects are found by without a scan.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum IndexKey {
    /// All objects of a namespace.
    Namespace(Arc<str>),
    /// All objects with an owner reference (of any sort) to this UID.
    Owner(String),
    /// All objects of a namespace with this label.
    Label(Arc<str>, String, String),
    /// All pods bound to this node.
    Node(String),
}

/// The cache of kind `K`.
pub struct Store<K> {
    inner: RwLock<Inner<K>>,
}

struct Inner<K> {
    objects: HashMap<ObjectKey, Arc<K>>,
    index: HashMap<IndexKey, BTreeSet<ObjectKey>>,
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        Self { inner: RwLock::new(Inner { objects: HashMap::new(), index: HashMap::new() }) }
    }
}

impl<K: Resource<DynamicType = ()> + 'static> Store<K> {
    /// The object with this key.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.inner.read().objects.get(key).cloned()
    }

    /// All objects, in no particular order.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.inner.read().objects.values().cloned().collect()
    }

    /// The keys of all objects.
    pub fn keys(&self) -> Vec<ObjectKey> {
        self.inner.read().objects.keys().cloned().collect()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.inner.read().objects.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The objects with this property, ordered by key.
    pub fn by_index(&self, key: &IndexKey) -> Vec<Arc<K>> {
        let inner = self.inner.read();
        let keys = inner.index.get(key).into_iter().flatten();
        keys.filter_map(|key| inner.objects.get(key).cloned()).collect()
    }

    /// All objects of a namespace, ordered by name.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.by_index(&IndexKey::Namespace(namespace.into()))
    }

    /// All objects that name `uid` among their owners, ordered by name.
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<K>> {
        self.by_index(&IndexKey::Owner(uid.to_owned()))
    }

    /// All objects of a namespace that `selector` selects, ordered by name.
    pub fn select(&self, namespace: &str, selector: &Selector) -> Vec<Arc<K>> {
        let inner = self.inner.read();
        let none = BTreeMap::new();
        inner
            .candidates(namespace, selector)
            .filter_map(|key| inner.objects.get(key))
            .filter(|object| selector.matches(object.meta().labels.as_ref().unwrap_or(&none)))
            .cloned()
            .collect()
    }

    pub(super) fn insert(&self, object: Arc<K>) -> Option<Arc<K>> {
        let key = ObjectKey::of(&*object);
        let mut inner = self.inner.write();
        let old = inner.objects.insert(key.clone(), object.clone());
        let new_index = index_keys(&key, &*object);
        if let Some(old) = &old {
            for stale in
                index_keys(&key, &**old).into_iter().filter(|entry| !new_index.contains(entry))
            {
                inner.unindex(&key, &stale);
            }
        }
        for entry in new_index {
            inner.index.entry(entry).or_default().insert(key.clone());
        }
        old
    }

    pub(super) fn remove(&self, key: &ObjectKey) -> Option<Arc<K>> {
        let mut inner = self.inner.write();
        let old = inner.objects.remove(key)?;
        for entry in index_keys(key, &*old) {
            inner.unindex(key, &entry);
        }
        Some(old)
    }
}

impl<K: Resource<DynamicType = ()>> Inner<K> {
    fn unindex(&mut self, key: &ObjectKey, entry: &IndexKey) {
        if let Some(keys) = self.index.get_mut(entry) {
            keys.remove(key);
            if keys.is_empty() {
                self.index.remove(entry);
            }
        }
    }

    /// The smallest indexed set that contains everything `selector` can select.
    fn candidates(&self, namespace: &str, selector: &Selector) -> impl Iterator<Item = &ObjectKey> {
        let namespace: Arc<str> = namespace.into();
        let mut entries = vec![IndexKey::Namespace(namespace.clone())];
        entries.extend(selector.clone().into_iter().filter_map(|expression| match expression {
            Expression::Equal(key, value) => Some(IndexKey::Label(namespace.clone(), key, value)),
            _ => None,
        }));
        let size = |entry: &IndexKey| self.index.get(entry).map_or(0, BTreeSet::len);
        let smallest = entries.iter().min_by_key(|entry| size(entry));
        smallest.and_then(|entry| self.index.get(entry)).into_iter().flatten()
    }
}

fn index_keys<K: Resource<DynamicType = ()> + 'static>(
    key: &ObjectKey,
    object: &K,
) -> Vec<IndexKey> {
    let meta = object.meta();
    let mut keys = vec![IndexKey::Namespace(key.namespace.clone())];
    keys.extend(
        meta.owner_references.iter().flatten().map(|owner| IndexKey::Owner(owner.uid.clone())),
    );
    keys.extend(
        meta.labels.iter().flatten().map(|(name, value)| {
            IndexKey::Label(key.namespace.clone(), name.clone(), value.clone())
        }),
    );
    if let Some(pod) = (object as &dyn Any).downcast_ref::<Pod>() {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        keys.extend(node.filter(|node| !node.is_empty()).map(IndexKey::Node));
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    fn pod(namespace: &str, name: &str, labels: &[(&str, &str)]) -> Arc<Pod> {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Arc::new(Pod {
            metadata: ObjectMeta {
                namespace: Some(namespace.into()),
                name: Some(name.into()),
                labels: Some(labels),
                ..Default::default()
            },
            ..Default::default()
        })
    }

    fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
        pods.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect()
    }

    #[test]
    fn selection_stays_in_its_namespace_and_follows_label_changes() {
        let store = Store::default();
        store.insert(pod("a", "one", &[("app", "web"), ("tier", "front")]));
        store.insert(pod("a", "two", &[("app", "web")]));
        store.insert(pod("b", "three", &[("app", "web")]));
        let web: Selector = Expression::Equal("app".into(), "web".into()).into();
        assert_eq!(names(&store.select("a", &web)), ["one", "two"]);

        store.insert(pod("a", "two", &[("app", "db")]));
        assert_eq!(names(&store.select("a", &web)), ["one"]);
        let not_web: Selector = Expression::NotEqual("app".into(), "web".into()).into();
        assert_eq!(names(&store.select("a", &not_web)), ["two"]);

        store.remove(&ObjectKey::new("a", "one"));
        assert!(store.select("a", &web).is_empty());
        assert_eq!(names(&store.in_namespace("a")), ["two"]);
    }

    #[test]
    fn empty_indices_are_dropped() {
        let store = Store::default();
        store.insert(pod("a", "one", &[("app", "web")]));
        store.remove(&ObjectKey::new("a", "one"));
        assert!(store.inner.read().index.is_empty());
    }
}
