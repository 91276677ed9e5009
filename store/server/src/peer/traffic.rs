//! What goes to and comes from each other member, for the metrics endpoint.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::metrics::Histogram;

/// The first bound of round trips, as in etcd.
const ROUND_TRIP_FIRST: Duration = Duration::from_micros(100);

/// One other member.
#[derive(Debug)]
pub(crate) struct PeerTraffic {
    pub(crate) sent_bytes: AtomicU64,
    pub(crate) received_bytes: AtomicU64,
    pub(crate) sent_failures: AtomicU64,
    pub(crate) sent_snapshots: AtomicU64,
    /// Streams of log entries that were opened to it: in frames of their own,
    pub(crate) framed_streams: AtomicU64,
    /// and with gRPC.
    pub(crate) grpc_streams: AtomicU64,
    pub(crate) round_trips: Histogram,
    pub(crate) relays: Relays,
}

/// The calls in which a member handed its clients' writes to this one.
#[derive(Debug, Default)]
pub(crate) struct Relays {
    begun: AtomicU64,
    answered: AtomicU64,
}

/// One such call; dropped when it has its answer.
#[derive(Debug)]
pub(crate) struct Relay(Arc<PeerTraffic>);

/// All other members that were met.
#[derive(Debug, Default)]
pub(crate) struct Traffic(Mutex<BTreeMap<u64, Arc<PeerTraffic>>>);

impl Traffic {
    pub(crate) fn of(&self, member: u64) -> Arc<PeerTraffic> {
        Arc::clone(self.0.lock().entry(member).or_insert_with(|| {
            let (sent_bytes, received_bytes, sent_failures, sent_snapshots) = Default::default();
            let (framed_streams, grpc_streams) = Default::default();
            let round_trips = Histogram::new(ROUND_TRIP_FIRST);
            Arc::new(PeerTraffic {
                sent_bytes,
                received_bytes,
                sent_failures,
                sent_snapshots,
                framed_streams,
                grpc_streams,
                round_trips,
                relays: Relays::default(),
            })
        }))
    }

    pub(crate) fn all(&self) -> Vec<(u64, Arc<PeerTraffic>)> {
        self.0.lock().iter().map(|(member, traffic)| (*member, Arc::clone(traffic))).collect()
    }
}

impl Relays {
    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }

    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Acquire)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.0.relays.answered.fetch_add(1, Ordering::Release);
    }
}

impl PeerTraffic {
    pub(crate) fn relay(self: &Arc<Self>) -> Relay {
        self.relays.begun.fetch_add(1, Ordering::AcqRel);
        Relay(Arc::clone(self))
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// One was installed.
    pub(crate) fn sent_snapshot(&self) {
        self.sent_snapshots.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.sent_failures.fetch_add(1, Ordering::Relaxed);
    }
}
