//! The pods of this node, for those who only read: the kubelet API, statistics, eviction.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::RwLock;

use super::PodExt;

/// Pods by uid. The lock is never held over an await.
#[derive(Debug, Clone, Default)]
pub struct PodTable(Arc<RwLock<HashMap<String, Arc<Pod>>>>);

impl PodTable {
    /// Enters or replaces a pod.
    pub fn insert(&self, pod: Arc<Pod>) {
        self.0.write().insert(pod.uid().to_owned(), pod);
    }

    /// Removes a pod.
    pub fn remove(&self, uid: &str) {
        self.0.write().remove(uid);
    }

    /// All pods.
    pub fn all(&self) -> Vec<Arc<Pod>> {
        self.0.read().values().cloned().collect()
    }

    /// The pod of a name; of several with one name the youngest.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let pods = self.0.read();
        let named = pods.values().filter(|pod| pod.namespace() == namespace && pod.name() == name);
        named.max_by_key(|pod| pod.metadata.creation_timestamp.clone()).cloned()
    }
}
