//! `/openapi/v2` and `/openapi/v3`, with hashes so that clients may keep them.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use http::{HeaderMap, StatusCode};
use pintle_machinery::{GroupVersion, openapi};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::Set;
use crate::error::{ApiError, ApiResult};
use crate::http::{Response, empty_body, full_body};
use crate::request_info::Query;

/// An encoded document and its hash.
#[derive(Debug)]
pub(super) struct Document {
    bytes: Bytes,
    hash: String,
}

impl Document {
    fn new(value: &Value) -> Self {
        let bytes = serde_json::to_vec(value).expect("a JSON value always encodes");
        let hash = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02X}")).collect();
        Self { bytes: bytes.into(), hash }
    }
}

impl Set {
    /// Answers a path below `/openapi`.
    pub(crate) fn openapi(
        &self,
        path: &[&str],
        headers: &HeaderMap,
        query: &Query,
    ) -> ApiResult<Response> {
        match path {
            ["v2"] => {
                let accept =
                    headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
                let acceptable = accept.is_empty()
                    || accept.split(',').any(|range| {
                        let media = range.split(';').next().unwrap_or_default().trim();
                        matches!(media, "application/json" | "*/*" | "application/*")
                    });
                if !acceptable {
                    return Err(ApiError::not_acceptable(&["application/json"]));
                }
                let document = self
                    .openapi_v2
                    .get_or_init(|| Document::new(&openapi::v2_document(&self.mapper)));
                Ok(respond(document, headers, false))
            }
            ["v3"] => {
                let index = self.openapi_v3_index.get_or_init(|| self.index());
                let document = Document { bytes: index.clone(), hash: String::new() };
                Ok(respond(&document, headers, false))
            }
            ["v3", "api", version] => self.v3(&GroupVersion::new("", *version), headers, query),
            ["v3", "apis", group, version] => {
                self.v3(&GroupVersion::new(*group, *version), headers, query)
            }
            _ => Err(ApiError::resource_not_found()),
        }
    }

    fn index(&self) -> Bytes {
        let mut documents = Vec::new();
        for group in self.mapper.groups() {
            for version in self.mapper.versions(&group) {
                let gv = GroupVersion::new(&*group, version);
                let hash = self.v3_document(&gv).hash.clone();
                documents.push((gv, hash));
            }
        }
        serde_json::to_vec(&openapi::v3_index(&documents))
            .expect("a JSON value always encodes")
            .into()
    }

    fn v3_document(&self, gv: &GroupVersion) -> Arc<Document> {
        if let Some(known) = self.openapi_v3.lock().get(gv) {
            return known.clone();
        }
        let document = Arc::new(Document::new(&openapi::v3_document(&self.mapper, gv)));
        self.openapi_v3.lock().entry(gv.clone()).or_insert(document).clone()
    }

    fn v3(&self, gv: &GroupVersion, headers: &HeaderMap, query: &Query) -> ApiResult<Response> {
        if self.mapper.group_version(gv).is_empty() {
            return Err(ApiError::resource_not_found());
        }
        let document = self.v3_document(gv);
        // A link with the right hash never changes what it shows.
        let lasting = query.get("hash").is_some_and(|hash| hash == document.hash);
        Ok(respond(&document, headers, lasting))
    }
}

fn respond(document: &Document, headers: &HeaderMap, lasting: bool) -> Response {
    let etag = format!("\"{}\"", document.hash);
    let known = !document.hash.is_empty()
        && headers.get(IF_NONE_MATCH).is_some_and(|given| given.as_bytes() == etag.as_bytes());
    let mut response =
        Response::new(if known { empty_body() } else { full_body(document.bytes.clone()) });
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    if !document.hash.is_empty() {
        headers.insert(ETAG, HeaderValue::from_str(&etag).expect("hexadecimal digits"));
    }
    if lasting {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    }
    response
}
