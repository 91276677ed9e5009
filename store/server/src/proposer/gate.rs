//! Holds back what a leader would propose while leadership moves, so that everything is certain: what
//! it has appended is applied before it hands over, and the rest is proposed by its successor.

use tokio::sync::watch;

/// Between the proposer and whoever moves leadership.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// How many hold it closed.
    closed: watch::Sender<usize>,
    /// Batches that this member has proposed itself and that are not answered.
    proposed: watch::Sender<usize>,
}

impl Gate {
    /// Lets nothing through until the value is dropped.
    pub(super) fn close(&self) -> Counted<'_> {
        Counted::new(&self.closed)
    }

    /// Counts a batch while it is on its way.
    pub(super) fn pass(&self) -> Counted<'_> {
        Counted::new(&self.proposed)
    }

    pub(super) fn is_closed(&self) -> bool {
        *self.closed.borrow() > 0
    }

    /// Tells of openings and closings.
    pub(super) fn watch(&self) -> watch::Receiver<usize> {
        self.closed.subscribe()
    }

    /// Resolves when nothing that has passed is on its way.
    pub(super) async fn drained(&self) {
        none(&self.proposed).await;
    }
}

/// Resolves when nobody is counted.
pub(crate) async fn none(count: &watch::Sender<usize>) {
    let mut count = count.subscribe();
    // The sender is borrowed, so it cannot close.
    drop(count.wait_for(|count| *count == 0).await);
}

/// Counts while it lives.
#[derive(Debug)]
pub(crate) struct Counted<'a>(&'a watch::Sender<usize>);

impl<'a> Counted<'a> {
    pub(crate) fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_gate_is_drained_when_the_last_batch_is_answered() {
        let gate = Gate::default();
        gate.drained().await;
        let passing = gate.pass();
        let closed = gate.close();
        assert!(gate.is_closed());
        {
            let mut drained = std::pin::pin!(gate.drained());
            assert!(futures::poll!(&mut drained).is_pending());
            drop(passing);
            assert!(futures::poll!(&mut drained).is_ready());
        }
        let twice = gate.close();
        drop(closed);
        assert!(gate.is_closed(), "another still holds it");
        drop(twice);
        assert!(!gate.is_closed());
    }
}
