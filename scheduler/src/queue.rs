//! The scheduling queue: which pod is next, and when a pod that found no node is worth another try.
//!
//! A pod is in one of five states. *Active* ones wait for their turn, by priority and then by age. One that has been popped
//! is *in flight* until it is done, rejected or has failed. A *rejected* pod waits for an event that may change the mind of
//! who rejected it, five minutes at most; it is then active, or *backing off* if its last attempt was a moment ago.
//! A pod with scheduling gates is *gated* until they are gone. Time is a parameter, counted from any fixed origin.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::framework::PluginSet;
use crate::pod::{PodInfo, Uid};

/// How long a pod backs off after its first failed attempt; doubled with each further one.
pub const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// The longest that a pod backs off.
pub const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// How long a rejected pod waits when nothing happens. It guards against an event that nobody thought of.
pub const REJECTED_MAX: Duration = Duration::from_secs(5 * 60);

/// Orders the active pods: the highest priority first, then the longest waiting, then as they came.
type Turn = (Reverse<i32>, Duration, u64);

/// See the module.
#[derive(Debug, Default)]
pub struct Queue {
    entries: HashMap<Uid, Entry>,
    active: BTreeSet<(Turn, Uid)>,
    /// Backing off, by when it ends.
    backing_off: BTreeSet<(Duration, Uid)>,
    /// Rejected, by whom, and by when it happened. There are few ways to be rejected, and many pods.
    rejected: BTreeMap<PluginSet, BTreeSet<(Duration, Uid)>>,
    arrivals: u64,
}

#[derive(Debug)]
struct Entry {
    pod: Arc<PodInfo>,
    state: State,
    arrival: u64,
    attempts: u32,
    /// When the last attempt ended.
    last_attempt: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Active(Turn),
    InFlight,
    BackingOff { until: Duration },
    Rejected { at: Duration, by: PluginSet },
    Gated,
}

/// How many pods are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Waiting for their turn.
    pub active: usize,
    /// Popped.
    pub in_flight: usize,
    /// Waiting for the backoff to end.
    pub backing_off: usize,
    /// Waiting for an event.
    pub rejected: usize,
    /// Waiting for their gates to be removed.
    pub gated: usize,
}

impl Queue {
    /// Takes in a pod that waits for a node, or a new version of it.
    pub fn set(&mut self, pod: Arc<PodInfo>, now: Duration) {
        let uid = pod.uid.clone();
        let Some(entry) = self.entries.get_mut(&uid) else {
            self.arrivals += 1;
            let arrival = self.arrivals;
            let entry =
                Entry { pod, state: State::Gated, arrival, attempts: 0, last_attempt: None };
            self.entries.insert(uid.clone(), entry);
            self.enqueue(&uid, now);
            return;
        };
        let old = std::mem::replace(&mut entry.pod, pod);
        let new = &entry.pod;
        match entry.state {
            State::Active(_) if old.priority != new.priority || !new.gates.is_empty() => {
                self.enqueue(&uid, now);
            }
            State::Rejected { .. } if !old.asks_the_same(new) => self.enqueue(&uid, now),
            State::Gated if new.gates.is_empty() => self.enqueue(&uid, now),
            _ => {}
        }
    }

    /// Forgets a pod: it is gone, or has its node.
    pub fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        self.leave_state(uid);
        self.entries.remove(uid).map(|entry| entry.pod)
    }

    /// The next pod, which is then in flight.
    pub fn pop(&mut self, now: Duration) -> Option<Arc<PodInfo>> {
        self.flush(now);
        let (_, uid) = self.active.pop_first()?;
        let entry = self.entries.get_mut(&uid)?;
        entry.state = State::InFlight;
        entry.attempts += 1;
        Some(entry.pod.clone())
    }

    /// The pod in flight has found no node, because of these plugins.
    pub fn reject(&mut self, uid: &str, by: PluginSet, now: Duration) {
        if let Some(entry) = self.in_flight(uid) {
            entry.last_attempt = Some(now);
            entry.state = State::Rejected { at: now, by };
            let uid = entry.pod.uid.clone();
            self.rejected.entry(by).or_default().insert((now, uid));
        }
    }

    /// The pod in flight has failed for a reason that lies outside of it.
    pub fn fail(&mut self, uid: &str, now: Duration) {
        if let Some(entry) = self.in_flight(uid) {
            entry.last_attempt = Some(now);
            let uid = entry.pod.uid.clone();
            self.enqueue(&uid, now);
        }
    }

    /// Something has happened that only `listeners` care about: each rejected pod for which it is worth a retry gets one.
    /// Pods that no plugin in particular has rejected are always asked about.
    pub fn retry_if(
        &mut self,
        now: Duration,
        listeners: PluginSet,
        worth: impl Fn(&PodInfo, PluginSet) -> bool,
    ) {
        let concerned =
            self.rejected.iter().filter(|(by, _)| by.is_empty() || by.intersects(listeners));
        let pods = concerned.flat_map(|(by, pods)| pods.iter().map(move |(_, uid)| (*by, uid)));
        let worthwhile: Vec<Uid> = pods
            .filter(|(by, uid)| self.entries.get(*uid).is_some_and(|entry| worth(&entry.pod, *by)))
            .map(|(_, uid)| uid.clone())
            .collect();
        for uid in worthwhile {
            self.enqueue(&uid, now);
        }
    }

    /// Moves what has waited long enough.
    pub fn flush(&mut self, now: Duration) {
        while let Some((until, uid)) = self.backing_off.first().cloned()
            && until <= now
        {
            self.enqueue(&uid, now);
        }
        while let Some((at, uid)) = self.longest_rejected().cloned()
            && at + REJECTED_MAX <= now
        {
            self.enqueue(&uid, now);
        }
    }

    /// When [`pop`](Self::pop) is worth calling next; `None` if not before something happens.
    pub fn next_due(&self) -> Option<Duration> {
        if !self.active.is_empty() {
            return Some(Duration::ZERO);
        }
        let backoff = self.backing_off.first().map(|(until, _)| *until);
        let rejected = self.longest_rejected().map(|(at, _)| *at + REJECTED_MAX);
        backoff.into_iter().chain(rejected).min()
    }

    /// The newest version of a pod.
    pub fn get(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        self.entries.get(uid).map(|entry| &entry.pod)
    }

    /// The pods that have been popped and are not yet done.
    pub fn all_in_flight(&self) -> Vec<Uid> {
        let in_flight = self.entries.iter().filter(|(_, entry)| entry.state == State::InFlight);
        let mut uids: Vec<Uid> = in_flight.map(|(uid, _)| uid.clone()).collect();
        uids.sort_unstable();
        uids
    }

    /// How many pods are in which state.
    pub fn depth(&self) -> Depth {
        let mut depth = Depth {
            active: self.active.len(),
            backing_off: self.backing_off.len(),
            rejected: self.rejected.values().map(BTreeSet::len).sum(),
            ..Depth::default()
        };
        for entry in self.entries.values() {
            match entry.state {
                State::InFlight => depth.in_flight += 1,
                State::Gated => depth.gated += 1,
                _ => {}
            }
        }
        depth
    }

    fn longest_rejected(&self) -> Option<&(Duration, Uid)> {
        self.rejected.values().filter_map(BTreeSet::first).min()
    }

    fn in_flight(&mut self, uid: &str) -> Option<&mut Entry> {
        self.entries.get_mut(uid).filter(|entry| entry.state == State::InFlight)
    }

    /// Puts a pod where it belongs now: behind its gates, into its backoff, or among the active.
    fn enqueue(&mut self, uid: &Uid, now: Duration) {
        self.leave_state(uid);
        let Some(entry) = self.entries.get_mut(uid) else { return };
        let until = entry.last_attempt.map(|at| at + backoff(entry.attempts));
        entry.state = match until {
            _ if !entry.pod.gates.is_empty() => State::Gated,
            Some(until) if until > now => State::BackingOff { until },
            _ => State::Active((Reverse(entry.pod.priority), now, entry.arrival)),
        };
        match entry.state {
            State::Active(turn) => {
                self.active.insert((turn, uid.clone()));
            }
            State::BackingOff { until } => {
                self.backing_off.insert((until, uid.clone()));
            }
            _ => {}
        }
    }

    fn leave_state(&mut self, uid: &str) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        let uid = entry.pod.uid.clone();
        match std::mem::replace(&mut entry.state, State::Gated) {
            State::Active(turn) => {
                self.active.remove(&(turn, uid));
            }
            State::BackingOff { until } => {
                self.backing_off.remove(&(until, uid));
            }
            State::Rejected { at, by } => {
                if let Some(pods) = self.rejected.get_mut(&by) {
                    pods.remove(&(at, uid));
                    if pods.is_empty() {
                        self.rejected.remove(&by);
                    }
                }
            }
            State::InFlight | State::Gated => {}
        }
    }
}

/// How long a pod backs off after so many attempts.
fn backoff(attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    BACKOFF_MAX.min(BACKOFF_MIN * 2_u32.pow(doublings))
}

#[cfg(test)]
mod tests;
