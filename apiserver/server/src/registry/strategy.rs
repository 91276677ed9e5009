//! What a kind adds to the generic registry.
//!
//! Order of a create: decode → machinery's defaults → admission (mutating) → generic metadata (name, uid,
//! creationTimestamp, generation) → [`Strategy::prepare_for_create`] → validation (machinery's, then
//! [`Strategy::validate`]) → [`Strategy::warnings`] → admission (validating) → [`Strategy::begin_create`]
//! → store → [`Strategy::after_create`]. Updates likewise, inside a loop that retries on conflict,
//! so everything before the store must be repeatable.
//!
//! The generic registry already does, from machinery's resource table, and a strategy need not:
//! keep `status` out of writes to the object and everything but `status` out of writes to `/status`;
//! raise `metadata.generation` when anything but metadata and status changed; protect uid,
//! creationTimestamp, deletionTimestamp; finalizers and propagation policies.

mod builtin;
mod certificate_request;
mod immutable;
mod job;
mod namespace;
mod pod;
mod rbac;
pub(crate) mod service;

use pintle_machinery::ErrorList;
use serde_json::Value;

use super::{Context, DeleteOptions};
use crate::error::ApiError;

pub use builtin::{strategy_for, validating_subresources};

/// What a graceful delete does to the stored object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grace {
    /// Remove at once.
    Immediately,
    /// Set `deletionTimestamp` and keep the object until its agent deletes it with grace 0.
    Seconds(i64),
}

/// The part of a resource that differs from every other one. All methods have the common behaviour as default.
#[async_trait::async_trait]
pub trait Strategy: Send + Sync + 'static {
    /// Clears what a client may not set and fills what only the server knows.
    async fn prepare_for_create(&self, _cx: &Context, _object: &mut Value) -> Result<(), ApiError> {
        Ok(())
    }

    /// Likewise for an update of the object itself.
    async fn prepare_for_update(
        &self,
        _cx: &Context,
        _object: &mut Value,
        _old: &Value,
    ) -> Result<(), ApiError> {
        Ok(())
    }

    /// For an update through `cx.subresource` (other than `scale`): the stored object with only those parts of
    /// `object` that this subresource may change. `None`: the common rule (`status` takes
    /// `status` and metadata's managedFields/labels/annotations from `object`).
    fn merge_subresource(
        &self,
        _cx: &Context,
        _object: &Value,
        _old: &Value,
    ) -> Option<Result<Value, ApiError>> {
        None
    }

    /// Rules beyond machinery's; an empty list is valid, anything else is answered with 422.
    fn validate(&self, _cx: &Context, _object: &Value) -> ErrorList {
        ErrorList::new()
    }

    /// Rules on what may change; runs after [`Self::validate`].
    fn validate_update(&self, _cx: &Context, _object: &Value, _old: &Value) -> ErrorList {
        ErrorList::new()
    }

    /// Texts for `Warning` headers.
    fn warnings(&self, _cx: &Context, _object: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }

    /// Side effects that must precede the write (allocating an address). Not called on dry run.
    /// When the write then fails, [`Self::abort_create`] is called with the same object.
    async fn begin_create(&self, _cx: &Context, _object: &mut Value) -> Result<(), ApiError> {
        Ok(())
    }

    /// Undoes [`Self::begin_create`].
    async fn abort_create(&self, _cx: &Context, _object: &Value) {}

    /// Side effects that must precede an update; called once for every attempt, not on dry run.
    async fn begin_update(
        &self,
        _cx: &Context,
        _object: &mut Value,
        _old: &Value,
    ) -> Result<(), ApiError> {
        Ok(())
    }

    /// After the object is stored. Not called on dry run.
    async fn after_create(&self, _cx: &Context, _object: &Value) {}

    /// After a change is stored.
    async fn after_update(&self, _cx: &Context, _object: &Value, _old: &Value) {}

    /// After the object is gone.
    async fn after_delete(&self, _cx: &Context, _object: &Value) {}

    /// Whether the object may be deleted now (a 4xx otherwise).
    async fn validate_delete(&self, _cx: &Context, _object: &Value) -> Result<(), ApiError> {
        Ok(())
    }

    /// How a delete proceeds: pods stay until their node confirms, unless they never got one.
    fn grace(&self, _cx: &Context, _object: &Value, _options: &DeleteOptions) -> Grace {
        Grace::Immediately
    }

    /// Adds to an object whose deletion begins, beside its deletionTimestamp (namespaces: the phase
    /// `Terminating`).
    fn begin_deletion(&self, _cx: &Context, _object: &mut Value) {}

    /// Whether something other than `metadata.finalizers` keeps a deleted object from being removed
    /// (namespaces: `spec.finalizers`). Such an object gets its deletionTimestamp and stays; it is
    /// removed by the update, through whatever subresource, after which nothing holds it any more.
    fn is_held(&self, _cx: &Context, _object: &Value) -> bool {
        false
    }

    /// Whether PUT of an object that does not exist creates it.
    fn allow_create_on_update(&self) -> bool {
        false
    }

    /// Whether PUT without a resourceVersion overwrites.
    fn allow_unconditional_update(&self) -> bool {
        true
    }

    /// `orphan` or `background`, when the client does not say (background for nearly everything).
    fn orphan_by_default(&self) -> bool {
        false
    }
}

/// A kind that adds nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl Strategy for Plain {}
