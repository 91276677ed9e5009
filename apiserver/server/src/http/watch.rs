//! Watches: a stream of lines, each an event.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderValue};
use pintle_apiserver_storage::{CacheEvent, Encoding, Freshness, Object, Watcher, parse_version};
use pintle_machinery::{ErrorList, GroupKind, Path, Resource};
use rand::Rng as _;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::chain::Server;
use super::format::{Format, event_line};
use super::negotiation::Form;
use super::{Response, chunked_body};
use crate::error::{ApiError, ApiResult, from_storage};
use crate::registry::Selection;
use crate::request_info::{Query, RequestInfo};

/// Without `timeoutSeconds`, a watch lasts this long to twice this long: not all end at once.
const TIMEOUT_SECONDS_MIN: u64 = 1800;

/// Between bookmarks, as upstream.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);

/// Initial objects encoded at a time.
const INITIAL_CHUNK: usize = 100;

/// What the parameters ask for.
#[derive(Debug)]
struct Start {
    freshness: Freshness,
    /// Whether the current objects come first.
    initial: bool,
    /// Whether a bookmark tells where they end.
    initial_end: bool,
    /// Changes after this revision only.
    after: Option<i64>,
}

impl Start {
    fn parse(query: &Query, resource: &Resource) -> ApiResult<Self> {
        let version = query.get("resourceVersion").unwrap_or_default();
        let matching = query.get("resourceVersionMatch").unwrap_or_default();
        let send_initial =
            query.non_empty("sendInitialEvents").map(|_| query.flag("sendInitialEvents"));
        let revision = parse_version(version)
            .map_err(|error| from_storage(error, &resource.group_resource(), ""))?;
        let fresh = match revision {
            _ if version.is_empty() => Freshness::Consistent,
            0 => Freshness::Any,
            revision => Freshness::NotOlderThan(revision),
        };
        match send_initial {
            None if !matching.is_empty() => Err(invalid(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            )),
            Some(_) if matching != "NotOlderThan" => Err(invalid(
                "resourceVersionMatch",
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            )),
            Some(true) => Ok(Self {
                freshness: fresh,
                initial: true,
                initial_end: query.flag("allowWatchBookmarks"),
                after: None,
            }),
            Some(false) if revision == 0 => {
                Ok(Self { freshness: fresh, initial: false, initial_end: false, after: None })
            }
            None if revision == 0 => {
                Ok(Self { freshness: fresh, initial: true, initial_end: false, after: None })
            }
            _ => Ok(Self {
                freshness: Freshness::Any,
                initial: false,
                initial_end: false,
                after: Some(revision),
            }),
        }
    }
}

fn invalid(field: &str, why: &str) -> ApiError {
    let mut errors = ErrorList::new();
    errors.forbidden(Path::new(field), why);
    ApiError::invalid(&GroupKind::new("meta.k8s.io", "ListOptions"), "", &errors)
}

/// Starts a watch.
pub(super) async fn watch(
    server: &Arc<Server>,
    info: &RequestInfo,
    namespace: &str,
    format: Format,
) -> ApiResult<Response> {
    let resource = format.resource.clone();
    let start = Start::parse(&info.query, &resource)?;
    let selection = Selection::parse(&info.query, &resource)?;
    let cache = server.registry.cache_of(&resource)?;
    let failed = |error| from_storage(error, &resource.group_resource(), "");
    server.registry.caches().wait(&cache, start.freshness).await.map_err(failed)?;
    let scope = selection.scope(namespace, cache.spec());
    let (initial, revision, watcher) = match start.after {
        Some(revision) => match cache.watch_from(scope, revision) {
            Ok(watcher) => (VecDeque::new(), revision, watcher),
            Err(error) => return Ok(ended_with(&failed(error))),
        },
        None => {
            let (snapshot, revision, watcher) = cache.watch_scope_with_snapshot(scope);
            let selected = snapshot.range(namespace, "").filter(|object| selection.matches(object));
            let initial = if start.initial { selected.cloned().collect() } else { VecDeque::new() };
            (initial, revision, watcher)
        }
    };
    let events = Events {
        server: server.clone(),
        shared: shared_encoding(&format),
        prefix: if namespace.is_empty() { String::new() } else { format!("{namespace}/") },
        selection: (!selection.is_everything()).then_some(selection),
        format,
        initial,
        initial_end: start.initial_end.then_some(revision),
        after: revision,
        watcher,
        deadline: Instant::now() + timeout(&info.query),
        bookmarks: info.query.flag("allowWatchBookmarks").then(bookmark_timer),
        columns_sent: false,
    };
    server.metrics.watches(1);
    let guard = Open(server.clone());
    let chunks = futures::stream::unfold((events, guard), |(mut events, guard)| async move {
        let chunk = events.next().await?;
        Some((chunk, (events, guard)))
    });
    Ok(streamed(Response::new(chunked_body(chunks))))
}

/// An error of a started watch is an event.
fn ended_with(error: &ApiError) -> Response {
    let line = event_line("ERROR", error.to_value().to_string().as_bytes());
    streamed(Response::new(super::full_body(line)))
}

fn streamed(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

fn timeout(query: &Query) -> Duration {
    let asked = query.get("timeoutSeconds").and_then(|text| text.parse::<u64>().ok());
    let seconds = asked
        .filter(|seconds| *seconds > 0)
        .unwrap_or_else(|| rand::rng().random_range(TIMEOUT_SECONDS_MIN..2 * TIMEOUT_SECONDS_MIN));
    Duration::from_secs(seconds)
}

fn bookmark_timer() -> Interval {
    let mut timer = tokio::time::interval_at(Instant::now() + BOOKMARK_INTERVAL, BOOKMARK_INTERVAL);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    timer
}

/// Watchers of the same form share their encoded events; tables differ from watcher to watcher.
fn shared_encoding(format: &Format) -> Option<String> {
    match format.negotiated.form {
        Form::Table => None,
        form => Some(format!("{form:?}/{}", format.resource.version)),
    }
}

/// Counts an open watch for as long as it lives.
struct Open(Arc<Server>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.metrics.watches(-1);
    }
}

/// One watcher's stream.
struct Events {
    server: Arc<Server>,
    format: Format,
    shared: Option<String>,
    /// `namespace/`, or empty.
    prefix: String,
    selection: Option<Selection>,
    initial: VecDeque<Arc<Object>>,
    /// The revision of the bookmark that ends the initial events, until it has been sent.
    initial_end: Option<i64>,
    after: i64,
    watcher: Watcher,
    deadline: Instant,
    bookmarks: Option<Interval>,
    columns_sent: bool,
}

enum Step {
    Changes(Vec<Arc<CacheEvent>>),
    Bookmark,
    End,
}

impl Events {
    /// The next lines; `None` ends the stream.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.initial.is_empty() {
            return Some(self.initial_chunk());
        }
        if let Some(revision) = self.initial_end.take() {
            return Some(self.format.bookmark(revision, true));
        }
        loop {
            match self.step().await {
                Step::Changes(events) => {
                    let lines = self.lines(&events);
                    if !lines.is_empty() {
                        return Some(lines);
                    }
                }
                Step::Bookmark => {
                    if let Some(revision) =
                        self.watcher.progress().filter(|revision| *revision >= self.after)
                    {
                        return Some(self.format.bookmark(revision, false));
                    }
                }
                Step::End => return None,
            }
        }
    }

    async fn step(&mut self) -> Step {
        let Self { bookmarks, watcher, server, deadline, format, .. } = self;
        let bookmark = async {
            match bookmarks {
                Some(timer) => {
                    timer.tick().await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = server.shutdown.cancelled() => Step::End,
            () = tokio::time::sleep_until(*deadline) => Step::End,
            changes = watcher.next() => match changes {
                Ok(changes) => Step::Changes(changes),
                Err(why) => {
                    tracing::debug!(?why, resource = format.resource.plural, "a watcher lost its place");
                    Step::End
                }
            },
            () = bookmark => Step::Bookmark,
        }
    }

    fn initial_chunk(&mut self) -> Bytes {
        let count = self.initial.len().min(INITIAL_CHUNK);
        let mut lines = BytesMut::new();
        for object in self.initial.drain(..count).collect::<Vec<_>>() {
            match self.format.event("ADDED", &object, !self.columns_sent) {
                Ok(line) => lines.extend_from_slice(&line),
                Err(error) => {
                    tracing::error!(key = %object.key(), %error, "an object cannot be shown")
                }
            }
            self.columns_sent = true;
        }
        self.server.metrics.sent_events(count);
        lines.freeze()
    }

    fn lines(&mut self, events: &[Arc<CacheEvent>]) -> Bytes {
        let mut lines = BytesMut::new();
        let mut single = None;
        let mut count = 0;
        let after = self.after;
        for event in events.iter().filter(|event| event.revision > after) {
            let Some((kind, object)) = self.seen(event) else { continue };
            match self.line(event, kind, &object) {
                Ok(line) => {
                    count += 1;
                    // One event is passed on as it is, without a copy.
                    match single.take() {
                        None if lines.is_empty() => single = Some(line),
                        None => lines.extend_from_slice(&line),
                        Some(first) => {
                            lines.extend_from_slice(&first);
                            lines.extend_from_slice(&line);
                        }
                    }
                }
                Err(error) => {
                    tracing::error!(key = %object.key(), %error, "an object cannot be shown")
                }
            }
        }
        self.server.metrics.sent_events(count);
        single.unwrap_or_else(|| lines.freeze())
    }

    /// What this watcher sees of a change: entering its selection is an addition, leaving it a deletion.
    fn seen(&self, event: &CacheEvent) -> Option<(&'static str, Arc<Object>)> {
        if !event.object.key().starts_with(&*self.prefix) {
            return None;
        }
        let selected =
            |object: &Object| self.selection.as_ref().is_none_or(|it| it.matches(object));
        let was = event.previous.as_ref().is_some_and(|object| selected(object));
        let is = !event.deleted && selected(&event.object);
        match (was, is) {
            (false, true) => Some(("ADDED", event.object.clone())),
            (true, true) => Some(("MODIFIED", event.object.clone())),
            (true, false) if event.deleted => Some(("DELETED", event.object.clone())),
            (true, false) => {
                let left = event.previous.as_ref()?.at(event.revision).ok()?;
                Some(("DELETED", Arc::new(left)))
            }
            (false, false) => None,
        }
    }

    fn line(
        &mut self,
        event: &CacheEvent,
        kind: &'static str,
        object: &Object,
    ) -> ApiResult<Bytes> {
        let with_columns = !std::mem::replace(&mut self.columns_sent, true);
        let Some(shared) = &self.shared else {
            return self.format.event(kind, object, with_columns);
        };
        let mut failed = None;
        let encoding = Encoding(format!("{kind}/{shared}").into());
        let line = event.encoded(&encoding, |_| {
            self.format.event(kind, object, false).unwrap_or_else(|error| {
                failed = Some(error);
                Bytes::new()
            })
        });
        failed.map_or(Ok(line), Err)
    }
}
