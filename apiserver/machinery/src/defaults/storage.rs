//! Defaults of volumes, claims, storage classes and device claims.

use serde_json::{Map, Value, json};

use super::{child, each, each_object, entry, or, or_empty, text};

pub(super) fn claim(map: &mut Map<String, Value>) {
    or_empty(entry(map, "spec"), "volumeMode", "Filesystem");
    or_empty(entry(map, "status"), "phase", "Pending");
}

pub(super) fn volume(map: &mut Map<String, Value>) {
    let spec = entry(map, "spec");
    or_empty(spec, "persistentVolumeReclaimPolicy", "Retain");
    or_empty(spec, "volumeMode", "Filesystem");
    each_object(spec, "hostPath", |path| or(path, "type", ""));
    or_empty(entry(map, "status"), "phase", "Pending");
}

pub(super) fn class(map: &mut Map<String, Value>) {
    or_empty(map, "reclaimPolicy", "Delete");
    or_empty(map, "volumeBindingMode", "Immediate");
}

pub(super) fn csi_driver(map: &mut Map<String, Value>) {
    let spec = entry(map, "spec");
    or(spec, "attachRequired", true);
    or(spec, "podInfoOnMount", false);
    or(spec, "storageCapacity", false);
    or(spec, "requiresRepublish", false);
    or(spec, "seLinuxMount", false);
    or_empty(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    if spec.get("volumeLifecycleModes").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        spec.insert("volumeLifecycleModes".to_owned(), json!(["Persistent"]));
    }
}

/// `spec.devices.requests`: each asks for exactly one device unless it says otherwise.
pub(super) fn device_claim(map: &mut Map<String, Value>) {
    let Some(devices) = child(map, "spec").and_then(|s| child(s, "devices")) else { return };
    each(devices, "requests", |request| {
        each_object(request, "exactly", device_count);
        each(request, "firstAvailable", device_count);
    });
}

fn device_count(request: &mut Map<String, Value>) {
    or_empty(request, "allocationMode", "ExactCount");
    if text(request, "allocationMode") == "ExactCount" {
        or(request, "count", 1);
    }
}
