//! OpenAPI v3 and v2 documents.
use crate::resource::{GroupVersion, RestMapper};
use serde_json::Value;
/// `/openapi/v3`: the index of documents, with a hash per document.
pub fn v3_index(documents: &[(GroupVersion, String)]) -> Value {
    let _ = documents;
    unimplemented!()
}
/// `/openapi/v3/apis/GROUP/VERSION`.
pub fn v3_document(mapper: &RestMapper, gv: &GroupVersion) -> Value {
    let _ = (mapper, gv);
    unimplemented!()
}
/// `/openapi/v2`.
pub fn v2_document(mapper: &RestMapper) -> Value {
    let _ = mapper;
    unimplemented!()
}
