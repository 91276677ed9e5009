//! Volumes, claims, storage classes and CSI.

use serde_json::Value;

use super::format::{UNSET, access_modes};
use super::{Printer, age, name};
use crate::object::{self, get, get_list, get_str};

pub(super) static VOLUME: Printer = Printer {
    columns: &[
        "Name",
        "Capacity",
        "Access Modes",
        "Reclaim Policy",
        "Status",
        "Claim",
        "StorageClass",
        "VolumeAttributesClass",
        "Reason",
        "Age",
        "VolumeMode::1",
    ],
    cells: |object, now| {
        let spec = |field: &str| get_str(object, &["spec", field]);
        let claim = get(object, &["spec", "claimRef"]).map_or(String::new(), |claim| {
            format!("{}/{}", get_str(claim, &["namespace"]), get_str(claim, &["name"]))
        });
        vec![
            name(object),
            get_str(object, &["spec", "capacity", "storage"]).into(),
            access_modes(get_list(object, &["spec", "accessModes"])).into(),
            spec("persistentVolumeReclaimPolicy").into(),
            phase(object).into(),
            claim.into(),
            spec("storageClassName").into(),
            or_unset(spec("volumeAttributesClassName")),
            get_str(object, &["status", "reason"]).into(),
            age(object, now),
            or_unset(spec("volumeMode")),
        ]
    },
};

pub(super) static CLAIM: Printer = Printer {
    columns: &[
        "Name",
        "Status",
        "Volume",
        "Capacity",
        "Access Modes",
        "StorageClass",
        "VolumeAttributesClass",
        "Age",
        "VolumeMode::1",
    ],
    cells: |object, now| {
        let spec = |field: &str| get_str(object, &["spec", field]);
        let bound = !spec("volumeName").is_empty();
        let modes = get_list(object, &["status", "accessModes"]);
        let capacity = get_str(object, &["status", "capacity", "storage"]);
        let class = match object::annotation(object, "volume.beta.kubernetes.io/storage-class") {
            Some(class) => class,
            None => spec("storageClassName"),
        };
        vec![
            name(object),
            phase(object).into(),
            spec("volumeName").into(),
            if bound { capacity } else { "" }.into(),
            if bound { access_modes(modes) } else { String::new() }.into(),
            class.into(),
            or_unset(spec("volumeAttributesClassName")),
            age(object, now),
            or_unset(spec("volumeMode")),
        ]
    },
};

fn phase(object: &Value) -> &str {
    match object::is_terminating(object) {
        true => "Terminating",
        false => get_str(object, &["status", "phase"]),
    }
}

fn or_unset(text: &str) -> Value {
    if text.is_empty() { UNSET.into() } else { text.into() }
}

fn flag(object: &Value, path: &[&str]) -> Value {
    (get(object, path) == Some(&Value::Bool(true))).into()
}

fn class_name(object: &Value, annotation: &str) -> Value {
    match object::annotation(object, annotation) {
        Some("true") => format!("{} (default)", object::name(object)).into(),
        _ => name(object),
    }
}

pub(super) static CLASS: Printer = Printer {
    columns: &[
        "Name",
        "Provisioner",
        "ReclaimPolicy",
        "VolumeBindingMode",
        "AllowVolumeExpansion:boolean",
        "Age",
    ],
    cells: |object, now| {
        vec![
            class_name(object, "storageclass.kubernetes.io/is-default-class"),
            get_str(object, &["provisioner"]).into(),
            get_str(object, &["reclaimPolicy"]).into(),
            get_str(object, &["volumeBindingMode"]).into(),
            flag(object, &["allowVolumeExpansion"]),
            age(object, now),
        ]
    },
};

pub(super) static ATTRIBUTES_CLASS: Printer = Printer {
    columns: &["Name", "DriverName", "Age"],
    cells: |object, now| {
        let annotation = "volumeattributesclass.alpha.kubernetes.io/is-default-class";
        let driver = get_str(object, &["driverName"]);
        vec![class_name(object, annotation), driver.into(), age(object, now)]
    },
};

pub(super) static ATTACHMENT: Printer = Printer {
    columns: &["Name", "Attacher", "PV", "Node", "Attached:boolean", "Age"],
    cells: |object, now| {
        vec![
            name(object),
            get_str(object, &["spec", "attacher"]).into(),
            get_str(object, &["spec", "source", "persistentVolumeName"]).into(),
            get_str(object, &["spec", "nodeName"]).into(),
            flag(object, &["status", "attached"]),
            age(object, now),
        ]
    },
};

pub(super) static CSI_NODE: Printer = Printer {
    columns: &["Name", "Drivers:integer", "Age"],
    cells: |object, now| {
        vec![name(object), get_list(object, &["spec", "drivers"]).len().into(), age(object, now)]
    },
};

pub(super) static CSI_DRIVER: Printer = Printer {
    columns: &[
        "Name",
        "AttachRequired:boolean",
        "PodInfoOnMount:boolean",
        "StorageCapacity:boolean",
        "TokenRequests",
        "RequiresRepublish:boolean",
        "Modes",
        "Age",
    ],
    cells: |object, now| {
        let audiences: Vec<&str> = get_list(object, &["spec", "tokenRequests"])
            .iter()
            .map(|request| get_str(request, &["audience"]))
            .collect();
        let modes: Vec<&str> = get_list(object, &["spec", "volumeLifecycleModes"])
            .iter()
            .filter_map(Value::as_str)
            .collect();
        vec![
            name(object),
            flag(object, &["spec", "attachRequired"]),
            flag(object, &["spec", "podInfoOnMount"]),
            flag(object, &["spec", "storageCapacity"]),
            or_unset(&audiences.join(",")),
            flag(object, &["spec", "requiresRepublish"]),
            modes.join(",").into(),
            age(object, now),
        ]
    },
};
