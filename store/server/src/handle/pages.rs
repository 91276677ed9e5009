//! Long ranges, without ever holding the whole answer as objects.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use pintle_mvcc::{Authorizer, Permit, validate};
use pintle_store_api::pb::range_request::{SortOrder, SortTarget};
use pintle_store_api::{ReadError, Rejection, pb};
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{Handle, query};
use crate::auth::Identity;
use crate::core::Core;
use crate::errors;

/// Bytes of a page: what a stream holds of its answer at a time, a few times over.
const PAGE_BYTES: usize = 256 << 10;
/// Streams that read at the same time, over all members of the process. Each holds a thread and a
/// snapshot of the state; more wait.
static STREAMS: Semaphore = Semaphore::const_new(64);
/// A client that takes no page for so long has left its snapshot for others to use.
const STALL_MAX: Duration = Duration::from_secs(30);

/// The unit of [`Budget`].
const UNIT: usize = 1 << 10;

/// What long answers may hold in memory together until they are sent.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<Semaphore>);

struct Held {
    bytes: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new((bytes / UNIT).min(Semaphore::MAX_PERMITS))))
    }

    /// Bytes that count until the connection has taken them, if there is room for them.
    fn hold(&self, bytes: Vec<u8>) -> Option<Bytes> {
        let units = u32::try_from(bytes.len().div_ceil(UNIT)).ok()?;
        let room = Arc::clone(&self.0).try_acquire_many_owned(units).ok()?;
        Some(Bytes::from_owner(Held { bytes, _room: room }))
    }
}

type Page = Result<pb::RangeResponse, ReadError>;

/// Whether the answer may be cut while it is read: a custom order or a filter needs all of it first.
pub(crate) fn is_pageable(request: &pb::RangeRequest) -> bool {
    let by_key = request.sort_target() == SortTarget::Key;
    let ordered = by_key && request.sort_order() != SortOrder::Descend;
    let filtered = request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0;
    ordered && !filtered
}

impl Handle {
    /// What every range passes before it reads.
    pub(super) async fn before_range(&self, request: &pb::RangeRequest) -> Result<(), ReadError> {
        validate::range(request)?;
        self.core().counters.ranges.fetch_add(1, Ordering::Relaxed);
        if !request.serializable {
            self.core().check_voter()?;
            self.core().read_index.wait().await?;
        }
        Ok(())
    }

    /// The encoded answer, in pieces whose sequence is the message. For [`is_pageable`] requests.
    pub(crate) async fn range_encoded(
        &self,
        request: pb::RangeRequest,
    ) -> Result<Vec<Bytes>, ReadError> {
        self.before_range(&request).await?;
        let core = Arc::clone(self.core());
        let (key, range_end) = (request.key.clone(), request.range_end.clone());
        let read = self.read(true, move |reader| {
            let (mut pieces, mut fits) = (Vec::new(), true);
            reader.range_pages(&request, PAGE_BYTES, |mut page| {
                complete(&core, &mut page);
                match core.range_budget.hold(page.encode_to_vec()) {
                    Some(piece) => pieces.push(piece),
                    None => fits = false,
                }
                if fits { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            Ok(fits.then_some(pieces))
        });
        let too_many = || ReadError::Unavailable(errors::TOO_MANY_REQUESTS.to_owned());
        let read = self.permitted(|may| Ok(may.read(&key, &range_end)?), read);
        read.await?.ok_or_else(too_many)
    }

    /// The answer in pages, read as they are taken. The one with a header is the last; a stream that
    /// ends without it was cut off.
    pub(crate) async fn range_stream(
        &self,
        request: pb::RangeRequest,
    ) -> Result<mpsc::Receiver<Page>, ReadError> {
        self.before_range(&request).await?;
        let stopped = |_| ReadError::Unavailable(errors::STOPPED.to_owned());
        let permit = STREAMS.acquire().await.map_err(stopped)?;
        let guard = self.page_guard(&request).await?;
        let core = Arc::clone(self.core());
        // One page is read while the one before is sent.
        let (sender, pages) = mpsc::channel(1);
        tokio::task::spawn_blocking(move || {
            read_pages(&core, &request, &guard, &sender);
            drop(permit);
        });
        Ok(pages)
    }
}

/// Whom a stream is read for, and what allowed it.
struct PageGuard {
    identity: Identity,
    permit: Permit,
}

impl Handle {
    async fn page_guard(&self, request: &pb::RangeRequest) -> Result<PageGuard, ReadError> {
        let identity = self.identity().await?;
        let check = |may: &Authorizer<'_>| may.read(&request.key, &request.range_end);
        let permit = self.core().reader().authorize(identity.caller(), check);
        let permit = permit.map_err(Rejection::from)?;
        Ok(PageGuard { identity, permit })
    }
}

impl PageGuard {
    /// Whether another page may be given out.
    fn confirm(&self, core: &Core, request: &pb::RangeRequest) -> Result<(), ReadError> {
        let check = |may: &Authorizer<'_>| may.read(&request.key, &request.range_end);
        let confirmed = core.reader().confirm(self.permit, self.identity.caller(), check);
        Ok(confirmed.map_err(Rejection::from)?)
    }
}

fn complete(core: &Core, page: &mut pb::RangeResponse) {
    if page.header.is_some() {
        core.complete(&mut page.header);
    }
}

fn read_pages(
    core: &Core,
    request: &pb::RangeRequest,
    guard: &PageGuard,
    sender: &mpsc::Sender<Page>,
) {
    let runtime = tokio::runtime::Handle::current();
    let send = |page: Page| {
        let sent = async { tokio::time::timeout(STALL_MAX, sender.send(page)).await };
        match runtime.block_on(sent) {
            Ok(Ok(())) => ControlFlow::Continue(()),
            // The client is gone, or does not read.
            Ok(Err(_)) | Err(_) => ControlFlow::Break(()),
        }
    };
    let read = core.reader().range_pages(request, PAGE_BYTES, |mut page| {
        complete(core, &mut page);
        match guard.confirm(core, request) {
            Ok(()) => send(Ok(page)),
            Err(error) => {
                let _: ControlFlow<()> = send(Err(error));
                ControlFlow::Break(())
            }
        }
    });
    if let Err(error) = read {
        // Nobody may be left to be told.
        let _: ControlFlow<()> = send(Err(query(error)));
    }
}
