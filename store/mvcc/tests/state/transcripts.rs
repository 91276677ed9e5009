//! Golden transcripts: `tests/transcripts/*.txt` hold commands (`> …`) and what they answered.
//!
//! Each file starts on a fresh state. With `UPDATE_TRANSCRIPTS=1` the answers are written
//! instead of compared; the difference is then for a person to read.

mod auth;
mod parse;
mod print;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use pintle_mvcc::{Entry, Mvcc, QueryError, validate};
use pintle_proto::raft::{Caller, Command, command::Kind};
use pintle_store_api::LeaseId;

use crate::replay::{options, scratch};
use parse::Action;

const OPS_MAX: usize = 8;

#[test]
fn transcripts_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let update = std::env::var_os("UPDATE_TRANSCRIPTS").is_some();
    let mut files = 0;
    for entry in fs::read_dir(folder).expect("list") {
        let path = entry.expect("entry").path();
        let expected = fs::read_to_string(&path).expect("read");
        let actual = run(&expected);
        if update {
            fs::write(&path, actual).expect("write");
        } else {
            assert_eq!(actual, expected, "{}", path.display());
        }
        files += 1;
    }
    assert!(files > 0);
}

/// The transcript with the answers that the commands give now.
fn run(transcript: &str) -> String {
    let temp = scratch();
    let mut session = Session { mvcc: Mvcc::open(temp.path(), options()).expect("open"), term: 1 };
    let mut out = String::new();
    for line in transcript.lines() {
        if line.starts_with('#') || line.is_empty() {
            writeln!(out, "{line}").expect("to a string");
        } else if let Some(command) = line.strip_prefix("> ") {
            write!(out, "> {command}\n{}", session.answer(command)).expect("to a string");
        }
    }
    out
}

struct Session {
    mvcc: Mvcc,
    term: u64,
}

impl Session {
    fn answer(&mut self, line: &str) -> String {
        let reader = self.mvcc.reader();
        match parse::action(line) {
            Action::Term(term) => {
                self.term = term;
                String::new()
            }
            Action::Physical => {
                reader.compact_physically().expect("compact");
                String::new()
            }
            Action::Write(kinds) => self.write(kinds, auth::server()),
            Action::WriteAs(caller, kinds) => self.write(kinds, caller),
            Action::Auth => auth::state(&reader.auth()),
            Action::May(caller, range) => auth::may(&reader, caller, &range),
            Action::Range(request) => print::answer(
                validate::range(&request)
                    .map_err(QueryError::from)
                    .and_then(|()| reader.range(&request)),
                print::range,
            ),
            Action::Read(request) => print::answer(reader.txn(&request), print::txn),
            Action::Events(query) => print::answer(reader.events(&query), print::catch_up),
            Action::Leases => print::leases(&reader.leases().expect("leases")),
            Action::Alarms => print::alarms(&reader.alarms()),
            Action::LeaseKeys(id) => print::keys(&reader.lease_keys(LeaseId(id)).expect("keys")),
        }
    }

    /// As the server does: what needs no state is refused before it is proposed.
    fn write(&mut self, kinds: Vec<Kind>, caller: Caller) -> String {
        let mut commands = Vec::new();
        for kind in kinds {
            let valid = match &kind {
                Kind::Put(put) => validate::put(put),
                Kind::DeleteRange(delete) => validate::delete_range(delete),
                Kind::Txn(txn) => validate::txn(txn, OPS_MAX),
                _ => Ok(()),
            };
            if let Err(rejection) = valid {
                return format!("refused: {rejection}\n");
            }
            commands.push(Command { kind: Some(kind), caller: Some(caller.clone()) });
        }
        let entry = Entry { term: self.term, commands: &commands };
        let applied = self.mvcc.apply(&[entry], Bytes::new()).expect("apply");
        let mut out: String = applied.outcomes.iter().map(print::outcome).collect();
        applied.events.iter().flat_map(|revision| &revision.events).for_each(|event| {
            out.push_str(&print::event(event));
        });
        out
    }
}
