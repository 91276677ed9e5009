//! Reading request bodies, within bounds.

use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;

use crate::error::{ApiError, ApiResult};

/// As upstream: 3 MiB, twice what the store takes.
pub(crate) const BODY_BYTES_MAX: usize = 3 << 20;

/// The whole body.
pub(crate) async fn read(body: Incoming) -> ApiResult<Bytes> {
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(ApiError::request_entity_too_large(format!("limit is {BODY_BYTES_MAX}")))
        }
        Err(error) => Err(ApiError::bad_request(format!("the body cannot be read: {error}"))),
    }
}
