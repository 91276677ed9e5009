//! POST: from a decoded object to a stored one.

use pintle_apiserver_storage as storage;
use pintle_machinery::{defaults, managed_fields, object, validation};
use serde_json::{Value, json};

use super::strategy::Strategy;
use super::{Context, codec, metadata};
use crate::admission::{Attributes, Operation};
use crate::error::{ApiError, ApiResult, from_storage};

/// How often another generated name is tried.
const GENERATED_NAMES_MAX: usize = 8;

/// Events are forgotten after an hour.
const EVENT_TTL_SECONDS: i64 = 3600;

/// Stores `value` and answers it as stored. `cx.name` is set when a name had to be generated.
/// `owned`: `metadata.managedFields` has been computed already (apply).
pub(crate) async fn create(cx: &mut Context, mut value: Value, owned: bool) -> ApiResult<Value> {
    metadata::check_namespace(cx, &mut value)?;
    if !object::resource_version(&value).is_empty() {
        return Err(ApiError::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    check_name(cx, &value)?;
    let base = object::generate_name(&value).to_owned();
    if !object::name(&value).is_empty() || base.is_empty() {
        return create_named(cx, value, owned).await;
    }
    for attempt in 1.. {
        let mut named = value.clone();
        object::set_name(&mut named, &metadata::generate_name(&base));
        match create_named(cx, named, owned).await {
            Err(error) if error.reason == pintle_machinery::Reason::AlreadyExists => {
                if attempt == GENERATED_NAMES_MAX {
                    return Err(ApiError::generate_name_conflict(&cx.group_resource(), &cx.name));
                }
            }
            done => return done,
        }
    }
    unreachable!("the loop above has no end of its own")
}

/// A PUT or apply that creates: the URL's name is the object's.
fn check_name(cx: &Context, value: &Value) -> ApiResult<()> {
    let name = object::name(value);
    if !cx.name.is_empty() && !name.is_empty() && cx.name != name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            cx.name
        )));
    }
    Ok(())
}

async fn create_named(cx: &mut Context, mut value: Value, owned: bool) -> ApiResult<Value> {
    cx.name = object::name(&value).to_owned();
    let strategy = cx.registry.strategy(&cx.resource);
    let options = json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"});
    if metadata::has_status(&cx.resource) {
        object::as_object_mut(&mut value).remove("status");
    }
    defaults::set_defaults(&mut value, &cx.resource);
    let mut attributes = Attributes {
        operation: Operation::Create,
        object: Some(&mut value),
        old_object: None,
        options: &options,
    };
    cx.registry.admission().admit(cx, &mut attributes).await?;
    if !owned {
        track(cx, None, &mut value);
    }
    metadata::fill_new(cx, &mut value);
    strategy.prepare_for_create(cx, &mut value).await?;
    let mut errors = validation::validate_create(&value, &cx.resource);
    errors.extend(strategy.validate(cx, &value));
    if !errors.is_empty() {
        return Err(ApiError::invalid(&cx.resource.group_kind(), &cx.name, &errors));
    }
    strategy.warnings(cx, &value, None).into_iter().for_each(|text| cx.warnings.add(text));
    let attributes = Attributes {
        operation: Operation::Create,
        object: Some(&mut value),
        old_object: None,
        options: &options,
    };
    cx.registry.admission().validate(cx, &attributes).await?;
    store(cx, strategy.as_ref(), value).await
}

async fn store(cx: &Context, strategy: &dyn Strategy, mut value: Value) -> ApiResult<Value> {
    let key = codec::key(&cx.resource, &cx.namespace, &cx.name)?;
    let storage = cx.registry.storage();
    let failed = |error: storage::Error| from_storage(error, &cx.group_resource(), &cx.name);
    if cx.dry_run {
        return match storage.get(&key).await.map_err(failed)? {
            Some(_) => Err(ApiError::already_exists(&cx.group_resource(), &cx.name)),
            None => Ok(value),
        };
    }
    strategy.begin_create(cx, &mut value).await?;
    let stored = match codec::encode(&cx.resource, &value) {
        Ok(bytes) => storage.create(&key, bytes, ttl(cx)).await.map_err(failed),
        Err(error) => Err(error),
    };
    match stored {
        Ok(revision) => {
            object::set_resource_version(&mut value, &revision.to_string());
            strategy.after_create(cx, &value).await;
            Ok(value)
        }
        Err(error) => {
            strategy.abort_create(cx, &value).await;
            Err(error)
        }
    }
}

/// Events live on a lease.
pub(super) fn ttl(cx: &Context) -> Option<i64> {
    let event =
        cx.resource.plural == "events" && matches!(&*cx.resource.group, "" | "events.k8s.io");
    event.then_some(EVENT_TTL_SECONDS)
}

/// Records who owns which field.
pub(super) fn track(cx: &Context, live: Option<&Value>, value: &mut Value) {
    let writer = managed_fields::Writer {
        manager: &cx.field_manager,
        api_version: &cx.resource.api_version(),
        subresource: &cx.subresource,
        time: &metadata::now(),
    };
    managed_fields::track_update(live, value, cx.resource.schema(), &writer);
}
