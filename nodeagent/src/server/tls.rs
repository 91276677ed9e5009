//! TLS for the kubelet API. A client certificate is required, signed by the cluster, and only the
//! apiserver's and those of administrators are let in.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::TlsFiles;

/// The apiserver's own name.
const APISERVER: &str = "kube-apiserver-kubelet-client";
/// The group that may do everything.
const MASTERS: &str = "system:masters";
/// Followed logs and open terminals stay connected; file descriptors are finite.
const CONNECTIONS_MAX: usize = 2048;
/// A client that does not finish its handshake is dropped.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file.
    #[error("reading {path}: {source}", path = path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: rustls::pki_types::pem::Error,
    },
    /// The certificate does not fit its key.
    #[error("serving certificate: {0}")]
    Certificate(#[from] rustls::Error),
    /// The client CA.
    #[error("client CA: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

pub(super) fn acceptor(files: &TlsFiles, client_ca: &Path) -> Result<TlsAcceptor, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in certificates(client_ca)? {
        roots.add(certificate)?;
    }
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|source| Error::Pem { path: files.key.clone(), source })?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&files.cert)?, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let pem = |source| Error::Pem { path: path.to_path_buf(), source };
    CertificateDer::pem_file_iter(path).map_err(pem)?.collect::<Result<_, _>>().map_err(pem)
}

/// Whether the owner of a certificate may use the API.
fn is_allowed(certificate: &CertificateDer<'_>) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return false };
    let subject = certificate.subject();
    let named = subject.iter_common_name().any(|name| name.as_str() == Ok(APISERVER));
    named || subject.iter_organization().any(|group| group.as_str() == Ok(MASTERS))
}

/// Accepts until shutdown.
pub(super) async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    router: Router,
    shutdown: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let stream = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let (acceptor, router, shutdown) = (acceptor.clone(), router.clone(), shutdown.clone());
        tokio::spawn(async move {
            let connection = connection(stream, acceptor, router);
            if let Some(Err(error)) = shutdown.run_until_cancelled(connection).await {
                tracing::debug!(%error, "kubelet connection");
            }
            drop(slot);
        });
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, router: Router) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await??;
    let peer = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let allowed = peer.is_some_and(is_allowed);
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let router = router.clone();
        async move {
            if allowed {
                router.oneshot(request.map(axum::body::Body::new)).await
            } else {
                Ok((StatusCode::FORBIDDEN, "Forbidden").into_response())
            }
        }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await
        .map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    fn certificate(name: &str, group: Option<&str>) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn only_the_apiserver_and_administrators_are_let_in() {
        assert!(is_allowed(&certificate("kube-apiserver-kubelet-client", None)));
        assert!(is_allowed(&certificate("somebody", Some("system:masters"))));
        assert!(!is_allowed(&certificate("system:node:a", Some("system:nodes"))));
        assert!(!is_allowed(&CertificateDer::from(vec![1, 2, 3])));
    }
}
