//! The resources the API serves: names, verbs, subresources, storage layout, selectable fields.
//!
//! [`builtin`] is the static table; a [`RestMapper`] holds it beside the custom resources that exist
//! right now. Entries are immutable and shared (`Arc<Resource>`), so a handler keeps what it looked
//! up for the whole request even when a definition changes meanwhile.

use std::fmt::{self, Display};
use std::sync::Arc;

use serde_json::Value;

use crate::schema::{self, View};
use crate::table::ColumnDefinition;

mod builtin;
mod mapper;
mod subresources;

pub(crate) use builtin::rows;
pub use builtin::{builtin, group_priority};
pub use mapper::RestMapper;

/// `group` and `version`; the core group is the empty string.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersion {
    /// API group.
    pub group: String,
    /// Version, e.g. `v1`.
    pub version: String,
}

impl GroupVersion {
    /// From its parts.
    pub fn new(group: impl Into<String>, version: impl Into<String>) -> Self {
        Self { group: group.into(), version: version.into() }
    }

    /// Parses `v1` or `apps/v1`; `None` when there is more than one slash.
    pub fn parse(api_version: &str) -> Option<Self> {
        match api_version.split_once('/') {
            None => Some(Self::new("", api_version)),
            Some((_, version)) if version.contains('/') => None,
            Some((group, version)) => Some(Self::new(group, version)),
        }
    }

    /// The URL root: `api/v1` or `apis/apps/v1`.
    pub fn url_path(&self) -> String {
        if self.group.is_empty() {
            format!("api/{}", self.version)
        } else {
            format!("apis/{}/{}", self.group, self.version)
        }
    }
}

/// The `apiVersion` form.
impl Display for GroupVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() {
            f.write_str(&self.version)
        } else {
            write!(f, "{}/{}", self.group, self.version)
        }
    }
}

/// A kind in a group, whatever the version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKind {
    /// API group.
    pub group: String,
    /// Kind.
    pub kind: String,
}

impl GroupKind {
    /// From its parts.
    pub fn new(group: impl Into<String>, kind: impl Into<String>) -> Self {
        Self { group: group.into(), kind: kind.into() }
    }
}

/// `Deployment.apps`, or `Pod` for the core group.
impl Display for GroupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        qualified(f, &self.kind, &self.group)
    }
}

/// A resource in a group, whatever the version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupResource {
    /// API group.
    pub group: String,
    /// Plural name.
    pub resource: String,
}

impl GroupResource {
    /// From its parts.
    pub fn new(group: impl Into<String>, resource: impl Into<String>) -> Self {
        Self { group: group.into(), resource: resource.into() }
    }
}

/// `deployments.apps`, or `pods` for the core group.
impl Display for GroupResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        qualified(f, &self.resource, &self.group)
    }
}

fn qualified(f: &mut fmt::Formatter<'_>, name: &str, group: &str) -> fmt::Result {
    if group.is_empty() { f.write_str(name) } else { write!(f, "{name}.{group}") }
}

/// A kind at a version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersionKind {
    /// API group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Kind.
    pub kind: String,
}

impl GroupVersionKind {
    /// From its parts.
    pub fn new(
        group: impl Into<String>,
        version: impl Into<String>,
        kind: impl Into<String>,
    ) -> Self {
        Self { group: group.into(), version: version.into(), kind: kind.into() }
    }

    /// Reads `apiVersion` and `kind` of an object.
    pub fn of(object: &Value) -> Option<Self> {
        let gv = GroupVersion::parse(crate::object::api_version(object))?;
        Some(Self::new(gv.group, gv.version, crate::object::kind(object)))
    }

    /// Without the kind.
    pub fn group_version(&self) -> GroupVersion {
        GroupVersion::new(&*self.group, &*self.version)
    }

    /// Without the version.
    pub fn group_kind(&self) -> GroupKind {
        GroupKind::new(&*self.group, &*self.kind)
    }
}

/// `apps/v1, Kind=Deployment`.
impl Display for GroupVersionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}, Kind={}", self.group, self.version, self.kind)
    }
}

/// A resource at a version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersionResource {
    /// API group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Plural name.
    pub resource: String,
}

impl GroupVersionResource {
    /// From its parts.
    pub fn new(
        group: impl Into<String>,
        version: impl Into<String>,
        resource: impl Into<String>,
    ) -> Self {
        Self { group: group.into(), version: version.into(), resource: resource.into() }
    }

    /// Without the resource.
    pub fn group_version(&self) -> GroupVersion {
        GroupVersion::new(&*self.group, &*self.version)
    }

    /// Without the version.
    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(&*self.group, &*self.resource)
    }
}

/// `apps/v1, Resource=deployments`.
impl Display for GroupVersionResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}, Resource={}", self.group, self.version, self.resource)
    }
}

/// A subresource as discovery lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// Path segment after the object's name, e.g. `status`.
    pub name: String,
    /// Group, version and kind of its body.
    pub kind: GroupVersionKind,
    /// Verbs in discovery's order.
    pub verbs: Vec<String>,
}

/// Where and in which version objects are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// The path below `/registry/`, e.g. `pods`, `minions`, `services/specs`.
    pub prefix: String,
    /// The group and version whose form is written; readers convert.
    pub version: GroupVersion,
}

/// A field that field selectors may use, beside `metadata.name` and `metadata.namespace`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectableField {
    /// The label of the field in a selector, e.g. `status.phase`.
    pub label: String,
    /// Where the value is, as object keys; equals the label split at dots for most fields.
    pub path: Vec<String>,
    /// The value when the field is absent.
    pub default: String,
}

/// One served resource at one version.
#[derive(Clone, Debug)]
pub struct Resource {
    /// API group, empty for core.
    pub group: String,
    /// Version.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Kind of the list.
    pub list_kind: String,
    /// Plural name: the URL segment.
    pub plural: String,
    /// Singular name.
    pub singular: String,
    /// Short names.
    pub short_names: Vec<String>,
    /// Categories, e.g. `all`.
    pub categories: Vec<String>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Verbs in discovery's order; review kinds have only `create`.
    pub verbs: Vec<String>,
    /// Subresources.
    pub subresources: Vec<Subresource>,
    /// Where objects are kept; `None` for review kinds, which are computed and never stored.
    pub storage: Option<Storage>,
    /// Supported field selectors.
    pub selectable_fields: Vec<SelectableField>,
    /// The schema document this kind's definition lives in.
    pub definitions: Arc<schema::Definitions>,
    /// Name of the kind's definition in `definitions`.
    pub definition: String,
    /// Printer columns of a custom resource; built-in kinds have theirs in [`crate::table`].
    pub printer_columns: Vec<ColumnDefinition>,
    /// Whether this comes from a CustomResourceDefinition.
    pub custom: bool,
}

impl Resource {
    /// Group and version.
    pub fn group_version(&self) -> GroupVersion {
        GroupVersion::new(&*self.group, &*self.version)
    }

    /// `apiVersion` of its objects.
    pub fn api_version(&self) -> String {
        self.group_version().to_string()
    }

    /// Group, version and kind.
    pub fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind::new(&*self.group, &*self.version, &*self.kind)
    }

    /// Group, version and plural name.
    pub fn gvr(&self) -> GroupVersionResource {
        GroupVersionResource::new(&*self.group, &*self.version, &*self.plural)
    }

    /// Group and kind, as `Invalid` errors name it.
    pub fn group_kind(&self) -> GroupKind {
        GroupKind::new(&*self.group, &*self.kind)
    }

    /// Group and plural name, as most errors name it.
    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(&*self.group, &*self.plural)
    }

    /// The subresource called `name`.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// Whether the resource itself has `verb`.
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    /// The structural schema of the kind.
    pub fn schema(&self) -> View<'_> {
        self.definitions.view(&self.definition)
    }

    /// The storage key below `/registry/`: `pods/default/x` or `minions/x`.
    pub fn storage_key(&self, namespace: &str, name: &str) -> Option<String> {
        let prefix = &self.storage.as_ref()?.prefix;
        Some(if namespace.is_empty() {
            format!("{prefix}/{name}")
        } else {
            format!("{prefix}/{namespace}/{name}")
        })
    }
}
