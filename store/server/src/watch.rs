//! The watch hub: how every watcher sees every event of its range once, in revision order.
//!
//! Apply publishes each revision once into one shared, bounded [`Ring`](ring::Ring) and never waits
//! for a watcher, nor takes a lock that one holds for long. A dispatcher task follows the ring and
//! marks the watchers whose range a revision touches, through an index by key and prefix, so that a
//! write wakes only those whom it concerns. A [`Watcher`] is a cursor: marked with the first
//! revision that concerns it, it reads the ring from there, or history (`Reader::events`) when the
//! ring has moved on. One cursor emits events, progress and the compaction cancel, in that order
//! of truth: progress to a revision is only reported when nothing at or below it is still to come.

#[cfg(test)]
mod fixture;
mod history;
mod hub;
mod kept;
mod narrow;
mod registry;
mod ring;
mod solo;
mod watcher;

pub(crate) use hub::Hub;
pub(crate) use registry::Wake;
pub(crate) use solo::solo;
pub(crate) use watcher::{Events, Spec, Step, Watcher};
