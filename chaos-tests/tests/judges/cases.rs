//! Small histories, right and wrong, and who convicts them.

use pintle_chaos::history::{
    Answer, Call, Delivery, Event, History, Holding, Moment, Operation, Record, Watch,
};
use pintle_chaos::invariants::check;

const KEY: &str = "k/0";

#[derive(Default)]
struct Tale {
    history: History,
    now: u64,
}

fn moment(order: u64) -> Moment {
    Moment { order, at: std::time::Duration::from_millis(order) }
}

fn record(value: &str, create: i64, modified: i64, version: i64) -> Record {
    Record { value: value.to_owned(), create, modified, version, lease: 0 }
}

fn put(value: &str) -> Call {
    Call::Put { keys: vec![KEY.to_owned()], value: value.to_owned(), lease: 0 }
}

fn read() -> Call {
    Call::Read { keys: vec![KEY.to_owned()] }
}

fn written(revision: i64, previous: Option<Record>) -> Answer {
    Answer::Written { revision, previous: Some(vec![previous]) }
}

fn found(revision: i64, record: Option<Record>) -> Answer {
    Answer::Found { revision, records: vec![record] }
}

fn event(modified: i64, record: Option<Record>) -> Event {
    Event { key: KEY.to_owned(), modified, record, previous: None }
}

impl Tale {
    /// An operation that nothing else overlaps.
    fn did(mut self, call: Call, answer: Answer) -> Self {
        let (invoked, completed) = (moment(self.now + 1), moment(self.now + 2));
        self.now += 2;
        let (client, member) = (self.history.operations.len(), 0);
        let operation = Operation { client, member, call, invoked, completed, answer };
        self.history.operations.push(operation);
        self
    }

    fn watched(mut self, deliveries: Vec<Delivery>) -> Self {
        let deliveries = deliveries.into_iter().map(|one| {
            self.now += 1;
            (moment(self.now), one)
        });
        let deliveries = deliveries.collect();
        let watch = Watch { name: "w".into(), prefix: "k/".into(), start: 1, deliveries };
        self.history.watches.push(watch);
        self
    }

    fn held(mut self, client: usize, lease: i64, from: u64, until: u64) -> Self {
        let (from, until) = (moment(from), moment(until));
        let lock = "lock/0".to_owned();
        self.history.holdings.push(Holding { lock, client, lease, from, until });
        self
    }

    /// The first few words of every broken invariant.
    fn verdict(&self) -> Vec<&'static str> {
        let mut found: Vec<&str> = check(&self.history).iter().map(|one| one.invariant).collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// Two writes, one over the other.
fn two_writes() -> Tale {
    Tale::default()
        .did(put("a"), written(2, None))
        .did(put("b"), written(3, Some(record("a", 2, 2, 1))))
}

#[test]
fn an_honest_history_passes() {
    let tale = two_writes()
        .did(read(), found(3, Some(record("b", 2, 3, 2))))
        .did(Call::Delete { key: KEY.into() }, written(4, Some(record("b", 2, 3, 2))))
        .did(read(), found(4, None))
        .watched(vec![
            Delivery::Events {
                revision: 3,
                events: vec![
                    event(2, Some(record("a", 2, 2, 1))),
                    event(3, Some(record("b", 2, 3, 2))),
                ],
            },
            Delivery::Events { revision: 4, events: vec![event(4, None)] },
            Delivery::Progress(9),
        ]);
    assert_eq!(tale.verdict(), Vec::<&str>::new());
}

#[test]
fn a_stale_read_is_convicted_by_order_and_by_search() {
    let tale = two_writes().did(read(), found(2, Some(record("a", 2, 2, 1))));
    assert_eq!(
        tale.verdict(),
        [
            "every key is a linearizable register",
            "what was answered comes before what was asked later"
        ]
    );
}

#[test]
fn a_lost_write_is_convicted() {
    let tale = Tale::default().did(put("a"), written(2, None)).did(read(), found(2, None));
    let verdict = tale.verdict();
    assert!(verdict.contains(&"a read shows what the key held at its revision"), "{verdict:?}");
    assert!(verdict.contains(&"every key is a linearizable register"), "{verdict:?}");
}

#[test]
fn a_revision_that_is_given_twice_is_convicted() {
    let other = Call::Put { keys: vec!["k/1".into()], value: "b".into(), lease: 0 };
    let tale = Tale::default().did(put("a"), written(2, None)).did(other, written(2, None));
    assert!(tale.verdict().contains(&"a revision belongs to one write"));
}

#[test]
fn two_tales_of_one_revision_are_convicted() {
    let tale = two_writes().did(read(), found(3, Some(record("c", 2, 3, 2))));
    assert_eq!(tale.verdict(), ["everybody is told the same"]);
}

#[test]
fn a_write_that_was_denied_and_happened_is_convicted() {
    let tale = Tale::default()
        .did(put("a"), Answer::NotApplied("no leader".into()))
        .did(read(), found(2, Some(record("a", 2, 2, 1))));
    assert!(tale.verdict().contains(&"an error says what became of a write"));
}

#[test]
fn a_write_of_unknown_outcome_may_have_happened_or_not() {
    let unknown = || Tale::default().did(put("a"), Answer::Unknown("time-out".into()));
    let seen = unknown().did(read(), found(2, Some(record("a", 2, 2, 1))));
    assert_eq!(seen.verdict(), Vec::<&str>::new());
    let unseen = unknown().did(read(), found(1, None));
    assert_eq!(unseen.verdict(), Vec::<&str>::new());
}

#[test]
fn a_watcher_that_misses_an_event_is_convicted() {
    const MISSED: [&str; 1] = ["a watcher sees every event of its range once, in order"];
    let b = || event(3, Some(record("b", 2, 3, 2)));
    let a = || event(2, Some(record("a", 2, 2, 1)));
    let events = |revision, events| Delivery::Events { revision, events };
    let wrong = [
        vec![events(3, vec![b()])],
        vec![Delivery::Progress(2)],
        vec![events(2, vec![a()]), events(3, vec![a(), b()])],
        vec![events(3, vec![b(), a()])],
        vec![Delivery::Progress(3), events(3, vec![b()])],
        vec![events(2, vec![a()]), Delivery::Resumed(4)],
        vec![Delivery::Compacted(3)],
    ];
    for deliveries in wrong {
        let shown = format!("{deliveries:?}");
        assert_eq!(two_writes().watched(deliveries).verdict(), MISSED, "{shown}");
    }
    let behind = two_writes().watched(vec![events(2, vec![a()])]);
    assert_eq!(behind.verdict(), Vec::<&str>::new(), "not there yet is not a miss");
}

#[test]
fn what_was_compacted_need_not_be_seen() {
    let tale = two_writes().did(Call::Compact { revision: 3 }, Answer::Done).watched(vec![
        Delivery::Compacted(3),
        Delivery::Events { revision: 3, events: vec![event(3, Some(record("b", 2, 3, 2)))] },
    ]);
    assert_eq!(tale.verdict(), Vec::<&str>::new());
}

#[test]
fn two_holders_at_once_are_convicted() {
    let after = Tale::default().held(1, 7, 10, 20).held(2, 8, 20, 30);
    assert_eq!(after.verdict(), Vec::<&str>::new());
    let during = Tale::default().held(1, 7, 10, 20).held(2, 8, 19, 30);
    assert_eq!(during.verdict(), ["a lock has one holder at a time"]);
}

#[test]
fn a_lock_that_is_taken_away_early_is_convicted() {
    let lock = || "lock/0".to_owned();
    let take = Call::Swap { key: lock(), expected: 0, value: "h".into(), lease: 7 };
    let record = Record { lease: 7, ..record("h", 2, 2, 1) };
    let gone = Event { key: lock(), modified: 3, record: None, previous: Some(record) };
    let seen = vec![Delivery::Events { revision: 3, events: vec![gone] }];
    let tale = |until| {
        let mut tale = Tale::default().did(take.clone(), written(2, None)).watched(seen.clone());
        tale.history.watches[0].prefix = "lock/".into();
        tale.history.watches[0].start = 3;
        tale.held(0, 7, 2, until)
    };
    assert_eq!(tale(3).verdict(), Vec::<&str>::new(), "its time was over");
    assert_eq!(tale(9).verdict(), ["a lease does not end before its time"]);
}
