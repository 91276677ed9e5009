//! What clients saw: every operation with the places of its call and its answer in one order of
//! all that happened, and every watch with what it delivered. The checkers know nothing else, and
//! in particular nothing of the store.

mod print;

use std::time::Duration;

/// A place in the order of everything that happened. Simulated time moves in milliseconds; many
/// things share one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Unique and increasing.
    pub order: u64,
    /// Since the start.
    pub at: Duration,
}

/// One version of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Written by exactly one operation: values are never reused.
    pub value: String,
    /// The revision that created the key.
    pub create: i64,
    /// The revision that wrote this version.
    pub modified: i64,
    /// How many writes since the creation.
    pub version: i64,
    /// The lease that it hangs on; 0 for none.
    pub lease: i64,
}

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Writes one value under one or more keys, in one revision.
    Put {
        /// All of them get `value`.
        keys: Vec<String>,
        /// Unique.
        value: String,
        /// 0 for none.
        lease: i64,
    },
    /// Removes a key.
    Delete {
        /// The key.
        key: String,
    },
    /// Writes if the key was last written at `expected` (0: does not exist), else reads it.
    Swap {
        /// The key.
        key: String,
        /// A `modified`, or 0.
        expected: i64,
        /// Unique.
        value: String,
        /// 0 for none.
        lease: i64,
    },
    /// Reads keys, linearizably.
    Read {
        /// Read at one revision.
        keys: Vec<String>,
    },
    /// Raises the floor.
    Compact {
        /// The floor.
        revision: i64,
    },
}

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The write happened at this revision.
    Written {
        /// Unique to the write.
        revision: i64,
        /// What the keys held before, where that was asked for, in the order of the keys.
        previous: Option<Vec<Option<Record>>>,
    },
    /// What the keys held at this revision: a read, a swap that did not apply, a delete of nothing.
    Found {
        /// The revision.
        revision: i64,
        /// In the order of the keys.
        records: Vec<Option<Record>>,
    },
    /// Done, with nothing to tell.
    Done,
    /// It certainly did not happen.
    NotApplied(String),
    /// It may have happened, or may happen yet.
    Unknown(String),
}

/// One call and its answer.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Who called: a client has one call open at a time.
    pub client: usize,
    /// The member that was asked.
    pub member: usize,
    /// What was asked.
    pub call: Call,
    /// When the call was made.
    pub invoked: Moment,
    /// When the answer came.
    pub completed: Moment,
    /// The answer.
    pub answer: Answer,
}

/// One event of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The key.
    pub key: String,
    /// The revision.
    pub modified: i64,
    /// What was written; none for a deletion.
    pub record: Option<Record>,
    /// What was there before, as far as the store told.
    pub previous: Option<Record>,
}

/// One step of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Events, at most up to `revision`.
    Events {
        /// The store's revision when the last of them was applied.
        revision: i64,
        /// In order.
        events: Vec<Event>,
    },
    /// Nothing more comes at or below this revision.
    Progress(i64),
    /// What came before this revision is gone; the watcher goes on there.
    Compacted(i64),
    /// The watcher has asked another member, from this revision on.
    Resumed(i64),
}

/// A watcher over its whole life, whichever members it asked.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// For the report.
    pub name: String,
    /// It watches keys with this prefix.
    pub prefix: String,
    /// From this revision on.
    pub start: i64,
    /// What it saw.
    pub deliveries: Vec<(Moment, Delivery)>,
}

/// Somebody's belief to hold a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The key.
    pub lock: String,
    /// Who.
    pub client: usize,
    /// The lease that the lock hangs on.
    pub lease: i64,
    /// When the client learned that it holds the lock.
    pub from: Moment,
    /// When it let go, or when the lease that it last saw extended could have ended.
    pub until: Moment,
}

/// Everything of one run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// In the order of their calls.
    pub operations: Vec<Operation>,
    /// All watchers.
    pub watches: Vec<Watch>,
    /// All beliefs.
    pub holdings: Vec<Holding>,
    /// What the simulation did to the cluster.
    pub faults: Vec<(Moment, String)>,
}

impl Call {
    /// The keys that it is about.
    pub fn keys(&self) -> &[String] {
        match self {
            Self::Put { keys, .. } | Self::Read { keys } => keys,
            Self::Delete { key } | Self::Swap { key, .. } => std::slice::from_ref(key),
            Self::Compact { .. } => &[],
        }
    }

    /// The value that it writes.
    pub fn value(&self) -> Option<&str> {
        match self {
            Self::Put { value, .. } | Self::Swap { value, .. } => Some(value),
            Self::Delete { .. } | Self::Read { .. } | Self::Compact { .. } => None,
        }
    }
}

impl Operation {
    /// Whether it has, or may have, changed something.
    pub fn may_have_written(&self) -> bool {
        let writes = !matches!(self.call, Call::Read { .. } | Call::Compact { .. });
        writes && matches!(self.answer, Answer::Written { .. } | Answer::Unknown(_))
    }

    /// Whether its answer says nothing.
    pub fn is_open(&self) -> bool {
        matches!(self.answer, Answer::Unknown(_))
    }
}
