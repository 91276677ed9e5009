//! A small HTTP client for probes: one request, any certificate, success from 200 to 399.

use std::sync::{Arc, LazyLock};

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::header::{CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::HTTPHeader;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The answer's body is only shown in an event.
const BODY_CHARS_MAX: usize = 512;

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Whether it is HTTPS.
    pub tls: bool,
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path and query.
    pub path: String,
}

/// Asks, and reads the answer.
pub(super) async fn get(url: &Url, headers: &[HTTPHeader]) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| {
        let scheme = if url.tls { "https" } else { "http" };
        format!("Get \"{scheme}://{}:{}{}\": {error}", url.host, url.port, url.path)
    };
    let stream = TcpStream::connect((url.host.as_str(), url.port)).await.map_err(|e| failed(&e))?;
    let request = request(url, headers).map_err(|e| failed(&e))?;
    let response = if url.tls {
        let name = ServerName::try_from(url.host.clone()).map_err(|e| failed(&e))?;
        let connector = TlsConnector::from(TRUSTING.clone());
        let stream = connector.connect(name, stream).await.map_err(|e| failed(&e))?;
        send(stream, request).await
    } else {
        send(stream, request).await
    };
    let response = response.map_err(|e| failed(&e))?;
    let code = response.status().as_u16();
    if (200..400).contains(&code) {
        return Ok(());
    }
    let body = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let body: String = String::from_utf8_lossy(&body).chars().take(BODY_CHARS_MAX).collect();
    tracing::debug!(code, body, "probe answered");
    Err(format!("HTTP probe failed with statuscode: {code}"))
}

fn request(url: &Url, headers: &[HTTPHeader]) -> Result<Request<Empty<Bytes>>, String> {
    let mut request =
        Request::get(url.path.as_str()).body(Empty::new()).map_err(|e| e.to_string())?;
    let map = request.headers_mut();
    let host = format!("{}:{}", url.host, url.port);
    map.insert(HOST, HeaderValue::from_str(&host).map_err(|e| e.to_string())?);
    map.insert(USER_AGENT, HeaderValue::from_static("kube-probe/1.37"));
    map.insert(CONNECTION, HeaderValue::from_static("close"));
    for header in headers {
        let name: HeaderName =
            header.name.parse().map_err(|_| format!("invalid header {:?}", header.name))?;
        let value = HeaderValue::from_str(&header.value).map_err(|e| e.to_string())?;
        map.insert(name, value);
    }
    Ok(request)
}

async fn send<S>(stream: S, request: Request<Empty<Bytes>>) -> hyper::Result<Response<Incoming>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::trace!(%error, "probe connection");
        }
    });
    sender.send_request(request).await
}

/// Probes go to an address, not to a name: there is nothing to verify a certificate against.
static TRUSTING: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("ring supports the default versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustAll(provider)))
        .with_no_client_auth();
    Arc::new(config)
});

#[derive(Debug)]
struct TrustAll(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAll {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
