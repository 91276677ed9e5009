//! What a simulation stands in for, and what it may ask of a member that the socket does not offer.

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use pintle_proto::raft::change_member_request::Change;
use pintle_proto::raft::peer_server::PeerServer;
use pintle_store_api::{ReadError, Revision, WriteError, pb};
use tokio::io::DuplexStream;
use tower::Service;

use crate::config::Config;
use crate::core::Core;
use crate::handle::Handle;
use crate::host::Host;
use crate::member::{Member, StartError};
use crate::members;
use crate::peer::{PeerService, append};

/// Why a request did not reach its target, or its answer did not come back.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A gRPC call to a peer.
pub type PeerRequest = http::Request<tonic::body::Body>;
/// Its answer.
pub type PeerResponse = http::Response<tonic::body::Body>;
/// Something that takes simulated time.
pub type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The way from one member to the others.
pub trait Network: Send + Sync + Debug {
    /// Calls the member behind a peer URL.
    fn call(&self, url: &str, request: PeerRequest) -> Pending<Result<PeerResponse, BoxError>>;

    /// Opens a connection for the log to the member behind a peer URL; `None` when that member
    /// knows gRPC alone.
    fn open_append(&self, url: &str) -> Pending<io::Result<Option<DuplexStream>>>;
}

/// The disk under one member's log.
pub trait Disk: Send + Sync + Debug {
    /// Resolves when what the log has written so far is safe; an error leaves open what is.
    fn sync(&self) -> Pending<io::Result<()>>;
}

/// What a simulated member stands on.
#[derive(Clone, Debug)]
pub struct Simulated {
    /// Towards its peers.
    pub network: Arc<dyn Network>,
    /// Under its log.
    pub disk: Arc<dyn Disk>,
}

static SIMULATED: AtomicBool = AtomicBool::new(false);

/// Makes this process a simulation, for good: to be called before any member starts.
pub fn enter() {
    SIMULATED.store(true, Ordering::Relaxed);
}

pub(crate) fn is_simulated() -> bool {
    SIMULATED.load(Ordering::Relaxed)
}

/// A member without ports: its peers come through [`SimulatedMember::serve`], its clients through
/// [`SimulatedMember::handle`].
#[derive(Debug)]
pub struct SimulatedMember {
    /// Taken when it is abandoned.
    member: Mutex<Option<Member>>,
    handle: Arc<Handle>,
    core: Arc<Core>,
}

impl SimulatedMember {
    /// Starts it in the tasks of the current thread.
    pub async fn start(config: Config, simulated: Simulated) -> Result<Self, StartError> {
        let member = Member::on(config, Host::Simulated(simulated)).await?;
        let handle = member.handle();
        let core = Arc::clone(handle.core());
        Ok(Self { member: Mutex::new(Some(member)), handle, core })
    }

    /// The store, for clients.
    pub fn handle(&self) -> Arc<Handle> {
        Arc::clone(&self.handle)
    }

    /// What a peer asked, as its port would answer it.
    pub fn serve(&self, request: PeerRequest) -> Pending<PeerResponse> {
        let mut service = PeerServer::new(PeerService::new(Arc::clone(&self.core)));
        Box::pin(async move {
            match service.call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        })
    }

    /// Serves the far end of a connection for the log, until it ends.
    pub fn serve_append(&self, connection: DuplexStream) -> Pending<io::Result<()>> {
        let core = Arc::clone(&self.core);
        Box::pin(async move { append::serve(&core, Box::new(connection)).await })
    }

    /// Its id in the cluster.
    pub fn id(&self) -> u64 {
        self.core.identity.member_id
    }

    /// The leader as this member knows it.
    pub fn leader(&self) -> Option<u64> {
        self.core.leadership.leader_id()
    }

    /// The members as this member knows them: id, and whether it votes.
    pub fn members(&self) -> Vec<(u64, bool)> {
        let list = members::list(&self.core).into_iter();
        list.map(|member| (member.id, !member.is_learner)).collect()
    }

    /// Whether it only listens in.
    pub fn is_learner(&self) -> bool {
        self.core.is_learner()
    }

    /// The index of the last entry that it has applied.
    pub fn applied_index(&self) -> u64 {
        self.core.applied_index()
    }

    /// The revision of its state.
    pub fn applied_revision(&self) -> i64 {
        self.core.reader().current_revision().0
    }

    /// Snapshots that it was sent and installed.
    pub fn installed_snapshots(&self) -> u64 {
        self.core.state.installs.load(Ordering::Relaxed)
    }

    /// A hash of everything between the compact floor and `revision`.
    pub async fn hash_kv(&self, revision: Revision) -> Result<pb::HashKvResponse, ReadError> {
        self.handle.hash_kv(revision).await
    }

    /// Why it can go on no longer, if so.
    pub fn failure(&self) -> Option<String> {
        self.core.leadership.failure()
    }

    /// Hands leadership over.
    pub async fn move_leader(&self, target: u64) -> Result<(), ReadError> {
        self.core.move_leader(target).await
    }

    /// Adds a member, which votes as soon as it has caught up; the answer is its id.
    pub async fn add_member(&self, peer_url: String) -> Result<u64, WriteError> {
        members::add(&self.core, vec![peer_url], false).await
    }

    /// Removes a member.
    pub async fn remove_member(&self, id: u64) -> Result<(), WriteError> {
        members::change(&self.core, Change::Remove(id)).await
    }

    /// Ends its tasks. What it did last reaches nobody: the simulation has cut it off before.
    pub async fn abandon(&self) {
        let member = self.member.lock().take();
        if let Some(member) = member {
            member.kill().await;
        }
    }
}
