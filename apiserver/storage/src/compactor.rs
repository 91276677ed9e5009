//! Raises the store's floor every few minutes. All apiservers run this; the one whose compare on
//! `compact_rev_key` succeeds does it, in upstream's protocol, so that both may share a store.

use std::sync::Arc;

use bytes::Bytes;
use pintle_store_api::pb::{self, compare, request_op, response_op};
use pintle_store_api::{Store, WriteError};
use tokio_util::sync::CancellationToken;

use crate::limits::COMPACTION_INTERVAL;

const KEY: &[u8] = b"compact_rev_key";

/// The version of the key that this member last saw, and the revision to compact at next time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Turn {
    version: i64,
    revision: i64,
}

/// Runs until told to stop. What was current at one turn is compacted at the next.
pub async fn run(store: Arc<dyn Store>, shutdown: CancellationToken) {
    let mut turn = Turn::default();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(COMPACTION_INTERVAL) => {}
        }
        match take(store.as_ref(), turn).await {
            Ok(next) => turn = next,
            Err(error) => tracing::warn!(%error, "compaction postponed"),
        }
    }
}

async fn take(store: &dyn Store, turn: Turn) -> Result<Turn, WriteError> {
    let response = store.txn(claim(turn)).await?;
    let revision = response.header.map_or(0, |header| header.revision);
    if response.succeeded {
        if turn.revision > 0 {
            store
                .compact(pb::CompactionRequest { revision: turn.revision, physical: false })
                .await?;
            tracing::debug!(revision = turn.revision, "compacted");
        }
        return Ok(Turn { version: turn.version + 1, revision });
    }
    let version = response.responses.into_iter().find_map(|op| match op.response {
        Some(response_op::Response::ResponseRange(range)) => range.kvs.first().map(|kv| kv.version),
        _ => None,
    });
    Ok(Turn { version: version.unwrap_or(0), revision })
}

fn claim(turn: Turn) -> pb::TxnRequest {
    let key = Bytes::from_static(KEY);
    let compare = pb::Compare {
        result: compare::CompareResult::Equal.into(),
        target: compare::CompareTarget::Version.into(),
        key: key.clone(),
        target_union: Some(compare::TargetUnion::Version(turn.version)),
        range_end: Bytes::new(),
    };
    let put = pb::PutRequest {
        key: key.clone(),
        value: turn.revision.to_string().into(),
        ..pb::PutRequest::default()
    };
    let get = pb::RangeRequest { key, ..pb::RangeRequest::default() };
    pb::TxnRequest {
        compare: vec![compare],
        success: vec![pb::RequestOp { request: Some(request_op::Request::RequestPut(put)) }],
        failure: vec![pb::RequestOp { request: Some(request_op::Request::RequestRange(get)) }],
    }
}

#[cfg(test)]
mod tests {
    use pintle_store_api::memory::Memory;

    use super::*;

    #[tokio::test]
    async fn one_of_two_members_compacts_at_the_revision_before() {
        let store = Memory::new();
        let first = take(store.as_ref(), Turn::default()).await.expect("a turn");
        let other = take(store.as_ref(), Turn::default()).await.expect("a turn");
        assert_eq!((first.version, other.version), (1, 1));
        let second = take(store.as_ref(), first).await.expect("a turn");
        let loser = take(store.as_ref(), other).await.expect("a turn");
        assert_eq!((second.version, loser.version), (2, 2));
        let old = pb::RangeRequest {
            key: Bytes::from_static(KEY),
            revision: first.revision - 1,
            ..pb::RangeRequest::default()
        };
        assert!(store.range(old).await.is_err(), "the revision below the floor is gone");
    }
}
