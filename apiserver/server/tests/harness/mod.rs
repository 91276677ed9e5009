//! An apiserver over the memory store on a loopback port, with certificates made for the occasion, a
//! plain HTTP client for it, and a kubeconfig for kubectl.

#![allow(dead_code, unreachable_pub, reason = "every test binary uses a part of the harness")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use pintle_apiserver::{Config, TlsFiles, serve};
use pintle_store_api::memory::Memory;
use pintle_testing::free_address;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, SanType,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

/// A running server. Stops when dropped.
pub struct Cluster {
    pub store: Arc<Memory>,
    pub address: SocketAddr,
    pub dir: tempfile::TempDir,
    shutdown: CancellationToken,
    serving: Option<tokio::task::JoinHandle<()>>,
    client: TlsConnector,
    anonymous: TlsConnector,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub headers: http::HeaderMap,
    pub bytes: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.bytes)))
    }

    /// The body, if the code is the expected one.
    pub fn expect(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", String::from_utf8_lossy(&self.bytes));
        self.json()
    }
}

impl Cluster {
    /// Starts a server on a fresh store and waits until it is ready.
    pub async fn start() -> Self {
        Self::start_on(Memory::new()).await
    }

    pub async fn start_on(store: Arc<Memory>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let pki = Pki::create(dir.path());
        let address = free_address();
        let tls = |name: &str, ca: bool| TlsFiles {
            cert: pki.path(&format!("{name}.crt")),
            key: pki.path(&format!("{name}.key")),
            ca: ca.then(|| pki.path("ca.crt")),
        };
        let config = Config {
            member_name: "m1".to_owned(),
            listen: address,
            tls: tls("server", false),
            client_ca: pki.path("ca.crt"),
            service_account_issuer: "https://kubernetes.default.svc.cluster.local".to_owned(),
            service_account_key: pki.path("sa.key"),
            service_cidr: "10.96.0.0/16".parse().expect("a network"),
            cluster_ca: pki.path("ca.crt"),
            cluster_ca_key: Some(pki.path("ca.key")),
            kubelet_client: tls("admin", true),
            advertise: vec![address],
            metrics_listen: None,
        };
        let shutdown = CancellationToken::new();
        let mut cluster = Self {
            store: store.clone(),
            serving: None,
            address,
            client: connector(dir.path(), true),
            anonymous: connector(dir.path(), false),
            shutdown: shutdown.clone(),
            dir,
        };
        let serving = async move { serve(config, store, shutdown).await.expect("serves") };
        cluster.serving = Some(tokio::spawn(serving));
        cluster.write_kubeconfig();
        cluster.wait_ready().await;
        cluster
    }

    /// Stops the server as a signal would, and waits until it has stopped.
    pub async fn stop(&mut self) {
        self.shutdown.cancel();
        let serving = self.serving.take().expect("stops once");
        let stopped = tokio::time::timeout(Duration::from_secs(20), serving).await;
        stopped.expect("stops in time").expect("does not panic");
    }

    async fn wait_ready(&self) {
        let started = Instant::now();
        let mut last = String::from("no connection");
        while started.elapsed() < Duration::from_secs(30) {
            if let Ok(answer) = self.try_request("GET", "/readyz?verbose", &[], Bytes::new()).await
            {
                if answer.code == 200 {
                    return;
                }
                last = String::from_utf8_lossy(&answer.bytes).into_owned();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the server is not ready: {last}");
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("admin.kubeconfig")
    }

    fn write_kubeconfig(&self) {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\nclusters:\n- name: test\n  cluster:\n    server: https://{}\n    certificate-authority: {}\nusers:\n- name: admin\n  user:\n    client-certificate: {}\n    client-key: {}\ncontexts:\n- name: test\n  context:\n    cluster: test\n    user: admin\n",
            self.address,
            path("ca.crt"),
            path("admin.crt"),
            path("admin.key"),
        );
        std::fs::write(self.kubeconfig(), text).expect("writes the kubeconfig");
    }

    async fn connect(
        &self,
        connector: &TlsConnector,
    ) -> std::io::Result<hyper::client::conn::http1::SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("127.0.0.1").expect("an address");
        let stream = connector.connect(name, stream).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn send(
        &self,
        connector: &TlsConnector,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> std::io::Result<http::Response<Incoming>> {
        let mut sender = self.connect(connector).await?;
        let mut request =
            http::Request::builder().method(method).uri(path).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).expect("a request");
        sender.send_request(request).await.map_err(std::io::Error::other)
    }

    async fn try_request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> std::io::Result<Answer> {
        let response = self.send(&self.client, method, path, headers, body).await?;
        collect(response).await
    }

    /// As the administrator.
    pub async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let body = Bytes::copy_from_slice(body);
        self.try_request(method, path, headers, body).await.expect("an answer")
    }

    /// Without a client certificate.
    pub async fn anonymous(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let response = self.send(&self.anonymous, method, path, headers, Bytes::new()).await;
        collect(response.expect("an answer")).await.expect("a body")
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], b"").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        let json = [("content-type", "application/json")];
        self.request("POST", path, &json, body.to_string().as_bytes()).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        let json = [("content-type", "application/json")];
        self.request("PUT", path, &json, body.to_string().as_bytes()).await
    }

    pub async fn patch(&self, path: &str, kind: &str, body: &Value) -> Answer {
        let media = format!("application/{kind}");
        self.request("PATCH", path, &[("content-type", &media)], body.to_string().as_bytes()).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.request("DELETE", path, &[], b"").await
    }

    /// Opens a watch.
    pub async fn watch(&self, path: &str) -> Watch {
        self.watch_as(path, "application/json").await
    }

    pub async fn watch_as(&self, path: &str, accept: &str) -> Watch {
        let headers = [("accept", accept)];
        let response =
            self.send(&self.client, "GET", path, &headers, Bytes::new()).await.expect("an answer");
        assert_eq!(response.status(), 200);
        Watch { body: response.into_body(), buffer: Vec::new() }
    }

    /// Runs kubectl; `None` when there is none on this machine.
    pub async fn kubectl(&self, arguments: &[&str], stdin: &str) -> Option<Ran> {
        use tokio::io::AsyncWriteExt as _;
        let mut child = tokio::process::Command::new("kubectl")
            .args(arguments)
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", self.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .ok()?;
        let mut input = child.stdin.take().expect("was piped");
        let stdin = stdin.to_owned();
        tokio::spawn(async move {
            // kubectl may end without reading its input.
            let _written = input.write_all(stdin.as_bytes()).await;
        });
        let limit = Duration::from_secs(60);
        let output = tokio::time::timeout(limit, child.wait_with_output()).await;
        let output =
            output.unwrap_or_else(|_| panic!("kubectl {arguments:?} hangs")).expect("runs");
        Some(Ran {
            ok: output.status.success(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

/// What a command printed.
#[derive(Debug)]
pub struct Ran {
    pub ok: bool,
    pub out: String,
    pub err: String,
}

async fn collect(response: http::Response<Incoming>) -> std::io::Result<Answer> {
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    Ok(Answer { code: head.status.as_u16(), headers: head.headers, bytes })
}

/// An open watch.
pub struct Watch {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Watch {
    /// The next event, `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("a JSON line"));
            }
            let frame = tokio::time::timeout(Duration::from_secs(20), self.body.frame()).await;
            let frame = frame.expect("an event in time")?.expect("an unbroken stream");
            if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }

    /// Type and name of the next event.
    pub async fn next_named(&mut self) -> (String, String) {
        let event = self.next().await.expect("an open watch");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&event["type"]), text(&event["object"]["metadata"]["name"]))
    }
}

fn connector(dir: &Path, identified: bool) -> TlsConnector {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.join("ca.crt")).expect("a CA")).expect("a root");
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("protocol versions")
        .with_root_certificates(roots);
    let config = if identified {
        let certificate =
            CertificateDer::from_pem_file(dir.join("admin.crt")).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(dir.join("admin.key")).expect("a key");
        builder.with_client_auth_cert(vec![certificate], key).expect("a client identity")
    } else {
        builder.with_no_client_auth()
    };
    TlsConnector::from(Arc::new(config))
}

struct Pki(PathBuf);

impl Pki {
    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn create(dir: &Path) -> Self {
        let pki = Self(dir.to_owned());
        let mut ca = CertificateParams::default();
        ca.distinguished_name.push(DnType::CommonName, "test-ca");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = ca.self_signed(&key).expect("a certificate");
        pki.write("ca", &certificate.pem(), &key);
        let issuer = Issuer::new(ca, key);
        pki.leaf(&issuer, "server", "kube-apiserver", None);
        pki.leaf(&issuer, "admin", "kubernetes-admin", Some("system:masters"));
        let tokens = KeyPair::generate().expect("a key");
        std::fs::write(pki.path("sa.key"), tokens.serialize_pem()).expect("writes");
        pki
    }

    fn leaf(
        &self,
        issuer: &Issuer<'_, KeyPair>,
        file: &str,
        name: &str,
        organization: Option<&str>,
    ) {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(organization) = organization {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, issuer).expect("signs");
        self.write(file, &certificate.pem(), &key);
    }

    fn write(&self, name: &str, certificate: &str, key: &KeyPair) {
        std::fs::write(self.path(&format!("{name}.crt")), certificate).expect("writes");
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).expect("writes");
    }
}
