//! What goes wrong, and when: drawn from the seed, one trouble after another, several at a time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::cluster::Cluster;
use super::network::Weather;

/// The kinds of trouble, and how often each comes.
const TROUBLES: [(Trouble, u32); 14] = [
    (Trouble::Crash, 16),
    (Trouble::CrashLeader, 12),
    (Trouble::CrashMost, 6),
    (Trouble::CrashAll, 5),
    (Trouble::Isolate, 10),
    (Trouble::IsolateLeader, 10),
    (Trouble::OneWay, 8),
    (Trouble::Split, 8),
    (Trouble::Bridge, 4),
    (Trouble::Weather, 12),
    (Trouble::SlowDisk, 8),
    (Trouble::FailDisk, 5),
    (Trouble::MoveLeader, 8),
    (Trouble::ChangeMembers, 12),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Crash,
    CrashLeader,
    CrashMost,
    CrashAll,
    Isolate,
    IsolateLeader,
    OneWay,
    Split,
    Bridge,
    Weather,
    SlowDisk,
    FailDisk,
    MoveLeader,
    ChangeMembers,
}

pub(super) struct Nemesis {
    cluster: Arc<Cluster>,
    rng: StdRng,
}

impl Nemesis {
    pub(super) fn new(cluster: Arc<Cluster>) -> Self {
        let rng = StdRng::seed_from_u64(cluster.plan.seed ^ 0x6e65_6d65_7369_7300);
        Self { cluster, rng }
    }

    /// Makes trouble until it is told to stop.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let calm = self.cluster.plan.calm_ms;
        loop {
            let pause = Duration::from_millis(self.rng.random_range(calm / 4..calm * 2));
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = sleep(pause) => {}
            }
            let trouble = self.choose();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.make(trouble) => {}
            }
        }
    }

    fn choose(&mut self) -> Trouble {
        let total = TROUBLES.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.rng.random_range(0..total);
        for (trouble, weight) in TROUBLES {
            if drawn < weight {
                return trouble;
            }
            drawn -= weight;
        }
        Trouble::Crash
    }

    fn some_place(&mut self) -> Option<usize> {
        let up = self.cluster.up();
        (!up.is_empty()).then(|| up[self.rng.random_range(0..up.len())])
    }

    async fn make(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Crash => {
                let place = self.some_place();
                self.crash(place.into_iter().collect());
            }
            Trouble::CrashLeader => self.crash(self.cluster.leader().into_iter().collect()),
            Trouble::CrashMost => {
                let mut up = self.cluster.up();
                up.shuffle(&mut self.rng);
                up.truncate(self.cluster.up().len() / 2 + 1);
                self.crash(up);
            }
            Trouble::CrashAll => self.crash(self.cluster.up()),
            Trouble::Isolate => {
                let place = self.some_place();
                self.isolate(place);
            }
            Trouble::IsolateLeader => self.isolate(self.cluster.leader()),
            Trouble::OneWay => self.one_way(),
            Trouble::Split => self.split(),
            Trouble::Bridge => self.bridge(),
            Trouble::Weather => self.weather(),
            Trouble::SlowDisk => self.slow_disk(),
            Trouble::FailDisk => {
                if let Some(place) = self.some_place() {
                    self.cluster.recorder.fault(format!("disk of member {place} fails"));
                    self.cluster.fail_disk(place);
                }
            }
            Trouble::MoveLeader => self.move_leader(),
            Trouble::ChangeMembers => self.change_members().await,
        }
    }

    /// Crashes all of them at once; each comes back on its own.
    fn crash(&mut self, places: Vec<usize>) {
        self.cluster.recorder.fault(format!("members {places:?} crash"));
        for place in places {
            self.cluster.crash(place);
            let back = Duration::from_millis(self.rng.random_range(50..2_500));
            let cluster = Arc::clone(&self.cluster);
            tokio::spawn(async move {
                sleep(back).await;
                cluster.recorder.fault(format!("member {place} starts"));
                cluster.start(place).await;
            });
        }
    }

    fn cut(&mut self, what: String, ways: impl IntoIterator<Item = (usize, usize)>) {
        self.cluster.recorder.fault(what);
        self.cluster.net.cut(ways);
        let heals = Duration::from_millis(self.rng.random_range(200..4_000));
        let cluster = Arc::clone(&self.cluster);
        tokio::spawn(async move {
            sleep(heals).await;
            cluster.recorder.fault("the network heals");
            cluster.net.heal();
        });
    }

    fn isolate(&mut self, place: Option<usize>) {
        let Some(place) = place else { return };
        let others = 0..self.cluster.places();
        let ways = others.flat_map(|other| [(place, other), (other, place)]);
        self.cut(format!("member {place} is isolated"), ways.collect::<Vec<_>>());
    }

    fn one_way(&mut self) {
        let Some(place) = self.some_place() else { return };
        let others = 0..self.cluster.places();
        if self.rng.random_bool(0.5) {
            self.cut(format!("member {place} is not heard"), others.map(|other| (place, other)));
        } else {
            self.cut(format!("member {place} hears nobody"), others.map(|other| (other, place)));
        }
    }

    fn split(&mut self) {
        let count = self.cluster.places();
        let side: BTreeSet<usize> = (0..count).filter(|_| self.rng.random_bool(0.5)).collect();
        let across = |(from, to): &(usize, usize)| side.contains(from) != side.contains(to);
        let ways: Vec<_> = pairs(count).filter(across).collect();
        self.cut(format!("members {side:?} are parted from the others"), ways);
    }

    /// Two halves that only one member still connects.
    fn bridge(&mut self) {
        let Some(bridge) = self.some_place() else { return };
        let count = self.cluster.places();
        let apart =
            |(from, to): &(usize, usize)| *from != bridge && *to != bridge && from % 2 != to % 2;
        let ways: Vec<_> = pairs(count).filter(apart).collect();
        self.cut(format!("member {bridge} alone reaches both halves"), ways);
    }

    fn weather(&mut self) {
        let weather = Weather {
            delay_max: self.rng.random_range(2..150),
            stall: self.rng.random_range(0.0..0.1),
            loss: self.rng.random_range(0.0..0.1),
            duplicate: self.rng.random_range(0.0..0.3),
            refusal: self.rng.random_range(0.0..0.1),
        };
        self.cluster.recorder.fault(format!("weather: {weather:?}"));
        self.cluster.net.weather(weather);
        let clears = Duration::from_millis(self.rng.random_range(500..4_000));
        let cluster = Arc::clone(&self.cluster);
        tokio::spawn(async move {
            sleep(clears).await;
            cluster.recorder.fault("fair weather");
            cluster.net.weather(Weather::FAIR);
        });
    }

    fn slow_disk(&mut self) {
        let Some(place) = self.some_place() else { return };
        let Some(running) = self.cluster.running(place) else { return };
        self.cluster.recorder.fault(format!("disk of member {place} is slow"));
        running.disk.slow(true);
        let recovers = Duration::from_millis(self.rng.random_range(500..4_000));
        tokio::spawn(async move {
            sleep(recovers).await;
            running.disk.slow(false);
        });
    }

    fn move_leader(&mut self) {
        let (Some(leader), Some(target)) = (self.cluster.leader(), self.some_place()) else {
            return;
        };
        let running = self.cluster.running(leader).zip(self.cluster.running(target));
        let Some((leading, next)) = running else { return };
        self.cluster.recorder.fault(format!("member {leader} hands over to member {target}"));
        let id = next.member.id();
        tokio::spawn(async move { drop(leading.member.move_leader(id).await) });
    }

    async fn change_members(&mut self) {
        if !self.cluster.plan.changes_members {
            return;
        }
        let (Some(through), Some(place)) = (self.some_place(), self.some_place()) else { return };
        let small = self.cluster.up().len() <= self.cluster.plan.members;
        if small && self.cluster.places() < self.cluster.plan.members + 3 {
            self.cluster.recorder.fault("a member is being added");
            self.cluster.grow(through).await;
        } else if !small {
            self.cluster.recorder.fault(format!("member {place} is being removed"));
            self.cluster.shrink(through, place).await;
        }
    }
}

fn pairs(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count).flat_map(move |from| (0..count).map(move |to| (from, to)))
}
