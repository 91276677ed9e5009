//! Parts of a member without the rest of it, to be measured one at a time (`benches/benches`).
//!
//! They are what a member is made of, not copies: the watch hub without the dispatcher task and
//! gRPC around it, the log without consensus before it. No member uses them through here.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use pintle_mvcc::{Reader, RevisionEvents};
use pintle_proto::raft as pb;
use pintle_store_api::WatchError;
use pintle_store_api::pb::WatchCreateRequest;

use crate::MemoryLimit;
use crate::consensus::convert::log_id_from_pb;
use crate::consensus::log::LogStore;
use crate::consensus::{Batch, TypeConfig};
use crate::host::Host;
use crate::watch::{Hub, Spec, Step, Wake, Watcher};

/// The term of everything that is appended here.
const TERM: u64 = 1;

/// A watch hub with its watchers, all on one stream.
#[derive(Debug)]
pub struct Watches {
    hub: Arc<Hub>,
    wake: Arc<Wake>,
    watchers: Vec<Watcher>,
}

impl Watches {
    /// A hub without watchers that goes on from the state's revision.
    pub fn new(reader: Reader) -> Self {
        Self {
            hub: Hub::new(reader, MemoryLimit::default()),
            wake: Arc::default(),
            watchers: Vec::new(),
        }
    }

    /// Adds a watcher.
    pub fn watch(&mut self, request: &WatchCreateRequest) -> Result<(), WatchError> {
        let key = i64::try_from(self.watchers.len()).expect("fewer watchers than memory");
        let (hub, wake) = (Arc::clone(&self.hub), Arc::clone(&self.wake));
        self.watchers.push(Watcher::new(hub, Spec::new(request), wake, key)?);
        Ok(())
    }

    /// Takes revisions as apply publishes them, and marks the watchers whom they concern.
    pub fn publish(&self, revisions: Vec<RevisionEvents>) {
        self.hub.publish(revisions);
        self.hub.dispatch();
    }

    /// Lets the marked watchers read all that concerns them. The answer is what each would send, as
    /// the end of a `WatchResponse`.
    pub async fn deliver(&mut self) -> Result<Vec<Bytes>, WatchError> {
        let mut sent = Vec::new();
        for key in self.wake.take() {
            let at = usize::try_from(key).expect("registered under its place");
            let watcher = &mut self.watchers[at];
            loop {
                let events = match watcher.step() {
                    Step::Events(events) => events,
                    Step::Behind => watcher.catch_up().await?,
                    Step::Idle => break,
                };
                sent.extend(events.iter().map(|events| {
                    let mut encoded = BytesMut::with_capacity(events.size());
                    events.encode(&mut encoded);
                    encoded.freeze()
                }));
            }
        }
        Ok(sent)
    }
}

/// A member's log.
#[derive(Debug)]
pub struct Log {
    store: LogStore,
}

impl Log {
    /// Opens the log under `dir`. Without `sync`, what was appended may be lost with the machine.
    pub fn open(dir: &Path, sync: bool) -> io::Result<Self> {
        Ok(Self { store: LogStore::open(dir, sync, MemoryLimit::default(), Host::Machine)? })
    }

    /// The index of the last entry; 0 on an empty log.
    pub fn last_index(&self) -> u64 {
        self.store.last_index()
    }

    /// Appends an entry for each payload, together, and waits until they are written: with `sync`,
    /// on disk.
    pub async fn append(&mut self, payloads: Vec<Bytes>) -> io::Result<()> {
        let entries = (self.last_index() + 1..).zip(payloads).map(|(index, payload)| {
            let id = log_id_from_pb(&pb::LogId { term: TERM, index });
            RaftEntry::new(id, EntryPayload::Normal(Batch(payload)))
        });
        let (sender, flushed) = TypeConfig::oneshot();
        self.store.append(entries, IOFlushed::signal(sender)).await?;
        flushed.await.map_err(io::Error::other)?
    }

    /// Cuts everything away, as a member does with what its state has flushed.
    pub async fn purge(&mut self) -> io::Result<()> {
        let upto = pb::LogId { term: TERM, index: self.last_index() };
        self.store.purge(log_id_from_pb(&upto)).await
    }
}

#[cfg(test)]
mod tests {
    use pintle_mvcc::{Mvcc, Options};
    use pintle_store_api::mvccpb::{Event, KeyValue};
    use pintle_store_api::{Revision, prefix_end};

    use super::*;

    fn put(revision: i64, key: &'static str) -> RevisionEvents {
        let kv = KeyValue { key: key.into(), mod_revision: revision, ..Default::default() };
        let event = Event { kv: Some(kv), ..Default::default() };
        RevisionEvents { revision: Revision(revision), events: vec![event] }
    }

    #[tokio::test]
    async fn a_revision_is_delivered_to_those_whom_it_concerns() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let mvcc = Mvcc::open(dir.path(), Options::default()).expect("opens");
        let head = mvcc.reader().current_revision().0;
        let mut watches = Watches::new(mvcc.reader());
        for (key, range_end) in [("/a/1", None), ("/a/2", None), ("/a/", prefix_end(b"/a/"))] {
            let range_end = range_end.unwrap_or_default();
            let request = WatchCreateRequest { key: key.into(), range_end, ..Default::default() };
            watches.watch(&request).expect("watched");
        }
        watches.publish(vec![put(head + 1, "/a/1"), put(head + 2, "/b")]);
        assert_eq!(
            watches.deliver().await.expect("delivered").len(),
            2,
            "the key's and the prefix's"
        );
        assert!(watches.deliver().await.expect("delivered").is_empty(), "nothing new");
        watches.publish(vec![put(head + 3, "/a/1"), put(head + 4, "/a/1")]);
        assert_eq!(watches.deliver().await.expect("delivered").len(), 4, "both, for both");
    }

    #[tokio::test]
    async fn entries_follow_those_that_were_cut_away() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let mut log = Log::open(dir.path(), false).expect("opens");
        log.append(vec![Bytes::from_static(b"entry"); 3]).await.expect("appended");
        assert_eq!(log.last_index(), 3);
        log.purge().await.expect("purged");
        log.append(vec![Bytes::from_static(b"entry")]).await.expect("appended");
        assert_eq!(log.last_index(), 4);
    }
}
