//! Lifecycle hooks: `postStart` after a container was started, `preStop` before it is stopped.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};
use tokio::net::TcpStream;

use crate::probe::check;
use crate::runtime::Runtime;

/// Runs a hook within `limit`; the error says what went wrong.
pub async fn run(
    runtime: &dyn Runtime,
    container: &Container,
    container_id: &str,
    hook: &LifecycleHandler,
    ip: Option<IpAddr>,
    limit: Duration,
) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let output =
            runtime.exec_sync(container_id, &command, limit).await.map_err(|e| e.to_string())?;
        if output.exit_code == 0 {
            return Ok(());
        }
        let text = [output.stdout, output.stderr].concat();
        return Err(format!(
            "command '{}' exited with {}: {}",
            command.join(" "),
            output.exit_code,
            String::from_utf8_lossy(&text).trim_end()
        ));
    }
    if let Some(get) = &hook.http_get {
        return check::http_get(get, container, ip, limit).await;
    }
    if let Some(sleep) = &hook.sleep {
        let seconds = Duration::from_secs(sleep.seconds.max(0).unsigned_abs());
        tokio::time::sleep(seconds.min(limit)).await;
        return Ok(());
    }
    if let Some(socket) = &hook.tcp_socket {
        let port = check::port_of(&socket.port, container)?;
        let host = match (&socket.host, ip) {
            (Some(host), _) if !host.is_empty() => host.clone(),
            (_, Some(ip)) => ip.to_string(),
            _ => return Err("the pod has no address yet".to_owned()),
        };
        return TcpStream::connect((host, port)).await.map(drop).map_err(|e| e.to_string());
    }
    Err("the hook has no action".to_owned())
}
