//! Between a request's version of an object and what is stored.

use bytes::Bytes;
use pintle_apiserver_storage::Stored;
use pintle_machinery::{GroupVersionKind, Resource, conversion, object};
use serde_json::Value;

use crate::error::{ApiError, ApiResult};

/// A stored object at the request's version, its resource version set.
pub(crate) fn load(resource: &Resource, stored: &Stored) -> ApiResult<Value> {
    let mut value: Value =
        serde_json::from_slice(&stored.bytes).map_err(ApiError::internal_error)?;
    convert(resource, &mut value)?;
    object::set_resource_version(&mut value, &stored.revision.to_string());
    Ok(value)
}

/// Brings an object of another version to the request's.
pub(crate) fn convert(resource: &Resource, value: &mut Value) -> ApiResult<()> {
    let wanted = resource.group_version();
    if object::api_version(value) != wanted.to_string() {
        conversion::convert(value, &wanted)?;
    }
    Ok(())
}

/// The bytes to store: at the storage version, without resource version.
pub(super) fn encode(resource: &Resource, value: &Value) -> ApiResult<Bytes> {
    let mut value = value.clone();
    object::set_resource_version(&mut value, "");
    if let Some(storage) = &resource.storage
        && object::api_version(&value) != storage.version.to_string()
    {
        conversion::convert(&mut value, &storage.version)?;
    }
    serde_json::to_vec(&value).map(Bytes::from).map_err(ApiError::internal_error)
}

/// The key of an object.
pub(super) fn key(resource: &Resource, namespace: &str, name: &str) -> ApiResult<String> {
    resource
        .storage_key(namespace, name)
        .map(|key| format!("{}{key}", pintle_apiserver_storage::REGISTRY))
        .ok_or_else(|| ApiError::method_not_supported(&resource.group_resource(), "get"))
}

/// A body must be of the kind that the URL says; what it leaves out is filled in.
pub(crate) fn check_type(expected: &GroupVersionKind, value: &mut Value) -> ApiResult<()> {
    if !value.is_object() {
        return Err(ApiError::bad_request("the body of the request is not an object"));
    }
    let (api_version, kind) = (object::api_version(value), object::kind(value));
    let wanted = expected.group_version().to_string();
    if (!api_version.is_empty() && api_version != wanted)
        || (!kind.is_empty() && kind != expected.kind)
    {
        let given = GroupVersionKind::of(value).unwrap_or_default();
        let version = if given.version.is_empty() { &wanted } else { api_version };
        return Err(ApiError::bad_request(format!(
            "{} in version \"{}\" cannot be handled as a {}: no kind \"{}\" is registered for version \"{}\" of \"{}\"",
            if kind.is_empty() { &expected.kind } else { kind },
            version.rsplit('/').next().unwrap_or_default(),
            expected.kind,
            kind,
            version,
            wanted,
        )));
    }
    object::set_type_meta(value, &wanted, &expected.kind);
    Ok(())
}
