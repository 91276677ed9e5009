//! pintle-apiserver-storage.
