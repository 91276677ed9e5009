//! `meta.k8s.io/v1 Table` and `PartialObjectMetadata`: what `kubectl get` shows.
//!
//! Each kind has a printer: its columns and a function from object to cells. Kinds without one show
//! name and creation time, custom resources the printer columns of their definition.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::resource::Resource;
use crate::{object, time};

mod access;
mod cluster;
mod custom;
mod format;
mod network;
mod node;
mod pod;
mod storage;
mod workload;

/// A column of a table.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ColumnDefinition {
    /// Header.
    pub name: String,
    /// OpenAPI type.
    #[serde(rename = "type")]
    pub kind: String,
    /// OpenAPI format; `name` marks the primary column.
    pub format: String,
    /// Prose.
    pub description: String,
    /// 0 = always, greater = only in wide output.
    pub priority: i32,
    /// JSONPath of a custom column; built-in columns are code.
    #[serde(skip)]
    pub json_path: String,
}

/// The `includeObject` query parameter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Rows carry no object.
    None,
    /// Rows carry PartialObjectMetadata.
    #[default]
    Metadata,
    /// Rows carry the whole object.
    Object,
}

impl IncludeObject {
    /// Parses the parameter; absent or empty is `Metadata`.
    pub fn parse(parameter: &str) -> Option<Self> {
        match parameter {
            "" | "Metadata" => Some(Self::Metadata),
            "None" => Some(Self::None),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

/// A built-in printer.
struct Printer {
    /// `Name`, `Ready:string`, `IP::1`: header, type (string when left out), priority.
    columns: &'static [&'static str],
    cells: fn(&Value, Timestamp) -> Vec<Value>,
}

/// Name and creation time, for kinds without a printer of their own.
static DEFAULT: Printer = Printer {
    columns: &["Name", "Created At:date"],
    cells: |object, _| {
        let created = object::creation_timestamp(object).unwrap_or_default();
        vec![object::name(object).into(), created.into()]
    },
};

fn printer(resource: &Resource) -> &'static Printer {
    let kind = resource.kind.as_str();
    match resource.group.as_str() {
        "" => match kind {
            "Pod" => &pod::POD,
            "PodTemplate" => &pod::POD_TEMPLATE,
            "ReplicationController" => &workload::REPLICATION_CONTROLLER,
            "Service" => &network::SERVICE,
            "Endpoints" => &network::ENDPOINTS,
            "Node" => &node::NODE,
            "Event" => &cluster::EVENT,
            "Namespace" => &cluster::NAMESPACE,
            "Secret" => &cluster::SECRET,
            "ServiceAccount" => &cluster::SERVICE_ACCOUNT,
            "ConfigMap" => &cluster::CONFIG_MAP,
            "ResourceQuota" => &cluster::RESOURCE_QUOTA,
            "ComponentStatus" => &cluster::COMPONENT_STATUS,
            "PersistentVolume" => &storage::VOLUME,
            "PersistentVolumeClaim" => &storage::CLAIM,
            _ => &DEFAULT,
        },
        "apps" => match kind {
            "Deployment" => &workload::DEPLOYMENT,
            "ReplicaSet" => &workload::REPLICA_SET,
            "DaemonSet" => &workload::DAEMON_SET,
            "StatefulSet" => &workload::STATEFUL_SET,
            "ControllerRevision" => &workload::CONTROLLER_REVISION,
            _ => &DEFAULT,
        },
        "batch" if kind == "Job" => &workload::JOB,
        "batch" if kind == "CronJob" => &workload::CRON_JOB,
        "autoscaling" => &workload::AUTOSCALER,
        "events.k8s.io" => &cluster::EVENT,
        "discovery.k8s.io" => &network::ENDPOINT_SLICE,
        "networking.k8s.io" => match kind {
            "Ingress" => &network::INGRESS,
            "IngressClass" => &network::INGRESS_CLASS,
            "NetworkPolicy" => &network::NETWORK_POLICY,
            "IPAddress" => &network::IP_ADDRESS,
            "ServiceCIDR" => &network::SERVICE_CIDR,
            _ => &DEFAULT,
        },
        "policy" => &workload::DISRUPTION_BUDGET,
        "rbac.authorization.k8s.io" if kind.ends_with("Binding") => &access::ROLE_BINDING,
        "certificates.k8s.io" if kind == "CertificateSigningRequest" => &access::SIGNING_REQUEST,
        "admissionregistration.k8s.io" => match kind {
            "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => &access::WEBHOOKS,
            "ValidatingAdmissionPolicy" => &access::VALIDATING_POLICY,
            "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding" => {
                &access::POLICY_BINDING
            }
            _ => &DEFAULT,
        },
        "coordination.k8s.io" if kind == "Lease" => &cluster::LEASE,
        "scheduling.k8s.io" if kind == "PriorityClass" => &cluster::PRIORITY_CLASS,
        "node.k8s.io" => &node::RUNTIME_CLASS,
        "flowcontrol.apiserver.k8s.io" if kind == "FlowSchema" => &access::FLOW_SCHEMA,
        "flowcontrol.apiserver.k8s.io" => &access::PRIORITY_LEVEL,
        "storage.k8s.io" => match kind {
            "StorageClass" => &storage::CLASS,
            "VolumeAttributesClass" => &storage::ATTRIBUTES_CLASS,
            "VolumeAttachment" => &storage::ATTACHMENT,
            "CSINode" => &storage::CSI_NODE,
            "CSIDriver" => &storage::CSI_DRIVER,
            _ => &DEFAULT,
        },
        "apiregistration.k8s.io" => &access::API_SERVICE,
        _ => &DEFAULT,
    }
}

/// The columns of a kind.
pub fn columns(resource: &Resource) -> Vec<ColumnDefinition> {
    if resource.custom {
        return custom::columns(resource);
    }
    let schema = resource.schema();
    let describe = |name: &str| match name {
        "Name" => schema
            .property("metadata")
            .and_then(|m| m.property("name"))
            .and_then(|n| n.target().description.as_deref().map(str::to_owned)),
        _ => None,
    };
    printer(resource)
        .columns
        .iter()
        .map(|text| {
            let mut parts = text.split(':');
            let name = parts.next().unwrap_or_default();
            let kind = parts.next().filter(|k| !k.is_empty()).unwrap_or("string");
            let priority = parts.next().and_then(|p| p.parse().ok()).unwrap_or(0);
            ColumnDefinition {
                name: name.to_owned(),
                kind: kind.to_owned(),
                format: if name == "Name" { "name" } else { "" }.to_owned(),
                description: describe(name).unwrap_or_default(),
                priority,
                json_path: String::new(),
            }
        })
        .collect()
}

/// One object's cells.
pub fn cells(resource: &Resource, object: &Value, now: Timestamp) -> Vec<Value> {
    if resource.custom {
        return custom::cells(resource, object, now);
    }
    (printer(resource).cells)(object, now)
}

/// A `TableRow`.
pub fn row(resource: &Resource, object: &Value, include: IncludeObject, now: Timestamp) -> Value {
    let mut row = Map::new();
    row.insert("cells".to_owned(), Value::Array(cells(resource, object, now)));
    let conditions = if resource.kind == "Pod" { pod::row_conditions(object) } else { None };
    if let Some(conditions) = conditions {
        row.insert("conditions".to_owned(), conditions);
    }
    let shown = match include {
        IncludeObject::None => None,
        IncludeObject::Metadata => Some(partial_object_metadata(object)),
        IncludeObject::Object => Some(object.clone()),
    };
    row.insert("object".to_owned(), shown.unwrap_or_default());
    Value::Object(row)
}

/// A whole `Table`. `list_meta` is the metadata of the list, or for a single object its
/// `resourceVersion`. Without columns it is a later event of a watch.
pub fn table(
    resource: &Resource,
    objects: &[&Value],
    list_meta: Value,
    include: IncludeObject,
    with_columns: bool,
    now: Timestamp,
) -> Value {
    let rows: Vec<Value> =
        objects.iter().map(|object| row(resource, object, include, now)).collect();
    let columns = if with_columns { columns(resource) } else { Vec::new() };
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": list_meta,
        "columnDefinitions": columns,
        "rows": rows,
    })
}

/// `PartialObjectMetadata` of an object.
pub fn partial_object_metadata(object: &Value) -> Value {
    let metadata = object.get("metadata").cloned().unwrap_or_else(|| json!({}));
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
}

/// A `PartialObjectMetadataList`.
pub fn partial_object_metadata_list<'a>(
    objects: impl IntoIterator<Item = &'a Value>,
    list_meta: Value,
) -> Value {
    let items: Vec<Value> = objects.into_iter().map(partial_object_metadata).collect();
    json!({
        "kind": "PartialObjectMetadataList",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": list_meta,
        "items": items,
    })
}

/// The AGE cell.
fn age(object: &Value, now: Timestamp) -> Value {
    time::age(object::creation_timestamp(object), now).into()
}

fn name(object: &Value) -> Value {
    object::name(object).into()
}

#[cfg(test)]
mod tests;
