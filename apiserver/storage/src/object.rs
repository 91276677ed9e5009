//! One object as the cache keeps it.

use std::sync::Arc;

use bytes::Bytes;
use pintle_machinery::{object, resource::SelectableField};
use serde_json::{Map, Value};

use crate::projection::Projection;
use crate::{Error, splice};

/// Encoded JSON with its resource version, and the few fields that selectors look at. Immutable.
#[derive(Clone, Debug)]
pub struct Object {
    key: Arc<str>,
    revision: i64,
    bytes: Bytes,
    head: Value,
}

impl Object {
    /// The key below the resource's prefix: `namespace/name` or `name`.
    pub fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// The store's modification revision: the resource version.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The object as JSON, `metadata.resourceVersion` included.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// An object with nothing but apiVersion, name, namespace, uid, labels and the selectable fields of its kind.
    pub fn head(&self) -> &Value {
        &self.head
    }

    /// `metadata.labels`.
    pub fn labels(&self) -> Option<&Map<String, Value>> {
        object::labels(&self.head)
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        object::name(&self.head)
    }

    /// `metadata.namespace`, or empty.
    pub fn namespace(&self) -> &str {
        object::namespace(&self.head)
    }

    /// The whole object.
    pub fn decode(&self) -> Result<Value, Error> {
        serde_json::from_slice(&self.bytes)
            .map_err(|error| Error::Corrupt(format!("{}: {error}", self.key)))
    }

    /// The same object under another resource version: what a watcher gets when it is deleted.
    pub fn at(&self, revision: i64) -> Result<Self, Error> {
        let bytes = splice::with_resource_version(&self.bytes, revision)
            .ok_or_else(|| Error::Corrupt(format!("{}: no metadata", self.key)))?;
        Ok(Self { bytes: bytes.into(), revision, ..self.clone() })
    }
}

/// Makes objects of one resource from what is stored.
#[derive(Clone, Debug)]
pub(crate) struct Decoder(Projection);

impl Decoder {
    pub(crate) fn new(fields: &[SelectableField]) -> Self {
        let mut projection = Projection::default();
        for field in ["name", "namespace", "uid", "labels"] {
            projection.add(&["metadata", field]);
        }
        projection.add(&["apiVersion"]);
        for field in fields {
            projection.add(&field.path);
        }
        Self(projection)
    }

    pub(crate) fn object(&self, key: &str, stored: &[u8], revision: i64) -> Result<Object, Error> {
        let corrupt = |why: String| Error::Corrupt(format!("{key}: {why}"));
        let head = self.0.read(stored).map_err(|error| corrupt(error.to_string()))?;
        let bytes = splice::with_resource_version(stored, revision)
            .ok_or_else(|| corrupt("no metadata".to_owned()))?;
        Ok(Object { key: key.into(), revision, bytes: bytes.into(), head })
    }
}
