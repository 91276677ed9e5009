//! Claims: who holds a cluster address or a node port. One key each, created only if absent and
//! changed only by compare-and-swap, so that members never hand out the same thing twice.
//!
//! A claim names its service by namespace, name and uid. It may outlive its service by a moment
//! (or for longer, when a member dies in between); [`Claims::acquire`] of a claim whose owner is the
//! same service is a success, which makes retried writes repeatable, and [`super::repair`] removes
//! what nobody holds any more.

use std::sync::Arc;

use pintle_store_api::{KeyRange, ReadError, Store, WriteError, mvccpb, pb};
use serde_json::{Value, json};

/// The annotation that holds the uid of the service behind an `IPAddress`.
const OWNER_UID: &str = "networking.pintle.io/parent-uid";
const ADDRESSES: &str = "/registry/ipaddresses/";
const NODE_PORTS: &str = "/registry/ranges/servicenodeports/";

/// The service that holds a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// What is claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Claim {
    Address(std::net::Ipv4Addr),
    NodePort(u16),
}

impl Claim {
    fn key(self) -> String {
        match self {
            Self::Address(address) => format!("{ADDRESSES}{address}"),
            Self::NodePort(port) => format!("{NODE_PORTS}{port}"),
        }
    }

    fn parse(key: &str) -> Option<Self> {
        if let Some(address) = key.strip_prefix(ADDRESSES) {
            return address.parse().ok().map(Self::Address);
        }
        key.strip_prefix(NODE_PORTS)?.parse().ok().map(Self::NodePort)
    }

    /// The stored object: an `IPAddress` of the API, and something of the same shape for ports.
    fn value(self, owner: &Owner, now: jiff::Timestamp) -> Value {
        let created = pintle_machinery::time::format(now);
        let parent = json!({
            "group": "", "resource": "services", "namespace": owner.namespace, "name": owner.name,
        });
        let metadata = |name: String, labels: Value| {
            json!({
                "name": name,
                "uid": uuid::Uuid::new_v4().to_string(),
                "creationTimestamp": created,
                "labels": labels,
                "annotations": {OWNER_UID: owner.uid},
            })
        };
        match self {
            Self::Address(address) => json!({
                "apiVersion": "networking.k8s.io/v1",
                "kind": "IPAddress",
                "metadata": metadata(address.to_string(), json!({
                    "ipaddress.kubernetes.io/ip-family": "IPv4",
                    "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
                })),
                "spec": {"parentRef": parent},
            }),
            Self::NodePort(port) => json!({
                "apiVersion": "v1",
                "kind": "NodePortClaim",
                "metadata": metadata(port.to_string(), json!({})),
                "spec": {"parentRef": parent},
            }),
        }
    }
}

fn owner_of(value: &[u8]) -> Option<Owner> {
    let value: Value = serde_json::from_slice(value).ok()?;
    let parent = value.pointer("/spec/parentRef")?;
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    Some(Owner {
        namespace: text(parent.get("namespace")),
        name: text(parent.get("name")),
        uid: text(value.get("metadata").and_then(|m| m.get("annotations")?.get(OWNER_UID))),
    })
}

/// A claim as it is stored now.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) claim: Claim,
    /// `None` when the object was written by somebody else and names no service.
    pub(crate) owner: Option<Owner>,
    revision: i64,
}

impl Held {
    fn read(kv: &mvccpb::KeyValue) -> Option<Self> {
        let claim = Claim::parse(std::str::from_utf8(&kv.key).ok()?)?;
        Some(Self { claim, owner: owner_of(&kv.value), revision: kv.mod_revision })
    }
}

/// The outcome of asking for a claim.
#[derive(Debug)]
pub(crate) enum Acquired {
    /// Ours now.
    New,
    /// It was ours already.
    Ours,
    /// Somebody else's.
    Taken(Held),
}

/// Why the store could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClaimError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// All claims, in the store.
#[derive(Clone)]
pub(crate) struct Claims {
    store: Arc<dyn Store>,
}

impl Claims {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// Whether somebody held the claim a moment ago: a local read that spares pointless attempts.
    pub(crate) async fn looks_taken(&self, claim: Claim) -> Result<bool, ClaimError> {
        let request = pb::RangeRequest {
            key: claim.key().into(),
            serializable: true,
            count_only: true,
            ..Default::default()
        };
        Ok(self.store.range(request).await?.count > 0)
    }

    /// Creates the claim, or says who has it.
    pub(crate) async fn acquire(
        &self,
        claim: Claim,
        owner: &Owner,
    ) -> Result<Acquired, ClaimError> {
        let key = claim.key();
        let request = pb::TxnRequest {
            compare: vec![compare_revision(&key, pb::compare::CompareTarget::Create, 0)],
            success: vec![put(&key, &claim.value(owner, jiff::Timestamp::now()))],
            failure: vec![get(&key)],
        };
        let response = self.store.txn(request).await?;
        if response.succeeded {
            return Ok(Acquired::New);
        }
        let kv = response.responses.into_iter().find_map(|op| match op.response {
            Some(pb::response_op::Response::ResponseRange(range)) => range.kvs.into_iter().next(),
            _ => None,
        });
        match kv.as_ref().and_then(Held::read) {
            Some(held) if held.owner.as_ref() == Some(owner) => Ok(Acquired::Ours),
            Some(held) => Ok(Acquired::Taken(held)),
            None => Err(WriteError::NotApplied("claim vanished while it was read".into()).into()),
        }
    }

    /// Takes a claim over from an owner that is known to be gone. False when it changed meanwhile.
    pub(crate) async fn take_over(&self, held: &Held, owner: &Owner) -> Result<bool, ClaimError> {
        let key = held.claim.key();
        let value = held.claim.value(owner, jiff::Timestamp::now());
        self.swap(&key, held.revision, put(&key, &value)).await
    }

    /// Gives a claim up, if it still is this owner's.
    pub(crate) async fn release(&self, claim: Claim, owner: &Owner) -> Result<(), ClaimError> {
        if let Some(held) = self.find(claim).await?
            && held.owner.as_ref() == Some(owner)
        {
            self.remove(&held).await?;
        }
        Ok(())
    }

    /// Removes a claim as it was read. False when it changed meanwhile.
    pub(crate) async fn remove(&self, held: &Held) -> Result<bool, ClaimError> {
        let key = held.claim.key();
        let delete = pb::DeleteRangeRequest { key: key.clone().into(), ..Default::default() };
        let delete = pb::request_op::Request::RequestDeleteRange(delete);
        self.swap(&key, held.revision, pb::RequestOp { request: Some(delete) }).await
    }

    /// One claim as it is now.
    pub(crate) async fn find(&self, claim: Claim) -> Result<Option<Held>, ClaimError> {
        let request = pb::RangeRequest { key: claim.key().into(), ..Default::default() };
        let response = self.store.range(request).await?;
        Ok(response.kvs.first().and_then(Held::read))
    }

    /// All claims of both kinds.
    pub(crate) async fn all(&self) -> Result<Vec<Held>, ClaimError> {
        let mut all = self.under(ADDRESSES).await?;
        all.extend(self.under(NODE_PORTS).await?);
        Ok(all)
    }

    /// All node ports that are held.
    pub(crate) async fn node_ports(&self) -> Result<Vec<Held>, ClaimError> {
        self.under(NODE_PORTS).await
    }

    /// All addresses that are held.
    pub(crate) async fn addresses(&self) -> Result<Vec<Held>, ClaimError> {
        self.under(ADDRESSES).await
    }

    async fn under(&self, prefix: &str) -> Result<Vec<Held>, ClaimError> {
        let range = KeyRange::prefix(prefix.to_owned().into());
        let request = pb::RangeRequest {
            key: range.start().clone(),
            range_end: range.end().cloned().unwrap_or_default(),
            ..Default::default()
        };
        Ok(self.store.range(request).await?.kvs.iter().filter_map(Held::read).collect())
    }

    async fn swap(&self, key: &str, revision: i64, op: pb::RequestOp) -> Result<bool, ClaimError> {
        let request = pb::TxnRequest {
            compare: vec![compare_revision(key, pb::compare::CompareTarget::Mod, revision)],
            success: vec![op],
            failure: Vec::new(),
        };
        Ok(self.store.txn(request).await?.succeeded)
    }
}

fn compare_revision(key: &str, target: pb::compare::CompareTarget, revision: i64) -> pb::Compare {
    let value = match target {
        pb::compare::CompareTarget::Create => pb::compare::TargetUnion::CreateRevision(revision),
        _ => pb::compare::TargetUnion::ModRevision(revision),
    };
    pb::Compare {
        result: pb::compare::CompareResult::Equal.into(),
        target: target.into(),
        key: key.to_owned().into(),
        target_union: Some(value),
        ..Default::default()
    }
}

fn put(key: &str, value: &Value) -> pb::RequestOp {
    let put = pb::PutRequest {
        key: key.to_owned().into(),
        value: value.to_string().into(),
        ..Default::default()
    };
    pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) }
}

fn get(key: &str) -> pb::RequestOp {
    let range = pb::RangeRequest { key: key.to_owned().into(), ..Default::default() };
    pb::RequestOp { request: Some(pb::request_op::Request::RequestRange(range)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_owners_survive_the_round_trip() {
        let owner = Owner { namespace: "shop".into(), name: "web".into(), uid: "u".into() };
        for claim in [Claim::Address([10, 96, 0, 10].into()), Claim::NodePort(30080)] {
            assert_eq!(Claim::parse(&claim.key()), Some(claim));
            let value = claim.value(&owner, jiff::Timestamp::UNIX_EPOCH).to_string();
            assert_eq!(owner_of(value.as_bytes()), Some(owner.clone()));
        }
        assert_eq!(Claim::parse("/registry/ipaddresses/fd00::1"), None);
        assert_eq!(owner_of(b"{}"), None);
    }
}
