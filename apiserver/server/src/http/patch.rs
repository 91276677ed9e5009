//! PATCH: what the body does to an object, by its media type.

use pintle_machinery::field_validation::{self, FieldValidation};
use pintle_machinery::{Resource, apply, decode, defaults, managed_fields, object, patch, time};
use serde_json::Value;

use crate::error::{ApiError, ApiResult};
use crate::registry::{Context, check_type};

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// Operations in one JSON patch, as upstream.
const OPERATIONS_MAX: usize = 10_000;

/// A decoded patch.
pub(super) enum Patch {
    Json(Value),
    Merge(Value),
    Strategic(Value),
    Apply { config: Value, force: bool },
}

impl Patch {
    /// `media` is the Content-Type; `force` only goes with apply.
    pub(super) fn decode(
        media: &str,
        body: &[u8],
        resource: &Resource,
        force: Option<bool>,
    ) -> ApiResult<Self> {
        if force.is_some() && media != APPLY {
            return Err(ApiError::unprocessable(
                "force: Forbidden: may not be specified for non-apply patch",
            ));
        }
        match media {
            JSON => {
                let value = decode::json(body)?.value;
                let operations = value.as_array().map_or(0, Vec::len);
                if operations > OPERATIONS_MAX {
                    return Err(ApiError::request_entity_too_large(format!(
                        "The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {operations}"
                    )));
                }
                Ok(Self::Json(value))
            }
            MERGE => Ok(Self::Merge(decode::json(body)?.value)),
            STRATEGIC if !resource.custom => Ok(Self::Strategic(decode::json(body)?.value)),
            APPLY => {
                Ok(Self::Apply { config: decode::yaml(body)?.value, force: force.unwrap_or(false) })
            }
            _ if resource.custom => Err(ApiError::unsupported_media_type(&[JSON, MERGE, APPLY])),
            _ => Err(ApiError::unsupported_media_type(&[JSON, MERGE, STRATEGIC, APPLY])),
        }
    }

    pub(super) fn is_apply(&self) -> bool {
        matches!(self, Self::Apply { .. })
    }

    /// Apply's configuration is checked once, before anything is read.
    pub(super) fn check(&mut self, cx: &Context, mode: FieldValidation) -> ApiResult<()> {
        let Self::Apply { config, .. } = self else { return Ok(()) };
        if cx.subresource != "scale" {
            check_type(&cx.resource.gvk(), config)?;
        }
        if object::metadata(config).is_some_and(|metadata| metadata.contains_key("managedFields")) {
            return Err(ApiError::bad_request("metadata.managedFields must be nil"));
        }
        let name = object::name(config);
        if !name.is_empty() && name != cx.name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                cx.name
            )));
        }
        if cx.subresource != "scale" {
            let warnings = field_validation::check(config, Vec::new(), &cx.resource, mode)?;
            warnings.into_iter().for_each(|text| cx.warnings.add(text));
        }
        Ok(())
    }

    /// The object after the patch, decoded and defaulted again.
    pub(super) fn apply(
        &self,
        cx: &Context,
        old: Option<&Value>,
        mode: FieldValidation,
    ) -> ApiResult<Value> {
        if let Self::Apply { config, force } = self {
            return applied(cx, old, config, *force);
        }
        let old = old.ok_or_else(|| ApiError::not_found(&cx.group_resource(), &cx.name))?;
        let mut value = self.patched(&cx.resource, old)?;
        check_type(&cx.resource.gvk(), &mut value)?;
        let warnings = field_validation::check(&mut value, Vec::new(), &cx.resource, mode)?;
        warnings.into_iter().for_each(|text| cx.warnings.add(text));
        defaults::set_defaults(&mut value, &cx.resource);
        Ok(value)
    }

    /// The patch alone, on any value.
    pub(super) fn patched(&self, resource: &Resource, old: &Value) -> ApiResult<Value> {
        match self {
            Self::Json(patch) => patch::json_patch(old, patch),
            Self::Merge(patch) | Self::Apply { config: patch, .. } => {
                let mut value = old.clone();
                patch::merge_patch(&mut value, patch);
                Ok(value)
            }
            Self::Strategic(patch) => patch::strategic_merge_patch(old, patch, resource.schema()),
        }
    }
}

fn applied(cx: &Context, old: Option<&Value>, config: &Value, force: bool) -> ApiResult<Value> {
    let now = time::format(jiff::Timestamp::now());
    let writer = managed_fields::Writer {
        manager: &cx.field_manager,
        api_version: &cx.resource.api_version(),
        subresource: &cx.subresource,
        time: &now,
    };
    let mut config = config.clone();
    if old.is_none() && object::name(&config).is_empty() {
        object::set_name(&mut config, &cx.name);
    }
    let mut value = apply::apply(old, &config, cx.resource.schema(), &writer, force)?;
    defaults::set_defaults(&mut value, &cx.resource);
    Ok(value)
}
