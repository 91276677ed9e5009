//! Fills a store before it is measured.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use futures::future::try_join_all;
use pintle_proto::etcdserverpb as pb;
use pintle_proto::etcdserverpb::request_op::Request;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::sources::{key, value};
use crate::client::{Call, Failure, encode};
use crate::system::Running;

/// Transactions under way.
const WRITERS: usize = 8;
/// A transaction holds at most etcd's default of 128 operations, and about this many bytes.
const TXN_OPS_MAX: usize = 100;
const TXN_BYTES: usize = 100 << 10;

/// Puts keys 0 to `keys`, with values that do not compress.
pub(super) async fn fill(running: &Running, keys: usize, value_bytes: usize) -> anyhow::Result<()> {
    let step = (TXN_BYTES / value_bytes.max(1)).clamp(1, TXN_OPS_MAX);
    let next = Rc::new(Cell::new(0));
    let writers = (0..WRITERS).map(|turn| {
        let next = Rc::clone(&next);
        async move {
            let mut connection = running.connect(turn).await?;
            let mut random = StdRng::seed_from_u64(turn as u64);
            loop {
                let first = next.replace(next.get() + step);
                if first >= keys {
                    return anyhow::Ok(());
                }
                let last = (first + step).min(keys);
                let puts = (first..last).map(|i| put(key(i), value(&mut random, value_bytes)));
                let txn = pb::TxnRequest { success: puts.collect(), ..Default::default() };
                connection
                    .unary(Call::Txn, encode(&txn))
                    .await
                    .map_err(|failure| at(first, failure))?;
            }
        }
    });
    try_join_all(writers).await.map(drop)
}

fn put(key: Bytes, value: Bytes) -> pb::RequestOp {
    let put = pb::PutRequest { key, value, ..Default::default() };
    pb::RequestOp { request: Some(Request::RequestPut(put)) }
}

fn at(key: usize, failure: Failure) -> anyhow::Error {
    anyhow::Error::new(failure).context(format!("after about {key} keys"))
}
