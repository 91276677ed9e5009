//! How answers are printed.

use bytes::Bytes;
use pintle_mvcc::{CatchUp, Lease, Outcome, QueryError, Response};
use pintle_store_api::mvccpb::{Event, KeyValue, event::EventType};
use pintle_store_api::pb::{self, response_op};

pub(super) fn answer<T>(result: Result<T, QueryError>, print: impl Fn(&T) -> String) -> String {
    match result {
        Ok(answer) => print(&answer),
        Err(QueryError::Rejected(rejection)) => format!("refused: {rejection}\n"),
        Err(QueryError::Fault(fault)) => panic!("{fault}"),
    }
}

pub(super) fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Err(rejection) => format!("refused: {rejection}\n"),
        Ok(Response::Put(response)) => put(response),
        Ok(Response::DeleteRange(response)) => delete(response),
        Ok(Response::Txn(response)) => txn(response),
        Ok(Response::Compact(response)) => format!("compacted, {}\n", revision(&response.header)),
        Ok(Response::LeaseGrant(response)) => {
            format!(
                "lease {} for {} s, {}\n",
                response.id,
                response.ttl,
                revision(&response.header)
            )
        }
        Ok(Response::LeaseRevoke(response)) => format!("revoked, {}\n", revision(&response.header)),
        Ok(Response::LeaseCheckpoint(response)) => {
            format!("checkpointed, {}\n", revision(&response.header))
        }
        Ok(Response::Alarm(response)) => {
            format!("{}{}\n", alarms(&response.alarms), revision(&response.header))
        }
        Ok(Response::Auth(header)) => format!("done, {}\n", revision(header)),
        Ok(Response::Authenticate(response)) => {
            format!("token {}, {}\n", response.token, revision(&response.header))
        }
    }
}

pub(super) fn alarms(alarms: &[pb::AlarmMember]) -> String {
    let line = |one: &pb::AlarmMember| {
        format!("{} of member {}\n", one.alarm().as_str_name(), one.member_id)
    };
    alarms.iter().map(line).collect()
}

fn put(response: &pb::PutResponse) -> String {
    let previous = response.prev_kv.iter().map(|kv| format!("previous {}\n", kv_line(kv)));
    format!("put, {}\n{}", revision(&response.header), previous.collect::<String>())
}

fn delete(response: &pb::DeleteRangeResponse) -> String {
    let previous = response.prev_kvs.iter().map(|kv| format!("previous {}\n", kv_line(kv)));
    let previous: String = previous.collect();
    format!("deleted {}, {}\n{previous}", response.deleted, revision(&response.header))
}

pub(super) fn range(response: &pb::RangeResponse) -> String {
    let lines: String = response.kvs.iter().map(|kv| format!("{}\n", kv_line(kv))).collect();
    let more = if response.more { ", more" } else { "" };
    format!("{lines}count {}{more}, {}\n", response.count, revision(&response.header))
}

pub(super) fn txn(response: &pb::TxnResponse) -> String {
    let verdict = if response.succeeded { "succeeded" } else { "failed" };
    let mut out = format!("{verdict}, {}\n", revision(&response.header));
    for op in &response.responses {
        let text = match op.response.as_ref().expect("a response") {
            response_op::Response::ResponseRange(response) => range(response),
            response_op::Response::ResponsePut(response) => put(response),
            response_op::Response::ResponseDeleteRange(response) => delete(response),
            response_op::Response::ResponseTxn(response) => txn(response),
        };
        out.extend(text.lines().map(|line| format!("  {line}\n")));
    }
    out
}

pub(super) fn event(event: &Event) -> String {
    let kv = event.kv.as_ref().expect("a key");
    let previous = event.prev_kv.as_ref();
    let previous = previous.map_or(String::new(), |kv| format!(" after {}", kv_line(kv)));
    match event.r#type() {
        EventType::Put => format!("event PUT {}{previous}\n", kv_line(kv)),
        EventType::Delete => {
            format!("event DELETE {} mod={}{previous}\n", text(&kv.key), kv.mod_revision)
        }
    }
}

pub(super) fn catch_up(answer: &CatchUp) -> String {
    let events: String = answer.events.iter().map(event).collect();
    format!("{events}through {}\n", answer.through)
}

pub(super) fn leases(leases: &[Lease]) -> String {
    let lines = leases.iter().map(|lease| {
        let Lease { id, granted_ttl, remaining_ttl } = lease;
        format!("lease {} granted {granted_ttl} s, remaining {remaining_ttl} s\n", id.0)
    });
    lines.collect()
}

pub(super) fn keys(keys: &[Bytes]) -> String {
    keys.iter().map(|key| format!("{}\n", text(key))).collect()
}

fn kv_line(kv: &KeyValue) -> String {
    let lease = if kv.lease == 0 { String::new() } else { format!(" lease={}", kv.lease) };
    format!(
        "{}={} create={} mod={} version={}{lease}",
        text(&kv.key),
        text(&kv.value),
        kv.create_revision,
        kv.mod_revision,
        kv.version
    )
}

/// An inner header says nothing of the revision.
fn revision(header: &Option<pb::ResponseHeader>) -> String {
    match header.as_ref().expect("a header").revision {
        0 => "no revision".to_owned(),
        revision => format!("revision {revision}"),
    }
}

pub(super) fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
