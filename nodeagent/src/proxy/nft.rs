//! The kernel's side: `nft -f -` for rules, sysctls for what rules alone cannot allow.

use std::io;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Applies a script as one transaction: all of it or nothing.
pub(super) async fn apply(script: &str) -> io::Result<()> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = child.stdin.take().expect("stdin was asked for");
    stdin.write_all(script.as_bytes()).await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// Lets traffic from the pods' bridge be sent on to 127.0.0.1, where cluster DNS and, on a
/// one-machine cluster, the apiservers listen. The ruleset drops what was not sent on by it.
pub(super) async fn allow_loopback_from(bridge: &str) {
    let wanted = [
        (format!("/proc/sys/net/ipv4/conf/{bridge}/route_localnet"), true),
        ("/proc/sys/net/ipv4/ip_forward".to_owned(), false),
        ("/proc/sys/net/bridge/bridge-nf-call-iptables".to_owned(), false),
    ];
    for (path, of_bridge) in wanted {
        // The bridge comes with the first pod.
        if of_bridge && !std::path::Path::new(&path).exists() {
            create_bridge(bridge).await;
        }
        if let Err(error) = tokio::fs::write(&path, "1").await {
            tracing::warn!(%error, path, "services may not be reachable from pods");
        }
    }
}

async fn create_bridge(name: &str) {
    for arguments in
        [["link", "add", name, "type", "bridge"].as_slice(), &["link", "set", name, "up"]]
    {
        match Command::new("ip").args(arguments).stderr(Stdio::null()).status().await {
            Ok(status) if status.success() => {}
            Ok(status) => tracing::warn!(%status, ?arguments, "ip"),
            Err(error) => tracing::warn!(%error, "ip"),
        }
    }
}
