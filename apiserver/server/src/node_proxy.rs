//! Requests that end in a container or behind the API: logs, exec, attach, port-forward, proxy.
//!
//! The request is checked, its target found, and the bytes passed through. After a `101` both sides
//! are tunnelled as they are, so WebSocket channels and SPDY streams are spoken between the client
//! and the node agent alone.

mod backend;
mod target;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use pintle_machinery::{GroupResource, Reason};
use serde_json::{Value, json};

use crate::admission::{Attributes, Operation};
use crate::connect::{Connector, Endpoint, Endpoints};
use crate::error::{ApiError, ApiResult};
use crate::http::{Request, Response};
use crate::registry::Context;
use crate::request_info::{Query, RequestInfo};
pub(crate) use backend::Backend;
use target::Target;

/// How much of an agent's error text is passed on.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// What may be read of an error answer that carries no text.
const NO_TEXT: &str = "the node agent gave no reason";

/// All virtual endpoints that lead to nodes.
pub(crate) fn endpoints(backend: Backend) -> Endpoints {
    let backend = Arc::new(backend);
    let stream = |action: Action| -> Endpoint {
        Endpoint::Connector(Arc::new(PodStream { backend: backend.clone(), action }))
    };
    let proxy = |kind: ProxyKind| -> Endpoint {
        let turn = AtomicUsize::new(0);
        Endpoint::Connector(Arc::new(Proxy { backend: backend.clone(), kind, turn }))
    };
    vec![
        (("", "pods", "log"), stream(Action::Log)),
        (("", "pods", "exec"), stream(Action::Exec)),
        (("", "pods", "attach"), stream(Action::Attach)),
        (("", "pods", "portforward"), stream(Action::PortForward)),
        (("", "pods", "proxy"), proxy(ProxyKind::Pod)),
        (("", "services", "proxy"), proxy(ProxyKind::Service)),
        (("", "nodes", "proxy"), proxy(ProxyKind::Node)),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Log,
    Exec,
    Attach,
    PortForward,
}

/// Logs, exec, attach and port-forward: the agent's own endpoints.
struct PodStream {
    backend: Arc<Backend>,
    action: Action,
}

#[async_trait::async_trait]
impl Connector for PodStream {
    async fn connect(
        &self,
        cx: Context,
        info: RequestInfo,
        request: Request,
    ) -> ApiResult<Response> {
        admit(&cx, json!({"kind": self.action.options_kind(), "apiVersion": "v1"})).await?;
        let pod = find_pod(&cx, &info.name).await?;
        let path = self.action.path(&cx, &pod, &info.query)?;
        let node = host_of(&pod)?;
        let target = agent(&cx, &node).await?;
        let mut response = forward(&self.backend, &target, &path, request).await?;
        if self.action == Action::Log && response.status() == StatusCode::OK {
            let text = HeaderValue::from_static("text/plain");
            response.headers_mut().insert(CONTENT_TYPE, text);
        }
        Ok(response)
    }
}

impl Action {
    fn options_kind(self) -> &'static str {
        match self {
            Self::Log => "PodLogOptions",
            Self::Exec => "PodExecOptions",
            Self::Attach => "PodAttachOptions",
            Self::PortForward => "PodPortForwardOptions",
        }
    }

    /// The agent's path and query for the request.
    fn path(self, cx: &Context, pod: &Pod, query: &Query) -> ApiResult<String> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let namespace = &cx.namespace;
        if self == Self::PortForward {
            let ports: Vec<(&str, &str)> = query.all("ports").map(|port| ("port", port)).collect();
            return Ok(format!("/portForward/{namespace}/{name}{}", encode(&ports)));
        }
        if matches!(self, Self::Exec | Self::Attach) {
            still_runs(pod, self)?;
        }
        let wanted = query.get("container").unwrap_or_default();
        let container = target::container_of(pod, wanted)?;
        let (root, query) = match self {
            Self::Log => ("containerLogs", log_query(query)?),
            Self::Exec => ("exec", stream_query(query)?),
            Self::Attach | Self::PortForward => ("attach", stream_query(query)?),
        };
        Ok(format!("/{root}/{namespace}/{name}/{container}{query}"))
    }
}

/// Nobody can join a container that has ended for good.
fn still_runs(pod: &Pod, action: Action) -> ApiResult<()> {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    if !matches!(phase, "Succeeded" | "Failed") {
        return Ok(());
    }
    let what = if action == Action::Exec { "exec into" } else { "attach to" };
    Err(ApiError::bad_request(format!(
        "cannot {what} a container in a completed pod; current phase is {phase}"
    )))
}

/// The options of a log request, checked as upstream does.
fn log_query(query: &Query) -> ApiResult<String> {
    const PASSED: [&str; 8] = [
        "follow",
        "previous",
        "sinceSeconds",
        "sinceTime",
        "timestamps",
        "tailLines",
        "limitBytes",
        "stream",
    ];
    let invalid = |field: &str, value: &str, why: &str| {
        let kind = pintle_machinery::GroupKind::new("", "PodLogOptions");
        let mut errors = pintle_machinery::ErrorList::new();
        errors.invalid(pintle_machinery::Path::new(field), value, why);
        ApiError::invalid(&kind, "", &errors)
    };
    for (field, min) in [("tailLines", 0), ("limitBytes", 1), ("sinceSeconds", 1)] {
        let Some(text) = query.non_empty(field) else { continue };
        match text.parse::<i64>() {
            Ok(number) if number >= min => {}
            Ok(_) => {
                let why = if min == 0 {
                    "must be greater than or equal to 0"
                } else {
                    "must be greater than 0"
                };
                return Err(invalid(field, text, why));
            }
            Err(_) => return Err(ApiError::bad_request(format!("invalid {field}: {text:?}"))),
        }
    }
    if query.non_empty("sinceSeconds").is_some() && query.non_empty("sinceTime").is_some() {
        return Err(invalid(
            "sinceSeconds",
            "",
            "at most one of `sinceTime` or `sinceSeconds` may be specified",
        ));
    }
    let passed: Vec<(&str, &str)> =
        PASSED.iter().filter_map(|key| query.non_empty(key).map(|value| (*key, value))).collect();
    Ok(encode(&passed))
}

/// `stdin=true&command=ls` in the agent's names: `input=1&command=ls`.
fn stream_query(query: &Query) -> ApiResult<String> {
    let mut pairs = Vec::new();
    for (ours, theirs) in
        [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")]
    {
        if query.flag(ours) && query.non_empty(ours).is_some() {
            pairs.push((theirs, "1"));
        }
    }
    if !pairs.iter().any(|(name, _)| matches!(*name, "input" | "output" | "error")) {
        return Err(ApiError::bad_request(
            "you must specify at least one of stdin, stdout, stderr",
        ));
    }
    pairs.extend(query.all("command").map(|word| ("command", word)));
    Ok(encode(&pairs))
}

fn encode(pairs: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (key, value) in pairs {
        out.push(if out.is_empty() { '?' } else { '&' });
        out.push_str(key);
        out.push('=');
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    out.push(char::from(byte));
                }
                other => out.push_str(&format!("%{other:02X}")),
            }
        }
    }
    out
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProxyKind {
    Node,
    Pod,
    Service,
}

/// Plain HTTP to whatever listens behind a node, a pod or a service.
struct Proxy {
    backend: Arc<Backend>,
    kind: ProxyKind,
    turn: AtomicUsize,
}

#[async_trait::async_trait]
impl Connector for Proxy {
    async fn connect(
        &self,
        cx: Context,
        info: RequestInfo,
        request: Request,
    ) -> ApiResult<Response> {
        let kind = match self.kind {
            ProxyKind::Node => "NodeProxyOptions",
            ProxyKind::Pod => "PodProxyOptions",
            ProxyKind::Service => "ServiceProxyOptions",
        };
        admit(&cx, json!({"kind": kind, "apiVersion": "v1"})).await?;
        let target = self.target(&cx, &info.name).await?;
        let path = rest_of(request.uri());
        forward(&self.backend, &target, &path, request).await
    }
}

impl Proxy {
    async fn target(&self, cx: &Context, text: &str) -> ApiResult<Target> {
        match self.kind {
            ProxyKind::Node => {
                let name = target::proxy_name(text)?;
                let mut found = agent(cx, name.name).await?;
                if let Ok(port) = name.port.parse::<u16>()
                    && port != found.port
                {
                    found = Target { port, tls: name.tls, ..found };
                }
                Ok(found)
            }
            ProxyKind::Pod => {
                let name = target::proxy_name(text)?;
                let pod = find_pod(cx, name.name).await?;
                target::pod_target(&pod, &name)
            }
            ProxyKind::Service => self.endpoint(cx, text).await,
        }
    }

    async fn endpoint(&self, cx: &Context, text: &str) -> ApiResult<Target> {
        let wanted = target::proxy_name(text)?;
        let resource = GroupResource::new("", "services");
        let service = cx.registry.get::<Service>(&cx.namespace, wanted.name).await?;
        let service = service.ok_or_else(|| ApiError::not_found(&resource, wanted.name))?;
        let ports = service.spec.and_then(|spec| spec.ports).unwrap_or_default();
        let port = match wanted.port {
            "" => ports.first(),
            text => ports.iter().find(|port| {
                port.name.as_deref() == Some(text)
                    || port.port.to_string() == text
                    || port
                        .target_port
                        .as_ref()
                        .is_some_and(|p| matches!(p, IntOrString::String(s) if s == text))
            }),
        };
        let port_name =
            port.map(|port| port.name.clone().unwrap_or_default()).ok_or_else(|| {
                ApiError::service_unavailable(format!(
                    "no service port {:?} found for service {:?}",
                    wanted.port, wanted.name
                ))
            })?;
        let slices = cx.registry.list::<EndpointSlice>(&cx.namespace).await?;
        let slices: Vec<EndpointSlice> = slices
            .into_iter()
            .filter(|slice| {
                let labels = slice.metadata.labels.as_ref();
                labels
                    .and_then(|l| l.get("kubernetes.io/service-name"))
                    .is_some_and(|n| n == wanted.name)
            })
            .collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        target::endpoint(&slices, &port_name, wanted.tls, turn).ok_or_else(|| {
            ApiError::service_unavailable(format!(
                "no endpoints available for service {:?}",
                wanted.name
            ))
        })
    }
}

/// The path after `/proxy`, with the query.
fn rest_of(uri: &http::Uri) -> String {
    let path = uri.path();
    // The name segment cannot hold a slash, so the fourth or sixth segment is the first `proxy`.
    let rest = path.find("/proxy").map_or("", |at| &path[at + "/proxy".len()..]);
    let rest = if rest.is_empty() { "/" } else { rest };
    match uri.query() {
        Some(query) => format!("{rest}?{query}"),
        None => rest.to_owned(),
    }
}

async fn admit(cx: &Context, mut options: Value) -> ApiResult<()> {
    let nothing = Value::Null;
    let mut attributes = Attributes {
        operation: Operation::Connect,
        object: Some(&mut options),
        old_object: None,
        options: &nothing,
    };
    let chain = cx.registry.admission();
    chain.admit(cx, &mut attributes).await?;
    chain.validate(cx, &attributes).await
}

async fn find_pod(cx: &Context, name: &str) -> ApiResult<Pod> {
    let pod = match cx.registry.get::<Pod>(&cx.namespace, name).await? {
        Some(pod) if host_of(&pod).is_ok() => Some(pod),
        _ => cx.registry.get_live::<Pod>(&cx.namespace, name).await?,
    };
    pod.ok_or_else(|| ApiError::not_found(&GroupResource::new("", "pods"), name))
}

fn host_of(pod: &Pod) -> ApiResult<String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|n| !n.is_empty());
    node.ok_or_else(|| ApiError::bad_request(format!("pod {name} does not have a host assigned")))
}

async fn agent(cx: &Context, name: &str) -> ApiResult<Target> {
    let node = match cx.registry.get::<Node>("", name).await? {
        Some(node) => Some(node),
        None => cx.registry.get_live::<Node>("", name).await?,
    };
    let node = node.ok_or_else(|| ApiError::not_found(&GroupResource::new("", "nodes"), name))?;
    target::agent_of(&node)
}

/// Passes the request to `path` at the target and its answer back; upgrades become tunnels, errors
/// become a `Status`.
async fn forward(
    backend: &Backend,
    target: &Target,
    path: &str,
    mut request: Request,
) -> ApiResult<Response> {
    let upgrade = backend::wants_upgrade(request.headers());
    let client = upgrade.then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let mut outgoing = http::Request::builder().method(parts.method.clone()).uri(path);
    if let Some(headers) = outgoing.headers_mut() {
        *headers = backend::forwarded_headers(&parts.headers, target);
    }
    let bare = upgrade || matches!(parts.method, Method::GET | Method::HEAD);
    let body = if bare { crate::http::empty_body() } else { crate::http::stream_body(body) };
    let outgoing = outgoing.body(body).map_err(ApiError::internal_error)?;
    let mut response = backend.send(target, outgoing).await?;
    if let (StatusCode::SWITCHING_PROTOCOLS, Some(client)) = (response.status(), client) {
        backend::tunnel(client, hyper::upgrade::on(&mut response));
        let (head, _) = response.into_parts();
        return Ok(Response::from_parts(head, crate::http::empty_body()));
    }
    if upgrade || is_agent_error(&response) {
        return Err(error_of(response).await);
    }
    let (mut head, body) = response.into_parts();
    head.headers.remove(http::header::CONNECTION);
    head.headers.remove(http::header::TRANSFER_ENCODING);
    head.version = http::Version::default();
    Ok(Response::from_parts(head, crate::http::stream_body(body)))
}

/// Agents answer errors as text; what a proxied server answers is its own business.
fn is_agent_error(response: &http::Response<Incoming>) -> bool {
    let text = response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_none_or(|value| value.starts_with("text/plain"));
    response.status().as_u16() >= 400 && text
}

async fn error_of(response: http::Response<Incoming>) -> ApiError {
    let status = response.status();
    let body = Limited::new(response.into_body(), ERROR_BYTES_MAX).collect().await;
    let text = body.map(|body| body.to_bytes()).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let text = text.trim();
    let text = if text.is_empty() { NO_TEXT } else { text };
    match status.as_u16() {
        400 => ApiError::bad_request(text),
        401 | 403 => ApiError::new(403, Reason::Forbidden, text),
        404 => ApiError::new(404, Reason::NotFound, text),
        429 => ApiError::too_many_requests(text, 1),
        503 => ApiError::service_unavailable(text),
        500 => ApiError::internal_error(text),
        code => {
            ApiError::internal_error(format!("unexpected answer {code} of the backend: {text}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_options_are_checked_and_passed_on() {
        let query = Query::parse(
            "container=a&follow=true&tailLines=10&sinceTime=2026-01-01T00%3A00%3A00Z&pretty=true",
        );
        assert_eq!(
            log_query(&query).unwrap(),
            "?follow=true&sinceTime=2026-01-01T00%3A00%3A00Z&tailLines=10"
        );
        assert_eq!(log_query(&Query::parse("")).unwrap(), "");
        for (bad, code) in [
            ("tailLines=-1", 422),
            ("limitBytes=0", 422),
            ("tailLines=x", 400),
            ("sinceSeconds=1&sinceTime=x", 422),
        ] {
            assert_eq!(log_query(&Query::parse(bad)).unwrap_err().code, code, "{bad}");
        }
    }

    #[test]
    fn stream_options_are_renamed_and_commands_kept_in_order() {
        let query = Query::parse(
            "command=sh&command=-c&command=echo+%26&stdin=true&stdout=true&stderr=false&tty=true",
        );
        assert_eq!(
            stream_query(&query).unwrap(),
            "?input=1&output=1&tty=1&command=sh&command=-c&command=echo%20%26"
        );
        assert_eq!(stream_query(&Query::parse("command=sh")).unwrap_err().code, 400);
    }

    #[test]
    fn the_path_behind_a_proxy_keeps_its_query() {
        let rest = |uri: &str| rest_of(&uri.parse().unwrap());
        assert_eq!(rest("/api/v1/nodes/n/proxy/stats/summary?only=cpu"), "/stats/summary?only=cpu");
        assert_eq!(rest("/api/v1/namespaces/a/pods/http:p:80/proxy"), "/");
        assert_eq!(rest("/api/v1/namespaces/a/services/s/proxy/proxy/x"), "/proxy/x");
    }
}
