//! One HTTP/1.1 connection per request to a node agent, a pod or an endpoint, and the byte tunnel
//! that follows an upgrade.

use std::sync::Arc;
use std::time::Duration;

use http::header::{
    AUTHORIZATION, CONNECTION, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::target::Target;
use crate::authn::WEBSOCKET_PROTOCOL_PREFIX;
use crate::error::{ApiError, ApiResult};
use crate::http::{Body, certificates, unusable};
use crate::{Config, ServeError};

/// A node that does not take the connection by then is unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connects to backends with the identity that node agents expect.
pub(crate) struct Backend {
    agent_tls: TlsConnector,
}

impl Backend {
    /// With the kubelet client identity of `config`, trusting the cluster's CA.
    pub(crate) fn new(config: &Config) -> Result<Self, ServeError> {
        let client = &config.kubelet_client;
        let ca = client.ca.as_ref().unwrap_or(&config.cluster_ca);
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca)? {
            roots.add(certificate).map_err(|error| unusable(ca, error))?;
        }
        let key = PrivateKeyDer::from_pem_file(&client.key)
            .map_err(|error| unusable(&client.key, error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&client.cert, error))?
            .with_root_certificates(roots)
            .with_client_auth_cert(certificates(&client.cert)?, key)
            .map_err(|error| unusable(&client.cert, error))?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { agent_tls: TlsConnector::from(Arc::new(tls)) })
    }

    /// Sends the request and answers with the response's head and stream.
    pub(super) async fn send(
        &self,
        target: &Target,
        request: http::Request<Body>,
    ) -> ApiResult<http::Response<Incoming>> {
        let unreachable = |error: &dyn std::fmt::Display| {
            ApiError::internal_error(format!(
                "error dialing backend: dial tcp {}:{}: {error}",
                target.host, target.port
            ))
        };
        let connect = TcpStream::connect((target.host.as_str(), target.port));
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, connect)
            .await
            .map_err(|_| unreachable(&"i/o timeout"))?
            .map_err(|error| unreachable(&error))?;
        stream.set_nodelay(true).map_err(|error| unreachable(&error))?;
        if !target.tls {
            return exchange(stream, request).await.map_err(|error| unreachable(&error));
        }
        let name =
            ServerName::try_from(target.host.clone()).map_err(|error| unreachable(&error))?;
        let stream =
            self.agent_tls.connect(name, stream).await.map_err(|error| unreachable(&error))?;
        exchange(stream, request).await.map_err(|error| unreachable(&error))
    }
}

async fn exchange<S>(
    stream: S,
    request: http::Request<Body>,
) -> hyper::Result<http::Response<Incoming>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // The connection lives as long as the response is read, and ends with it.
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "backend connection ended");
        }
    });
    sender.send_request(request).await
}

/// Copies bytes both ways between two upgraded connections until one of them ends.
pub(super) fn tunnel(client: OnUpgrade, backend: OnUpgrade) {
    tokio::spawn(async move {
        let (client, backend) = match tokio::try_join!(client, backend) {
            Ok(both) => both,
            Err(error) => {
                tracing::debug!(%error, "upgrade failed");
                return;
            }
        };
        let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
        if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut backend).await {
            tracing::debug!(%error, "tunnel ended");
        }
    });
}

/// Whether the client wants to leave HTTP.
pub(super) fn wants_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
        && headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.to_ascii_lowercase().contains("upgrade"))
}

/// The client's headers as a backend may see them: without credentials and hop-by-hop headers; with
/// those of an upgrade when there is one.
pub(super) fn forwarded_headers(headers: &HeaderMap, host: &Target) -> HeaderMap {
    let upgrade = wants_upgrade(headers).then(|| headers.get(UPGRADE).cloned()).flatten();
    let mut forwarded = headers.clone();
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let fixed = [
        AUTHORIZATION,
        PROXY_AUTHORIZATION,
        COOKIE,
        CONNECTION,
        UPGRADE,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        HOST,
    ];
    for name in fixed.into_iter().chain(named).chain([HeaderName::from_static("keep-alive")]) {
        forwarded.remove(name);
    }
    let impersonation: Vec<HeaderName> = forwarded
        .keys()
        .filter(|name| name.as_str().starts_with("impersonate-"))
        .cloned()
        .collect();
    for name in impersonation {
        forwarded.remove(name);
    }
    drop_bearer_protocol(&mut forwarded);
    if let Some(upgrade) = upgrade {
        forwarded.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        forwarded.insert(UPGRADE, upgrade);
    }
    if let Ok(host) = HeaderValue::from_str(&format!("{}:{}", host.host, host.port)) {
        forwarded.insert(HOST, host);
    }
    forwarded
}

/// A token that travelled as a WebSocket protocol ends here.
fn drop_bearer_protocol(headers: &mut HeaderMap) {
    let kept: Vec<String> = headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|protocol| protocol.trim().to_owned())
        .filter(|protocol| !protocol.starts_with(WEBSOCKET_PROTOCOL_PREFIX))
        .collect();
    headers.remove(SEC_WEBSOCKET_PROTOCOL);
    if let (false, Ok(value)) = (kept.is_empty(), HeaderValue::from_str(&kept.join(", "))) {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_static(v)))
            .collect()
    }

    fn target() -> Target {
        Target { host: "127.0.0.1".into(), port: 10250, tls: true }
    }

    #[test]
    fn credentials_and_hop_by_hop_headers_stay_here() {
        let got = forwarded_headers(
            &headers(&[
                ("authorization", "Bearer secret"),
                ("cookie", "a=b"),
                ("impersonate-user", "eve"),
                ("connection", "keep-alive, x-private"),
                ("x-private", "1"),
                ("accept", "text/plain"),
                ("host", "api"),
            ]),
            &target(),
        );
        assert_eq!(got, headers(&[("accept", "text/plain"), ("host", "127.0.0.1:10250")]));
    }

    #[test]
    fn an_upgrade_is_passed_on_without_the_token() {
        let got = forwarded_headers(
            &headers(&[
                ("connection", "Upgrade"),
                ("upgrade", "websocket"),
                ("sec-websocket-key", "k"),
                (
                    "sec-websocket-protocol",
                    "base64url.bearer.authorization.k8s.io.YWJj, v5.channel.k8s.io",
                ),
            ]),
            &target(),
        );
        assert!(wants_upgrade(&got));
        assert_eq!(got["upgrade"], "websocket");
        assert_eq!(got["sec-websocket-key"], "k");
        assert_eq!(got["sec-websocket-protocol"], "v5.channel.k8s.io");
    }
}
