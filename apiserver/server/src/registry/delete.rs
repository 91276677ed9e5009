//! DELETE: at once, after a grace period, or when the last finalizer has gone.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use pintle_apiserver_storage::{Change, Current, Updated, Updater, guaranteed_update};
use pintle_machinery::{object, time};
use serde_json::{Value, json};

use super::strategy::{Grace, Strategy};
use super::update::{Failure, cached, check_preconditions};
use super::{Context, DeleteOptions, Propagation, codec};
use crate::admission::{Attributes, Operation};
use crate::error::{ApiError, ApiResult, from_storage};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// What a delete left behind.
pub(crate) struct Deleted {
    /// The object: as it was when it went, or marked for deletion.
    pub(crate) object: Value,
    /// Whether it is gone.
    pub(crate) removed: bool,
}

/// Deletes the object that `cx` names.
pub(crate) async fn delete(cx: &Context, options: &DeleteOptions) -> ApiResult<Deleted> {
    let key = codec::key(&cx.resource, &cx.namespace, &cx.name)?;
    let strategy = cx.registry.strategy(&cx.resource);
    let mut attempt =
        Attempt { cx, strategy: strategy.clone(), options, result: None, removed: false };
    let outcome = guaranteed_update(cx.registry.storage(), &key, cached(cx), &mut attempt).await;
    let (mut object, removed) = (attempt.result.take().unwrap_or_default(), attempt.removed);
    match outcome {
        Ok(updated) => {
            if let Updated::Put(revision) | Updated::Deleted(revision) = updated {
                object::set_resource_version(&mut object, &revision.to_string());
            }
            if matches!(updated, Updated::Deleted(_)) {
                strategy.after_delete(cx, &object).await;
            }
            Ok(Deleted { object, removed })
        }
        Err(Failure::Missing) => Err(ApiError::not_found(&cx.group_resource(), &cx.name)),
        Err(Failure::Api(error)) => Err(error),
        Err(Failure::Storage(error)) => Err(from_storage(error, &cx.group_resource(), &cx.name)),
    }
}

struct Attempt<'a> {
    cx: &'a Context,
    strategy: Arc<dyn Strategy>,
    options: &'a DeleteOptions,
    result: Option<Value>,
    removed: bool,
}

#[async_trait::async_trait]
impl Updater for Attempt<'_> {
    type Error = Failure;

    async fn attempt(&mut self, current: &Current) -> Result<Change, Failure> {
        let cx = self.cx;
        let Some(stored) = current else { return Err(Failure::Missing) };
        let old = codec::load(&cx.resource, stored)?;
        check_preconditions(cx, &self.options.preconditions, &old)?;
        let admission = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"});
        let mut attributes = Attributes {
            operation: Operation::Delete,
            object: None,
            old_object: Some(&old),
            options: &admission,
        };
        cx.registry.admission().admit(cx, &mut attributes).await?;
        cx.registry.admission().validate(cx, &attributes).await?;
        self.strategy.validate_delete(cx, &old).await?;
        let (value, removed) = self.marked(&old);
        let change = if cx.dry_run || self.options.dry_run || (!removed && value == old) {
            Change::Keep
        } else if removed {
            Change::Delete
        } else {
            Change::Put(codec::encode(&cx.resource, &value)?, None)
        };
        (self.result, self.removed) = (Some(value), removed);
        Ok(change)
    }
}

impl Attempt<'_> {
    /// The object as the deletion leaves it, and whether it goes at once.
    fn marked(&self, old: &Value) -> (Value, bool) {
        let cx = self.cx;
        let mut value = old.clone();
        let finalizers = self.finalizers(old);
        let held = !finalizers.is_empty() || self.strategy.is_held(cx, old);
        object::set_finalizers(&mut value, finalizers);
        let grace = match self.strategy.grace(cx, old, self.options) {
            Grace::Seconds(seconds) if seconds > 0 => seconds,
            _ => 0,
        };
        if grace == 0 && !held {
            return (value, true);
        }
        self.mark(&mut value, old, grace);
        (value, false)
    }

    /// Sets when the object goes. A second delete may bring that forward, never put it off.
    fn mark(&self, value: &mut Value, old: &Value, grace: i64) {
        if let Some(already) = object::deletion_timestamp(old) {
            let left = object::deletion_grace_period_seconds(old).unwrap_or(0);
            if grace >= left {
                return;
            }
            let begun = time::parse(already).unwrap_or_else(Timestamp::now)
                - SignedDuration::from_secs(left);
            let end = begun + SignedDuration::from_secs(grace);
            object::set_deletion(value, &time::format(end), grace);
            return;
        }
        let end = Timestamp::now() + SignedDuration::from_secs(grace);
        object::set_deletion(value, &time::format(end), grace);
        if object::generation(old) > 0 {
            object::set_generation(value, object::generation(old) + 1);
        }
        self.strategy.begin_deletion(self.cx, value);
    }

    /// The finalizers after the propagation policy has had its say.
    fn finalizers(&self, old: &Value) -> Vec<String> {
        let has = |finalizer: &str| object::has_finalizer(old, finalizer);
        let policy = self.options.propagation.unwrap_or_else(|| {
            if has(ORPHAN) || self.strategy.orphan_by_default() {
                Propagation::Orphan
            } else if has(FOREGROUND) {
                Propagation::Foreground
            } else {
                Propagation::Background
            }
        });
        let mut finalizers: Vec<String> = object::finalizers(old)
            .filter(|finalizer| !matches!(*finalizer, ORPHAN | FOREGROUND))
            .map(str::to_owned)
            .collect();
        match policy {
            Propagation::Orphan => finalizers.push(ORPHAN.to_owned()),
            Propagation::Foreground => finalizers.push(FOREGROUND.to_owned()),
            Propagation::Background => {}
        }
        finalizers
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::metadata;

    #[test]
    fn objects_go_when_marked_and_free_of_finalizers_and_grace() {
        let cases = [
            (json!({"metadata": {}}), false),
            (json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}), true),
            (
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30}}),
                false,
            ),
            (
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a/b"]}}),
                false,
            ),
        ];
        for (object, goes) in cases {
            assert_eq!(metadata::may_go(&object), goes, "{object}");
        }
    }
}
