//! gzip for large answers.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderValue, VARY,
};
use http_body::Body as _;
use http_body_util::BodyExt as _;

use super::{Response, full_body};

/// Below this, compressing costs more than it saves (upstream's bound).
const BYTES_MIN: u64 = 128 * 1024;

/// Whether the client takes gzip.
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let given = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    given.flat_map(|value| value.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        parts.next() == Some("gzip") && parts.next() != Some("q=0")
    })
}

/// Compresses an answer whose whole, large body is at hand; streams pass through.
pub(crate) async fn compress(response: Response) -> Response {
    let whole = response.body().size_hint().exact();
    if whole.is_none_or(|bytes| bytes < BYTES_MIN)
        || response.headers().contains_key(CONTENT_ENCODING)
    {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let bytes = match body.collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) => return super::status(&crate::error::ApiError::internal_error(error)),
    };
    // Level 1: most of the gain for repetitive JSON at a fraction of the time.
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 6), Compression::new(1));
    let compressed = encoder.write_all(&bytes).and_then(|()| encoder.finish());
    let Ok(compressed) = compressed else { return Response::from_parts(head, full_body(bytes)) };
    head.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    head.headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    head.headers.remove(CONTENT_LENGTH);
    Response::from_parts(head, full_body(compressed))
}
