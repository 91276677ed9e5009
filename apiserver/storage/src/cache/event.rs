//! One change, and the forms that it has been encoded in.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::Scope;
use crate::Object;

/// A form that events are encoded in, beside plain JSON: chosen by the server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Encoding(pub Arc<str>);

/// One change of one object.
#[derive(Debug)]
pub struct CacheEvent {
    /// The revision of the change.
    pub revision: i64,
    /// The object after the change; for a deletion, as it was, under the revision of the deletion.
    pub object: Arc<Object>,
    /// The object before; `None` for a creation.
    pub previous: Option<Arc<Object>>,
    /// Whether the object is gone.
    pub deleted: bool,
    pub(super) encoded: Mutex<Vec<(Encoding, Bytes)>>,
}

impl CacheEvent {
    /// The event in some encoding, made by the first watcher that asks and shared by the others.
    pub fn encoded(&self, encoding: &Encoding, make: impl FnOnce(&Self) -> Bytes) -> Bytes {
        let mut encoded = self.encoded.lock();
        if let Some((_, bytes)) = encoded.iter().find(|(known, _)| known == encoding) {
            return bytes.clone();
        }
        let bytes = make(self);
        encoded.push((encoding.clone(), bytes.clone()));
        bytes
    }

    pub(crate) fn size(&self) -> usize {
        self.object.bytes().len()
    }

    /// The narrow scopes that the change belongs to.
    pub(super) fn scopes<'a>(&'a self, index: &'a [String]) -> impl Iterator<Item = Scope> + 'a {
        let value = move |object: &'a Object| {
            if index.is_empty() {
                return None;
            }
            let found = index.iter().try_fold(object.head(), |value, name| value.get(name))?;
            found.as_str()
        };
        let is = value(&self.object);
        let was = self.previous.as_deref().and_then(value).filter(|was| Some(*was) != is);
        let indexed = is.into_iter().chain(was).map(|value| Scope::Indexed(value.into()));
        std::iter::once(Scope::Object(self.object.key().clone())).chain(indexed)
    }
}
