//! PUT, PATCH and apply, on the object or a view of it: read, change, check, write if unchanged.

use std::sync::Arc;

use pintle_apiserver_storage::{
    self as storage, Change, Current, Stored, Updated, Updater, guaranteed_update,
};
use pintle_machinery::{ErrorList, Path, object, validation};
use serde_json::{Value, json};

use super::strategy::Strategy;
use super::{Context, Preconditions, codec, create, metadata};
use crate::admission::{Attributes, Operation};
use crate::error::{ApiError, ApiResult, from_storage};

/// Computes the wanted object from the stored one; called again after a lost race.
pub(crate) type Transform<'a> = &'a mut (dyn FnMut(Option<&Value>) -> ApiResult<Value> + Send);

/// One update.
pub(crate) struct Update<'a> {
    /// What is wanted.
    pub(crate) transform: Transform<'a>,
    /// Conditions on the stored object.
    pub(crate) preconditions: Preconditions,
    /// Whether a missing object is created.
    pub(crate) creates: bool,
    /// Whether the transform has computed `managedFields` (apply).
    pub(crate) owned: bool,
    /// Whether it is a PUT: then a kind may insist on a resourceVersion.
    pub(crate) replaces: bool,
}

/// The object as stored now, and whether it was created.
pub(crate) async fn update(cx: &mut Context, request: Update<'_>) -> ApiResult<(Value, bool)> {
    let key = codec::key(&cx.resource, &cx.namespace, &cx.name)?;
    let strategy = cx.registry.strategy(&cx.resource);
    let creates = request.creates || (request.replaces && strategy.allow_create_on_update());
    let creates = creates && cx.subresource.is_empty();
    loop {
        let cached = cached(cx);
        let check = Check {
            cx,
            strategy: strategy.clone(),
            owned: request.owned,
            replaces: request.replaces,
            creates,
            preconditions: &request.preconditions,
        };
        let mut attempt =
            Attempt { check, transform: &mut *request.transform, result: None, old: None };
        let outcome = guaranteed_update(cx.registry.storage(), &key, cached, &mut attempt).await;
        let (result, old) = (attempt.result.take(), attempt.old.take());
        match outcome {
            Ok(updated) => {
                let value = result.unwrap_or_default();
                return Ok((finish(cx, strategy.as_ref(), updated, value, old).await, false));
            }
            Err(Failure::Missing) => {
                let value = (request.transform)(None)?;
                match create::create(cx, value, request.owned).await {
                    // Somebody else was faster: then it is an update.
                    Err(error)
                        if error.reason == pintle_machinery::Reason::AlreadyExists
                            && !cx.dry_run => {}
                    created => return created.map(|value| (value, true)),
                }
            }
            Err(Failure::Api(error)) => return Err(error),
            Err(Failure::Storage(error)) => {
                return Err(from_storage(error, &cx.group_resource(), &cx.name));
            }
        }
    }
}

/// Sets the new resource version and tells the strategy.
async fn finish(
    cx: &Context,
    strategy: &dyn Strategy,
    updated: Updated,
    mut value: Value,
    old: Option<Value>,
) -> Value {
    match updated {
        Updated::Put(revision) | Updated::Deleted(revision) => {
            object::set_resource_version(&mut value, &revision.to_string());
        }
        Updated::Kept(revision) if !cx.dry_run => {
            object::set_resource_version(&mut value, &revision.to_string());
        }
        Updated::Kept(_) => {}
    }
    match updated {
        Updated::Put(_) => {
            strategy.after_update(cx, &value, old.as_ref().unwrap_or(&Value::Null)).await;
        }
        Updated::Deleted(_) => strategy.after_delete(cx, &value).await,
        Updated::Kept(_) => {}
    }
    value
}

/// What the cache has, so that the first attempt needs no read.
pub(super) fn cached(cx: &Context) -> Option<Stored> {
    let cache = cx.registry.cache_of(&cx.resource).ok()?;
    let object = cache.snapshot().get(&cx.namespace, &cx.name)?.clone();
    Some(Stored { bytes: object.bytes().clone(), revision: object.revision() })
}

/// Why an attempt ended without a change.
pub(super) enum Failure {
    /// There is no such object, and it may be created.
    Missing,
    Api(ApiError),
    Storage(storage::Error),
}

impl From<storage::Error> for Failure {
    fn from(error: storage::Error) -> Self {
        Self::Storage(error)
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

/// One attempt: what is wanted, and what became of it.
struct Attempt<'a, 'b> {
    check: Check<'a>,
    transform: &'b mut (dyn FnMut(Option<&Value>) -> ApiResult<Value> + Send),
    result: Option<Value>,
    old: Option<Value>,
}

/// Everything between the wanted object and the bytes to store.
struct Check<'a> {
    cx: &'a Context,
    strategy: Arc<dyn Strategy>,
    owned: bool,
    replaces: bool,
    creates: bool,
    preconditions: &'a Preconditions,
}

#[async_trait::async_trait]
impl Updater for Attempt<'_, '_> {
    type Error = Failure;

    async fn attempt(&mut self, current: &Current) -> Result<Change, Failure> {
        let cx = self.check.cx;
        let Some(stored) = current else {
            if self.check.creates && *self.check.preconditions == Preconditions::default() {
                return Err(Failure::Missing);
            }
            return Err(ApiError::not_found(&cx.group_resource(), &cx.name).into());
        };
        let old = codec::load(&cx.resource, stored)?;
        check_preconditions(cx, self.check.preconditions, &old)?;
        let value = (self.transform)(Some(&old))?;
        let (value, change) = self.check.checked(value, &old).await?;
        self.result = Some(value);
        self.old = Some(old);
        Ok(change)
    }
}

impl Check<'_> {
    async fn checked(&self, mut value: Value, old: &Value) -> ApiResult<(Value, Change)> {
        let cx = self.cx;
        self.check_identity(&mut value, old)?;
        let mut value = self.project(value, old)?;
        let options = json!({"kind": "UpdateOptions", "apiVersion": "meta.k8s.io/v1"});
        let mut attributes = Attributes {
            operation: Operation::Update,
            object: Some(&mut value),
            old_object: Some(old),
            options: &options,
        };
        cx.registry.admission().admit(cx, &mut attributes).await?;
        metadata::keep_fixed(&mut value, old);
        if cx.subresource.is_empty() {
            self.strategy.prepare_for_update(cx, &mut value, old).await?;
        }
        if cx.subresource != "status" {
            metadata::raise_generation(cx, &mut value, old);
        }
        object::set_resource_version(&mut value, object::resource_version(old));
        if !self.owned {
            create::track(cx, Some(old), &mut value);
        }
        if value == *old {
            return Ok((value, Change::Keep));
        }
        self.validate(&value, old)?;
        self.strategy
            .warnings(cx, &value, Some(old))
            .into_iter()
            .for_each(|text| cx.warnings.add(text));
        let attributes = Attributes {
            operation: Operation::Update,
            object: Some(&mut value),
            old_object: Some(old),
            options: &options,
        };
        cx.registry.admission().validate(cx, &attributes).await?;
        if cx.dry_run {
            return Ok((value, Change::Keep));
        }
        self.strategy.begin_update(cx, &mut value, old).await?;
        if metadata::may_go(&value) && !self.strategy.is_held(cx, &value) {
            return Ok((value, Change::Delete));
        }
        let bytes = codec::encode(&cx.resource, &value)?;
        Ok((value, Change::Put(bytes, create::ttl(cx))))
    }

    /// Name, namespace, uid and resource version of the wanted object.
    fn check_identity(&self, value: &mut Value, old: &Value) -> ApiResult<()> {
        let cx = self.cx;
        let name = object::name(value);
        if !name.is_empty() && name != cx.name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                cx.name
            )));
        }
        object::set_name(value, &cx.name);
        metadata::check_namespace(cx, value)?;
        let (uid, stored_uid) = (object::uid(value), object::uid(old));
        if !uid.is_empty() && uid != stored_uid {
            return Err(ApiError::conflict(
                &cx.group_resource(),
                &cx.name,
                format!(
                    "Precondition failed: UID in precondition: {uid}, UID in object meta: {stored_uid}"
                ),
            ));
        }
        let version = object::resource_version(value);
        if version.is_empty() || version == "0" {
            if self.replaces && !self.strategy.allow_unconditional_update() {
                let mut errors = ErrorList::new();
                let field = Path::new("metadata").child("resourceVersion");
                errors.invalid(field, 0, "must be specified for an update");
                return Err(ApiError::invalid(&cx.resource.group_kind(), &cx.name, &errors));
            }
        } else if version != object::resource_version(old) {
            return Err(ApiError::modified(&cx.group_resource(), &cx.name));
        }
        Ok(())
    }

    /// What of the wanted object this request may change.
    fn project(&self, mut value: Value, old: &Value) -> ApiResult<Value> {
        let cx = self.cx;
        if cx.subresource.is_empty() {
            if metadata::has_status(&cx.resource) {
                set_or_remove(&mut value, "status", old.get("status"));
            }
            return Ok(value);
        }
        if let Some(merged) = self.strategy.merge_subresource(cx, &value, old) {
            return merged;
        }
        let mut merged = old.clone();
        set_or_remove(&mut merged, "status", value.get("status"));
        // Custom resources take nothing but the status; the labels of built-in kinds may come along.
        let taken: &[&str] = if cx.resource.custom { &[] } else { &["labels", "annotations"] };
        let from = object::metadata(&value).cloned().unwrap_or_default();
        let metadata = object::metadata_mut(&mut merged);
        for field in taken.iter().chain(&["managedFields"]) {
            if let Some(given) = from.get(*field) {
                metadata.insert((*field).to_owned(), given.clone());
            }
        }
        Ok(merged)
    }

    fn validate(&self, value: &Value, old: &Value) -> ApiResult<()> {
        let cx = self.cx;
        let mut errors = validation::validate_update(value, old, &cx.resource);
        metadata::check_finalizers(value, old, &mut errors);
        errors.extend(self.strategy.validate(cx, value));
        errors.extend(self.strategy.validate_update(cx, value, old));
        if errors.is_empty() {
            return Ok(());
        }
        Err(ApiError::invalid(&cx.resource.group_kind(), &cx.name, &errors))
    }
}

fn set_or_remove(value: &mut Value, field: &str, to: Option<&Value>) {
    let map = object::as_object_mut(value);
    match to {
        Some(to) => map.insert(field.to_owned(), to.clone()),
        None => map.remove(field),
    };
}

/// `preconditions` of updates and deletes.
pub(super) fn check_preconditions(
    cx: &Context,
    wanted: &Preconditions,
    old: &Value,
) -> ApiResult<()> {
    let pairs = [
        ("UID", &wanted.uid, object::uid(old)),
        ("ResourceVersion", &wanted.resource_version, object::resource_version(old)),
    ];
    for (what, wanted, stored) in pairs {
        if let Some(wanted) = wanted
            && wanted != stored
        {
            let field = if what == "UID" { "UID" } else { "ResourceVersion" };
            return Err(ApiError::conflict(
                &cx.group_resource(),
                &cx.name,
                format!(
                    "Precondition failed: {field} in precondition: {wanted}, {field} in object meta: {stored}"
                ),
            ));
        }
    }
    Ok(())
}
