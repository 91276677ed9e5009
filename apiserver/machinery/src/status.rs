//! `meta.k8s.io/v1 Status`: the one error type that leaves the API, with upstream's message forms.
//!
//! Constructors are named after upstream's `errors.New…` functions. A `Status` is small (the details
//! are boxed), implements `Error`, and serializes to the exact wire object.

use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};

use crate::field::{self, ErrorList};
use crate::resource::{GroupKind, GroupResource};

/// `Result` whose error is a `Status`.
pub type Result<T, E = Status> = std::result::Result<T, E>;

/// `metav1.StatusReason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// No reason: the empty string on the wire.
    #[serde(rename = "")]
    Unknown,
    /// 401
    Unauthorized,
    /// 403
    Forbidden,
    /// 404
    NotFound,
    /// 409 on create
    AlreadyExists,
    /// 409
    Conflict,
    /// 410: the object or endpoint is gone for good
    Gone,
    /// 422
    Invalid,
    /// 504: retry elsewhere
    ServerTimeout,
    /// 500: an object is in the store but cannot be read
    #[serde(rename = "StorageReadError")]
    StoreReadError,
    /// 504
    Timeout,
    /// 429
    TooManyRequests,
    /// 400
    BadRequest,
    /// 405
    MethodNotAllowed,
    /// 406
    NotAcceptable,
    /// 413
    RequestEntityTooLarge,
    /// 415
    UnsupportedMediaType,
    /// 500
    InternalError,
    /// 410: the resource version is too old
    Expired,
    /// 503
    ServiceUnavailable,
}

impl Reason {
    /// The wire string.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NotFound",
            Self::AlreadyExists => "AlreadyExists",
            Self::Conflict => "Conflict",
            Self::Gone => "Gone",
            Self::Invalid => "Invalid",
            Self::ServerTimeout => "ServerTimeout",
            Self::StoreReadError => "StorageReadError",
            Self::Timeout => "Timeout",
            Self::TooManyRequests => "TooManyRequests",
            Self::BadRequest => "BadRequest",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::NotAcceptable => "NotAcceptable",
            Self::RequestEntityTooLarge => "RequestEntityTooLarge",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::InternalError => "InternalError",
            Self::Expired => "Expired",
            Self::ServiceUnavailable => "ServiceUnavailable",
        }
    }
}

/// `metav1.StatusCause`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// Machine-readable cause, e.g. `FieldValueRequired`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Human-readable text.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The field that caused it, in dotted form.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// `metav1.StatusDetails`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// Name of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// API group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Kind or, for most errors, the resource's plural name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// UID of the object, on successful deletes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// What went wrong, field by field.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// When to try again.
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// A `Status` object; as an error it is a `Failure`, [`Status::success`] makes the other kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason.
    pub reason: Reason,
    /// Human-readable message, in upstream's form.
    pub message: String,
    /// Which object, which fields, when to retry.
    pub details: Option<Box<Details>>,
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let failed = self.code >= 400;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("kind", "Status")?;
        map.serialize_entry("apiVersion", "v1")?;
        map.serialize_entry("metadata", &serde_json::Map::new())?;
        map.serialize_entry("status", if failed { "Failure" } else { "Success" })?;
        if !self.message.is_empty() {
            map.serialize_entry("message", &self.message)?;
        }
        if self.reason != Reason::Unknown {
            map.serialize_entry("reason", self.reason.as_str())?;
        }
        if let Some(details) = &self.details {
            map.serialize_entry("details", details)?;
        }
        if failed {
            map.serialize_entry("code", &self.code)?;
        }
        map.end()
    }
}

fn details_of(resource: &GroupResource, name: &str) -> Option<Box<Details>> {
    Some(Box::new(Details {
        name: name.to_owned(),
        group: resource.group.clone(),
        kind: resource.resource.clone(),
        ..Details::default()
    }))
}

impl Status {
    /// Any status, without details.
    pub fn new(code: u16, reason: Reason, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None }
    }

    /// The `Success` answer of a delete: names what was deleted.
    pub fn success(details: Option<Details>) -> Self {
        Self {
            code: 200,
            reason: Reason::Unknown,
            message: String::new(),
            details: details.map(Box::new),
        }
    }

    /// As a JSON value.
    pub fn to_value(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("a Status has only strings, numbers and lists")
    }

    /// Adds a cause to the details.
    #[must_use]
    pub fn with_cause(mut self, cause: Cause) -> Self {
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    /// Sets `details.retryAfterSeconds`; the server also sends it as a `Retry-After` header.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    /// `details.retryAfterSeconds`, when there is one.
    pub fn retry_after_seconds(&self) -> Option<u32> {
        self.details.as_ref().map(|d| d.retry_after_seconds).filter(|s| *s > 0)
    }

    /// 404: `pods "x" not found`.
    pub fn not_found(resource: &GroupResource, name: &str) -> Self {
        Self {
            code: 404,
            reason: Reason::NotFound,
            message: format!("{resource} \"{name}\" not found"),
            details: details_of(resource, name),
        }
    }

    /// 404 for an unknown path or group version: the generic answer of the server.
    pub fn resource_not_found() -> Self {
        let message = "the server could not find the requested resource";
        let mut status = Self::new(404, Reason::NotFound, message);
        status.details = Some(Box::default());
        status
    }

    /// 409: `pods "x" already exists`.
    pub fn already_exists(resource: &GroupResource, name: &str) -> Self {
        Self {
            code: 409,
            reason: Reason::AlreadyExists,
            message: format!("{resource} \"{name}\" already exists"),
            details: details_of(resource, name),
        }
    }

    /// 409 for `generateName` after all attempts collided.
    pub fn generate_name_conflict(resource: &GroupResource, name: &str) -> Self {
        Self {
            message: format!(
                "{resource} \"{name}\" already exists, the server was not able to generate a unique name for the object"
            ),
            ..Self::already_exists(resource, name)
        }
        .with_retry_after(1)
    }

    /// 409: `Operation cannot be fulfilled on pods "x": why`.
    pub fn conflict(resource: &GroupResource, name: &str, why: impl std::fmt::Display) -> Self {
        Self {
            code: 409,
            reason: Reason::Conflict,
            message: format!("Operation cannot be fulfilled on {resource} \"{name}\": {why}"),
            details: details_of(resource, name),
        }
    }

    /// 409 of a stale `resourceVersion`, with upstream's advice.
    pub fn modified(resource: &GroupResource, name: &str) -> Self {
        Self::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 409 of server-side apply: one cause per field that other managers own.
    pub fn apply_conflict(causes: Vec<Cause>, message: impl Into<String>) -> Self {
        Self {
            code: 409,
            reason: Reason::Conflict,
            message: message.into(),
            details: Some(Box::new(Details { causes, ..Details::default() })),
        }
    }

    /// 422: `Pod "x" is invalid: [..]` with one cause per field error.
    pub fn invalid(kind: &GroupKind, name: &str, errors: &ErrorList) -> Self {
        let causes = errors.iter().map(field::Error::to_cause).collect();
        Self {
            code: 422,
            reason: Reason::Invalid,
            message: format!("{kind} \"{name}\" is invalid: {errors}"),
            details: Some(Box::new(Details {
                name: name.to_owned(),
                group: kind.group.clone(),
                kind: kind.kind.clone(),
                causes,
                ..Details::default()
            })),
        }
    }

    /// 422 without fields (e.g. a JSON patch that does not apply).
    pub fn unprocessable(message: impl Into<String>) -> Self {
        let message = message.into();
        Self::new(
            422,
            Reason::Invalid,
            format!("the server rejected our request due to an error in our request: {message}"),
        )
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, Reason::BadRequest, message)
    }

    /// 401.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        let message: String = message.into();
        let message = if message.is_empty() { "not authorized".to_owned() } else { message };
        Self::new(401, Reason::Unauthorized, message)
    }

    /// 403: `pods "x" is forbidden: why` (without the name when it is empty).
    pub fn forbidden(resource: &GroupResource, name: &str, why: impl std::fmt::Display) -> Self {
        let message = match (resource.resource.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{resource} is forbidden: {why}"),
            (false, false) => format!("{resource} \"{name}\" is forbidden: {why}"),
        };
        Self { code: 403, reason: Reason::Forbidden, message, details: details_of(resource, name) }
    }

    /// 410 `Expired`: the resource version of a watch or list is too old.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, Reason::Expired, message)
    }

    /// 410 `Expired` as the watch cache says it.
    pub fn too_old_resource_version(requested: u64, oldest: u64) -> Self {
        Self::expired(format!("too old resource version: {requested} ({oldest})"))
    }

    /// 410 `Gone`.
    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(410, Reason::Gone, message)
    }

    /// 504 of a resource version from the future; the client waits one second.
    pub fn too_large_resource_version(requested: u64, current: u64) -> Self {
        Self::timeout(format!("Too large resource version: {requested}, current: {current}"), 1)
            .with_cause(Cause {
                reason: "ResourceVersionTooLarge".into(),
                message: "Too large resource version".into(),
                field: String::new(),
            })
    }

    /// 429.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self::new(429, Reason::TooManyRequests, message).with_retry_after(retry_after_seconds)
    }

    /// 405: the verb is known but this resource does not have it.
    pub fn method_not_supported(resource: &GroupResource, verb: &str) -> Self {
        Self {
            code: 405,
            reason: Reason::MethodNotAllowed,
            message: format!("{verb} is not supported on resources of kind \"{resource}\""),
            details: details_of(resource, ""),
        }
    }

    /// 405 for a path and method that mean nothing.
    pub fn method_not_allowed() -> Self {
        Self::new(
            405,
            Reason::MethodNotAllowed,
            "the server does not allow this method on the requested resource",
        )
    }

    /// 415 with the accepted media types.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        Self::new(
            415,
            Reason::UnsupportedMediaType,
            format!(
                "the body of the request was in an unknown format - accepted media types include: {}",
                accepted.join(", ")
            ),
        )
    }

    /// 406 with the media types the server can produce.
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        Self::new(
            406,
            Reason::NotAcceptable,
            format!("only the following media types are accepted: {}", accepted.join(", ")),
        )
    }

    /// 413: `limit` is upstream's wording of the bound.
    pub fn request_entity_too_large(limit: impl std::fmt::Display) -> Self {
        Self::new(413, Reason::RequestEntityTooLarge, format!("Request entity too large: {limit}"))
    }

    /// 500.
    pub fn internal_error(error: impl std::fmt::Display) -> Self {
        let message = error.to_string();
        Self::new(500, Reason::InternalError, format!("Internal error occurred: {message}"))
            .with_cause(Cause { message, ..Cause::default() })
    }

    /// 504: the request did not finish in time; whether it took effect is unknown.
    pub fn timeout(message: impl std::fmt::Display, retry_after_seconds: u32) -> Self {
        Self::new(504, Reason::Timeout, format!("Timeout: {message}"))
            .with_retry_after(retry_after_seconds)
    }

    /// 500: the server could not finish now, retrying is safe and useful.
    pub fn server_timeout(resource: &GroupResource, operation: &str, seconds: u32) -> Self {
        Self {
            code: 500,
            reason: Reason::ServerTimeout,
            message: format!(
                "The {operation} operation against {resource} could not be completed at this time, please try again."
            ),
            details: details_of(resource, operation),
        }
        .with_retry_after(seconds)
    }

    /// 503.
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::new(503, Reason::ServiceUnavailable, message)
    }
}
