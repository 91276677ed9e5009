//! pintle-controllers.
