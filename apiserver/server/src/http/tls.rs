//! The TLS side of the listener: our certificate, and client certificates asked for but not required.

use std::path::Path;
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::{Config, ServeError};

/// Reads the files of `config`. Certificates that the client CA did not sign end the handshake.
pub(crate) fn acceptor(config: &Config) -> Result<TlsAcceptor, ServeError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&config.client_ca)? {
        roots.add(certificate).map_err(|error| unusable(&config.client_ca, error))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| unusable(&config.client_ca, error))?;
    let key = PrivateKeyDer::from_pem_file(&config.tls.key)
        .map_err(|error| unusable(&config.tls.key, error))?;
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&config.tls.cert, error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&config.tls.cert)?, key)
        .map_err(|error| unusable(&config.tls.cert, error))?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}

pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ServeError> {
    let all = CertificateDer::pem_file_iter(path).map_err(|error| unusable(path, error))?;
    all.collect::<Result<_, _>>().map_err(|error| unusable(path, error))
}

pub(crate) fn unusable(path: &Path, error: impl std::fmt::Display) -> ServeError {
    ServeError::File { path: path.to_owned(), why: error.to_string() }
}
