//! Which keys commands are about: so that it is known before whether they can be applied without reading from disk.

use bytes::Bytes;
use pintle_proto::raft::Command;
use pintle_proto::raft::command::Kind;
use pintle_store_api::pb;
use pintle_store_api::pb::request_op::Request;

/// Keys that are worth a look.
const KEYS_MAX: usize = 16;

/// Keys that a command is sure to look at, or nearly so.
pub(crate) fn first(command: &Command) -> impl Iterator<Item = &[u8]> {
    let (put, compares) = match &command.kind {
        Some(Kind::Put(put)) => (Some(&put.key), &[][..]),
        Some(Kind::Txn(txn)) => (None, txn.compare.as_slice()),
        _ => (None, &[][..]),
    };
    put.into_iter().chain(compares.iter().map(|compare| &compare.key)).map(|key| &**key)
}

/// The keys that `commands` read and write, if they are few, and nothing else is read.
pub(crate) fn few(commands: &[Command]) -> Option<Vec<&Bytes>> {
    let mut keys = Vec::with_capacity(commands.len().min(KEYS_MAX));
    commands.iter().all(|command| collect(command, &mut keys)).then_some(keys)
}

fn collect<'a>(command: &'a Command, keys: &mut Vec<&'a Bytes>) -> bool {
    match &command.kind {
        Some(Kind::Put(put)) => self::put(put, keys),
        Some(Kind::DeleteRange(delete)) => point(&delete.key, &delete.range_end, keys),
        Some(Kind::Txn(txn)) => {
            let compares = |compare: &'a pb::Compare, keys: &mut Vec<&'a Bytes>| {
                point(&compare.key, &compare.range_end, keys)
            };
            txn.compare.iter().all(|compare| compares(compare, keys))
                && txn.success.iter().chain(&txn.failure).all(|op| operation(op, keys))
        }
        _ => false,
    }
}

fn operation<'a>(op: &'a pb::RequestOp, keys: &mut Vec<&'a Bytes>) -> bool {
    match &op.request {
        Some(Request::RequestPut(put)) => self::put(put, keys),
        Some(Request::RequestRange(range)) => {
            range.revision <= 0 && point(&range.key, &range.range_end, keys)
        }
        Some(Request::RequestDeleteRange(delete)) => point(&delete.key, &delete.range_end, keys),
        Some(Request::RequestTxn(_)) | None => false,
    }
}

/// A lease would have to be looked up.
fn put<'a>(put: &'a pb::PutRequest, keys: &mut Vec<&'a Bytes>) -> bool {
    put.lease == 0 && point(&put.key, &Bytes::new(), keys)
}

fn point<'a>(key: &'a Bytes, range_end: &Bytes, keys: &mut Vec<&'a Bytes>) -> bool {
    keys.push(key);
    range_end.is_empty() && keys.len() <= KEYS_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(kind: Kind) -> Command {
        Command { kind: Some(kind), ..Command::default() }
    }

    fn put(key: &'static str) -> pb::PutRequest {
        pb::PutRequest { key: key.into(), value: "value".into(), ..pb::PutRequest::default() }
    }

    fn op(request: Request) -> pb::RequestOp {
        pb::RequestOp { request: Some(request) }
    }

    fn range(key: &'static str, range_end: &'static str, revision: i64) -> pb::RequestOp {
        let (key, range_end) = (key.into(), range_end.into());
        op(Request::RequestRange(pb::RangeRequest {
            key,
            range_end,
            revision,
            ..Default::default()
        }))
    }

    fn txn(compare: pb::Compare, success: pb::RequestOp, failure: pb::RequestOp) -> Command {
        let (compare, success, failure) = (vec![compare], vec![success], vec![failure]);
        command(Kind::Txn(pb::TxnRequest { compare, success, failure }))
    }

    fn compare(key: &'static str, range_end: &'static str) -> pb::Compare {
        pb::Compare { key: key.into(), range_end: range_end.into(), ..Default::default() }
    }

    #[test]
    fn single_keys_are_named() {
        let update = txn(compare("a", ""), op(Request::RequestPut(put("b"))), range("c", "", 0));
        let delete = pb::DeleteRangeRequest { key: "d".into(), ..Default::default() };
        let commands = [update, command(Kind::DeleteRange(delete)), command(Kind::Put(put("e")))];
        let found = few(&commands).expect("all of them are short");
        assert_eq!(found, ["a", "b", "c", "d", "e"]);
    }

    #[test]
    fn what_may_read_more_is_not_quick() {
        let in_success = |op| txn(compare("a", ""), op, range("a", "", 0));
        for slow in [
            command(Kind::Put(pb::PutRequest { lease: 1, ..put("a") })),
            command(Kind::DeleteRange(pb::DeleteRangeRequest {
                key: "a".into(),
                range_end: "b".into(),
                prev_kv: false,
            })),
            txn(compare("a", "b"), range("a", "", 0), range("a", "", 0)),
            in_success(range("a", "b", 0)),
            in_success(range("a", "", 7)),
            in_success(op(Request::RequestTxn(pb::TxnRequest::default()))),
            in_success(pb::RequestOp::default()),
            command(Kind::Compact(pb::CompactionRequest::default())),
            Command::default(),
        ] {
            assert_eq!(few(&[command(Kind::Put(put("z"))), slow.clone()]), None, "{slow:?}");
        }
        let many: Vec<Command> = (0..=KEYS_MAX).map(|_| command(Kind::Put(put("a")))).collect();
        assert_eq!(few(&many), None);
        assert_eq!(few(&many[1..]).map(|keys| keys.len()), Some(KEYS_MAX));
    }
}
