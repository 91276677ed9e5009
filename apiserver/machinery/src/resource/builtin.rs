//! The static table of built-in resources: one row per resource, names and scope taken from the
//! typed API. A kind is served at its stable version, or at its newest one when it has none;
//! `autoscaling` and events are served at every version.

use std::sync::{Arc, LazyLock};

use k8s_openapi::api::{
    admissionregistration, apiserverinternal, apps, authentication, authorization, autoscaling,
    batch, certificates, coordination, core, discovery, events, flowcontrol, lifecycle, networking,
    node, policy, rbac, resource, scheduling, storage, storagemigration,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration;
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope, Resource as Typed};
use schemars::{JsonSchema, SchemaGenerator};

use super::subresources::subresources;
use super::{GroupVersion, Resource, SelectableField, Storage};
use crate::schema;

const ALL_VERBS: &str = "create delete deletecollection get list patch update watch";

/// Group priorities as the aggregated API services carry them; custom groups have 1000.
const GROUP_PRIORITIES: [(&str, i32); 23] = [
    ("", 18000),
    ("apiregistration.k8s.io", 17900),
    ("apps", 17800),
    ("events.k8s.io", 17750),
    ("authentication.k8s.io", 17700),
    ("authorization.k8s.io", 17600),
    ("autoscaling", 17500),
    ("batch", 17400),
    ("certificates.k8s.io", 17300),
    ("networking.k8s.io", 17200),
    ("policy", 17100),
    ("rbac.authorization.k8s.io", 17000),
    ("storage.k8s.io", 16800),
    ("admissionregistration.k8s.io", 16700),
    ("apiextensions.k8s.io", 16700),
    ("scheduling.k8s.io", 16600),
    ("coordination.k8s.io", 16500),
    ("node.k8s.io", 16300),
    ("discovery.k8s.io", 16200),
    ("resource.k8s.io", 16200),
    ("flowcontrol.apiserver.k8s.io", 16100),
    ("internal.apiserver.k8s.io", 16000),
    ("storagemigration.k8s.io", 15800),
];

/// Priority of a group in discovery: higher first.
pub fn group_priority(group: &str) -> i32 {
    GROUP_PRIORITIES.iter().find(|(name, _)| *name == group).map_or(1000, |(_, p)| *p)
}

/// What the typed API knows about a resource.
pub(crate) struct Row {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) definition: fn() -> String,
    pub(crate) subschema: fn(&mut SchemaGenerator),
    plural: &'static str,
    namespaced: bool,
    short_names: &'static str,
    categories: &'static str,
    verbs: &'static str,
}

trait Scope {
    const NAMESPACED: bool;
}

impl Scope for ClusterResourceScope {
    const NAMESPACED: bool = false;
}

impl Scope for NamespaceResourceScope {
    const NAMESPACED: bool = true;
}

fn row<T>() -> Row
where
    T: Typed + JsonSchema,
    T::Scope: Scope,
{
    Row {
        group: T::GROUP,
        version: T::VERSION,
        kind: T::KIND,
        definition: || T::schema_name().into_owned(),
        subschema: |generator| {
            generator.subschema_for::<T>();
        },
        plural: T::URL_PATH_SEGMENT,
        namespaced: <T::Scope as Scope>::NAMESPACED,
        short_names: "",
        categories: "",
        verbs: ALL_VERBS,
    }
}

impl Row {
    fn short(self, short_names: &'static str) -> Self {
        Self { short_names, ..self }
    }

    fn category(self, categories: &'static str) -> Self {
        Self { categories, ..self }
    }

    fn verbs(self, verbs: &'static str) -> Self {
        Self { verbs, ..self }
    }
}

fn review<T>() -> Row
where
    T: Typed + JsonSchema,
    T::Scope: Scope,
{
    row::<T>().verbs("create")
}

/// The rows, in discovery order within a group.
pub(crate) fn rows() -> Vec<Row> {
    let mut rows = core_rows();
    rows.extend(workload_rows());
    rows.extend(access_rows());
    rows.extend(cluster_rows());
    rows
}

fn core_rows() -> Vec<Row> {
    use core::v1::*;
    vec![
        review::<Binding>(),
        row::<ComponentStatus>().short("cs").verbs("get list"),
        row::<ConfigMap>().short("cm"),
        row::<Endpoints>().short("ep"),
        row::<Event>().short("ev"),
        row::<LimitRange>().short("limits"),
        row::<Namespace>().short("ns").verbs("create delete get list patch update watch"),
        row::<Node>().short("no"),
        row::<PersistentVolumeClaim>().short("pvc"),
        row::<PersistentVolume>().short("pv"),
        row::<Pod>().short("po").category("all"),
        row::<PodTemplate>(),
        row::<ReplicationController>().short("rc").category("all"),
        row::<ResourceQuota>().short("quota"),
        row::<Secret>(),
        row::<ServiceAccount>().short("sa"),
        row::<Service>().short("svc").category("all"),
    ]
}

fn workload_rows() -> Vec<Row> {
    vec![
        row::<apps::v1::ControllerRevision>(),
        row::<apps::v1::DaemonSet>().short("ds").category("all"),
        row::<apps::v1::Deployment>().short("deploy").category("all"),
        row::<apps::v1::ReplicaSet>().short("rs").category("all"),
        row::<apps::v1::StatefulSet>().short("sts").category("all"),
        row::<events::v1::Event>().short("ev"),
        row::<autoscaling::v2::HorizontalPodAutoscaler>().short("hpa").category("all"),
        row::<autoscaling::v1::HorizontalPodAutoscaler>().short("hpa").category("all"),
        row::<batch::v1::CronJob>().short("cj").category("all"),
        row::<batch::v1::Job>().category("all"),
        row::<policy::v1::PodDisruptionBudget>().short("pdb"),
        row::<scheduling::v1::PriorityClass>().short("pc"),
        row::<scheduling::v1beta1::PodGroup>(),
        row::<scheduling::v1beta1::Workload>(),
        row::<scheduling::v1alpha3::CompositePodGroup>(),
        row::<lifecycle::v1alpha1::Eviction>(),
        row::<lifecycle::v1alpha1::EvictionRequest>(),
        row::<node::v1::RuntimeClass>(),
        row::<discovery::v1::EndpointSlice>(),
        row::<networking::v1::Ingress>().short("ing"),
        row::<networking::v1::IngressClass>(),
        row::<networking::v1::IPAddress>().short("ip"),
        row::<networking::v1::NetworkPolicy>().short("netpol"),
        row::<networking::v1::ServiceCIDR>(),
    ]
}

fn access_rows() -> Vec<Row> {
    vec![
        review::<authentication::v1::SelfSubjectReview>(),
        review::<authentication::v1::TokenReview>(),
        review::<authorization::v1::LocalSubjectAccessReview>(),
        review::<authorization::v1::SelfSubjectAccessReview>(),
        review::<authorization::v1::SelfSubjectRulesReview>(),
        review::<authorization::v1::SubjectAccessReview>(),
        row::<rbac::v1::ClusterRoleBinding>(),
        row::<rbac::v1::ClusterRole>(),
        row::<rbac::v1::RoleBinding>(),
        row::<rbac::v1::Role>(),
        row::<certificates::v1::CertificateSigningRequest>().short("csr"),
        row::<certificates::v1::ClusterTrustBundle>(),
        row::<certificates::v1::PodCertificateRequest>(),
        row::<admissionregistration::v1::MutatingAdmissionPolicy>(),
        row::<admissionregistration::v1::MutatingAdmissionPolicyBinding>(),
        row::<admissionregistration::v1::MutatingWebhookConfiguration>().category("api-extensions"),
        row::<admissionregistration::v1::ValidatingAdmissionPolicy>(),
        row::<admissionregistration::v1::ValidatingAdmissionPolicyBinding>(),
        row::<admissionregistration::v1::ValidatingWebhookConfiguration>()
            .category("api-extensions"),
    ]
}

fn cluster_rows() -> Vec<Row> {
    vec![
        row::<coordination::v1::Lease>(),
        row::<coordination::v1beta1::LeaseCandidate>(),
        row::<flowcontrol::v1::FlowSchema>(),
        row::<flowcontrol::v1::PriorityLevelConfiguration>(),
        row::<resource::v1::DeviceClass>(),
        row::<resource::v1::DeviceTaintRule>(),
        row::<resource::v1::ResourceClaim>(),
        row::<resource::v1::ResourceClaimTemplate>(),
        row::<resource::v1::ResourceSlice>(),
        row::<resource::v1alpha3::ResourcePoolStatusRequest>(),
        row::<storage::v1::CSIDriver>(),
        row::<storage::v1::CSINode>(),
        row::<storage::v1::CSIStorageCapacity>(),
        row::<storage::v1::StorageClass>().short("sc"),
        row::<storage::v1::VolumeAttachment>(),
        row::<storage::v1::VolumeAttributesClass>().short("vac"),
        row::<storagemigration::v1::StorageVersionMigration>(),
        row::<apiserverinternal::v1alpha1::StorageVersion>(),
        row::<apiextensions::v1::CustomResourceDefinition>()
            .short("crd crds")
            .category("api-extensions"),
        row::<apiregistration::v1::APIService>().category("api-extensions"),
    ]
}

static BUILTIN: LazyLock<Vec<Arc<Resource>>> =
    LazyLock::new(|| rows().iter().map(|row| Arc::new(resource_of(row))).collect());

/// All built-in resources, built once.
pub fn builtin() -> &'static [Arc<Resource>] {
    &BUILTIN
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn resource_of(row: &Row) -> Resource {
    let definitions = schema::builtin().clone();
    let definition = (row.definition)();
    let verbs = words(row.verbs);
    let is_review = row.verbs == "create";
    let is_stored = !is_review && row.kind != "ComponentStatus";
    let has_status = is_stored && definitions.view(&definition).property("status").is_some();
    Resource {
        group: row.group.to_owned(),
        version: row.version.to_owned(),
        kind: row.kind.to_owned(),
        list_kind: format!("{}List", row.kind),
        plural: row.plural.to_owned(),
        singular: row.kind.to_lowercase(),
        short_names: words(row.short_names),
        categories: words(row.categories),
        namespaced: row.namespaced,
        verbs,
        subresources: subresources(row.group, row.version, row.kind, has_status),
        storage: is_stored.then(|| storage_of(row)),
        selectable_fields: selectable_fields(row.group, row.kind),
        definitions,
        definition,
        printer_columns: Vec::new(),
        custom: false,
    }
}

fn storage_of(row: &Row) -> Storage {
    let prefix = match (row.group, row.plural) {
        ("", "nodes") => "minions".to_owned(),
        ("", "services") => "services/specs".to_owned(),
        ("", "endpoints") => "services/endpoints".to_owned(),
        ("", "replicationcontrollers") => "controllers".to_owned(),
        ("networking.k8s.io", "ingresses") => "ingress".to_owned(),
        (group @ ("apiextensions.k8s.io" | "apiregistration.k8s.io"), plural) => {
            format!("{group}/{plural}")
        }
        (_, plural) => plural.to_owned(),
    };
    let version = match row.group {
        "events.k8s.io" => GroupVersion::new("", "v1"),
        "autoscaling" => GroupVersion::new("autoscaling", "v2"),
        group => GroupVersion::new(group, row.version),
    };
    Storage { prefix, version }
}

/// Selector labels per kind: `label`, `label=path` where they differ, `label:default`.
fn selectable_fields(group: &str, kind: &str) -> Vec<SelectableField> {
    let fields: &[&str] = match (group, kind) {
        ("", "Pod") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork:false",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        ("", "Node") => &["spec.unschedulable:false"],
        ("", "Namespace") => &["status.phase", "name=metadata.name"],
        ("", "PersistentVolume") => &["name=metadata.name"],
        ("", "Secret") => &["type"],
        ("", "Service") => &["spec.clusterIP", "spec.type"],
        ("", "ReplicationController") | ("apps", "ReplicaSet") => &["status.replicas:0"],
        ("batch", "Job") => &["status.successful=status.succeeded:0"],
        ("certificates.k8s.io", "CertificateSigningRequest" | "ClusterTrustBundle") => {
            &["spec.signerName"]
        }
        ("certificates.k8s.io", "PodCertificateRequest") => {
            &["spec.signerName", "spec.podName", "spec.nodeName"]
        }
        ("resource.k8s.io", "ResourceSlice") => &["spec.nodeName", "spec.driver"],
        ("networking.k8s.io", "IPAddress") => &["spec.parentRef.name"],
        ("", "Event") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source=source.component",
            "type",
        ],
        ("events.k8s.io", "Event") => &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ],
        _ => &[],
    };
    fields.iter().map(|text| selectable_field(text)).collect()
}

fn selectable_field(text: &str) -> SelectableField {
    let (text, default) = text.split_once(':').unwrap_or((text, ""));
    let (label, path) = text.split_once('=').unwrap_or((text, text));
    SelectableField {
        label: label.to_owned(),
        path: path.split('.').map(str::to_owned).collect(),
        default: default.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::RestMapper;
    use super::*;

    fn find(group: &str, plural: &str) -> Arc<Resource> {
        RestMapper::builtin().preferred(group, plural).cloned().expect(plural)
    }

    #[test]
    fn storage_keys_follow_the_layout_of_kubernetes() {
        let keys = [
            ("", "pods", "pods/ns/x"),
            ("", "nodes", "minions/x"),
            ("", "services", "services/specs/ns/x"),
            ("", "endpoints", "services/endpoints/ns/x"),
            ("", "replicationcontrollers", "controllers/ns/x"),
            ("apps", "deployments", "deployments/ns/x"),
            ("networking.k8s.io", "ingresses", "ingress/ns/x"),
            ("events.k8s.io", "events", "events/ns/x"),
            ("rbac.authorization.k8s.io", "clusterroles", "clusterroles/x"),
            (
                "apiextensions.k8s.io",
                "customresourcedefinitions",
                "apiextensions.k8s.io/customresourcedefinitions/x",
            ),
            ("apiregistration.k8s.io", "apiservices", "apiregistration.k8s.io/apiservices/x"),
        ];
        for (group, plural, key) in keys {
            let resource = find(group, plural);
            let namespace = if resource.namespaced { "ns" } else { "" };
            assert_eq!(resource.storage_key(namespace, "x").as_deref(), Some(key));
        }
    }

    #[test]
    fn storage_prefixes_are_shared_only_by_versions_of_one_kind() {
        for a in builtin() {
            for b in builtin() {
                let (Some(x), Some(y)) = (&a.storage, &b.storage) else { continue };
                if x.prefix == y.prefix {
                    assert_eq!(a.kind, b.kind);
                    assert_eq!(x.version, y.version);
                }
            }
        }
    }

    #[test]
    fn every_resource_has_its_definition() {
        for resource in builtin() {
            assert!(resource.definitions.get(&resource.definition).is_some(), "{}", resource.kind);
        }
    }

    #[test]
    fn groups_come_in_the_order_of_discovery() {
        let groups = RestMapper::builtin().groups();
        let first = ["", "apiregistration.k8s.io", "apps", "events.k8s.io"];
        assert_eq!(groups[..4], first);
        assert_eq!(RestMapper::builtin().versions("autoscaling"), ["v2", "v1"]);
    }

    #[test]
    fn status_and_scale_are_where_upstream_has_them() {
        let names = |group: &str, plural: &str| -> Vec<String> {
            find(group, plural).subresources.iter().map(|s| s.name.clone()).collect()
        };
        assert_eq!(names("apps", "deployments"), ["scale", "status"]);
        assert_eq!(names("", "services"), ["proxy", "status"]);
        assert_eq!(names("", "configmaps"), Vec::<String>::new());
        assert_eq!(names("networking.k8s.io", "networkpolicies"), Vec::<String>::new());
        assert_eq!(
            names("", "pods"),
            [
                "attach",
                "binding",
                "ephemeralcontainers",
                "eviction",
                "exec",
                "log",
                "portforward",
                "proxy",
                "resize",
                "status"
            ]
        );
    }
}
