//! Defaults of the built-in kinds, as upstream's `SetDefaults_…` functions set them.
use crate::resource::Resource;
use serde_json::Value;
/// Fills in the defaults of an object of this kind (custom resources: by their schema). Idempotent.
pub fn set_defaults(object: &mut Value, resource: &Resource) {
    let _ = (object, resource);
    unimplemented!()
}
