//! Clients of a cluster: kubeconfig files, kube-rs clients, and the store's gRPC.

use std::path::Path;

use anyhow::Context;
use kube::config::{
    AuthInfo, Cluster, Context as KubeContext, KubeConfigOptions, Kubeconfig, NamedAuthInfo,
    NamedCluster, NamedContext,
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::pki::Pair;

/// A kubeconfig whose certificates stay in their own files.
pub(crate) fn kubeconfig(server: &str, ca: &Path, user: &str, pair: &Pair) -> Kubeconfig {
    let path = |path: &Path| Some(path.display().to_string());
    Kubeconfig {
        clusters: vec![NamedCluster {
            name: "pintle".to_owned(),
            cluster: Some(Cluster {
                server: Some(server.to_owned()),
                certificate_authority: path(ca),
                ..Cluster::default()
            }),
            ..NamedCluster::default()
        }],
        auth_infos: vec![NamedAuthInfo {
            name: user.to_owned(),
            auth_info: Some(AuthInfo {
                client_certificate: path(&pair.cert),
                client_key: path(&pair.key),
                ..AuthInfo::default()
            }),
            ..NamedAuthInfo::default()
        }],
        contexts: vec![NamedContext {
            name: "pintle".to_owned(),
            context: Some(KubeContext {
                cluster: "pintle".to_owned(),
                user: Some(user.to_owned()),
                ..KubeContext::default()
            }),
            ..NamedContext::default()
        }],
        current_context: Some("pintle".to_owned()),
        api_version: Some("v1".to_owned()),
        kind: Some("Config".to_owned()),
        ..Kubeconfig::default()
    }
}

/// A client for `server` that shows the certificate of `pair`.
pub(crate) async fn kube_client(
    server: &str,
    ca: &Path,
    pair: &Pair,
) -> anyhow::Result<kube::Client> {
    client_of(kubeconfig(server, ca, "client", pair)).await
}

/// A client as a kubeconfig file says.
pub(crate) async fn kube_client_of_file(path: &Path) -> anyhow::Result<kube::Client> {
    let config = Kubeconfig::read_from(path).with_context(|| path.display().to_string())?;
    client_of(config).await
}

async fn client_of(kubeconfig: Kubeconfig) -> anyhow::Result<kube::Client> {
    let options = KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    config.connect_timeout = Some(std::time::Duration::from_secs(2));
    Ok(kube::Client::try_from(config)?)
}

/// A channel to a member's client port.
pub(crate) async fn store_channel(
    url: &str,
    ca: &Path,
    cert: &Path,
    key: &Path,
) -> anyhow::Result<Channel> {
    let read =
        |path: &Path| std::fs::read(path).with_context(|| format!("reading {}", path.display()));
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read(ca)?))
        .identity(Identity::from_pem(read(cert)?, read(key)?))
        .domain_name("localhost");
    let endpoint = Endpoint::from_shared(url.to_owned())?
        .tls_config(tls)?
        .connect_timeout(std::time::Duration::from_secs(1))
        .timeout(std::time::Duration::from_secs(3));
    Ok(endpoint.connect().await?)
}
