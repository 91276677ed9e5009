//! Automatic compaction: by time, or by the number of revisions to keep. The leader's duty.
//!
//! When to compact to what is decided by [`Periodic`] and [`ByRevision`], which are told the time
//! and the revision, in etcd's rhythm; the task sleeps and asks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use pintle_store_api::{Rejection, Store, WriteError, pb};
use tokio::time::Instant;

use crate::handle::Handle;

/// What is compacted without being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    /// Keep this much time.
    Periodic(Duration),
    /// Keep this many revisions.
    Revision(i64),
}

const HOUR: Duration = Duration::from_secs(3_600);
/// How often the number of revisions is looked at.
const REVISION_CHECK: Duration = Duration::from_secs(300);

/// Decides by time: remembers the revision of every tenth of the period.
#[derive(Debug)]
struct Periodic {
    period: Duration,
    remembered: VecDeque<i64>,
    compacted: i64,
    /// When it last compacted, and how long to wait after that.
    since: Duration,
    wait: Duration,
}

impl Periodic {
    fn new(period: Duration, now: Duration) -> Self {
        Self { period, remembered: VecDeque::new(), compacted: 0, since: now, wait: period }
    }

    /// How long to sleep between two looks.
    fn tick(&self) -> Duration {
        self.period.min(HOUR) / 10
    }

    fn remember(&mut self, revision: i64) {
        self.remembered.push_back(revision);
        let kept = self.period.as_millis() / self.tick().as_millis().max(1) + 1;
        if self.remembered.len() as u128 > kept {
            self.remembered.pop_front();
        }
    }

    /// What to compact to, a tick after the last [`remember`](Self::remember).
    fn due(&self, now: Duration) -> Option<i64> {
        let oldest = *self.remembered.front()?;
        (now.saturating_sub(self.since) >= self.wait && oldest != self.compacted).then_some(oldest)
    }

    fn compacted(&mut self, revision: i64, now: Duration) {
        (self.compacted, self.since) = (revision, now);
        self.wait = self.period.min(HOUR);
    }
}

/// Decides by the number of revisions.
#[derive(Debug)]
struct ByRevision {
    keep: i64,
    compacted: i64,
}

impl ByRevision {
    fn due(&self, revision: i64) -> Option<i64> {
        let target = revision - self.keep;
        (target > 0 && target != self.compacted).then_some(target)
    }
}

/// Runs while the member does.
pub(crate) async fn run(handle: Arc<Handle>, mode: AutoCompaction) {
    match mode {
        AutoCompaction::Periodic(period) => periodic(&handle, period).await,
        AutoCompaction::Revision(keep) => by_revision(&handle, keep).await,
    }
}

async fn periodic(handle: &Handle, period: Duration) {
    let epoch = Instant::now();
    let mut decide = Periodic::new(period, Duration::ZERO);
    loop {
        decide.remember(handle.core().reader().current_revision().0);
        tokio::time::sleep(decide.tick()).await;
        if !handle.core().leadership.is_leader() {
            continue;
        }
        if let Some(revision) = decide.due(epoch.elapsed())
            && compact(handle, revision).await
        {
            decide.compacted(revision, epoch.elapsed());
        }
    }
}

async fn by_revision(handle: &Handle, keep: i64) {
    let mut decide = ByRevision { keep, compacted: 0 };
    loop {
        tokio::time::sleep(REVISION_CHECK).await;
        if !handle.core().leadership.is_leader() {
            continue;
        }
        let current = handle.core().reader().current_revision().0;
        if let Some(revision) = decide.due(current)
            && compact(handle, revision).await
        {
            decide.compacted = revision;
        }
    }
}

/// Whether the floor is at `revision` or above now.
async fn compact(handle: &Handle, revision: i64) -> bool {
    match handle.compact(pb::CompactionRequest { revision, physical: false }).await {
        Ok(_) => {
            tracing::info!(revision, "compacted automatically");
            true
        }
        Err(WriteError::Rejected(Rejection::Compacted(_))) => true,
        Err(error) => {
            tracing::warn!(%error, revision, "automatic compaction failed");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes(count: u64) -> Duration {
        Duration::from_secs(60 * count)
    }

    /// What is compacted when, if every minute brings a revision.
    fn compactions(period: Duration, hours: u64) -> Vec<(u64, i64)> {
        let mut decide = Periodic::new(period, Duration::ZERO);
        let mut now = Duration::ZERO;
        let mut found = Vec::new();
        while now < HOUR * u32::try_from(hours).expect("few") {
            decide.remember(1 + i64::try_from(now.as_secs() / 60).expect("small"));
            now += decide.tick();
            if let Some(revision) = decide.due(now) {
                decide.compacted(revision, now);
                found.push((now.as_secs() / 60, revision));
            }
        }
        found
    }

    #[test]
    fn an_hour_is_kept_and_compacted_every_hour() {
        assert_eq!(compactions(HOUR, 3), [(60, 1), (120, 55), (180, 115)]);
    }

    #[test]
    fn a_day_is_kept_and_compacted_every_hour_after_it() {
        let found = compactions(24 * HOUR, 26);
        assert_eq!(found[0], (24 * 60, 1));
        assert_eq!(found[1].0, 25 * 60);
        let kept = i64::try_from(found[1].0).expect("small") - found[1].1;
        assert!((23 * 60..=24 * 60 + 6).contains(&kept), "{found:?}");
    }

    #[test]
    fn five_minutes_are_kept_and_compacted_every_five_minutes() {
        let found = compactions(minutes(5), 1);
        assert_eq!(found.len(), 12);
        assert!(found.iter().all(|(at, revision)| (*at as i64 - revision) <= 6), "{found:?}");
    }

    #[test]
    fn nothing_new_is_not_compacted_again() {
        let mut decide = Periodic::new(minutes(10), Duration::ZERO);
        decide.remember(7);
        assert_eq!(decide.due(minutes(9)), None, "the period has not passed");
        assert_eq!(decide.due(minutes(10)), Some(7));
        decide.compacted(7, minutes(10));
        decide.remember(7);
        assert_eq!(decide.due(minutes(30)), None);
    }

    #[test]
    fn a_number_of_revisions_is_kept() {
        let mut decide = ByRevision { keep: 100, compacted: 0 };
        assert_eq!(decide.due(100), None);
        assert_eq!(decide.due(150), Some(50));
        decide.compacted = 50;
        assert_eq!(decide.due(150), None);
        assert_eq!(decide.due(151), Some(51));
    }
}
