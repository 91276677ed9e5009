//! The end of a run: everything is healed, and a healthy cluster has to become one again: it takes
//! writes, all its members catch up and hold the same, and all watchers have seen everything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use pintle_store_api::Revision;
use tokio::time::{Instant, sleep};

use super::clients::PREFIX;
use super::cluster::{Asked, Cluster};
use super::network::Weather;
use super::requests;
use crate::history::{Answer, Call};

/// Simulated time in which a healed cluster must have recovered.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);
const RECOVERS: &str = "a healed cluster recovers";
const SAME: &str = "members at the same revision hold the same";

pub(super) struct Settle<'a> {
    pub(super) cluster: &'a Arc<Cluster>,
    /// How far each watcher is.
    pub(super) watched: &'a [Arc<AtomicI64>],
}

impl Settle<'_> {
    /// Heals, waits and compares.
    pub(super) async fn run(&self) {
        let deadline = Instant::now() + PATIENCE;
        self.heal(deadline).await;
        let Some(revision) = self.write(deadline).await else { return };
        self.leave_removed();
        self.caught_up(revision, deadline).await;
        self.read_everything().await;
        self.compare().await;
    }

    async fn heal(&self, deadline: Instant) {
        self.cluster.recorder.fault("everything heals");
        self.cluster.net.heal();
        self.cluster.net.weather(Weather::FAIR);
        for place in self.cluster.down() {
            let cluster = Arc::clone(self.cluster);
            tokio::spawn(async move { cluster.start(place).await });
        }
        for running in self.cluster.up().into_iter().filter_map(|one| self.cluster.running(one)) {
            running.disk.slow(false);
        }
        while !self.cluster.down().is_empty() && Instant::now() < deadline {
            sleep(LOOK_EVERY).await;
        }
    }

    /// A write through every member, in turn; the last one's revision.
    async fn write(&self, deadline: Instant) -> Option<i64> {
        let mut tries = 0;
        let mut last = String::new();
        while Instant::now() < deadline {
            let up = self.cluster.up();
            tries += 1;
            let place = up.get(tries % up.len().max(1)).copied().unwrap_or(0);
            let value = format!("end.{tries}");
            let call = Call::Put { keys: vec![format!("{PREFIX}end")], value, lease: 0 };
            match self.perform(9_000 + tries, place, call).await {
                Answer::Written { revision, .. } => return Some(revision),
                other => last = format!("member {place}: {other}"),
            }
            sleep(LOOK_EVERY).await;
        }
        self.cluster.recorder.violation(RECOVERS, format!("no write succeeds: {last}"));
        None
    }

    async fn perform(&self, client: usize, place: usize, call: Call) -> Answer {
        let recorder = &self.cluster.recorder;
        let invoked = recorder.moment();
        let asked = {
            let call = call.clone();
            let ask =
                async move |store: Arc<pintle_store::Handle>| requests::ask(&store, &call).await;
            self.cluster.ask(place, Duration::from_secs(10), ask).await
        };
        let answer = match asked {
            Asked::Answered(answer) => answer,
            Asked::NotSent => Answer::NotApplied("nobody listens".to_owned()),
            Asked::Lost => Answer::Unknown("no answer".to_owned()),
        };
        recorder.operation((client, place), call, invoked, answer.clone());
        answer
    }

    /// Members that have left without knowing it end.
    fn leave_removed(&self) {
        let Some(leader) = self.cluster.leader() else { return };
        let Some(leading) = self.cluster.running(leader) else { return };
        let members: Vec<u64> = leading.member.members().into_iter().map(|(id, _)| id).collect();
        for place in self.cluster.up() {
            let id = self.cluster.running(place).map(|running| running.member.id());
            if id.is_some_and(|id| !members.contains(&id)) {
                self.cluster.recorder.fault(format!("member {place} has left"));
                self.cluster.end(place);
            }
        }
    }

    /// Waits until every member and every watcher has seen the revision.
    async fn caught_up(&self, revision: i64, deadline: Instant) {
        loop {
            let members = self.cluster.up().into_iter().filter_map(|one| {
                let member = self.cluster.running(one)?.member;
                // One that was added to vote has not arrived before it does.
                let at = if member.is_learner() { 0 } else { member.applied_revision() };
                Some((one, at))
            });
            let late: Vec<String> = members
                .filter(|(_, at)| *at < revision)
                .map(|(place, at)| format!("member {place} is at @{at}"))
                .chain(self.watched.iter().enumerate().filter_map(|(watcher, at)| {
                    let at = at.load(Ordering::Relaxed);
                    (at < revision).then(|| format!("watcher {watcher} is at @{at}"))
                }))
                .collect();
            if late.is_empty() {
                return;
            }
            if Instant::now() > deadline {
                let what = format!("@{revision} has not reached all: {}", late.join(", "));
                self.cluster.recorder.violation(RECOVERS, what);
                return;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Reads all keys at every member, so that what was acknowledged and lost is missed.
    async fn read_everything(&self) {
        let keys = 0..self.cluster.plan.keys;
        let keys: Vec<String> = keys.map(|key| format!("{PREFIX}{key}")).collect();
        for place in self.cluster.up() {
            let call = Call::Read { keys: keys.clone() };
            let answer = self.perform(9_500 + place, place, call).await;
            if !matches!(answer, Answer::Found { .. }) {
                let what = format!("member {place} does not read: {answer}");
                self.cluster.recorder.violation(RECOVERS, what);
            }
        }
    }

    /// Members that have applied the same hold the same.
    async fn compare(&self) {
        let mut hashes: BTreeMap<u64, Vec<(usize, u32, i64, i64)>> = BTreeMap::new();
        for place in self.cluster.up() {
            let Some(running) = self.cluster.running(place) else { continue };
            let index = running.member.applied_index();
            match running.member.hash_kv(Revision(0)).await {
                Ok(hash) => hashes.entry(index).or_default().push((
                    place,
                    hash.hash,
                    hash.hash_revision,
                    hash.compact_revision,
                )),
                Err(error) => {
                    let what = format!("member {place} gives no hash: {error}");
                    self.cluster.recorder.violation(SAME, what);
                }
            }
        }
        for (index, same) in hashes {
            if same
                .windows(2)
                .any(|two| (two[0].1, two[0].2, two[0].3) != (two[1].1, two[1].2, two[1].3))
            {
                let what = format!("at index {index}: (member, hash, revision, floor) {same:?}");
                self.cluster.recorder.violation(SAME, what);
            }
        }
    }
}
