//! One watch on a stream of its own.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use pintle_proto::etcdserverpb::watch_client::WatchClient;
use pintle_store_api::mvccpb::Event;
use pintle_store_api::pb::watch_request::RequestUnion;
use pintle_store_api::{Rejection, Revision, WatchError, WatchItem, WatchStream, pb};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use crate::errors;

/// A watcher that wants progress asks for it this often: a server reports it by itself only every
/// ten minutes, and a cache above the store waits for it.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// The create request and one question for progress.
const REQUESTS_AHEAD: usize = 2;

struct Remote {
    requests: mpsc::Sender<pb::WatchRequest>,
    responses: Streaming<pb::WatchResponse>,
    progress: Option<Interval>,
    reported: i64,
    /// Events of a fragmented response.
    fragments: Vec<Event>,
    ready: VecDeque<WatchItem>,
    failed: bool,
}

fn request(union: RequestUnion) -> pb::WatchRequest {
    pb::WatchRequest { request_union: Some(union) }
}

/// Opens a watch and waits until it stands.
pub(super) async fn open(
    mut client: WatchClient<Channel>,
    create: pb::WatchCreateRequest,
) -> Result<WatchStream, WatchError> {
    let progress = create.progress_notify.then(|| {
        let mut interval = tokio::time::interval(PROGRESS_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        interval
    });
    let create = pb::WatchCreateRequest { watch_id: 0, fragment: true, ..create };
    let (requests, queue) = mpsc::channel(REQUESTS_AHEAD);
    let first = requests.try_send(request(RequestUnion::CreateRequest(create)));
    first.map_err(|error| WatchError::Unavailable(error.to_string()))?;
    let responses = client.watch(ReceiverStream::new(queue)).await;
    let responses = responses.map_err(|status| errors::watch_from(&status))?.into_inner();
    let mut remote = Remote {
        requests,
        responses,
        progress,
        reported: 0,
        fragments: Vec::new(),
        ready: VecDeque::new(),
        failed: false,
    };
    let created = remote.receive().await?;
    remote.accept(created)?;
    Ok(Box::pin(futures::stream::unfold(remote, |mut remote| async move {
        let item = remote.next().await?;
        Some((item, remote))
    })))
}

impl Remote {
    async fn receive(&mut self) -> Result<pb::WatchResponse, WatchError> {
        match self.responses.message().await {
            Ok(Some(response)) => Ok(response),
            Ok(None) => Err(WatchError::Unavailable(errors::STOPPED.to_owned())),
            Err(status) => Err(errors::watch_from(&status)),
        }
    }

    async fn next(&mut self) -> Option<Result<WatchItem, WatchError>> {
        while !self.failed {
            if let Some(item) = self.ready.pop_front() {
                return Some(Ok(item));
            }
            let step = match self.turn().await {
                Ok(Some(response)) => self.accept(response),
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = step {
                self.failed = true;
                return Some(Err(error));
            }
        }
        None
    }

    /// The next response, or nothing when it was time to ask for progress.
    async fn turn(&mut self) -> Result<Option<pb::WatchResponse>, WatchError> {
        let Some(progress) = &mut self.progress else { return self.receive().await.map(Some) };
        tokio::select! {
            response = self.responses.message() => match response {
                Ok(Some(response)) => Ok(Some(response)),
                Ok(None) => Err(WatchError::Unavailable(errors::STOPPED.to_owned())),
                Err(status) => Err(errors::watch_from(&status)),
            },
            _ = progress.tick() => {
                let ask = request(RequestUnion::ProgressRequest(pb::WatchProgressRequest {}));
                // A question is under way already when the queue is full.
                drop(self.requests.try_send(ask));
                Ok(None)
            }
        }
    }

    fn accept(&mut self, response: pb::WatchResponse) -> Result<(), WatchError> {
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        if response.canceled {
            return Err(canceled(&response));
        }
        if response.created {
            self.ready.push_back(WatchItem::Created(Revision(revision)));
            return Ok(());
        }
        self.fragments.extend(response.events);
        if response.fragment {
            return Ok(());
        }
        let events: Arc<[Event]> = std::mem::take(&mut self.fragments).into();
        if !events.is_empty() {
            let revision = Revision(revision);
            self.ready.push_back(WatchItem::Events { revision, events });
        } else if self.progress.is_some() && revision > self.reported {
            self.reported = revision;
            self.ready.push_back(WatchItem::Progress(Revision(revision)));
        }
        Ok(())
    }
}

fn canceled(response: &pb::WatchResponse) -> WatchError {
    if response.compact_revision != 0 {
        return WatchError::Compacted(Revision(response.compact_revision));
    }
    let reason = errors::without_code(&response.cancel_reason);
    match errors::rejection(Code::InvalidArgument, reason, Revision(0)) {
        Rejection::Compacted(at) => WatchError::Compacted(at),
        rejection => WatchError::Rejected(rejection),
    }
}
