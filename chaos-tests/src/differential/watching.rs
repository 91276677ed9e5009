//! One watch stream and what came on it, in a form that two servers can be compared by.
//!
//! How many revisions a server puts into one response is its own affair; that a revision is not
//! torn over two responses, unless as fragments of one, is not.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use pintle_proto::etcdserverpb as pb;
use pintle_proto::etcdserverpb::watch_client::WatchClient;
use pintle_proto::etcdserverpb::watch_request::RequestUnion;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::Result;

/// Requests on their way; the session waits for the answer to each.
const REQUESTS_AHEAD: usize = 16;

/// What came for each watch id, as text; −1 holds what concerns no watcher.
pub(super) type Entries = BTreeMap<i64, Vec<String>>;

#[derive(Debug, Default)]
struct Log {
    entries: Entries,
    /// Responses with `created`.
    created: usize,
    /// The newest of them: its id, and whether the watch was refused.
    newest: Option<(i64, bool)>,
    /// Of the whole stream: the revisions reported.
    progress: Vec<i64>,
    /// The last revision of each watcher, and whether more of it may follow.
    last: BTreeMap<i64, (i64, bool)>,
    ended: Option<String>,
}

impl Log {
    fn note(&mut self, response: pb::WatchResponse) {
        let header = response.header.unwrap_or_default();
        let id = response.watch_id;
        let entries = self.entries.entry(id).or_default();
        if response.created {
            self.created += 1;
            self.newest = Some((id, response.canceled));
            entries.push(format!(
                "created at {}, canceled {}: {:?}",
                header.revision, response.canceled, response.cancel_reason
            ));
            return;
        }
        if response.canceled {
            entries.push(format!(
                "canceled at {}, compacted {}: {:?}",
                header.revision, response.compact_revision, response.cancel_reason
            ));
            self.last.remove(&id);
            return;
        }
        if response.events.is_empty() {
            if id == -1 {
                self.progress.push(header.revision);
            }
            return;
        }
        let (last, open) = self.last.get(&id).copied().unwrap_or_default();
        let revision =
            |event: &pintle_proto::mvccpb::Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
        let first = response.events.first().map_or(0, revision);
        let newest = response.events.last().map_or(0, revision);
        if first < last || (first == last && !open) {
            entries.push(format!("revision {first} after {last}"));
        }
        if header.revision < newest {
            entries.push(format!("events of {newest} under a header of {}", header.revision));
        }
        entries
            .extend(response.events.iter().map(|event| super::text::short(format!("{event:?}"))));
        self.last.insert(id, (newest, response.fragment));
    }
}

/// A stream of watchers.
#[derive(Debug)]
pub(super) struct Watching {
    requests: mpsc::Sender<pb::WatchRequest>,
    log: Arc<Mutex<Log>>,
    news: watch::Receiver<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Watching {
    pub(super) async fn open(channel: Channel) -> Result<Self> {
        let (requests, queue) = mpsc::channel(REQUESTS_AHEAD);
        let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
        let (told, news) = watch::channel(());
        let log = Arc::new(Mutex::new(Log::default()));
        let shared = Arc::clone(&log);
        // Some servers answer the call itself only with the first response.
        let task = tokio::spawn(async move {
            let ended = match client.watch(ReceiverStream::new(queue)).await {
                Ok(answer) => {
                    let mut responses = answer.into_inner();
                    loop {
                        match responses.message().await {
                            Ok(Some(response)) => {
                                shared.lock().note(response);
                                told.send_replace(());
                            }
                            Ok(None) => break "it was closed".to_owned(),
                            Err(status) => break status.to_string(),
                        }
                    }
                }
                Err(status) => status.to_string(),
            };
            shared.lock().ended = Some(ended);
            told.send_replace(());
        });
        Ok(Self { requests, log, news, task })
    }

    pub(super) async fn send(&self, request: RequestUnion) -> Result {
        let request = pb::WatchRequest { request_union: Some(request) };
        let sent = self.requests.send(request).await;
        sent.map_err(|_| "the watch stream is closed".to_owned())
    }

    /// Waits until `there` holds of what has come.
    async fn until(&self, what: &str, there: impl Fn(&Log) -> bool) -> Result {
        let mut news = self.news.clone();
        let wait = async {
            loop {
                {
                    let log = self.log.lock();
                    if there(&log) {
                        return Ok(());
                    }
                    if let Some(reason) = &log.ended {
                        return Err(format!("the watch stream ended: {reason}"));
                    }
                }
                if news.changed().await.is_err() {
                    return Err("the watch stream ended".to_owned());
                }
            }
        };
        match tokio::time::timeout(super::PATIENCE, wait).await {
            Ok(done) => done,
            Err(_) => Err(format!("no {what}; the stream has {:?}", self.log.lock().entries)),
        }
    }

    pub(super) fn created(&self) -> usize {
        self.log.lock().created
    }

    /// The watcher that was created last, and whether it was refused.
    pub(super) fn newest(&self) -> Option<(i64, bool)> {
        self.log.lock().newest
    }

    pub(super) async fn until_created(&self, count: usize) -> Result {
        self.until("created response", |log| log.created >= count).await
    }

    /// Waits until a watcher has got this many entries.
    pub(super) async fn until_told(&self, id: i64, count: usize) -> Result {
        let told = |log: &Log| log.entries.get(&id).map_or(0, Vec::len) >= count;
        self.until(&format!("entry {count} of watcher {id}"), told).await
    }

    pub(super) fn told(&self, id: i64) -> usize {
        self.log.lock().entries.get(&id).map_or(0, Vec::len)
    }

    pub(super) fn progressed(&self, revision: i64) -> bool {
        self.log.lock().progress.contains(&revision)
    }

    pub(super) fn entries(&self) -> Entries {
        self.log.lock().entries.clone()
    }

    /// Resolves when something has come since `news` was taken.
    pub(super) fn news(&self) -> watch::Receiver<()> {
        self.news.clone()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.task.abort();
    }
}
