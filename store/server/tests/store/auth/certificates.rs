//! Users that show a certificate instead of a token.

use std::path::{Path, PathBuf};

use pintle_store::TlsFiles;
use pintle_store_api::AuthError;
use pintle_store_api::authpb::permission::Type;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

use super::client::{Client, permission, quick, refused};
use crate::support::Cluster;

/// An authority and what it has signed, as files.
struct Pki {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).expect("signed");
        std::fs::write(dir.path().join("ca.crt"), ca.pem()).expect("written");
        Self { dir, issuer: Issuer::new(params, key) }
    }

    fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }

    fn issue(&self, name: &str, common_name: Option<&str>) -> TlsFiles {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        params.subject_alt_names.push(rcgen::SanType::IpAddress([127, 0, 0, 1].into()));
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(common_name) = common_name {
            params.distinguished_name.push(DnType::CommonName, common_name);
        }
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let path = |kind: &str| self.dir.path().join(format!("{name}.{kind}"));
        std::fs::write(path("crt"), certificate.pem()).expect("written");
        std::fs::write(path("key"), key.serialize_pem()).expect("written");
        TlsFiles { cert: path("crt"), key: path("key"), ca: Some(self.ca()) }
    }

    async fn connect(&self, url: &str, name: &str, common_name: Option<&str>) -> Client {
        let files = self.issue(name, common_name);
        let read = |path: &Path| std::fs::read(path).expect("readable");
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(read(&self.ca())))
            .identity(Identity::from_pem(read(&files.cert), read(&files.key)));
        let endpoint = Channel::from_shared(url.to_owned()).expect("a URL");
        let endpoint = endpoint.tls_config(tls).expect("valid");
        Client::over(endpoint.connect().await.expect("connects"))
    }
}

async fn found(pki: &Pki) -> Cluster {
    let files = pki.issue("member", Some("member"));
    Cluster::found(1, |config| {
        quick(config);
        for url in config.listen_client_urls.iter_mut().chain(&mut config.advertise_client_urls) {
            *url = url.replace("http:", "https:");
        }
        config.client_tls = Some(files.clone());
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_common_name_names_the_user() {
    let pki = Pki::new();
    let cluster = found(&pki).await;
    let url = cluster.client_url(0);
    let client = pki.connect(&url, "root", Some("root")).await;
    client.user_add_without_password("root").await.expect("added");
    client.user_grant_role("root", "root").await.expect("granted");
    client.enable().await.expect("enabled");
    client.put("secret").await.expect("root by certificate");
    client.user_add_without_password("alice").await.expect("added");
    client.role_add("alice").await.expect("added");
    let hers = permission(Type::Readwrite, "a", "b");
    client.role_grant("alice", Some(hers)).await.expect("granted");
    client.user_grant_role("alice", "alice").await.expect("granted");
    let alice = pki.connect(&url, "alice", Some("alice")).await;
    alice.put("a").await.expect("hers");
    refused(alice.put("secret").await, AuthError::PermissionDenied);
    refused(alice.user_list().await, AuthError::PermissionDenied);
    let stranger = pki.connect(&url, "stranger", Some("stranger")).await;
    refused(stranger.put("a").await, AuthError::PermissionDenied);
    refused(stranger.user_list().await, AuthError::UserNotFound);
    let unnamed = pki.connect(&url, "unnamed", None).await;
    refused(unnamed.put("a").await, AuthError::PermissionDenied);
    refused(unnamed.user_list().await, AuthError::UserEmpty);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_counts_more_than_the_certificate() {
    let pki = Pki::new();
    let cluster = found(&pki).await;
    let root = pki.connect(&cluster.client_url(0), "root", Some("root")).await;
    root.user_add("root", "root").await.expect("added");
    root.user_grant_role("root", "root").await.expect("granted");
    root.enable().await.expect("enabled");
    root.user_with("alice", &[permission(Type::Readwrite, "a", "b")]).await;
    let alice = root.login("alice", "alice").await;
    alice.put("a").await.expect("hers");
    refused(alice.put("secret").await, AuthError::PermissionDenied);
    refused(root.with_token("bogus.1").put("a").await, AuthError::InvalidToken);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_gateway_forwards_has_no_certificate() {
    let pki = Pki::new();
    let cluster = found(&pki).await;
    let root = pki.connect(&cluster.client_url(0), "root", Some("root")).await;
    root.user_add_without_password("root").await.expect("added");
    root.user_grant_role("root", "root").await.expect("granted");
    root.enable().await.expect("enabled");
    let mut forwarded = root.request(crate::support::range_request("a"));
    forwarded.metadata_mut().insert("grpcgateway-accept", "*/*".parse().expect("text"));
    refused(root.kv().range(forwarded).await, AuthError::UserEmpty);
}

impl Pki {
    /// What the gateway answers to whoever has this name.
    async fn ask_gateway(&self, url: &str, common_name: Option<&str>, token: &str) -> String {
        let files = self.issue("page", common_name);
        let stream = TcpStream::connect(url.trim_start_matches("https://")).await;
        let name = ServerName::try_from("127.0.0.1").expect("an address");
        let mut stream = crate::tls::connector(&files)
            .connect(name, stream.expect("connects"))
            .await
            .expect("shakes hands");
        let body = r#"{"key":"YQ=="}"#;
        let request = format!(
            "POST /v3/kv/range HTTP/1.1\r\nHost: 127.0.0.1\r\n{token}Content-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        // A server may end the connection without saying so first.
        drop(stream.read_to_end(&mut answer).await);
        String::from_utf8(answer).expect("text")
    }
}

/// Its certificate would not count, so that it is not left to believe that it does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_refuses_who_has_a_name_by_certificate() {
    let pki = Pki::new();
    let cluster = found(&pki).await;
    let url = cluster.client_url(0);
    let root = pki.connect(&url, "root", Some("root")).await;
    let off = pki.ask_gateway(&url, Some("root"), "").await;
    assert!(off.starts_with("HTTP/1.1 200 "), "while authentication is off: {off}");
    root.user_add("root", "root").await.expect("added");
    root.user_grant_role("root", "root").await.expect("granted");
    root.enable().await.expect("enabled");
    let named = pki.ask_gateway(&url, Some("root"), "").await;
    assert!(named.starts_with("HTTP/1.1 400 "), "{named}");
    assert!(named.contains("CommonName of client sending a request against gateway"), "{named}");
    let unnamed = pki.ask_gateway(&url, None, "").await;
    assert!(unnamed.contains("etcdserver: user name is empty"), "{unnamed}");
    let forged = pki.ask_gateway(&url, None, "Authorization: forged.1\r\n").await;
    assert!(forged.contains("etcdserver: invalid auth token"), "{forged}");
}
