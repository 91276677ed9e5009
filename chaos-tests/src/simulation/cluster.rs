//! The members: started, crashed, started again on what the crash left, added and removed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pintle_store::simulation::{Simulated, SimulatedMember};
use pintle_store::{Config, Handle};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::disk::LogDisk;
use super::network::{Net, Wire};
use super::plan::Plan;
use super::recorder::Recorder;

/// One incarnation of a member.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) member: Arc<SimulatedMember>,
    pub(super) disk: LogDisk,
    /// It has crashed: nothing that it does is seen by anybody.
    pub(super) gone: CancellationToken,
}

/// A member over all its incarnations.
#[derive(Debug)]
struct Place {
    config: Config,
    incarnation: u32,
    running: Option<Running>,
    /// Its disk was told to fail: it may end itself.
    may_fail: bool,
    /// Removed from the cluster for good.
    removed: bool,
}

/// What became of a request that a client sent.
pub(super) enum Asked<T> {
    Answered(T),
    /// Nobody was there.
    NotSent,
    /// It was sent, and nothing came back.
    Lost,
}

#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) net: Arc<Net>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) plan: Plan,
    dir: PathBuf,
    places: Mutex<Vec<Place>>,
    rng: Mutex<StdRng>,
}

fn url(place: usize) -> String {
    format!("http://member-{place}.simulated:2380")
}

impl Cluster {
    /// Founds a cluster with its files under `dir`.
    pub(super) async fn found(plan: Plan, dir: PathBuf) -> Arc<Self> {
        let names = (0..plan.members).map(|place| (format!("m{place}"), url(place)));
        let initial_cluster: Vec<(String, String)> = names.collect();
        let cluster = Arc::new(Self {
            net: Net::new(plan.seed ^ 0x6e65_7477_6f72_6b00, plan.framed_log),
            recorder: Arc::new(Recorder::new()),
            dir,
            places: Mutex::default(),
            rng: Mutex::new(StdRng::seed_from_u64(plan.seed ^ 0x636c_7573_7465_7200)),
            plan,
        });
        for place in 0..initial_cluster.len() {
            cluster.place(initial_cluster.clone(), false);
            cluster.start(place).await;
        }
        cluster
    }

    /// A place for one more member.
    fn place(&self, initial_cluster: Vec<(String, String)>, joins: bool) -> usize {
        let mut places = self.places.lock();
        let place = places.len();
        let mut config = Config {
            name: format!("m{place}"),
            listen_client_urls: Vec::new(),
            advertise_client_urls: vec![format!("http://member-{place}.simulated:2379")],
            listen_peer_urls: Vec::new(),
            initial_advertise_peer_urls: vec![url(place)],
            initial_cluster,
            initial_cluster_existing: joins,
            snapshot_count: self.plan.snapshot_count,
            snapshot_catchup_entries: self.plan.catchup_entries,
            watch_progress_interval: Duration::from_secs(1),
            ..Config::default()
        };
        // Small, so that little has to be written before all is on its usual way.
        (config.state.pending_bytes, config.state.recent_bytes) = (4_000, 20_000);
        let (incarnation, running, may_fail, removed) = Default::default();
        places.push(Place { config, incarnation, running, may_fail, removed });
        place
    }

    pub(super) fn places(&self) -> usize {
        self.places.lock().len()
    }

    pub(super) fn running(&self, place: usize) -> Option<Running> {
        self.places.lock().get(place)?.running.clone()
    }

    /// The places at which a member runs.
    pub(super) fn up(&self) -> Vec<usize> {
        let places = self.places.lock();
        let up = places.iter().enumerate().filter(|(_, place)| place.running.is_some());
        up.map(|(place, _)| place).collect()
    }

    /// The places at which a member should run and does not.
    pub(super) fn down(&self) -> Vec<usize> {
        let places = self.places.lock();
        let down = places.iter().enumerate();
        let down = down.filter(|(_, place)| place.running.is_none() && !place.removed);
        down.map(|(place, _)| place).collect()
    }

    /// The place of the member that most others take for the leader.
    pub(super) fn leader(&self) -> Option<usize> {
        let running: Vec<(usize, Running)> =
            self.up().into_iter().filter_map(|place| Some((place, self.running(place)?))).collect();
        let believed = running.iter().filter_map(|(_, one)| one.member.leader());
        let leader = believed.max()?;
        running.iter().find(|(_, one)| one.member.id() == leader).map(|(place, _)| *place)
    }

    pub(super) fn roll(&self, range: std::ops::Range<u64>) -> u64 {
        self.rng.lock().random_range(range)
    }

    fn folder(&self, place: usize, incarnation: u32) -> PathBuf {
        self.dir.join(format!("m{place}-{incarnation}"))
    }

    /// Starts the member on what it left.
    pub(super) async fn start(&self, place: usize) {
        let config = {
            let places = self.places.lock();
            let one = &places[place];
            if one.running.is_some() || one.removed {
                return;
            }
            let data_dir = self.folder(place, one.incarnation);
            Config { data_dir, ..one.config.clone() }
        };
        let gone = CancellationToken::new();
        let disk = LogDisk::new(config.data_dir.clone(), self.roll(0..u64::MAX));
        let net = Arc::clone(&self.net);
        let wire = Wire { net, place, gone: gone.clone() };
        let simulated = Simulated { network: Arc::new(wire), disk: Arc::new(disk.clone()) };
        let peer_url = config.initial_advertise_peer_urls[0].clone();
        match SimulatedMember::start(config, simulated).await {
            Ok(member) => {
                let member = Arc::new(member);
                self.net.open(&peer_url, place, Arc::clone(&member), gone.clone());
                self.places.lock()[place].running = Some(Running { member, disk, gone });
            }
            Err(error) => {
                let mut text = error.to_string();
                let mut cause = std::error::Error::source(&error);
                while let Some(one) = cause {
                    text = format!("{text}: {one}");
                    cause = one.source();
                }
                self.recorder.violation("a member starts on what a crash has left", text);
                self.places.lock()[place].removed = true;
            }
        }
    }

    /// Crashes the member. Its next incarnation starts on what is left.
    pub(super) fn crash(&self, place: usize) {
        let (running, target) = {
            let mut places = self.places.lock();
            let one = &mut places[place];
            let Some(running) = one.running.take() else { return };
            one.incarnation += 1;
            one.may_fail = false;
            (running, self.folder(place, one.incarnation))
        };
        running.gone.cancel();
        self.net.close(&url(place));
        if let Err(error) = running.disk.crash_into(&target) {
            self.recorder.violation("a crash can be simulated", error.to_string());
        }
        tokio::spawn(async move { running.member.abandon().await });
    }

    /// Makes the member's next sync fail.
    pub(super) fn fail_disk(&self, place: usize) {
        let mut places = self.places.lock();
        places[place].may_fail = true;
        if let Some(running) = &places[place].running {
            running.disk.fail();
        }
    }

    /// Crashes and restarts members that end themselves, as whoever supervises them would; they may
    /// do so only when their disk has failed.
    pub(super) async fn supervise(self: Arc<Self>) {
        loop {
            sleep(Duration::from_millis(50)).await;
            for place in self.up() {
                let failure = self.running(place).and_then(|running| running.member.failure());
                let Some(reason) = failure else { continue };
                let allowed = self.places.lock()[place].may_fail;
                self.recorder.fault(format!("member {place} ends itself: {reason}"));
                if !allowed {
                    self.recorder.violation(
                        "a member ends itself only when its disk has failed",
                        format!("member {place}: {reason}"),
                    );
                }
                self.crash(place);
                sleep(Duration::from_millis(100)).await;
                self.start(place).await;
            }
        }
    }

    /// Adds a member through another one and starts it.
    pub(super) async fn grow(&self, through: usize) {
        let Some(running) = self.running(through) else { return };
        let mut initial_cluster = self.places.lock()[through].config.initial_cluster.clone();
        let next = self.places();
        initial_cluster.push((format!("m{next}"), url(next)));
        let added = running.member.add_member(url(next)).await;
        self.recorder.fault(format!("added member {next}: {added:?}"));
        if added.is_ok() {
            let place = self.place(initial_cluster, true);
            self.start(place).await;
        }
    }

    /// Removes a member through another one, and ends it.
    pub(super) async fn shrink(&self, through: usize, place: usize) {
        let (Some(running), Some(leaving)) = (self.running(through), self.running(place)) else {
            return;
        };
        let id = leaving.member.id();
        let removed = running.member.remove_member(id).await;
        self.recorder.fault(format!("removed member {place}: {removed:?}"));
        if removed.is_ok() {
            self.end(place);
        }
    }

    /// Ends a member that has left the cluster.
    pub(super) fn end(&self, place: usize) {
        self.crash(place);
        self.places.lock()[place].removed = true;
    }

    /// Sends a client's request to the member.
    pub(super) async fn ask<T, F>(
        &self,
        place: usize,
        patience: Duration,
        request: impl FnOnce(Arc<Handle>) -> F,
    ) -> Asked<T>
    where
        F: Future<Output = T>,
    {
        let delay = Duration::from_micros(self.roll(50..1_500));
        sleep(delay).await;
        let Some(running) = self.running(place) else { return Asked::NotSent };
        let answer = tokio::select! {
            biased;
            () = running.gone.cancelled() => return Asked::Lost,
            answer = request(running.member.handle()) => answer,
            () = sleep(patience) => return Asked::Lost,
        };
        tokio::select! {
            biased;
            () = running.gone.cancelled() => Asked::Lost,
            () = sleep(delay) => Asked::Answered(answer),
        }
    }
}
