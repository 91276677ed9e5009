//! `/containerLogs`: what a container printed, from the runtime's files.

use axum::body::Body;
use axum::extract::{Path, Query, State as Extract};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use pintle_proto::cri::ContainerState;
use serde::Deserialize;
use std::path::PathBuf;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::State;
use super::error::Error;
use super::streaming;
use crate::log::read::{self, Options};
use crate::pod::PodExt;
use crate::pod::runtime_status::{PodRuntime, Record};

/// Chunks on their way to the client; a slow one holds the reader back.
const CHUNKS: usize = 64;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Parameters {
    follow: Option<bool>,
    previous: Option<bool>,
    timestamps: Option<bool>,
    tail_lines: Option<i64>,
    since_seconds: Option<i64>,
    since_time: Option<Timestamp>,
    limit_bytes: Option<u64>,
    stream: Option<String>,
}

impl Parameters {
    fn options(&self) -> Options {
        let options = Options {
            follow: self.follow.unwrap_or(false) && !self.previous.unwrap_or(false),
            tail_lines: self.tail_lines.and_then(|lines| usize::try_from(lines).ok()),
            since: self.since_time,
            timestamps: self.timestamps.unwrap_or(false),
            limit_bytes: self.limit_bytes,
            stream: self.stream.clone().filter(|stream| !stream.eq_ignore_ascii_case("all")),
        };
        match self.since_seconds {
            Some(seconds) => options.since_seconds(seconds, Timestamp::now()),
            None => options,
        }
    }
}

pub(super) async fn container_logs(
    Extract(state): Extract<State>,
    Path((namespace, name, container)): Path<(String, String, String)>,
    Query(parameters): Query<Parameters>,
) -> Result<Response, Error> {
    streaming::containers_are_real(&state)?;
    let pod = state
        .pods
        .find(&namespace, &name)
        .ok_or_else(|| Error::not_found(format!("pod {name:?} not found")))?;
    if !pod.all_containers().iter().any(|(_, c)| c.name == container) {
        return Err(Error::not_found(format!("container {container:?} not found in pod {name:?}")));
    }
    let runtime = state.context.runtime.clone();
    let known = PodRuntime::read(&*runtime, pod.uid()).await?;
    let record = choose(&known, &pod, &container, parameters.previous.unwrap_or(false))?;
    let (id, path) = (record.status.id.clone(), PathBuf::from(&record.status.log_path));
    let (sender, receiver) = mpsc::channel::<Bytes>(CHUNKS);
    let options = parameters.options();
    tokio::spawn(async move {
        if let Err(error) = read::read(&*runtime, &id, &path, options, &sender).await {
            tracing::debug!(path = %path.display(), %error, "log not read");
            let text = format!("failed to read the log {}: {error}\n", path.display());
            // The client may have gone.
            let _ = sender.send(text.into()).await;
        }
    });
    let body = Body::from_stream(ReceiverStream::new(receiver).map(Ok::<_, std::io::Error>));
    Ok(([(CONTENT_TYPE, "text/plain")], body).into_response())
}

/// The instance whose log is meant.
fn choose<'a>(
    known: &'a PodRuntime,
    pod: &Pod,
    container: &str,
    previous: bool,
) -> Result<&'a Record, Error> {
    let name = pod.name();
    if previous {
        return known
            .last_terminated(container)
            .or_else(|| waiting_after_end(known, pod, container))
            .ok_or_else(|| {
                Error::bad_request(format!(
                    "previous terminated container {container:?} in pod {name:?} not found"
                ))
            });
    }
    let began = |record: &&Record| record.state() != ContainerState::ContainerCreated;
    known.containers.iter().filter(|r| r.name == container).find(began).ok_or_else(|| {
        let reason = waiting_reason(pod, container);
        Error::bad_request(format!(
            "container {container:?} in pod {name:?} is waiting to start: {reason}"
        ))
    })
}

/// A container in its backoff: its newest instance is already the previous one.
fn waiting_after_end<'a>(known: &'a PodRuntime, pod: &Pod, container: &str) -> Option<&'a Record> {
    let status =
        pod.status.as_ref()?.container_statuses.as_ref()?.iter().find(|s| s.name == container)?;
    status.state.as_ref()?.waiting.as_ref()?;
    known.newest(container).filter(|r| r.state() == ContainerState::ContainerExited)
}

fn waiting_reason(pod: &Pod, container: &str) -> String {
    let statuses = pod.status.iter().flat_map(|status| {
        status.container_statuses.iter().chain(&status.init_container_statuses).flatten()
    });
    statuses
        .filter(|status| status.name == container)
        .find_map(|status| status.state.as_ref()?.waiting.as_ref()?.reason.clone())
        .unwrap_or_else(|| "ContainerCreating".to_owned())
}
