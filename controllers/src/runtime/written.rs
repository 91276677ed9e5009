//! What a controller wrote itself and may not see in its cache yet.
//!
//! A decision on an object from before the controller's own last write would be taken twice. The server refuses a write on
//! an old version, but not what goes with it: a pod that is created for a counter that has moved on.

use crate::object::ObjectKey;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use parking_lot::Mutex;
use std::collections::HashMap;

/// The newest version of each object that was written here and has not been seen in the cache.
#[derive(Default)]
pub struct Written {
    versions: Mutex<HashMap<ObjectKey, u64>>,
}

impl Written {
    /// Remembers that `object` is what the server answered to a write.
    pub fn note<K: Resource>(&self, object: &K) {
        if let Some(version) = version(object.meta()) {
            self.versions.lock().insert(ObjectKey::of(object), version);
        }
    }

    /// Whether the cached `object` is at least as new as what was written.
    pub fn is_shown<K: Resource>(&self, object: &K) -> bool {
        let mut versions = self.versions.lock();
        let key = ObjectKey::of(object);
        let Some(written) = versions.get(&key) else { return true };
        let shown = version(object.meta()).is_none_or(|version| version >= *written);
        if shown {
            versions.remove(&key);
        }
        shown
    }

    /// The object is gone.
    pub fn forget(&self, key: &ObjectKey) {
        self.versions.lock().remove(key);
    }
}

fn version(meta: &ObjectMeta) -> Option<u64> {
    meta.resource_version.as_deref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    #[test]
    fn own_write_must_be_seen_before_the_next_decision() {
        let object = |version: &str| ConfigMap {
            metadata: ObjectMeta {
                name: Some("a".into()),
                resource_version: Some(version.into()),
                ..Default::default()
            },
            ..Default::default()
        };
        let written = Written::default();
        assert!(written.is_shown(&object("5")));
        written.note(&object("9"));
        assert!(!written.is_shown(&object("5")), "numbers, not texts, are compared");
        assert!(!written.is_shown(&object("8")));
        assert!(written.is_shown(&object("10")));
        assert!(written.is_shown(&object("9")), "what was seen once is settled");
    }
}
