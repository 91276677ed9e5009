//! `/exec`, `/attach` and `/portForward`: WebSocket clients are translated, SPDY clients passed through.

use std::collections::HashMap;

use axum::body::Body;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{FromRequestParts, Path, Query, Request, State as Extract};
use axum::http::header::{CONNECTION, UPGRADE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use super::State;
use super::error::Error;
use crate::pod::PodExt;
use crate::pod::runtime_status::PodRuntime;
use crate::runtime::Streams;
use crate::stream::{forward, remote_command, upgrade};

/// The protocols that SPDY clients may speak.
const SPDY_VERSION: &str = "x-stream-protocol-version";

/// A new command, or the container's own process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Exec,
    Attach,
}

type Pairs = Vec<(String, String)>;

fn flag(pairs: &Pairs, names: [&str; 2]) -> bool {
    pairs
        .iter()
        .any(|(key, value)| names.contains(&key.as_str()) && (value == "1" || value == "true"))
}

/// The apiserver's own names (`input`, `output`, `error`) and those of its clients.
fn streams_of(pairs: &Pairs) -> Streams {
    let tty = flag(pairs, ["tty", "tty"]);
    Streams {
        stdin: flag(pairs, ["stdin", "input"]),
        stdout: flag(pairs, ["stdout", "output"]),
        stderr: flag(pairs, ["stderr", "error"]) && !tty,
        tty,
    }
}

pub(super) async fn remote_command(
    kind: Kind,
    Extract(state): Extract<State>,
    Path(path): Path<HashMap<String, String>>,
    Query(pairs): Query<Pairs>,
    request: Request,
) -> Result<Response, Error> {
    containers_are_real(&state)?;
    let part = |name: &str| path.get(name).map(String::as_str).unwrap_or_default();
    let streams = streams_of(&pairs);
    if !(streams.stdin || streams.stdout || streams.stderr) {
        return Err(Error::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    let id = running_container(&state, part("namespace"), part("pod"), part("container")).await?;
    let runtime = &state.context.runtime;
    let url = match kind {
        Kind::Attach => runtime.attach(&id, streams).await?,
        Kind::Exec => {
            let command: Vec<String> = pairs
                .into_iter()
                .filter(|(key, _)| key == "command")
                .map(|(_, word)| word)
                .collect();
            if command.is_empty() {
                return Err(Error::bad_request("you must specify a command"));
            }
            runtime.exec(&id, &command, streams).await?
        }
    };
    if is_spdy(request.headers()) {
        return pass_through(request, &url).await;
    }
    let socket = websocket(request).await?.protocols([remote_command::V5, remote_command::V4]);
    Ok(socket.on_upgrade(move |socket| async move {
        if let Err(error) = remote_command::bridge(socket, &url, streams).await {
            tracing::debug!(%error, "a command's streams broke");
        }
    }))
}

pub(super) async fn port_forward(
    Extract(state): Extract<State>,
    Path(path): Path<HashMap<String, String>>,
    request: Request,
) -> Result<Response, Error> {
    containers_are_real(&state)?;
    let part = |name: &str| path.get(name).map(String::as_str).unwrap_or_default();
    let pod = state
        .pods
        .find(part("namespace"), part("pod"))
        .ok_or_else(|| Error::not_found(format!("pod {:?} not found", part("pod"))))?;
    let known = PodRuntime::read(&*state.context.runtime, pod.uid()).await?;
    let sandbox = known
        .sandbox()
        .filter(|sandbox| sandbox.ready)
        .ok_or_else(|| Error::bad_request(format!("pod {:?} is not running", pod.name())))?;
    let url = state.context.runtime.port_forward(&sandbox.id, &[]).await?;
    if is_spdy(request.headers()) {
        return pass_through(request, &url).await;
    }
    let socket = websocket(request).await?.protocols([forward::TUNNEL]);
    Ok(socket.on_upgrade(move |socket| async move {
        if let Err(error) = forward::tunnel(socket, &url).await {
            tracing::debug!(%error, "a port forwarding broke");
        }
    }))
}

/// Hollow nodes have nothing to stream from.
pub(super) fn containers_are_real(state: &State) -> Result<(), Error> {
    match state.context.runtime.is_real() {
        true => Ok(()),
        false => Err(Error::new(
            StatusCode::NOT_IMPLEMENTED,
            "this node only pretends to run containers",
        )),
    }
}

async fn running_container(
    state: &State,
    namespace: &str,
    name: &str,
    container: &str,
) -> Result<String, Error> {
    let pod = state
        .pods
        .find(namespace, name)
        .ok_or_else(|| Error::not_found(format!("pod {name:?} not found")))?;
    let known = PodRuntime::read(&*state.context.runtime, pod.uid()).await?;
    match known.newest(container) {
        Some(record) if record.is_running() => Ok(record.status.id.clone()),
        Some(_) => {
            Err(Error::internal(format!("container {container:?} in pod {name:?} is not running")))
        }
        None => Err(Error::internal(format!("container not found ({container:?})"))),
    }
}

fn is_spdy(headers: &HeaderMap) -> bool {
    headers
        .get(UPGRADE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.to_ascii_lowercase().starts_with("spdy/"))
}

async fn websocket(request: Request) -> Result<WebSocketUpgrade, Error> {
    let (mut parts, _) = request.into_parts();
    WebSocketUpgrade::from_request_parts(&mut parts, &())
        .await
        .map_err(|rejection| Error::new(rejection.status(), rejection.body_text()))
}

/// Upgrades at the runtime with what the client offers, then lets the bytes pass.
async fn pass_through(mut request: Request, url: &str) -> Result<Response, Error> {
    let offered: Vec<String> = request
        .headers()
        .get_all(SPDY_VERSION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|value| value.trim().to_owned())
        .collect();
    let upgraded = upgrade::connect(url, &offered)
        .await
        .map_err(|error| Error::internal(error.to_string()))?;
    let client = hyper::upgrade::on(&mut request);
    let mut response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "SPDY/3.1");
    if let Some(protocol) = &upgraded.protocol {
        response = response.header(SPDY_VERSION, protocol);
    }
    let response =
        response.body(Body::empty()).map_err(|error| Error::internal(error.to_string()))?;
    tokio::spawn(async move {
        if let Err(error) = forward::pipe(client, upgraded).await {
            tracing::debug!(%error, "a SPDY connection broke");
        }
    });
    Ok(response.into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Pairs {
        text.split('&')
            .filter_map(|p| p.split_once('='))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect()
    }

    #[test]
    fn streams_have_two_spellings() {
        let all = Streams { stdin: true, stdout: true, stderr: true, tty: false };
        assert_eq!(streams_of(&pairs("stdin=true&stdout=true&stderr=true")), all);
        assert_eq!(streams_of(&pairs("input=1&output=1&error=1")), all);
    }

    #[test]
    fn a_terminal_has_no_separate_errors() {
        let streams = streams_of(&pairs("stdin=true&stdout=true&stderr=true&tty=true"));
        assert!(streams.tty && !streams.stderr);
    }
}
