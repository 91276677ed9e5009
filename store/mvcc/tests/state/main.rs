//! The state from outside: against a naive model, over crashes, and as golden transcripts.

mod auth;
mod concurrency;
mod lifecycle;
mod model;
mod offline;
mod pages;
mod replay;
mod strategy;
mod transcripts;
