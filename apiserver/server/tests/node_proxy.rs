//! Logs, exec and proxy end at the node agent: here a small TLS server that plays one.

mod harness;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use harness::Cluster;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::{TlsAcceptor, TlsConnector};

type Answer =
    http::Response<http_body_util::combinators::UnsyncBoxBody<Bytes, std::convert::Infallible>>;

fn text(code: u16, text: &str) -> Answer {
    let body = Full::new(Bytes::copy_from_slice(text.as_bytes())).boxed_unsync();
    http::Response::builder()
        .status(code)
        .header("content-type", "text/plain")
        .body(body)
        .expect("an answer")
}

/// What the agent answers. A followed log ends only when `lines` does.
async fn agent(
    mut request: http::Request<Incoming>,
    lines: Arc<tokio::sync::Mutex<mpsc::Receiver<&'static str>>>,
) -> Result<Answer, std::convert::Infallible> {
    let path = request.uri().path_and_query().expect("a path").as_str().to_owned();
    assert!(
        !request.headers().contains_key("authorization"),
        "credentials stay with the apiserver"
    );
    Ok(match path.as_str() {
        "/containerLogs/t/p/c?tailLines=2" => text(200, "one\ntwo\n"),
        "/containerLogs/t/p/c?follow=true" => {
            let stream = futures::stream::unfold(lines, |lines| async move {
                let line = lines.lock().await.recv().await?;
                Some((Ok(Frame::data(Bytes::from_static(line.as_bytes()))), lines))
            });
            http::Response::new(StreamBody::new(stream).boxed_unsync())
        }
        "/containerLogs/t/p/c" => {
            text(400, "container \"c\" in pod \"p\" is waiting to start: ContainerCreating")
        }
        "/exec/t/p/c?input=1&output=1&command=cat" => {
            assert_eq!(request.headers()["upgrade"], "websocket");
            assert_eq!(request.headers()["sec-websocket-protocol"], "v5.channel.k8s.io");
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut stream = TokioIo::new(upgrade.await.expect("an upgrade"));
                let mut buffer = [0; 64];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    stream.write_all(&buffer[..count].to_ascii_uppercase()).await.expect("echoes");
                }
            });
            http::Response::builder()
                .status(101)
                .header("connection", "Upgrade")
                .header("upgrade", "websocket")
                .header("sec-websocket-protocol", "v5.channel.k8s.io")
                .body(Full::new(Bytes::new()).boxed_unsync())
                .expect("an answer")
        }
        "/exec/t/p/c?output=1&command=nothing" => text(404, "no such container"),
        "/healthz?verbose=1" => text(200, "fine"),
        other => text(500, other),
    })
}

struct Setup {
    cluster: Cluster,
    lines: mpsc::Sender<&'static str>,
}

fn roots(cluster: &Cluster) -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(cluster.dir.path().join("ca.crt")).expect("a CA");
    roots.add(ca).expect("a root");
    roots
}

fn identity(
    cluster: &Cluster,
    name: &str,
) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let path = |extension: &str| cluster.dir.path().join(format!("{name}.{extension}"));
    let certificate = CertificateDer::from_pem_file(path("crt")).expect("a certificate");
    (vec![certificate], PrivateKeyDer::from_pem_file(path("key")).expect("a key"))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Listens as the agent of a node would: with its own certificate, asking for the apiserver's.
async fn serve_agent(cluster: &Cluster, lines: mpsc::Receiver<&'static str>) -> SocketAddr {
    let (chain, key) = identity(cluster, "server");
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots(cluster)),
        provider(),
    );
    let config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("protocol versions")
        .with_client_cert_verifier(verifier.build().expect("a verifier"))
        .with_single_cert(chain, key)
        .expect("an identity");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let lines = Arc::new(tokio::sync::Mutex::new(lines));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let (acceptor, lines) = (acceptor.clone(), lines.clone());
            tokio::spawn(async move {
                let stream = acceptor.accept(stream).await.expect("the apiserver's certificate");
                let service =
                    hyper::service::service_fn(move |request| agent(request, lines.clone()));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades();
                // The apiserver may close at any time.
                let _ended = connection.await;
            });
        }
    });
    address
}

async fn setup() -> Setup {
    let cluster = Cluster::start().await;
    let (lines, receiver) = mpsc::channel(8);
    let address = serve_agent(&cluster, receiver).await;
    let named = |kind: &str, name: &str| json!({"kind": kind, "apiVersion": "v1", "metadata": {"name": name}});
    cluster.post("/api/v1/namespaces", &named("Namespace", "t")).await.expect(201);
    let account = named("ServiceAccount", "default");
    cluster.post("/api/v1/namespaces/t/serviceaccounts", &account).await.expect(201);
    cluster.post("/api/v1/nodes", &named("Node", "n")).await.expect(201);
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": address.port()}},
    }});
    cluster.patch("/api/v1/nodes/n/status", "merge-patch+json", &status).await.expect(200);
    let mut pod = named("Pod", "p");
    pod["spec"] = json!({"nodeName": "n", "containers": [{"name": "c", "image": "demo"}]});
    cluster.post("/api/v1/namespaces/t/pods", &pod).await.expect(201);
    Setup { cluster, lines }
}

const POD: &str = "/api/v1/namespaces/t/pods/p";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_come_from_the_agent_and_errors_become_a_status() {
    let Setup { cluster, .. } = setup().await;
    let log = cluster.get(&format!("{POD}/log?tailLines=2")).await;
    assert_eq!((log.code, log.bytes.as_ref()), (200, &b"one\ntwo\n"[..]));
    let waiting = cluster.get(&format!("{POD}/log?container=c")).await.expect(400);
    assert_eq!(waiting["kind"], "Status");
    assert_eq!(
        waiting["message"],
        "container \"c\" in pod \"p\" is waiting to start: ContainerCreating"
    );
    let health = cluster.get("/api/v1/nodes/n/proxy/healthz?verbose=1").await;
    assert_eq!((health.code, health.bytes.as_ref()), (200, &b"fine"[..]));
}

/// A connection of our own, so that the answer can be read as it comes.
async fn raw(cluster: &Cluster, request: &str) -> tokio_rustls::client::TlsStream<TcpStream> {
    let (chain, key) = identity(cluster, "admin");
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("protocol versions")
        .with_root_certificates(roots(cluster))
        .with_client_auth_cert(chain, key)
        .expect("an identity");
    let stream = TcpStream::connect(cluster.address).await.expect("a connection");
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(name, stream).await.expect("a session");
    stream.write_all(request.as_bytes()).await.expect("sends");
    stream
}

/// Reads until `wanted` has come.
async fn read_until(
    stream: &mut tokio_rustls::client::TlsStream<TcpStream>,
    wanted: &str,
) -> String {
    let mut seen = String::new();
    let mut buffer = [0; 1024];
    let reading = async {
        while !seen.contains(wanted) {
            let count = stream.read(&mut buffer).await.expect("reads");
            assert!(count > 0, "the stream ended: {seen}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(10), reading).await;
    assert!(in_time.is_ok(), "no {wanted:?} in {seen:?}");
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_followed_log_streams_line_by_line() {
    let Setup { cluster, lines } = setup().await;
    let request =
        format!("GET {POD}/log?follow=true HTTP/1.1\r\nhost: x\r\naccept-encoding: gzip\r\n\r\n");
    let mut stream = raw(&cluster, &request).await;
    lines.send("first\n").await.expect("the agent");
    let head = read_until(&mut stream, "first\n").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    lines.send("second\n").await.expect("the agent");
    read_until(&mut stream, "second\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgraded_connection_is_a_tunnel() {
    let Setup { cluster, .. } = setup().await;
    let upgrade = |query: &str| {
        format!(
            "GET {POD}/exec?{query} HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             sec-websocket-protocol: v5.channel.k8s.io\r\n\r\n"
        )
    };
    let mut stream = raw(&cluster, &upgrade("command=cat&stdin=true&stdout=true")).await;
    let head = read_until(&mut stream, "\r\n\r\n").await.to_lowercase();
    assert!(head.starts_with("http/1.1 101"), "{head}");
    assert!(head.contains("sec-websocket-protocol: v5.channel.k8s.io"), "{head}");
    stream.write_all(b"hello").await.expect("sends");
    assert_eq!(read_until(&mut stream, "HELLO").await, "HELLO");

    let mut refused = raw(&cluster, &upgrade("command=nothing&stdout=true")).await;
    let answer = read_until(&mut refused, "no such container").await;
    assert!(
        answer.starts_with("HTTP/1.1 404") && answer.contains("\"kind\":\"Status\""),
        "{answer}"
    );
}
