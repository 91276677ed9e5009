//! Writes the history down while it happens.

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::history::{Answer, Call, Delivery, History, Holding, Moment, Operation, Watch};
use crate::invariants::Violation;

#[derive(Debug)]
struct Inner {
    history: History,
    order: u64,
    violations: Vec<Violation>,
}

/// Shared by everybody who sees something.
#[derive(Debug)]
pub(super) struct Recorder {
    start: Instant,
    inner: Mutex<Inner>,
}

impl Recorder {
    pub(super) fn new() -> Self {
        let inner = Inner { history: History::default(), order: 0, violations: Vec::new() };
        Self { start: Instant::now(), inner: Mutex::new(inner) }
    }

    /// A place of its own in the order of everything.
    pub(super) fn moment(&self) -> Moment {
        let mut inner = self.inner.lock();
        inner.order += 1;
        Moment { order: inner.order, at: self.start.elapsed() }
    }

    /// An operation that ends now.
    pub(super) fn operation(
        &self,
        (client, member): (usize, usize),
        call: Call,
        invoked: Moment,
        answer: Answer,
    ) {
        let completed = self.moment();
        let operation = Operation { client, member, call, invoked, completed, answer };
        self.inner.lock().history.operations.push(operation);
    }

    pub(super) fn fault(&self, fault: impl Into<String>) {
        let moment = self.moment();
        let fault = fault.into();
        tracing::info!("{moment} FAULT {fault}");
        self.inner.lock().history.faults.push((moment, fault));
    }

    /// A new watcher; the answer is its number.
    pub(super) fn watch(&self, name: String, prefix: String, start: i64) -> usize {
        let watch = Watch { name, prefix, start, deliveries: Vec::new() };
        let watches = &mut self.inner.lock().history.watches;
        watches.push(watch);
        watches.len() - 1
    }

    pub(super) fn delivery(&self, watch: usize, delivery: Delivery) {
        let moment = self.moment();
        self.inner.lock().history.watches[watch].deliveries.push((moment, delivery));
    }

    pub(super) fn holding(&self, holding: Holding) {
        self.inner.lock().history.holdings.push(holding);
    }

    /// What the simulation itself sees go wrong.
    pub(super) fn violation(&self, invariant: &'static str, what: String) {
        let moment = self.moment();
        self.inner.lock().violations.push(Violation::new(invariant, what, &[moment]));
    }

    pub(super) fn finish(&self) -> (History, Vec<Violation>) {
        let mut inner = self.inner.lock();
        let mut history = std::mem::take(&mut inner.history);
        history.operations.sort_by_key(|operation| operation.invoked);
        history.holdings.sort_by_key(|holding| holding.from);
        (history, std::mem::take(&mut inner.violations))
    }
}
