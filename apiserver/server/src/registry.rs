//! The registry: every object of every kind, behind one generic implementation.
//!
//! [`Registry`] is the cheap handle that authorizers, admission plugins, strategies and virtual
//! endpoints are given: typed reads from the watch cache, live reads from the store, and writes as
//! the apiserver itself. [`Context`] is one request's view of it.

mod codec;
mod context;
mod create;
mod delete;
mod handle;
mod metadata;
mod mutate;
mod options;
mod scale;
mod selection;
pub mod strategy;
mod update;

pub use context::{Context, Warnings};
pub use handle::{Registry, Target};
pub use options::{DeleteOptions, Preconditions, Propagation};

pub(crate) use codec::check_type;
pub(crate) use create::create;
pub(crate) use delete::{Deleted, delete};
pub(crate) use handle::decode;
pub(crate) use options::dry_run_of;
pub(crate) use scale::{ScalePaths, scale_of, set_scale};
pub(crate) use selection::Selection;
pub(crate) use update::{Transform, Update, update};
