//! `metadata.managedFields`: who owns which field.
use crate::schema::View;
use serde_json::Value;
/// Who writes, and how the entry is named.
#[derive(Clone, Debug)]
pub struct Writer<'a> {
    /// `fieldManager`, or the user agent's first part.
    pub manager: &'a str,
    /// `apiVersion` of the request.
    pub api_version: &'a str,
    /// Subresource of the request, or "".
    pub subresource: &'a str,
    /// The time of the entry, RFC 3339.
    pub time: &'a str,
}
/// Tracks a create, update or patch: `live` is `None` on create. Rewrites `new.metadata.managedFields`.
/// An explicit `managedFields: [{}]`/`[]` in `new` (reset by the client) is honoured.
pub fn track_update(live: Option<&Value>, new: &mut Value, schema: View<'_>, writer: &Writer<'_>) {
    let _ = (live, new, schema, writer);
    unimplemented!()
}
