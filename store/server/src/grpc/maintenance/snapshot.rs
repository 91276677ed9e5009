//! A snapshot on its way to a client.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use pintle_store_api::pb::SnapshotResponse;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::archive::{self, Manifest, Plan};
use crate::core::Core;
use crate::{STORAGE_VERSION, errors};

/// Chunks read ahead of the client.
const CHUNKS_AHEAD: usize = 16;

pub(super) type Chunks = Pin<Box<dyn Stream<Item = Result<SnapshotResponse, Status>> + Send>>;

/// Takes a checkpoint and streams it. The copy goes when the client is done, or gone, or the
/// member stops.
pub(super) async fn stream(core: &Arc<Core>) -> Result<Chunks, Status> {
    let places = Arc::clone(&core.state.snapshots.downloads);
    let too_many = |_| errors::transient(errors::TOO_MANY_REQUESTS);
    let place = places.try_acquire_owned().map_err(too_many)?;
    let internal = |error: io::Error| Status::internal(format!("snapshot: {error}"));
    let taking = Arc::clone(core);
    let taken = tokio::task::spawn_blocking(move || take(&taking)).await;
    let plan = taken.map_err(io::Error::other).flatten().map_err(internal)?;
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
    tokio::task::spawn_blocking(move || {
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the client is gone");
        let sent = archive::send(&plan, |chunk| sender.blocking_send(Ok(chunk)).map_err(gone));
        if let Err(error) = sent {
            tracing::warn!(%error, "a snapshot was not sent completely");
            // Nobody may be listening.
            drop(sender.blocking_send(Err(internal(error))));
        }
        drop(place);
    });
    let chunks =
        ReceiverStream::new(receiver).take_until(core.clients_stop.clone().cancelled_owned());
    // A stream that is cut must not look like one that is done.
    let stop = core.clients_stop.clone();
    let cut = async move { stop.is_cancelled().then(|| Err(errors::transient(errors::STOPPED))) };
    Ok(chunks.chain(futures::stream::once(cut).filter_map(std::future::ready)).boxed())
}

fn take(core: &Core) -> io::Result<Plan> {
    let (data, info) = core.state.snapshots.copy(core.reader())?;
    let manifest = Manifest {
        format: archive::FORMAT,
        storage_version: STORAGE_VERSION.to_owned(),
        cluster_id: core.identity.cluster_id,
        member_id: core.identity.member_id,
        revision: info.revision.0,
        compact_revision: info.compact_revision.0,
        keys: info.keys,
        live_bytes: info.live_bytes,
    };
    Plan::new(data, &manifest)
}
