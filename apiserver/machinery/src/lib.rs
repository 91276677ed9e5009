//! The Kubernetes API as pure computation: resource table, schema facts, defaults, validation,
//! patches, apply, selectors, tables and `Status` errors over `serde_json::Value`.
//!
//! Nothing here does I/O, reads a clock or spawns a task: callers pass the time in. Objects stay
//! dynamic (`Value`), because built-in kinds and custom resources share every code path; what is
//! known about a kind comes from [`resource::Resource`] and its [`schema::View`].
//!
//! The write path of a request uses the modules in this order: [`decode`] (text to value, duplicate
//! keys), [`field_validation`] (unknown fields, types), [`defaults`], [`patch`] or [`apply`],
//! [`validation`], [`managed_fields`]. The read path: [`selector`], [`table`], [`openapi`].

pub mod apply;
pub mod conversion;
pub mod decode;
pub mod defaults;
pub mod field;
pub mod field_validation;
pub mod int_or_string;
pub mod json_path;
pub mod managed_fields;
pub mod node;
pub mod object;
pub mod openapi;
pub mod patch;
pub mod quantity;
pub mod resource;
pub mod schedule;
pub mod schema;
pub mod selector;
pub mod status;
pub mod table;
pub mod time;
pub mod validation;

pub use field::{ErrorList, Path};
pub use quantity::Quantity;
pub use resource::{
    GroupKind, GroupResource, GroupVersion, GroupVersionKind, GroupVersionResource, Resource,
    RestMapper,
};
pub use selector::{FieldSelector, LabelSelector};
pub use status::{Reason, Status};
