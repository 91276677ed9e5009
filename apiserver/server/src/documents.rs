//! What describes the API: discovery and OpenAPI. Made from the resource table when first asked for,
//! kept until the table changes.

mod discovery;
mod openapi;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use parking_lot::Mutex;
use pintle_machinery::{GroupVersion, RestMapper};
use serde_json::{Value, json};

/// The documents of the newest table.
#[derive(Debug, Default)]
pub(crate) struct Documents(ArcSwapOption<Set>);

/// The documents of one table.
#[derive(Debug)]
pub(crate) struct Set {
    mapper: Arc<RestMapper>,
    aggregated: OnceLock<Vec<(discovery::Key, discovery::Document)>>,
    openapi_v2: OnceLock<openapi::Document>,
    openapi_v3: Mutex<HashMap<GroupVersion, Arc<openapi::Document>>>,
    openapi_v3_index: OnceLock<Bytes>,
}

impl Documents {
    /// Those of `mapper`.
    pub(crate) fn current(&self, mapper: &Arc<RestMapper>) -> Arc<Set> {
        if let Some(set) = self.0.load_full()
            && Arc::ptr_eq(&set.mapper, mapper)
        {
            return set;
        }
        let set = Arc::new(Set {
            mapper: mapper.clone(),
            aggregated: OnceLock::new(),
            openapi_v2: OnceLock::new(),
            openapi_v3: Mutex::default(),
            openapi_v3_index: OnceLock::new(),
        });
        self.0.store(Some(set.clone()));
        set
    }
}

impl Set {
    /// `/`: the paths there are.
    pub(crate) fn root_paths(&self) -> Value {
        let mut paths = vec!["/api".to_owned(), "/apis".to_owned()];
        for group in self.mapper.groups() {
            if !group.is_empty() {
                paths.push(format!("/apis/{group}"));
            }
            for version in self.mapper.versions(&group) {
                paths.push(format!("/{}", GroupVersion::new(&*group, version).url_path()));
            }
        }
        for path in
            ["/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]
        {
            paths.push(path.to_owned());
        }
        paths.sort();
        json!({ "paths": paths })
    }
}
