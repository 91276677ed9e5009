//! Clients that read and write a few keys, one call at a time.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::cluster::{Asked, Cluster};
use super::requests;
use crate::history::{Answer, Call};

/// What all shared keys begin with.
pub(super) const PREFIX: &str = "k/";

pub(super) struct Client {
    cluster: Arc<Cluster>,
    rng: StdRng,
    /// A client that does not know what became of its call goes on under another number, since
    /// that call may still be open.
    number: usize,
    member: usize,
    written: u64,
    /// The newest revision that it has seen of each key.
    last: Vec<i64>,
    newest: i64,
}

impl Client {
    pub(super) fn new(cluster: Arc<Cluster>, number: usize) -> Self {
        let seed = cluster.plan.seed ^ (0x636c_6965_6e74_0000 + number as u64);
        let last = vec![0; cluster.plan.keys];
        let member = number % cluster.plan.members;
        let rng = StdRng::seed_from_u64(seed);
        Self { cluster, rng, number, member, written: 0, last, newest: 1 }
    }

    /// Works until it is told to stop.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let pause = if self.rng.random_bool(0.5) { 3..20 } else { 20..250 };
            sleep(Duration::from_millis(self.rng.random_range(pause))).await;
            if self.rng.random_bool(0.2) {
                self.member = self.rng.random_range(0..self.cluster.places());
            }
            let call = self.choose();
            self.perform(call).await;
        }
    }

    fn key(&mut self) -> String {
        format!("{PREFIX}{}", self.rng.random_range(0..self.cluster.plan.keys))
    }

    fn value(&mut self) -> String {
        self.written += 1;
        format!("c{}.{}", self.number, self.written)
    }

    fn choose(&mut self) -> Call {
        let key = self.key();
        match self.rng.random_range(0..100) {
            0..30 => Call::Put { keys: vec![key], value: self.value(), lease: 0 },
            30..38 => {
                let other = self.key();
                let keys = if other == key { vec![key] } else { vec![key, other] };
                Call::Put { keys, value: self.value(), lease: 0 }
            }
            38..55 => {
                let place: usize = key[PREFIX.len()..].parse().unwrap_or(0);
                let expected = if self.rng.random_bool(0.1) { 0 } else { self.last[place] };
                Call::Swap { key, expected, value: self.value(), lease: 0 }
            }
            55..63 => Call::Delete { key },
            63..88 => Call::Read { keys: vec![key] },
            88..97 => {
                let keys = 0..self.cluster.plan.keys;
                Call::Read { keys: keys.map(|key| format!("{PREFIX}{key}")).collect() }
            }
            _ => Call::Compact { revision: self.newest - self.rng.random_range(0..30) },
        }
    }

    async fn perform(&mut self, call: Call) {
        let recorder = Arc::clone(&self.cluster.recorder);
        let invoked = recorder.moment();
        let patience = Duration::from_millis(self.rng.random_range(500..8_000));
        let asked = {
            let call = call.clone();
            let ask =
                async move |store: Arc<pintle_store::Handle>| requests::ask(&store, &call).await;
            self.cluster.ask(self.member, patience, ask).await
        };
        let answer = match asked {
            Asked::Answered(answer) => answer,
            Asked::NotSent => Answer::NotApplied("nobody listens".to_owned()),
            Asked::Lost => Answer::Unknown("no answer".to_owned()),
        };
        self.note(&call, &answer);
        let who = (self.number, self.member);
        let unhappy = matches!(answer, Answer::Unknown(_) | Answer::NotApplied(_));
        if matches!(answer, Answer::Unknown(_)) {
            self.number += 100;
        }
        recorder.operation(who, call, invoked, answer);
        if unhappy {
            self.member = self.rng.random_range(0..self.cluster.places());
        }
    }

    fn note(&mut self, call: &Call, answer: &Answer) {
        let (revision, records) = match answer {
            Answer::Written { revision, .. } => (*revision, None),
            Answer::Found { revision, records } => (*revision, Some(records)),
            _ => return,
        };
        self.newest = self.newest.max(revision);
        for (i, key) in call.keys().iter().enumerate() {
            let place: usize = key[PREFIX.len()..].parse().unwrap_or(0);
            self.last[place] = match records {
                Some(records) => records[i].as_ref().map_or(0, |record| record.modified),
                None if matches!(call, Call::Delete { .. }) => 0,
                None => revision,
            };
        }
    }
}
