//! The one error that leaves a handler: `metav1.Status`.

use pintle_apiserver_storage as storage;
use pintle_machinery::GroupResource;
pub use pintle_machinery::Status as ApiError;

/// What a handler answers.
pub type ApiResult<T> = Result<T, ApiError>;

/// A storage error in the words of the API, for an object (or, without a name, a collection).
pub fn from_storage(error: storage::Error, resource: &GroupResource, name: &str) -> ApiError {
    use storage::Error;
    match error {
        Error::NotFound => ApiError::not_found(resource, name),
        Error::Exists => ApiError::already_exists(resource, name),
        Error::Conflict => ApiError::modified(resource, name),
        Error::Expired { message } => ApiError::expired(message),
        Error::TooLargeResourceVersion { requested, current } => {
            ApiError::too_large_resource_version(requested, current)
        }
        Error::BadContinue(message) => ApiError::bad_request(message),
        Error::TooLarge => ApiError::request_entity_too_large("limit is 1572864"),
        Error::Corrupt(why) => ApiError::internal_error(why),
        Error::Unavailable(why) => ApiError::service_unavailable(why),
        Error::Unknown(why) => ApiError::timeout(why, 0),
        Error::Rejected(why) => ApiError::internal_error(why),
    }
}
