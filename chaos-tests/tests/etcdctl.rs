//! Every subcommand of the real etcdctl, on a real etcd and on our store: both must make it say the
//! same and end with the same code.
//!
//! Ids are numbered in the order of their first appearance, and what is each server's own (addresses,
//! versions, sizes, hashes, terms) is masked. `check perf` and `check datascale` are left out: they
//! measure, and `snapshot restore` reads etcd's own file format.

use std::collections::BTreeMap;
use std::time::Duration;

use pintle_chaos::differential::Server;
use pintle_chaos::{Tool, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);

/// One server, and the names that its ids have got.
struct Side {
    etcdctl: Tool,
    url: String,
    names: BTreeMap<String, String>,
    /// The last one granted.
    lease: String,
    _server: Server,
}

impl Side {
    fn new(server: Server) -> Self {
        let url = server.url().to_owned();
        let etcdctl =
            Tool::new("etcdctl").with_env("ETCDCTL_API", "3").with_prefix(&["--endpoints", &url]);
        let side =
            Self { etcdctl, url, names: BTreeMap::new(), lease: String::new(), _server: server };
        wait_for("the server answers etcdctl", PATIENCE, || {
            side.etcdctl.run(&["get", "x"]).map_err(String::from)
        })
        .expect("answers");
        side
    }

    /// What etcdctl said, and whether it was content.
    fn run(&mut self, line: &str, input: &str) -> String {
        let arguments: Vec<String> = line.split(' ').map(|word| self.unmask(word)).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let said = match self.etcdctl.run_with(&arguments, input) {
            Ok(said) => format!("{said}(succeeded)"),
            Err(failed) => format!("{}(failed)", failed.output),
        };
        if let Some((lease, _)) =
            said.strip_prefix("lease ").and_then(|rest| rest.split_once(" granted"))
        {
            self.lease = lease.to_owned();
        }
        self.mask(&said)
    }

    /// Puts this server's own address and lease where a script names them. An empty word is written
    /// as two quotes, a space in a word as a tilde.
    fn unmask(&self, word: &str) -> String {
        let word = word.replace("URL", &self.url).replace("LEASE", &self.lease);
        word.replace('~', " ").replace("''", "")
    }

    fn mask(&mut self, said: &str) -> String {
        // The client's own log: when it tried what again.
        let said: Vec<&str> = said.lines().filter(|line| !line.starts_with("{\"level\"")).collect();
        let said = said.join("\n");
        let said =
            said.replace(&self.url, "URL").replace(self.url.trim_start_matches("http://"), "URL");
        let mut masked = String::new();
        let mut word = String::new();
        for character in said.chars().chain([' ']) {
            if character.is_ascii_alphanumeric() {
                word.push(character);
                continue;
            }
            masked.push_str(&self.name(&std::mem::take(&mut word)));
            masked.push(character);
        }
        masked.trim_end().to_owned()
    }

    /// A long number or hexadecimal word is an id.
    fn name(&mut self, word: &str) -> String {
        let hexadecimal = (14..=16).contains(&word.len())
            && word.chars().all(|character| character.is_ascii_hexdigit());
        let decimal = word.len() >= 17 && word.chars().all(|character| character.is_ascii_digit());
        if !hexadecimal && !decimal {
            return word.to_owned();
        }
        let count = self.names.len();
        self.names.entry(word.to_owned()).or_insert_with(|| format!("ID{count}")).clone()
    }
}

/// Both servers, and what has differed so far.
struct Both {
    etcd: Side,
    pintle: Side,
    transcript: String,
    differences: Vec<String>,
}

impl Both {
    fn compare(&mut self, what: &str, etcd: &str, pintle: &str) {
        self.transcript.push_str(&format!("> {what}\n{etcd}\n"));
        if etcd != pintle {
            self.differences.push(format!("> {what}\netcd:\n{etcd}\npintle:\n{pintle}\n"));
        }
    }

    fn run(&mut self, line: &str) {
        self.run_with(line, "");
    }

    fn run_with(&mut self, line: &str, input: &str) {
        let (etcd, pintle) = (self.etcd.run(line, input), self.pintle.run(line, input));
        self.compare(line, &etcd, &pintle);
    }

    /// Compares only what `part` makes of the answers.
    fn run_part(&mut self, line: &str, part: impl Fn(&str) -> String) {
        let (etcd, pintle) = (self.etcd.run(line, ""), self.pintle.run(line, ""));
        self.compare(line, &part(&etcd), &part(&pintle));
    }

    /// Starts `line`, does `meanwhile`, and compares what was said until `lines` lines had come.
    fn beside(&mut self, line: &str, lines: usize, meanwhile: &[&str]) {
        let mut said = Vec::new();
        for side in [&mut self.etcd, &mut self.pintle] {
            let arguments: Vec<String> = line.split(' ').map(|word| side.unmask(word)).collect();
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let beside = side.etcdctl.start(&arguments).expect("starts");
            for line in meanwhile {
                side.run(line, "");
            }
            let told = wait_for("etcdctl tells", PATIENCE, || match beside.so_far() {
                told if told.lines().count() >= lines => Ok(told),
                told => Err(told),
            });
            said.push(side.mask(&told.unwrap_or_else(|error| error)));
        }
        self.compare(line, &said[0], &said[1]);
    }
}

fn keys(both: &mut Both) {
    both.run("put foo bar");
    both.run("put foo1 bar1 --prev-kv");
    both.run("put foo2 bar~2");
    both.run("put foo baz --prev-kv");
    both.run("put foo --ignore-lease more");
    both.run("put foo --ignore-value");
    both.run("put nothing --ignore-value");
    both.run("put foo bar --ignore-value");
    both.run("put '' x");
    both.run("put foo bar --lease=1234");
    both.run_with("put foo4", "from~stdin");
    for line in [
        "get foo",
        "get foo --rev 2",
        "get foo --rev 1000",
        "get foo --prefix",
        "get foo --prefix --keys-only",
        "get foo --prefix --count-only -w fields",
        "get foo --prefix --limit 1 --print-value-only",
        "get foo --prefix --order DESCEND --sort-by MODIFY",
        "get foo --prefix --sort-by VALUE",
        "get foo foo2",
        "get foo1 --from-key",
        "get '' --from-key",
        "get foo --consistency s",
        "get foo --consistency x",
        "get foo --hex",
        "get ''",
        "get missing",
    ] {
        both.run(line);
    }
    both.run("del foo --prev-kv");
    both.run("del foo");
    both.run("del foo1 foo3");
    both.run("del foo --prefix");
    both.run("del '' --from-key");
}

fn transactions(both: &mut Both) {
    let create = "mod(\"key1\") = \"0\"\n\nput key1 \"created\"\nget key1\n\nget key1\n\n";
    both.run_with("txn", create);
    both.run_with("txn", create);
    let every = "value(\"key1\") = \"created\"\nver(\"key1\") > \"0\"\nc(\"key1\") < \"1000\"\n\ndel key1\n\nput key1 no\n\n";
    both.run_with("txn", every);
    both.run_with("txn", "\nput a 1\nput a 2\n\n\n");
}

fn leases(both: &mut Both) {
    both.run("lease grant 100");
    both.run("put leased 1 --lease=LEASE");
    both.run("lease timetolive LEASE --keys");
    both.run("lease timetolive LEASE");
    both.run("lease list");
    both.run("lease keep-alive --once LEASE");
    both.run("lease revoke LEASE");
    both.run("get leased");
    both.run("lease revoke LEASE");
    both.run("lease timetolive LEASE");
    both.run("lease keep-alive --once LEASE");
    both.run("lease grant 9000000001");
    both.run("lease grant x");
    both.run("lease list");
}

fn watches(both: &mut Both) {
    let changes = ["put w/a 1", "put w/a 2", "put w/b 1", "del w/a"];
    both.beside("watch w/ --prefix --rev 1 --prev-kv", 20, &changes);
    both.beside("watch w/a w/b --rev 1", 9, &[]);
}

fn compaction(both: &mut Both) {
    both.run("put c 1");
    both.run("put c 2");
    both.run("compaction 1000");
    both.run("compaction 20 --physical");
    both.run("compaction 20");
    both.run("get c --rev 19");
    both.run("watch w/a --rev 1");
    both.run("compaction x");
}

fn locks(both: &mut Both) {
    both.run("lock mutex echo held");
    both.run("lock mutex false");
    both.beside("elect post first", 2, &[]);
}

/// Only the keys of a JSON answer: the values are the server's own.
fn json_keys(said: &str) -> String {
    let mut keys: Vec<&str> = said.split('"').skip(1).step_by(2).collect();
    keys.retain(|key| {
        key.chars().all(|character| character.is_ascii_alphabetic() || character == '_')
    });
    keys.sort_unstable();
    keys.dedup();
    keys.join(" ")
}

fn until_took(said: &str) -> String {
    said.split(" took = ").next().unwrap_or_default().to_owned()
}

fn last_line(said: &str) -> String {
    said.lines().last().unwrap_or_default().to_owned()
}

fn cluster(both: &mut Both) {
    both.run_part("member list", last_line);
    both.run("member remove 1234");
    both.run("member promote 1234");
    both.run("member update 1234 --peer-urls=http://127.0.0.1:1");
    both.run_part("endpoint health", until_took);
    both.run("alarm list");
    both.run("alarm disarm");
    both.run("defrag");
    both.run("move-leader 1234");
    both.run_part("endpoint hashkv -w json", json_keys);
    both.run("version");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_says_the_same_of_both() {
    let etcd = Server::etcd().expect("etcd starts");
    let pintle = Server::pintle().await.expect("the store starts");
    let work = move || {
        let (etcd, pintle) = (Side::new(etcd), Side::new(pintle));
        let (transcript, differences) = Default::default();
        let mut both = Both { etcd, pintle, transcript, differences };
        let parts = [keys, transactions, leases, watches, compaction, locks, cluster];
        parts.iter().for_each(|part| part(&mut both));
        let Both { transcript, differences, .. } = both;
        (transcript, differences)
    };
    let (transcript, differences) = tokio::task::spawn_blocking(work).await.expect("done");
    println!("{transcript}");
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
