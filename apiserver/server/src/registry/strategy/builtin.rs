//! Which built-in kind has which strategy.

use std::sync::Arc;

use super::{Plain, Strategy};

/// The strategy of a built-in resource. `group` is empty for core.
pub fn strategy_for(_group: &str, _resource: &str) -> Arc<dyn Strategy> {
    Arc::new(Plain)
}

/// Subresources beside `status` and `scale` that are PUT/PATCH/GET views of the object itself and go
/// through [`Strategy::merge_subresource`].
pub fn validating_subresources(group: &str, resource: &str) -> &'static [&'static str] {
    match (group, resource) {
        ("", "pods") => &["ephemeralcontainers", "resize"],
        ("certificates.k8s.io", "certificatesigningrequests") => &["approval"],
        _ => &[],
    }
}
