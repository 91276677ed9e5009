//! A watch of its own, for callers in the same process.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use pintle_store_api::{Revision, WatchError, WatchItem, WatchStream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Hub, Spec, Step, Wake, Watcher};

/// Progress is reported at most this often. In one process it costs next to nothing, and a cache
/// above the store waits for it before it answers a consistent read.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(10);

struct Solo {
    watcher: Watcher,
    wake: Arc<Wake>,
    ready: VecDeque<WatchItem>,
    /// `Some` when progress was asked for: the revision last reported.
    reported: Option<i64>,
    report_after: Instant,
    dispatched: watch::Receiver<i64>,
    failed: bool,
}

/// Watches `spec`. With `progress`, the stream also says how far it is complete.
pub(crate) fn solo(hub: &Arc<Hub>, spec: Spec, progress: bool) -> Result<WatchStream, WatchError> {
    let wake = Arc::new(Wake::default());
    let watcher = Watcher::new(Arc::clone(hub), spec, Arc::clone(&wake), 0)?;
    let created = WatchItem::Created(Revision(hub.head()));
    let solo = Solo {
        watcher,
        wake,
        ready: VecDeque::from([created]),
        reported: progress.then_some(0),
        report_after: Instant::now(),
        dispatched: hub.dispatched(),
        failed: false,
    };
    Ok(Box::pin(futures::stream::unfold(solo, |mut solo| async move {
        let item = solo.next().await?;
        Some((item, solo))
    })))
}

impl Solo {
    async fn next(&mut self) -> Option<Result<WatchItem, WatchError>> {
        if self.failed {
            return None;
        }
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(Ok(item));
            }
            let events = match self.watcher.step() {
                Step::Events(events) => events,
                Step::Behind => match self.watcher.catch_up().await {
                    Ok(events) => events,
                    Err(error) => {
                        self.failed = true;
                        return Some(Err(error));
                    }
                },
                Step::Idle => {
                    if let Some(progress) = self.idle().await {
                        return Some(Ok(progress));
                    }
                    continue;
                }
            };
            self.ready.extend(events.into_iter().map(|events| WatchItem::Events {
                revision: Revision(events.revision),
                events: events.events(),
            }));
        }
    }

    /// Waits for something to read, or gives the progress that is due.
    async fn idle(&mut self) -> Option<WatchItem> {
        let Some(reported) = self.reported else {
            self.wake.wait().await;
            return None;
        };
        self.dispatched.borrow_and_update();
        if let Some(through) = self.watcher.synced_through()
            && through > reported
        {
            let now = Instant::now();
            if now < self.report_after {
                tokio::select! {
                    () = self.wake.wait() => {}
                    () = tokio::time::sleep_until(self.report_after) => {}
                }
                return None;
            }
            self.report_after = now + PROGRESS_INTERVAL;
            self.reported = Some(through);
            return Some(WatchItem::Progress(Revision(through)));
        }
        tokio::select! {
            () = self.wake.wait() => {}
            _ = self.dispatched.changed() => {}
        }
        None
    }
}
