//! What changed in the source while its keys were copied.

use anyhow::{Context, bail};
use bytes::Bytes;
use pintle_proto::etcdserverpb as pb;
use pintle_proto::etcdserverpb::request_op::Request;
use pintle_proto::etcdserverpb::watch_request::RequestUnion;
use pintle_proto::mvccpb::Event;
use pintle_proto::mvccpb::event::EventType;
use tokio_stream::wrappers::ReceiverStream;

use super::copy;
use super::journal::Journal;
use super::side::Side;

/// Operations of one transaction: etcd's default limit is 128.
const BATCH_OPS_MAX: usize = 100;

/// Replays the source's changes since the journal's revision up to the one that it has now.
pub(super) async fn changes(
    source: &mut Side,
    target: &mut Side,
    journal: &mut Journal,
) -> anyhow::Result<u64> {
    let goal = source.revision().await?;
    if goal <= journal.revision {
        return Ok(0);
    }
    let (requests, stream) = tokio::sync::mpsc::channel(4);
    requests.send(everything_from(journal.revision + 1)).await?;
    let mut answers = source.watch.watch(ReceiverStream::new(stream)).await?.into_inner();
    let mut replayed = 0;
    while journal.revision < goal {
        let Some(answer) = answers.message().await? else { bail!("the source ended the watch") };
        if answer.canceled {
            bail!(
                "the source has compacted what was still to be copied (up to {}): begin anew",
                answer.compact_revision
            );
        }
        if answer.created {
            requests.send(progress()).await?;
        }
        let through = answer.header.as_ref().map_or(0, |header| header.revision);
        replayed += answer.events.len() as u64;
        let last = answer.events.iter().filter_map(|event| event.kv.as_ref()).last();
        let reached = last.map_or(through, |kv| kv.mod_revision);
        replay(source, target, answer.events).await?;
        if !answer.created && reached > journal.revision {
            journal.replayed(reached)?;
        }
        if !answer.created && reached < goal {
            // Perhaps what is left is no event: ask how far the watch is.
            requests.send(progress()).await?;
        }
    }
    Ok(replayed)
}

fn everything_from(start_revision: i64) -> pb::WatchRequest {
    let all = Bytes::from_static(b"\0");
    let create = pb::WatchCreateRequest {
        key: all.clone(),
        range_end: all,
        start_revision,
        ..Default::default()
    };
    pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
}

fn progress() -> pb::WatchRequest {
    let progress = pb::WatchProgressRequest {};
    pb::WatchRequest { request_union: Some(RequestUnion::ProgressRequest(progress)) }
}

/// The changes of a revision stay in one transaction where they fit.
async fn replay(source: &mut Side, target: &mut Side, events: Vec<Event>) -> anyhow::Result<()> {
    let mut ops: Vec<pb::RequestOp> = Vec::new();
    let mut revision = 0;
    for event in events {
        let kv = event.kv.context("an event without a key")?;
        let is_delete = event.r#type == i32::from(EventType::Delete);
        if !ops.is_empty() && (kv.mod_revision != revision || ops.len() >= BATCH_OPS_MAX) {
            copy::write(source, target, std::mem::take(&mut ops)).await?;
        }
        revision = kv.mod_revision;
        ops.push(if is_delete { delete(kv.key) } else { copy::put(kv) });
    }
    if !ops.is_empty() {
        copy::write(source, target, ops).await?;
    }
    Ok(())
}

fn delete(key: Bytes) -> pb::RequestOp {
    let delete = pb::DeleteRangeRequest { key, ..Default::default() };
    pb::RequestOp { request: Some(Request::RequestDeleteRange(delete)) }
}
