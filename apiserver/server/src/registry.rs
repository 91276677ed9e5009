//! The registry: every object of every kind, behind one generic implementation.
//!
//! [`Registry`] is the cheap handle that authorizers, admission plugins, strategies and virtual
//! endpoints are given: typed reads from the watch cache, live reads from the store, and writes as
//! the apiserver itself. [`Context`] is one request's view of it.

mod context;
mod handle;
mod options;
pub mod strategy;

pub use context::{Context, Warnings};
pub use handle::Registry;
pub use options::{DeleteOptions, Preconditions, Propagation};
