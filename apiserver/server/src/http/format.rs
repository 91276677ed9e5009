//! Objects and lists in the form that the client asked for.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use jiff::Timestamp;
use pintle_apiserver_storage::{Listing, Object};
use pintle_machinery::table::{self, IncludeObject};
use pintle_machinery::{Resource, decode, object};
use serde_json::{Map, Value, json};

use super::negotiation::{Encoding, Form, Negotiated};
use super::respond::bytes_as;
use super::{Response, chunked_body};
use crate::error::{ApiError, ApiResult};
use crate::registry;
use crate::request_info::Query;

/// Lists are sent in pieces of about this size, so that a large one is never held twice.
const CHUNK_BYTES: usize = 64 << 10;

/// A list up to this size is sent whole: then it has a length, and may be compressed.
const WHOLE_BYTES_MAX: usize = 16 << 20;

/// How the answers to one request are written.
#[derive(Clone, Debug)]
pub(super) struct Format {
    pub(super) resource: Arc<Resource>,
    pub(super) negotiated: Negotiated,
    pub(super) include: IncludeObject,
}

impl Format {
    pub(super) fn new(
        resource: &Arc<Resource>,
        negotiated: Negotiated,
        query: &Query,
    ) -> ApiResult<Self> {
        let include = match query.get("includeObject").unwrap_or_default() {
            "" | "Metadata" => IncludeObject::Metadata,
            "None" => IncludeObject::None,
            "Object" => IncludeObject::Object,
            other => {
                return Err(ApiError::bad_request(format!(
                    "unrecognized includeObject value: \"{other}\""
                )));
            }
        };
        Ok(Self { resource: resource.clone(), negotiated, include })
    }

    /// Whether cached bytes are the answer as they are.
    fn passes(&self, object: &Object) -> bool {
        self.negotiated == Negotiated::default() && self.is_current(object)
    }

    fn is_current(&self, object: &Object) -> bool {
        let stored = object::api_version(object.head());
        match stored.split_once('/') {
            Some((group, version)) => {
                group == self.resource.group && version == self.resource.version
            }
            None => self.resource.group.is_empty() && stored == self.resource.version,
        }
    }

    /// A cached object.
    pub(super) fn cached(&self, object: &Object) -> ApiResult<Response> {
        if self.passes(object) {
            return Ok(bytes_as(200, "application/json", object.bytes().clone()));
        }
        self.object(200, &registry::decode(&self.resource, object)?)
    }

    /// An object at the request's version.
    pub(super) fn object(&self, code: u16, value: &Value) -> ApiResult<Response> {
        self.write(code, &self.formed(value, true))
    }

    /// Anything, in the negotiated encoding.
    pub(super) fn write(&self, code: u16, value: &Value) -> ApiResult<Response> {
        match self.negotiated.encoding {
            Encoding::Json => Ok(super::json(code, value)),
            Encoding::Yaml => Ok(bytes_as(code, "application/yaml", decode::to_yaml(value)?)),
        }
    }

    /// An object as a table, as metadata, or as it is.
    pub(super) fn formed(&self, value: &Value, with_columns: bool) -> Value {
        match self.negotiated.form {
            Form::Table => {
                let meta = json!({ "resourceVersion": object::resource_version(value) });
                let now = Timestamp::now();
                table::table(&self.resource, &[value], meta, self.include, with_columns, now)
            }
            Form::Metadata => table::partial_object_metadata(value),
            Form::Plain | Form::Discovery { .. } => value.clone(),
        }
    }

    /// A page of cached objects.
    pub(super) fn list(&self, listing: Listing) -> ApiResult<Response> {
        if listing.objects.iter().all(|object| self.passes(object))
            && self.negotiated == Negotiated::default()
        {
            return Ok(spliced(&self.resource, listing));
        }
        let meta = list_meta(&listing);
        let objects: Vec<Value> = listing
            .objects
            .iter()
            .map(|object| registry::decode(&self.resource, object))
            .collect::<ApiResult<_>>()?;
        self.write(200, &self.formed_list(&objects, meta))
    }

    /// A list of objects at the request's version.
    pub(super) fn formed_list(&self, objects: &[Value], meta: Value) -> Value {
        let refs = || objects.iter().collect::<Vec<&Value>>();
        match self.negotiated.form {
            Form::Table => {
                table::table(&self.resource, &refs(), meta, self.include, true, Timestamp::now())
            }
            Form::Metadata => json!({
                "kind": "PartialObjectMetadataList",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": meta,
                "items": objects.iter().map(table::partial_object_metadata).collect::<Vec<_>>(),
            }),
            Form::Plain | Form::Discovery { .. } => json!({
                "kind": self.resource.list_kind,
                "apiVersion": self.resource.api_version(),
                "metadata": meta,
                "items": objects,
            }),
        }
    }

    /// `{"type": …, "object": …}` and a newline, for a watcher.
    pub(super) fn event(
        &self,
        kind: &str,
        object: &Object,
        with_columns: bool,
    ) -> ApiResult<Bytes> {
        if self.passes(object) {
            return Ok(event_line(kind, object.bytes()));
        }
        let value = registry::decode(&self.resource, object)?;
        let formed = serde_json::to_vec(&self.formed(&value, with_columns))
            .map_err(ApiError::internal_error)?;
        Ok(event_line(kind, &formed))
    }

    /// A bookmark at `revision`; `initial_end` marks the end of the initial events.
    pub(super) fn bookmark(&self, revision: i64, initial_end: bool) -> Bytes {
        let mut metadata = Map::new();
        metadata.insert("resourceVersion".into(), revision.to_string().into());
        metadata.insert("creationTimestamp".into(), Value::Null);
        if initial_end {
            metadata.insert("annotations".into(), json!({ "k8s.io/initial-events-end": "true" }));
        }
        let (kind, api_version) = match self.negotiated.form {
            Form::Table => ("Table", "meta.k8s.io/v1".to_owned()),
            Form::Metadata => ("PartialObjectMetadata", "meta.k8s.io/v1".to_owned()),
            Form::Plain | Form::Discovery { .. } => {
                (&*self.resource.kind, self.resource.api_version())
            }
        };
        let mut object = json!({ "kind": kind, "apiVersion": api_version, "metadata": metadata });
        if self.negotiated.form == Form::Table {
            object["columnDefinitions"] = json!([]);
            object["rows"] = json!([]);
        }
        event_line("BOOKMARK", object.to_string().as_bytes())
    }
}

/// One line of a watch.
pub(super) fn event_line(kind: &str, object: &[u8]) -> Bytes {
    let mut line = BytesMut::with_capacity(object.len() + 32);
    line.put_slice(b"{\"type\":\"");
    line.put_slice(kind.as_bytes());
    line.put_slice(b"\",\"object\":");
    line.put_slice(object);
    line.put_slice(b"}\n");
    line.freeze()
}

fn list_meta(listing: &Listing) -> Value {
    let mut meta = json!({ "resourceVersion": listing.revision.to_string() });
    if let Some(token) = &listing.continuation {
        meta["continue"] = token.clone().into();
    }
    if let Some(remaining) = listing.remaining {
        meta["remainingItemCount"] = remaining.into();
    }
    meta
}

/// The stored bytes of all objects between a head and a tail.
fn spliced(resource: &Resource, listing: Listing) -> Response {
    let head = format!(
        "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{},\"items\":[",
        resource.list_kind,
        resource.api_version(),
        list_meta(&listing),
    );
    let size: usize = listing.objects.iter().map(|object| object.bytes().len() + 1).sum();
    if size <= WHOLE_BYTES_MAX {
        let mut whole = Vec::with_capacity(head.len() + size + 2);
        whole.extend_from_slice(head.as_bytes());
        for (at, object) in listing.objects.iter().enumerate() {
            if at > 0 {
                whole.push(b',');
            }
            whole.extend_from_slice(object.bytes());
        }
        whole.extend_from_slice(b"]}");
        return bytes_as(200, "application/json", whole);
    }
    let mut objects = listing.objects.into_iter();
    let mut pending = Some(head);
    let mut first = true;
    let mut ended = false;
    let chunks = std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let mut chunk = Vec::with_capacity(CHUNK_BYTES + (8 << 10));
        chunk.extend_from_slice(pending.take().unwrap_or_default().as_bytes());
        while chunk.len() < CHUNK_BYTES {
            let Some(object) = objects.next() else {
                chunk.extend_from_slice(b"]}");
                ended = true;
                break;
            };
            if !std::mem::take(&mut first) {
                chunk.push(b',');
            }
            chunk.extend_from_slice(object.bytes());
        }
        Some(Bytes::from(chunk))
    });
    let mut response = Response::new(chunked_body(futures::stream::iter(chunks)));
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}
