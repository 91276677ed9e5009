//! One probe, once. Also what lifecycle hooks are made of.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ExecAction, HTTPGetAction, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{grpc, http};
use crate::pod::PodExt;
use crate::runtime::{self, Runtime};

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All is well.
    Success,
    /// It is not, and why.
    Failure(String),
}

impl Outcome {
    fn from_result(result: Result<(), String>) -> Self {
        match result {
            Ok(()) => Self::Success,
            Err(message) => Self::Failure(message),
        }
    }
}

/// Where a container's probes go.
#[derive(Debug, Clone)]
pub struct Target {
    /// The container.
    pub container_id: String,
    /// The pod's address, or the node's.
    pub ip: Option<IpAddr>,
}

/// Runs a probe within its time.
pub async fn run(
    runtime: &dyn Runtime,
    container: &Container,
    probe: &Probe,
    target: &Target,
) -> Outcome {
    let limit =
        Duration::from_secs(probe.timeout_seconds.unwrap_or(1).max(1).unsigned_abs().into());
    let ip = || target.ip.ok_or_else(|| "the pod has no address yet".to_owned());
    let result = if let Some(exec) = &probe.exec {
        exec_probe(runtime, &target.container_id, exec, limit).await
    } else if let Some(get) = &probe.http_get {
        match (ip(), url_of(get, container, target.ip)) {
            (Ok(_), Ok(url)) => {
                within(limit, http::get(&url, get.http_headers.as_deref().unwrap_or_default()))
                    .await
            }
            (Err(message), _) | (_, Err(message)) => Err(message),
        }
    } else if let Some(socket) = &probe.tcp_socket {
        let host = socket.host.clone().filter(|host| !host.is_empty());
        match (ip(), port_of(&socket.port, container)) {
            (Ok(ip), Ok(port)) => tcp(&host.unwrap_or_else(|| ip.to_string()), port, limit).await,
            (Err(message), _) | (_, Err(message)) => Err(message),
        }
    } else if let Some(check) = &probe.grpc {
        match ip() {
            Ok(ip) => {
                let service = check.service.clone().unwrap_or_default();
                within(limit, grpc::check(ip, check.port, service)).await
            }
            Err(message) => Err(message),
        }
    } else {
        Err("missing probe handler".to_owned())
    };
    Outcome::from_result(result)
}

async fn within(
    limit: Duration,
    check: impl Future<Output = Result<(), String>>,
) -> Result<(), String> {
    match timeout(limit, check).await {
        Ok(result) => result,
        Err(_) => Err("context deadline exceeded (timeout while waiting for an answer)".to_owned()),
    }
}

async fn exec_probe(
    runtime: &dyn Runtime,
    id: &str,
    exec: &ExecAction,
    limit: Duration,
) -> Result<(), String> {
    let command = exec.command.clone().unwrap_or_default();
    match runtime.exec_sync(id, &command, limit).await {
        Ok(output) if output.exit_code == 0 => Ok(()),
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            Err(String::from_utf8_lossy(&text).trim_end().chars().take(1024).collect())
        }
        Err(runtime::Error::DeadlineExceeded(message)) => {
            Err(format!("command timed out: {message}"))
        }
        Err(error) => Err(error.to_string()),
    }
}

async fn tcp(host: &str, port: u16, limit: Duration) -> Result<(), String> {
    let connect = async {
        TcpStream::connect((host, port))
            .await
            .map(drop)
            .map_err(|error| format!("dial tcp {host}:{port}: {error}"))
    };
    within(limit, connect).await
}

/// A port by number or by the name that the container gives it.
pub fn port_of(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            match container.ports.iter().flatten().find(|p| p.name.as_ref() == Some(name)) {
                Some(port) => port.container_port,
                None => name.parse().map_err(|_| format!("couldn't find port: {name:?}"))?,
            }
        }
    };
    u16::try_from(number).map_err(|_| format!("invalid port number: {number}"))
}

/// The URL of an HTTP action.
pub fn url_of(
    get: &HTTPGetAction,
    container: &Container,
    ip: Option<IpAddr>,
) -> Result<http::Url, String> {
    let port = port_of(&get.port, container)?;
    let host = match (&get.host, ip) {
        (Some(host), _) if !host.is_empty() => host.clone(),
        (_, Some(ip)) => ip.to_string(),
        (_, None) => return Err("the pod has no address yet".to_owned()),
    };
    let path = get.path.as_deref().unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let tls = get.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
    Ok(http::Url { tls, host, port, path })
}

/// Sends an HTTP action, for hooks.
pub async fn http_get(
    get: &HTTPGetAction,
    container: &Container,
    ip: Option<IpAddr>,
    limit: Duration,
) -> Result<(), String> {
    let url = url_of(get, container, ip)?;
    within(limit, http::get(&url, get.http_headers.as_deref().unwrap_or_default())).await
}

/// The address that a pod's probes use.
pub fn address_of(pod: &Pod, pod_ips: &[String], node_ip: IpAddr) -> Option<IpAddr> {
    if pod.host_network() { Some(node_ip) } else { pod_ips.first()?.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn container() -> Container {
        serde_json::from_value(
            json!({ "name": "a", "ports": [{ "name": "web", "containerPort": 8080 }] }),
        )
        .unwrap()
    }

    #[test]
    fn ports_go_by_number_or_name() {
        let port = |p: IntOrString| port_of(&p, &container());
        assert_eq!(port(IntOrString::Int(80)), Ok(80));
        assert_eq!(port(IntOrString::String("web".to_owned())), Ok(8080));
        assert!(port(IntOrString::String("dns".to_owned())).is_err());
        assert!(port(IntOrString::Int(70_000)).is_err());
    }

    #[test]
    fn urls_default_to_the_pod() {
        let get: HTTPGetAction =
            serde_json::from_value(json!({ "path": "healthz", "port": "web", "scheme": "HTTPS" }))
                .unwrap();
        let url = url_of(&get, &container(), Some("10.0.0.1".parse().unwrap())).unwrap();
        assert_eq!(
            (url.tls, url.host.as_str(), url.port, url.path.as_str()),
            (true, "10.0.0.1", 8080, "/healthz")
        );
    }
}
