//! The apiserver's own small changes (binding a pod, spending a disruption): straight to the store,
//! by compare-and-swap, without the checks that a client's update goes through.

use pintle_apiserver_storage::{Change, Current, Updated, Updater, guaranteed_update};
use pintle_machinery::object;
use serde_json::Value;

use super::update::{Failure, cached};
use super::{Context, Registry, codec};
use crate::error::{ApiError, ApiResult, from_storage};

type Edit<'a> = &'a mut (dyn FnMut(&mut Value) -> ApiResult<()> + Send);

struct Attempt<'a> {
    cx: &'a Context,
    edit: Edit<'a>,
    result: Value,
}

#[async_trait::async_trait]
impl Updater for Attempt<'_> {
    type Error = Failure;

    async fn attempt(&mut self, current: &Current) -> Result<Change, Failure> {
        let Some(stored) = current else { return Err(Failure::Missing) };
        let old = codec::load(&self.cx.resource, stored)?;
        let mut value = old.clone();
        (self.edit)(&mut value)?;
        let change = if value == old {
            Change::Keep
        } else {
            Change::Put(codec::encode(&self.cx.resource, &value)?, None)
        };
        self.result = value;
        Ok(change)
    }
}

impl Registry {
    /// Edits a stored object; `edit` is called again with newer state after a lost race, and its
    /// error, given for the newest state, is the answer.
    pub(crate) async fn mutate(
        &self,
        group: &str,
        plural: &str,
        namespace: &str,
        name: &str,
        mut edit: impl FnMut(&mut Value) -> ApiResult<()> + Send,
    ) -> ApiResult<Value> {
        let resource = self.resource(group, plural)?;
        let cx = Context::internal(self, &resource, namespace, name);
        let key = codec::key(&resource, namespace, name)?;
        let mut attempt = Attempt { cx: &cx, edit: &mut edit, result: Value::Null };
        let outcome = guaranteed_update(self.storage(), &key, cached(&cx), &mut attempt).await;
        let mut value = attempt.result;
        match outcome {
            Ok(Updated::Put(revision) | Updated::Deleted(revision) | Updated::Kept(revision)) => {
                object::set_resource_version(&mut value, &revision.to_string());
                Ok(value)
            }
            Err(Failure::Missing) => Err(ApiError::not_found(&cx.group_resource(), name)),
            Err(Failure::Api(error)) => Err(error),
            Err(Failure::Storage(error)) => Err(from_storage(error, &cx.group_resource(), name)),
        }
    }
}
