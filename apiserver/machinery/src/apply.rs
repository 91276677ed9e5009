//! Server-side apply.
use crate::managed_fields::Writer;
use crate::schema::View;
use crate::status::Result;
use serde_json::Value;
/// Applies `config` on `live` (or creates): merge by schema, ownership, conflicts (409), removal of what only this manager owned.
/// The result carries the new `managedFields`; it equals `live` when nothing changes. Callers default and validate it, then
/// call [`finish`] with the defaulted object.
pub fn apply(
    live: Option<&Value>,
    config: &Value,
    schema: View<'_>,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value> {
    let _ = (live, config, schema, writer, force);
    unimplemented!()
}
