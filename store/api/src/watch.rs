//! What a watcher receives.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;

use crate::{Revision, WatchError, mvccpb};

/// One step of a watch, in revision order. Events of one revision always arrive together.
#[derive(Clone, Debug)]
pub enum WatchItem {
    /// The watch stands; the store was at this revision then.
    Created(Revision),
    /// All events that the range saw up to `revision` since the item before; shared between the
    /// watchers of the same range, hence immutable.
    Events {
        /// The store's revision when the last of these was applied.
        revision: Revision,
        /// In revision order.
        events: Arc<[mvccpb::Event]>,
    },
    /// Nothing more will come at or below this revision.
    Progress(Revision),
}

/// Ends after the first error.
pub type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchItem, WatchError>> + Send>>;
