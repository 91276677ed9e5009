//! Letting pods go, and remembering it until the cache shows it: a pod must not be counted twice.

use super::FINALIZER;
use crate::object::ObjectKey;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use parking_lot::Mutex;
use serde_json::json;
use std::collections::{HashMap, HashSet};

/// UIDs of pods whose finalizer was removed here, by job, until the cache shows it.
#[derive(Default)]
pub(super) struct Releases {
    pending: Mutex<HashMap<ObjectKey, HashSet<String>>>,
}

impl Releases {
    /// Call it before the request is sent.
    pub(super) fn expect(&self, job: &ObjectKey, uid: &str) {
        self.pending.lock().entry(job.clone()).or_default().insert(uid.to_owned());
    }

    /// The cache shows it, or it certainly did not happen.
    pub(super) fn settle(&self, job: &ObjectKey, uid: &str) {
        let mut pending = self.pending.lock();
        if let Some(uids) = pending.get_mut(job) {
            uids.remove(uid);
            if uids.is_empty() {
                pending.remove(job);
            }
        }
    }

    /// The pods of a job that are let go already. Ask before the pods are read from the cache.
    pub(super) fn of(&self, job: &ObjectKey) -> HashSet<String> {
        self.pending.lock().get(job).cloned().unwrap_or_default()
    }

    /// The job is gone.
    pub(super) fn forget(&self, job: &ObjectKey) {
        self.pending.lock().remove(job);
    }
}

/// Removes the finalizer; a pod that is gone is fine.
pub(super) async fn remove(api: &Api<Pod>, pod: &Pod) -> Result<(), kube::Error> {
    let change = json!({ "metadata": {
        "uid": pod.uid(),
        "$deleteFromPrimitiveList/finalizers": [FINALIZER],
    }});
    match api.patch(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(change)).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        outcome => outcome.map(|_| ()),
    }
}
