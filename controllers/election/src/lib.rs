//! pintle-election.
