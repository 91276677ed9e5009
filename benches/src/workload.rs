//! What is measured: the catalog of workloads, as data.

/// How a workload works on a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Every client puts values of this size under random keys.
    Put {
        /// Bytes of a value.
        value: usize,
    },
    /// Every client updates keys of its own as the kube-apiserver does: if unchanged, put, else get.
    Update,
    /// Every client reads random ranges.
    Range {
        /// Keys of a range; 1 is a point.
        keys: usize,
        /// Whether a member answers from what it has.
        serializable: bool,
    },
    /// One client lists everything.
    List {
        /// With `RangeStream`.
        streamed: bool,
    },
    /// All watch one prefix, in which keys are put.
    FanOut,
    /// Each watches a key of its own; keys are put at random.
    WatchOwn,
    /// All start watching 100,000 revisions back, while others put.
    CatchUp {
        /// At a steady rate, instead of as fast as they are answered.
        paced: bool,
    },
    /// Every client renews a lease, over and over.
    KeepAlive,
    /// Puts on few keys, with a compaction every few seconds.
    Compaction,
    /// Nothing but keys.
    Population,
    /// A database of ten times the memory that the process may use.
    BeyondMemory,
    /// The leader goes while writes come in at a steady rate.
    LeaderLoss {
        /// With SIGTERM instead of SIGKILL.
        clean: bool,
    },
}

/// One line of the report.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// How it is chosen and shown.
    pub name: &'static str,
    /// A sentence.
    pub about: &'static str,
    /// What it does.
    pub shape: Shape,
    /// Clients or watchers.
    pub clients: usize,
    /// Members of the store.
    pub members: usize,
    /// Keys that are there before it begins.
    pub keys: usize,
}

const fn workload(
    name: &'static str,
    about: &'static str,
    shape: Shape,
    clients: usize,
    keys: usize,
) -> Workload {
    Workload { name, about, shape, clients, members: 3, keys }
}

const fn alone(workload: Workload, name: &'static str) -> Workload {
    Workload { name, members: 1, ..workload }
}

const PUT: Shape = Shape::Put { value: VALUE_BYTES };
const fn point(serializable: bool) -> Shape {
    Shape::Range { keys: 1, serializable }
}

/// The usual size of a value.
pub const VALUE_BYTES: usize = 256;
const KEYS: usize = 100_000;

const PUT_1000: Workload = workload("put-1000", "put of 256 B by 1,000 clients", PUT, 1_000, 0);
const POINT: Workload = workload(
    "range-linearizable",
    "linearizable range of one of 100,000 keys by 1,000 clients",
    point(false),
    1_000,
    KEYS,
);

/// All workloads, in the order in which they run.
pub const CATALOG: &[Workload] = &[
    workload("put-1", "put of 256 B by one client, on the leader", PUT, 1, 0),
    workload("put-100", "put of 256 B by 100 clients", PUT, 100, 0),
    PUT_1000,
    alone(PUT_1000, "put-1000-alone"),
    workload("put-4k", "put of 4 KiB by 100 clients", Shape::Put { value: 4096 }, 100, 0),
    workload("update", "the kube-apiserver's update by 100 clients", Shape::Update, 100, 0),
    POINT,
    alone(POINT, "range-linearizable-alone"),
    workload(
        "range-serializable",
        "serializable range of one of 100,000 keys by 1,000 clients",
        point(true),
        1_000,
        KEYS,
    ),
    workload(
        "range-1000-keys",
        "linearizable range of 1,000 keys of 256 B by 10 clients",
        Shape::Range { keys: 1_000, serializable: false },
        10,
        KEYS,
    ),
    workload("list", "list of 100,000 keys of 256 B", Shape::List { streamed: false }, 1, KEYS),
    workload(
        "list-stream",
        "list of 100,000 keys of 256 B with RangeStream",
        Shape::List { streamed: true },
        1,
        KEYS,
    ),
    workload("watch-fan-out", "1,000 watchers of one prefix", Shape::FanOut, 1_000, 0),
    workload("watch-10k", "10,000 watchers of their own keys", Shape::WatchOwn, 10_000, 10_000),
    workload("watch-100k", "100,000 watchers of their own keys", Shape::WatchOwn, 100_000, KEYS),
    workload(
        "watch-catch-up",
        "1,000 watchers of 100 prefixes start 100,000 revisions back, 50 clients put",
        Shape::CatchUp { paced: false },
        1_000,
        0,
    ),
    workload(
        "watch-catch-up-paced",
        "the same while 1,000 puts come in a second",
        Shape::CatchUp { paced: true },
        1_000,
        0,
    ),
    workload("lease-keepalive", "1,000 clients renew a lease each", Shape::KeepAlive, 1_000, 0),
    workload(
        "compaction",
        "put of 256 B by 100 clients, compacted every 10 s",
        Shape::Compaction,
        100,
        0,
    ),
    workload("million", "a million keys of 256 B", Shape::Population, 0, 1_000_000),
    alone(
        workload(
            "beyond-memory",
            "a database of ten times the memory of its process",
            Shape::BeyondMemory,
            10,
            0,
        ),
        "beyond-memory",
    ),
    workload("leader-killed", "kill -9 of the leader", Shape::LeaderLoss { clean: false }, 0, 0),
    workload("leader-stopped", "SIGTERM to the leader", Shape::LeaderLoss { clean: true }, 0, 0),
];

impl Workload {
    /// Whether what one round leaves would spoil the next.
    pub fn wants_fresh_store(&self) -> bool {
        matches!(
            self.shape,
            Shape::WatchOwn | Shape::CatchUp { .. } | Shape::Population | Shape::BeyondMemory
        )
    }

    /// Rounds that add something: the memory of a million keys is the same every time.
    pub fn rounds_max(&self) -> usize {
        match self.shape {
            Shape::Population | Shape::BeyondMemory => 1,
            Shape::WatchOwn | Shape::CatchUp { .. } => 3,
            _ => usize::MAX,
        }
    }

    /// A small one of the same kind, to see that everything works.
    #[must_use]
    pub fn reduced(mut self) -> Self {
        self.keys = self.keys.min(10_000);
        self.clients = self.clients.min(10_000);
        self
    }
}

/// The workloads that have one of the names `wanted`, or, where no workload has it, begin with it;
/// all of them when nothing is wanted. An unknown name is refused, with what there is.
pub fn select(wanted: &[String]) -> Result<Vec<Workload>, String> {
    let exact = |name: &str| CATALOG.iter().any(|workload| workload.name == name);
    let means = |name: &String, workload: &Workload| {
        if exact(name) { workload.name == name } else { workload.name.starts_with(name.as_str()) }
    };
    let chosen =
        |workload: &&Workload| wanted.is_empty() || wanted.iter().any(|name| means(name, workload));
    for name in wanted {
        if !CATALOG.iter().any(|workload| workload.name.starts_with(name.as_str())) {
            let names: Vec<&str> = CATALOG.iter().map(|workload| workload.name).collect();
            return Err(format!("no workload {name:?}; there are: {}", names.join(", ")));
        }
    }
    Ok(CATALOG.iter().filter(chosen).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(wanted: &[&str]) -> Vec<&'static str> {
        let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        select(&wanted).expect("known").iter().map(|workload| workload.name).collect()
    }

    #[test]
    fn a_name_chooses_one_or_all_that_begin_with_it() {
        assert_eq!(names(&["put-100"]), ["put-100"], "a whole name chooses one");
        assert_eq!(names(&["watch-1", "list-stream"]), ["list-stream", "watch-10k", "watch-100k"]);
        assert_eq!(names(&[]).len(), CATALOG.len());
    }

    #[test]
    fn an_unknown_name_is_refused_with_what_there_is() {
        let refused = select(&["putt".to_owned()]).expect_err("unknown");
        assert!(refused.contains("putt") && refused.contains("put-1000"), "{refused}");
    }

    #[test]
    fn every_name_is_there_once() {
        let unique: std::collections::BTreeSet<_> = CATALOG.iter().map(|one| one.name).collect();
        assert_eq!(unique.len(), CATALOG.len());
    }
}
