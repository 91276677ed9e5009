//! Leases and keys as of one revision.

use anyhow::Context;
use pintle_proto::etcdserverpb as pb;
use pintle_proto::etcdserverpb::request_op::Request;
use pintle_proto::mvccpb::KeyValue;
use prost::Message;
use tonic::Code;

use super::journal::Journal;
use super::side::Side;
use crate::store::output;

/// Puts of one transaction: etcd's default limit is 128 operations and 1.5 MiB.
const BATCH_OPS_MAX: usize = 100;
const BATCH_BYTES_MAX: usize = 1 << 20;

/// Grants the source's leases under their own ids, for their full time. Those that are there
/// already were granted by an earlier try.
pub(super) async fn leases(source: &mut Side, target: &mut Side) -> anyhow::Result<usize> {
    let leases = source.lease.lease_leases(pb::LeaseLeasesRequest {}).await?.into_inner().leases;
    let mut granted = 0;
    for lease in leases {
        granted += usize::from(self::lease(source, target, lease.id).await?);
    }
    Ok(granted)
}

/// One lease; `false` when the source has it no more.
pub(super) async fn lease(source: &mut Side, target: &mut Side, id: i64) -> anyhow::Result<bool> {
    let request = pb::LeaseTimeToLiveRequest { id, keys: false };
    let lease = source.lease.lease_time_to_live(request).await?.into_inner();
    if lease.ttl <= 0 {
        return Ok(false);
    }
    let request = pb::LeaseGrantRequest { id, ttl: lease.granted_ttl };
    match target.lease.lease_grant(request).await {
        Ok(_) => Ok(true),
        Err(status) if status.code() == Code::FailedPrecondition => Ok(true),
        Err(status) => Err(status).with_context(|| format!("granting lease {id:x}")),
    }
}

/// Copies the keys page by page, from where the journal is. If the source has compacted the revision
/// meanwhile, the copy begins anew at a later one: what is copied already is written again.
pub(super) async fn keys(
    source: &mut Side,
    target: &mut Side,
    journal: &mut Journal,
) -> anyhow::Result<u64> {
    let mut copied = 0;
    let mut bar = None;
    while !journal.keys_done {
        let page = match source.page(journal.next_key.clone(), journal.revision).await {
            Ok(page) => page,
            Err(status) if status.code() == Code::OutOfRange => {
                journal.begin(source.revision().await?)?;
                continue;
            }
            Err(status) => return Err(status).context("reading the source"),
        };
        let bar = bar.get_or_insert_with(|| output::progress("copying keys", page.count, false));
        copied += page.kvs.len() as u64;
        put_all(source, target, page.kvs).await?;
        journal.copied(page.next)?;
        bar.set_position(copied);
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    Ok(copied)
}

async fn put_all(source: &mut Side, target: &mut Side, kvs: Vec<KeyValue>) -> anyhow::Result<()> {
    for batch in batches(kvs) {
        write(source, target, batch).await?;
    }
    Ok(())
}

/// Puts, cut into transactions that any store takes.
fn batches(kvs: Vec<KeyValue>) -> Vec<Vec<pb::RequestOp>> {
    let mut batches = Vec::new();
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for kv in kvs {
        let op = put(kv);
        let size = op.encoded_len();
        if batch.len() >= BATCH_OPS_MAX || (bytes + size > BATCH_BYTES_MAX && !batch.is_empty()) {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
        bytes += size;
        batch.push(op);
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

pub(super) fn put(kv: KeyValue) -> pb::RequestOp {
    let KeyValue { key, value, lease, .. } = kv;
    let put = pb::PutRequest { key, value, lease, ..Default::default() };
    pb::RequestOp { request: Some(Request::RequestPut(put)) }
}

/// Writes one transaction. A lease that it needs and the target does not have was granted after the
/// leases were copied, or has ended since: it is copied now, or its keys go without.
pub(super) async fn write(
    source: &mut Side,
    target: &mut Side,
    ops: Vec<pb::RequestOp>,
) -> anyhow::Result<()> {
    let request = pb::TxnRequest { success: ops.clone(), ..Default::default() };
    match target.kv.txn(request).await {
        Ok(_) => return Ok(()),
        Err(status) if status.code() == Code::NotFound => {}
        Err(status) => return Err(status).context("writing to the target"),
    }
    let mut mended = Vec::with_capacity(ops.len());
    for mut op in ops {
        if let Some(Request::RequestPut(put)) = &mut op.request
            && put.lease != 0
            && !lease(source, target, put.lease).await?
        {
            // The source is about to delete it, which the changes that follow will tell.
            put.lease = 0;
        }
        mended.push(op);
    }
    let request = pb::TxnRequest { success: mended, ..Default::default() };
    target.kv.txn(request).await.context("writing to the target")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(bytes: usize) -> KeyValue {
        KeyValue { key: "k".into(), value: vec![0; bytes].into(), ..Default::default() }
    }

    #[test]
    fn batches_are_small_enough_for_any_store() {
        let many = batches((0..250).map(|_| kv(10)).collect());
        assert_eq!(many.iter().map(Vec::len).collect::<Vec<_>>(), [100, 100, 50]);
        let large = batches((0..3).map(|_| kv(700 << 10)).collect());
        assert_eq!(large.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1]);
        assert!(batches(Vec::new()).is_empty());
    }
}
