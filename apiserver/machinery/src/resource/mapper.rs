//! `RestMapper`: every resource served right now, found by URL, by kind or by name.

use std::collections::HashMap;
use std::sync::Arc;

use super::{
    GroupVersion, GroupVersionKind, GroupVersionResource, Resource, builtin, group_priority,
};

/// An immutable set of resources. The server replaces it as a whole (behind an `ArcSwap`) when
/// custom resources come and go: cloning copies pointers only.
#[derive(Clone, Debug, Default)]
pub struct RestMapper {
    resources: Vec<Arc<Resource>>,
    by_resource: HashMap<GroupVersionResource, Arc<Resource>>,
    by_kind: HashMap<GroupVersionKind, Arc<Resource>>,
}

impl RestMapper {
    /// The built-in resources.
    pub fn builtin() -> Self {
        let mut mapper = Self::default();
        for resource in builtin() {
            mapper.insert(resource.clone());
        }
        mapper
    }

    /// Adds or replaces a resource (same group, version and plural name).
    pub fn insert(&mut self, resource: Arc<Resource>) {
        self.remove(&resource.gvr());
        self.by_resource.insert(resource.gvr(), resource.clone());
        self.by_kind.insert(resource.gvk(), resource.clone());
        self.resources.push(resource);
    }

    /// Removes a resource.
    pub fn remove(&mut self, gvr: &GroupVersionResource) -> Option<Arc<Resource>> {
        let old = self.by_resource.remove(gvr)?;
        self.by_kind.remove(&old.gvk());
        self.resources.retain(|r| !Arc::ptr_eq(r, &old));
        Some(old)
    }

    /// All resources: built-in ones in table order, then custom ones in the order added.
    pub fn resources(&self) -> &[Arc<Resource>] {
        &self.resources
    }

    /// By URL.
    pub fn get(&self, gvr: &GroupVersionResource) -> Option<&Arc<Resource>> {
        self.by_resource.get(gvr)
    }

    /// By kind.
    pub fn by_kind(&self, gvk: &GroupVersionKind) -> Option<&Arc<Resource>> {
        self.by_kind.get(gvk)
    }

    /// The resource with this group and plural name in its preferred version.
    pub fn preferred(&self, group: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.versions(group)
            .into_iter()
            .find_map(|version| self.get(&GroupVersionResource::new(group, version, plural)))
    }

    /// All groups in discovery's order, core ("") first.
    pub fn groups(&self) -> Vec<String> {
        let mut groups: Vec<&str> = Vec::new();
        for resource in &self.resources {
            if !groups.contains(&&*resource.group) {
                groups.push(&resource.group);
            }
        }
        groups.sort_by(|a, b| group_priority(b).cmp(&group_priority(a)).then_with(|| a.cmp(b)));
        groups.into_iter().map(str::to_owned).collect()
    }

    /// The versions of a group, preferred first.
    pub fn versions(&self, group: &str) -> Vec<String> {
        let mut versions: Vec<&str> = Vec::new();
        for resource in self.resources.iter().filter(|r| r.group == group) {
            if !versions.contains(&&*resource.version) {
                versions.push(&resource.version);
            }
        }
        versions.sort_by_key(|v| std::cmp::Reverse(version_priority(v)));
        versions.into_iter().map(str::to_owned).collect()
    }

    /// The resources of one group version, sorted by plural name.
    pub fn group_version<'a>(&'a self, gv: &GroupVersion) -> Vec<&'a Arc<Resource>> {
        let mut found: Vec<_> = self
            .resources
            .iter()
            .filter(|r| r.group == gv.group && r.version == gv.version)
            .collect();
        found.sort_by(|a, b| a.plural.cmp(&b.plural));
        found
    }
}

/// Kubernetes' version order: stable before beta before alpha, higher numbers first; anything else
/// last. Greater is preferred.
pub(crate) fn version_priority(version: &str) -> (u8, u32, u32, std::cmp::Reverse<String>) {
    let other = || (0, 0, 0, std::cmp::Reverse(version.to_owned()));
    let Some(rest) = version.strip_prefix('v') else { return other() };
    let (major, stage) = match rest.find(|c: char| !c.is_ascii_digit()) {
        None => (rest, ""),
        Some(at) => rest.split_at(at),
    };
    let Ok(major) = major.parse::<u32>() else { return other() };
    let none = std::cmp::Reverse(String::new());
    if stage.is_empty() {
        return (3, major, 0, none);
    }
    for (rank, name) in [(2, "beta"), (1, "alpha")] {
        if let Some(minor) = stage.strip_prefix(name).and_then(|n| n.parse::<u32>().ok()) {
            return (rank, major, minor, none);
        }
    }
    other()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_discovery_orders_them() {
        let mut versions =
            ["v1alpha1", "foo", "v2", "v1", "v1beta2", "v1beta10", "v10", "v2alpha1", "bar"];
        versions.sort_by_key(|v| std::cmp::Reverse(version_priority(v)));
        assert_eq!(
            versions,
            ["v10", "v2", "v1", "v1beta10", "v1beta2", "v2alpha1", "v1alpha1", "bar", "foo"]
        );
    }
}
