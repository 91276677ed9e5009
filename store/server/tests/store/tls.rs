//! Certificates: replaced while members run, refused where they should be, made by the member.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pintle_proto::etcdserverpb::kv_client::KvClient;
use pintle_store::{Config, Pprof, TlsFiles, TlsNames, TlsVersion, self_signed};
use pintle_store_api::Store;
use pintle_testing::free_port;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::support::{Cluster, eventually, get, http_get, put, range_request};

/// An authority and the folder where its certificates go.
struct Pki {
    dir: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "authority");
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("signed");
        let dir = tempfile::tempdir().expect("temporary folder");
        std::fs::write(dir.path().join("ca.crt"), issuer.pem()).expect("written");
        Self { dir, issuer }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A certificate for loopback; both files are replaced if they are there.
    fn sign(&self, name: &str, common_name: &str, serial: u64) -> TlsFiles {
        let hosts = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let mut params = CertificateParams::new(hosts).expect("names");
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("signed");
        let files = TlsFiles {
            cert: self.path(&format!("{name}.crt")),
            key: self.path(&format!("{name}.key")),
            ca: Some(self.path("ca.crt")),
        };
        replace(&files.key, &key.serialize_pem());
        replace(&files.cert, &cert.pem());
        files
    }

    fn revoke(&self, serial: u64) -> PathBuf {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: rcgen::date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2020, 1, 1),
            next_update: rcgen::date_time_ymd(2100, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).expect("signed");
        let path = self.path("revoked.crl");
        replace(&path, &list.pem().expect("PEM"));
        path
    }
}

fn replace(path: &Path, text: &str) {
    let draft = path.with_extension("draft");
    std::fs::write(&draft, text).expect("written");
    std::fs::rename(&draft, path).expect("replaced");
}

fn secure(config: &mut Config) {
    let https = |url: &mut String| *url = url.replace("http:", "https:");
    config.listen_client_urls.iter_mut().for_each(https);
    config.advertise_client_urls.iter_mut().for_each(https);
    config.listen_peer_urls.iter_mut().for_each(https);
    config.initial_advertise_peer_urls.iter_mut().for_each(https);
    config.initial_cluster.iter_mut().for_each(|(_, url)| https(url));
}

fn roots(files: &TlsFiles) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let ca = files.ca.as_ref().expect("given");
    for cert in CertificateDer::pem_file_iter(ca).expect("readable") {
        roots.add(cert.expect("PEM")).expect("an authority");
    }
    roots
}

pub(crate) fn connector(files: &TlsFiles) -> TlsConnector {
    let chain = CertificateDer::pem_file_iter(&files.cert).expect("readable");
    let chain = chain.map(|cert| cert.expect("PEM")).collect();
    let key = PrivateKeyDer::from_pem_file(&files.key).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots(files))
        .with_client_auth_cert(chain, key)
        .expect("a pair");
    TlsConnector::from(Arc::new(config))
}

async fn handshake(url: &str, files: &TlsFiles) -> std::io::Result<TlsStream<TcpStream>> {
    let address = url.trim_start_matches("https://").to_owned();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    let mut stream = connector(files).connect(name, stream).await?;
    // In TLS 1.3 a refusal of the client's certificate arrives after the handshake.
    ask(&mut stream).await?;
    Ok(stream)
}

async fn ask(stream: &mut TlsStream<TcpStream>) -> std::io::Result<()> {
    stream.write_all(b"GET /version HTTP/1.1\r\nHost: test\r\n\r\n").await?;
    let mut seen = Vec::new();
    while !seen.ends_with(b"}") {
        let mut piece = [0; 512];
        let read = stream.read(&mut piece).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        seen.extend_from_slice(&piece[..read]);
    }
    Ok(())
}

fn shown(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().expect("shown")[0].to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaced_certificates_are_shown_to_new_connections_and_no_old_one_is_dropped() {
    let pki = Pki::new();
    let (server, client) = (pki.sign("server", "server", 1), pki.sign("client", "client", 2));
    let cluster = Cluster::found(3, |config| {
        secure(config);
        config.client_tls = Some(server.clone());
        config.peer_tls = Some(server.clone());
    })
    .await;
    let url = cluster.client_url(0);
    let mut old = handshake(&url, &client).await.expect("connects");
    let before = shown(&old);
    pki.sign("server", "server", 3);
    let new = handshake(&url, &client).await.expect("connects");
    assert_ne!(shown(&new), before, "the new certificate");
    ask(&mut old).await.expect("the old connection goes on");
    // A certificate without its key is not used: the last good pair is.
    let after = shown(&new);
    replace(&server.key, "nonsense");
    let again = handshake(&url, &client).await.expect("connects");
    assert_eq!(shown(&again), after);
    // The members, too, go on with each other.
    put(&*cluster.handle(1), "a", "1").await.expect("written");
}

/// How many streams of log entries a member has opened, over what.
async fn append_streams(cluster: &Cluster, i: usize, over: &str) -> u64 {
    let address = cluster.configs[i].metrics_listen.expect("given");
    let text = http_get(address, "/metrics").await;
    let series = text.lines().filter(|line| {
        line.starts_with("pintle_raft_append_streams_total{")
            && line.contains(&format!("\"{over}\""))
    });
    let values = series.filter_map(|line| line.rsplit_once(' '));
    values.map(|(_, value)| value.parse::<u64>().expect("a number")).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_entries_cross_in_frames_of_their_own_with_and_without_tls() {
    let pki = Pki::new();
    let files = pki.sign("member", "member", 1);
    for tls in [false, true] {
        let cluster = Cluster::found(3, |config| {
            config.metrics_listen = Some(([127, 0, 0, 1], free_port()).into());
            if tls {
                secure(config);
                config.client_tls = Some(files.clone());
                config.peer_tls = Some(files.clone());
            }
        })
        .await;
        put(&*cluster.handle(0), "a", "1").await.expect("written");
        let leader = cluster.leader().await;
        eventually("both followers are written to", || async {
            (append_streams(&cluster, leader, "frames").await >= 2).then_some(())
        })
        .await;
        assert_eq!(append_streams(&cluster, leader, "grpc").await, 0, "with TLS: {tls}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_for_log_entries_without_the_protocol_is_told_of_it() {
    let cluster = Cluster::found(1, |_| {}).await;
    let peer = cluster.configs[0].listen_peer_urls[0].trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(peer).await.expect("connects");
    let request = b"GET /raft/append HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    assert!(answer.starts_with("HTTP/1.1 426 Upgrade Required\r\n"), "{answer}");
    assert!(answer.contains("upgrade: pintle-append-1\r\n"), "{answer}");
}

fn channel(url: &str, files: &TlsFiles) -> Channel {
    let read = |path: &Path| std::fs::read(path).expect("readable");
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read(files.ca.as_ref().expect("given"))))
        .identity(Identity::from_pem(read(&files.cert), read(&files.key)));
    let endpoint = Endpoint::from_shared(url.to_owned()).expect("a URL");
    endpoint.tls_config(tls).expect("valid").connect_lazy()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_client_is_refused_and_others_are_not() {
    let pki = Pki::new();
    let server = pki.sign("server", "server", 1);
    let (good, bad) = (pki.sign("good", "good", 2), pki.sign("bad", "bad", 3));
    let crl = pki.revoke(3);
    let cluster = Cluster::found(1, |config| {
        let https = |url: &mut String| *url = url.replace("http:", "https:");
        config.listen_client_urls.iter_mut().for_each(https);
        config.client_tls = Some(server.clone());
        config.client_tls_policy.crl = Some(crl.clone());
    })
    .await;
    let url = cluster.client_url(0);
    KvClient::new(channel(&url, &good)).range(range_request("a")).await.expect("answered");
    KvClient::new(channel(&url, &bad)).range(range_request("a")).await.expect_err("revoked");
    handshake(&url, &bad).await.expect_err("revoked");
}

/// Trusts the server and shows no certificate.
fn stranger(files: &TlsFiles) -> TlsConnector {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots(files))
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn profiles_on_the_client_port_ask_for_a_certificate() {
    let pki = Pki::new();
    let (server, client) = (pki.sign("server", "server", 1), pki.sign("client", "client", 2));
    let cluster = Cluster::found(1, |config| {
        let https = |url: &mut String| *url = url.replace("http:", "https:");
        config.listen_client_urls.iter_mut().for_each(https);
        config.client_tls = Some(server.clone());
        config.web.pprof = Some(Pprof::default());
    })
    .await;
    let index = async |connector: TlsConnector| -> std::io::Result<String> {
        let url = cluster.client_url(0);
        let stream = TcpStream::connect(url.trim_start_matches("https://")).await?;
        let name = ServerName::try_from("127.0.0.1").expect("an address");
        let mut stream = connector.connect(name, stream).await?;
        let request = b"GET /debug/pprof/ HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    let answer = index(connector(&client)).await.expect("answered");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    index(stranger(&client)).await.expect_err("without a certificate");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_with_allowed_names_find_each_other_and_others_are_refused() {
    let pki = Pki::new();
    let member = pki.sign("member", "store-member", 1);
    let stranger = pki.sign("stranger", "somebody", 2);
    let cluster = Cluster::found(3, |config| {
        secure(config);
        config.client_tls = Some(member.clone());
        config.peer_tls = Some(member.clone());
        config.peer_tls_policy.names =
            TlsNames { common: vec!["store-member".to_owned()], hosts: Vec::new() };
        config.peer_tls_policy.min_version = Some(TlsVersion::Tls13);
    })
    .await;
    put(&*cluster.handle(0), "a", "1").await.expect("written");
    assert_eq!(get(&*cluster.handle(1), "a").await.as_deref(), Some("1"));
    let peer = cluster.configs[0].listen_peer_urls[0].clone();
    handshake(&peer, &stranger).await.expect_err("another name");
    handshake(&cluster.client_url(0), &stranger).await.expect("a client may have any name");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_work_with_certificates_that_they_made_themselves() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let hosts = ["127.0.0.1".to_owned()];
    let cluster = Cluster::found(3, |config| {
        secure(config);
        let own = dir.path().join(&config.name);
        config.client_tls = Some(self_signed(&own.join("client"), &hosts, 1).expect("made"));
        config.peer_tls = Some(self_signed(&own.join("peer"), &hosts, 1).expect("made"));
        config.peer_tls_policy.trust_any_server = true;
    })
    .await;
    put(&*cluster.handle(0), "a", "1").await.expect("written");
    let read = cluster.handle(2).range(range_request("a")).await.expect("read");
    assert_eq!(read.count, 1);
}
