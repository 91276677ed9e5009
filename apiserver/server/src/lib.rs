//! pintle-apiserver.
