//! rustls on ring, for both sides of the client and peer ports. Certificates, keys, authorities and
//! revocation lists are read again when their files change: new connections get the new ones,
//! those that stand are left alone.

mod auto;
mod names;
mod policy;
mod reload;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

pub use auto::self_signed;
pub use names::Names as TlsNames;
pub use policy::{TlsPolicy, TlsVersion};

use self::names::{AllowedClients, AllowedServers, TrustAny};
use self::reload::Reloading;
use crate::config::TlsFiles;

fn invalid(path: &Path, error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()))
}

fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).map_err(|error| invalid(path, error))?;
    read.map(|one| one.map_err(|error| invalid(path, error))).collect()
}

type CertifiedPair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn pair(cert: &Path, key: &Path) -> io::Result<CertifiedPair> {
    let chain = certificates(cert)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| invalid(key, error))?;
    Ok((chain, key))
}

fn roots(ca: &Path) -> io::Result<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(|error| invalid(ca, error))?;
    }
    Ok(Arc::new(roots))
}

/// A list as PEM or as DER.
fn revocations(path: &Path) -> io::Result<Vec<CertificateRevocationListDer<'static>>> {
    let bytes = std::fs::read(path).map_err(|error| invalid(path, error))?;
    let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| invalid(path, error))?;
    if lists.is_empty() {
        return Ok(vec![CertificateRevocationListDer::from(bytes)]);
    }
    Ok(lists)
}

/// The server's side of a port: HTTP/2 and HTTP/1.1; clients must show a certificate when
/// authorities are given.
#[derive(Debug)]
pub(crate) struct Server(Reloading<ServerConfig>);

impl Server {
    pub(crate) fn new(files: &TlsFiles, policy: &TlsPolicy) -> io::Result<Self> {
        let mut watched = vec![files.cert.clone(), files.key.clone()];
        watched.extend(files.ca.clone());
        watched.extend(policy.crl.clone());
        let (files, policy) = (files.clone(), policy.clone());
        Ok(Self(Reloading::new(watched, move || server_config(&files, &policy))?))
    }

    /// For one connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.0.get())
    }
}

fn server_config(files: &TlsFiles, policy: &TlsPolicy) -> io::Result<ServerConfig> {
    let (chain, key) = pair(&files.cert, &files.key)?;
    let provider = Arc::new(policy.provider()?);
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&policy.versions()?)
        .map_err(io::Error::other)?;
    let builder = match &files.ca {
        None => builder.with_no_client_auth(),
        Some(ca) => builder.with_client_cert_verifier(client_verifier(ca, policy, provider)?),
    };
    let mut config =
        builder.with_single_cert(chain, key).map_err(|error| invalid(&files.cert, error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn client_verifier(
    ca: &Path,
    policy: &TlsPolicy,
    provider: Arc<CryptoProvider>,
) -> io::Result<Arc<dyn ClientCertVerifier>> {
    let mut builder = WebPkiClientVerifier::builder_with_provider(roots(ca)?, provider);
    if let Some(crl) = &policy.crl {
        // As in etcd, who is not on the list is welcome.
        builder = builder
            .with_crls(revocations(crl)?)
            .only_check_end_entity_revocation()
            .allow_unknown_revocation_status();
    }
    let verifier = builder.build().map_err(|error| invalid(ca, error))?;
    Ok(AllowedClients::wrap(verifier, policy.names.clone()))
}

/// The client's side, towards other members.
#[derive(Debug)]
pub(crate) struct Client(Reloading<ClientConfig>);

impl Client {
    pub(crate) fn new(files: &TlsFiles, policy: &TlsPolicy) -> io::Result<Self> {
        let (cert, key) = own_pair(files, policy);
        let mut watched = vec![cert, key];
        watched.extend(files.ca.clone());
        let (files, policy) = (files.clone(), policy.clone());
        Ok(Self(Reloading::new(watched, move || client_config(&files, &policy))?))
    }

    /// For one connection.
    pub(crate) fn connector(&self) -> TlsConnector {
        TlsConnector::from(self.0.get())
    }
}

/// What is shown to servers: the certificate for clients where there is one.
fn own_pair(files: &TlsFiles, policy: &TlsPolicy) -> (PathBuf, PathBuf) {
    policy.client_pair.clone().unwrap_or_else(|| (files.cert.clone(), files.key.clone()))
}

fn client_config(files: &TlsFiles, policy: &TlsPolicy) -> io::Result<ClientConfig> {
    let provider = Arc::new(policy.provider()?);
    let verifier = server_verifier(files, policy, &provider)?;
    let (cert, key) = own_pair(files, policy);
    let (chain, key) = pair(&cert, &key)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&policy.versions()?)
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config =
        builder.with_client_auth_cert(chain, key).map_err(|error| invalid(&cert, error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn server_verifier(
    files: &TlsFiles,
    policy: &TlsPolicy,
    provider: &Arc<CryptoProvider>,
) -> io::Result<Arc<dyn ServerCertVerifier>> {
    if policy.trust_any_server {
        return Ok(Arc::new(TrustAny::new(Arc::clone(provider))));
    }
    let Some(ca) = &files.ca else {
        let text = "who signed the other members' certificates must be given";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    };
    let builder = WebPkiServerVerifier::builder_with_provider(roots(ca)?, Arc::clone(provider));
    let verifier = builder.build().map_err(|error| invalid(ca, error))?;
    Ok(AllowedServers::wrap(verifier, policy.names.clone()))
}

/// How to call a server with these files.
pub(crate) fn client(files: &TlsFiles) -> io::Result<ClientTlsConfig> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| invalid(path, error));
    let mut config =
        ClientTlsConfig::new().identity(Identity::from_pem(read(&files.cert)?, read(&files.key)?));
    if let Some(ca) = &files.ca {
        config = config.ca_certificate(Certificate::from_pem(read(ca)?));
    }
    Ok(config)
}
