//! Which built-in kind has which strategy.

use std::sync::Arc;

use super::certificate_request::CertificateRequest;
use super::immutable::{BeginsPending, Freezable};
use super::{Plain, Strategy, job, namespace, pod, rbac, service};

/// The strategy of a built-in resource. `group` is empty for core.
pub fn strategy_for(group: &str, resource: &str) -> Arc<dyn Strategy> {
    match (group, resource) {
        ("", "pods") => Arc::new(pod::Pod),
        ("", "namespaces") => Arc::new(namespace::Namespace),
        ("", "services") => Arc::new(service::Service),
        ("", "configmaps" | "secrets") => Arc::new(Freezable),
        ("", "persistentvolumes" | "persistentvolumeclaims") => Arc::new(BeginsPending),
        ("", "replicationcontrollers") => Arc::new(Orphaning),
        ("batch", "jobs") => Arc::new(job::Job),
        ("certificates.k8s.io", "certificatesigningrequests") => Arc::new(CertificateRequest),
        ("rbac.authorization.k8s.io", "roles" | "clusterroles") => Arc::new(rbac::Role),
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => {
            Arc::new(rbac::Binding)
        }
        _ => Arc::new(Plain),
    }
}

/// A kind whose dependents stay when a client does not say otherwise: it is older than garbage collection.
struct Orphaning;

impl Strategy for Orphaning {
    fn orphan_by_default(&self) -> bool {
        true
    }
}

/// Subresources beside `status` and `scale` that are PUT/PATCH/GET views of the object itself and go
/// through [`Strategy::merge_subresource`].
pub fn validating_subresources(group: &str, resource: &str) -> &'static [&'static str] {
    match (group, resource) {
        ("", "namespaces") => &["finalize"],
        ("", "pods") => &["ephemeralcontainers", "resize"],
        ("certificates.k8s.io", "certificatesigningrequests") => &["approval"],
        _ => &[],
    }
}
