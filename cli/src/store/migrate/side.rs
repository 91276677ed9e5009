//! One of the two stores.

use bytes::Bytes;
use pintle_proto::etcdserverpb as pb;
use pintle_proto::etcdserverpb::auth_client::AuthClient;
use pintle_proto::etcdserverpb::kv_client::KvClient;
use pintle_proto::etcdserverpb::lease_client::LeaseClient;
use pintle_proto::etcdserverpb::watch_client::WatchClient;
use pintle_proto::mvccpb::KeyValue;

use crate::store::endpoint::{self, Authorized, MESSAGE_BYTES_MAX};

/// Keys of one page.
const PAGE_KEYS: i64 = 500;

pub(super) struct Side {
    pub(super) cluster_id: u64,
    pub(super) kv: KvClient<Authorized>,
    pub(super) lease: LeaseClient<Authorized>,
    pub(super) watch: WatchClient<Authorized>,
    pub(super) auth: AuthClient<Authorized>,
}

/// A stretch of keys.
pub(super) struct Page {
    pub(super) kvs: Vec<KeyValue>,
    /// Keys from the first of the page to the end.
    pub(super) count: u64,
    /// Where the next page begins.
    pub(super) next: Option<Bytes>,
}

impl Side {
    pub(super) async fn connect(options: &endpoint::Options) -> anyhow::Result<Self> {
        let channel = endpoint::connect(options).await?;
        let large = MESSAGE_BYTES_MAX;
        let mut side = Self {
            cluster_id: 0,
            kv: KvClient::new(channel.clone()).max_decoding_message_size(large),
            lease: LeaseClient::new(channel.clone()).max_decoding_message_size(large),
            watch: WatchClient::new(channel.clone()).max_decoding_message_size(large),
            auth: AuthClient::new(channel),
        };
        side.cluster_id = side.header().await?.cluster_id;
        Ok(side)
    }

    async fn header(&mut self) -> anyhow::Result<pb::ResponseHeader> {
        let request = everything(pb::RangeRequest { count_only: true, ..Default::default() });
        let answer = self.kv.range(request).await?.into_inner();
        Ok(answer.header.unwrap_or_default())
    }

    pub(super) async fn revision(&mut self) -> anyhow::Result<i64> {
        Ok(self.header().await?.revision)
    }

    pub(super) async fn is_empty(&mut self) -> anyhow::Result<bool> {
        let request = everything(pb::RangeRequest { count_only: true, ..Default::default() });
        Ok(self.kv.range(request).await?.into_inner().count == 0)
    }

    /// The keys from `start` on, as of a revision (0: now).
    pub(super) async fn page(
        &mut self,
        start: Bytes,
        revision: i64,
    ) -> Result<Page, tonic::Status> {
        let key = if start.is_empty() { Bytes::from_static(b"\0") } else { start };
        let request = pb::RangeRequest {
            key,
            range_end: Bytes::from_static(b"\0"),
            limit: PAGE_KEYS,
            revision,
            ..Default::default()
        };
        let answer = self.kv.range(request).await?.into_inner();
        let next = match answer.kvs.last() {
            Some(last) if answer.more => Some(after(&last.key)),
            _ => None,
        };
        Ok(Page { kvs: answer.kvs, count: answer.count.unsigned_abs(), next })
    }
}

/// The first key after `key`.
pub(super) fn after(key: &Bytes) -> Bytes {
    let mut next = key.to_vec();
    next.push(0);
    next.into()
}

fn everything(request: pb::RangeRequest) -> pb::RangeRequest {
    let all = Bytes::from_static(b"\0");
    pb::RangeRequest { key: all.clone(), range_end: all, ..request }
}
