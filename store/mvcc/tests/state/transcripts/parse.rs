//! The language of the commands.
//!
//! `KEY..` is everything from KEY, `KEY..END` a range, `KEY*` a prefix. Transactions:
//! `txn [if COMPARE…] then OP; OP… [else OP; OP…]`, nested ones in braces.

use bytes::Bytes;
use pintle_mvcc::EventQuery;
use pintle_proto::raft::command::Kind;
use pintle_proto::raft::{Caller, LeaseCheckpoint, LeaseGrant, LeaseRemaining, LeaseRevoke};
use pintle_store_api::pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pintle_store_api::pb::range_request::{SortOrder, SortTarget};
use pintle_store_api::pb::request_op::Request;
use pintle_store_api::{KeyRange, Revision, pb, prefix_end};

use super::auth;

pub(super) enum Action {
    Write(Vec<Kind>),
    WriteAs(Caller, Vec<Kind>),
    May(Caller, pb::RangeRequest),
    Auth,
    Range(pb::RangeRequest),
    Read(pb::TxnRequest),
    Events(EventQuery),
    Leases,
    LeaseKeys(i64),
    Alarms,
    Physical,
    Term(u64),
}

pub(super) fn action(line: &str) -> Action {
    let mut words = line.split_whitespace().peekable();
    match words.peek().copied().expect("a command") {
        "get" => Action::Range(range(words.skip(1))),
        "read" => Action::Read(txn(&mut line.split_whitespace().skip(1).peekable())),
        "events" => Action::Events(events(words.skip(1))),
        "leases" => Action::Leases,
        "lease-keys" => Action::LeaseKeys(number(words.nth(1).expect("an id"))),
        "alarms" => Action::Alarms,
        "physical" => Action::Physical,
        "term" => Action::Term(number(words.nth(1).expect("a term")) as u64),
        "auth-state" => Action::Auth,
        "may" => {
            let caller = auth::caller(words.nth(1).expect("a caller"));
            Action::May(caller, range(words.skip(1)))
        }
        "as" => {
            let caller = auth::caller(words.nth(1).expect("a caller"));
            let line = Vec::from_iter(words).join(" ");
            Action::WriteAs(caller, line.split(" & ").map(write).collect())
        }
        _ => Action::Write(line.split(" & ").map(write).collect()),
    }
}

fn write(line: &str) -> Kind {
    let mut words = line.split_whitespace().peekable();
    match words.next().expect("a command") {
        "put" => Kind::Put(put(words)),
        "del" => Kind::DeleteRange(delete(words)),
        "txn" => Kind::Txn(txn(&mut words)),
        "compact" => {
            let revision = number(words.next().expect("a revision"));
            Kind::Compact(pb::CompactionRequest { revision, physical: false })
        }
        "grant" => {
            let [id, ttl] = numbers(words);
            Kind::LeaseGrant(LeaseGrant { id, ttl })
        }
        "checkpoint" => {
            let [id, ttl] = numbers(words);
            Kind::LeaseCheckpoint(LeaseCheckpoint { remaining: vec![LeaseRemaining { id, ttl }] })
        }
        "revoke" => {
            let (mut ids, mut expired_in_term) = (Vec::new(), 0);
            for word in words {
                match word.strip_prefix("expired=") {
                    Some(term) => expired_in_term = number(term) as u64,
                    None => ids.push(number(word)),
                }
            }
            Kind::LeaseRevoke(LeaseRevoke { ids, expired_in_term })
        }
        action @ ("raise" | "clear") => {
            use pb::alarm_request::AlarmAction;
            let action = match action {
                "raise" => AlarmAction::Activate,
                _ => AlarmAction::Deactivate,
            };
            let alarm = pb::AlarmType::from_str_name(words.next().expect("an alarm"));
            let alarm = alarm.expect("a known alarm").into();
            let member_id = number(words.next().expect("a member")) as u64;
            Kind::Alarm(pb::AlarmRequest { action: action.into(), member_id, alarm })
        }
        command => auth::write(command, words),
    }
}

fn put<'a>(mut words: impl Iterator<Item = &'a str>) -> pb::PutRequest {
    let key = bytes(words.next().expect("a key"));
    let mut put = pb::PutRequest { key, ..Default::default() };
    for word in words {
        match word.split_once('=') {
            Some(("lease", id)) => put.lease = number(id),
            _ if word == "prev" => put.prev_kv = true,
            _ if word == "keep-value" => put.ignore_value = true,
            _ if word == "keep-lease" => put.ignore_lease = true,
            _ => put.value = bytes(word),
        }
    }
    put
}

fn delete<'a>(mut words: impl Iterator<Item = &'a str>) -> pb::DeleteRangeRequest {
    let (key, range_end) = keys(words.next().expect("keys"));
    pb::DeleteRangeRequest { key, range_end, prev_kv: words.any(|word| word == "prev") }
}

fn range<'a>(mut words: impl Iterator<Item = &'a str>) -> pb::RangeRequest {
    let (key, range_end) = keys(words.next().expect("keys"));
    let mut range = pb::RangeRequest { key, range_end, ..Default::default() };
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("rev", value) => range.revision = number(value),
            ("limit", value) => range.limit = number(value),
            ("min-mod", value) => range.min_mod_revision = number(value),
            ("max-mod", value) => range.max_mod_revision = number(value),
            ("min-create", value) => range.min_create_revision = number(value),
            ("max-create", value) => range.max_create_revision = number(value),
            ("sort", target) => range.set_sort_target(sort_target(target)),
            ("ascend", _) => range.set_sort_order(SortOrder::Ascend),
            ("descend", _) => range.set_sort_order(SortOrder::Descend),
            ("order", value) => range.sort_order = number(value) as i32,
            ("keys", _) => range.keys_only = true,
            ("count", _) => range.count_only = true,
            other => panic!("unknown range option {other:?}"),
        }
    }
    range
}

fn sort_target(word: &str) -> SortTarget {
    SortTarget::from_str_name(&word.to_uppercase()).expect("a sort target")
}

fn events<'a>(mut words: impl Iterator<Item = &'a str>) -> EventQuery {
    let (key, range_end) = keys(words.next().expect("keys"));
    let range = KeyRange::from_request(key, range_end);
    let (from, to) = (Revision(1), Revision(i64::MAX));
    let mut query = EventQuery { range, from, to, budget_bytes: usize::MAX, prev_kv: false };
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("from", value) => query.from = Revision(number(value)),
            ("to", value) => query.to = Revision(number(value)),
            ("budget", value) => query.budget_bytes = number(value) as usize,
            ("prev", _) => query.prev_kv = true,
            other => panic!("unknown event option {other:?}"),
        }
    }
    query
}

/// `[if COMPARE…] then OP; OP… [else OP; OP…]`, up to the end or a closing brace.
fn txn<'a>(words: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> pb::TxnRequest {
    let mut txn = pb::TxnRequest::default();
    if words.next_if_eq(&"if").is_some() {
        while words.peek().is_some_and(|word| *word != "then" && *word != "else") {
            txn.compare.push(compare(words.next().expect("peeked")));
        }
    }
    if words.next_if_eq(&"then").is_some() {
        txn.success = ops(words);
    }
    if words.next_if_eq(&"else").is_some() {
        txn.failure = ops(words);
    }
    txn
}

fn ops<'a>(words: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> Vec<pb::RequestOp> {
    let mut ops = Vec::new();
    let mut op = Vec::new();
    let flush = |op: &mut Vec<&str>, ops: &mut Vec<pb::RequestOp>| {
        let mut op = op.drain(..);
        let request = match op.next() {
            None => return,
            Some("put") => Request::RequestPut(put(op)),
            Some("del") => Request::RequestDeleteRange(delete(op)),
            Some("get") => Request::RequestRange(range(op)),
            Some(other) => panic!("unknown operation {other:?}"),
        };
        ops.push(pb::RequestOp { request: Some(request) });
    };
    while let Some(word) = words.next_if(|word| *word != "else" && *word != "}") {
        match word {
            "{" => {
                let nested = txn(words);
                assert_eq!(words.next(), Some("}"), "a closing brace");
                ops.push(pb::RequestOp { request: Some(Request::RequestTxn(nested)) });
            }
            ";" => flush(&mut op, &mut ops),
            _ => op.push(word),
        }
    }
    flush(&mut op, &mut ops);
    ops
}

/// `target(KEYS)=VALUE`, with `=`, `!`, `<` or `>`.
fn compare(word: &str) -> pb::Compare {
    let (target, rest) = word.split_once('(').expect("target(");
    let (range, rest) = rest.split_once(')').expect(")");
    let (key, range_end) = keys(range);
    let (result, value) = rest.split_at(1);
    let result = match result {
        "=" => CompareResult::Equal,
        "!" => CompareResult::NotEqual,
        ">" => CompareResult::Greater,
        "<" => CompareResult::Less,
        other => panic!("unknown comparison {other:?}"),
    };
    let (target, union) = match target {
        "version" => (CompareTarget::Version, TargetUnion::Version(number(value))),
        "create" => (CompareTarget::Create, TargetUnion::CreateRevision(number(value))),
        "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number(value))),
        "value" => (CompareTarget::Value, TargetUnion::Value(bytes(value))),
        "lease" => (CompareTarget::Lease, TargetUnion::Lease(number(value))),
        other => panic!("unknown target {other:?}"),
    };
    let (result, target) = (result.into(), target.into());
    pb::Compare { result, target, key, range_end, target_union: Some(union) }
}

pub(super) fn keys(word: &str) -> (Bytes, Bytes) {
    if let Some(prefix) = word.strip_suffix('*') {
        let prefix = bytes(prefix);
        let end = prefix_end(&prefix).unwrap_or(Bytes::from_static(b"\0"));
        return (if prefix.is_empty() { Bytes::from_static(b"\0") } else { prefix }, end);
    }
    match word.split_once("..") {
        Some((key, "")) => (bytes(key), Bytes::from_static(b"\0")),
        Some((key, end)) => (bytes(key), bytes(end)),
        None => (bytes(word), Bytes::new()),
    }
}

/// `''` is empty; `\0` a zero byte.
fn bytes(word: &str) -> Bytes {
    if word == "''" { Bytes::new() } else { word.replace("\\0", "\0").into() }
}

pub(super) fn number(word: &str) -> i64 {
    word.parse().unwrap_or_else(|_| panic!("{word:?} is not a number"))
}

fn numbers<'a, const N: usize>(words: impl Iterator<Item = &'a str>) -> [i64; N] {
    let numbers: Vec<i64> = words.map(number).collect();
    numbers.try_into().expect("as many numbers as the command takes")
}
