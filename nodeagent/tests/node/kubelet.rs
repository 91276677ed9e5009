//! A client of the kubelet API, with certificates made for the occasion.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use futures::{SinkExt, StreamExt};
use pintle_nodeagent::stream::spdy;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

pub(crate) struct Kubelet {
    address: SocketAddr,
    connector: TlsConnector,
}

/// What a command came to.
#[derive(Debug, Default)]
pub(crate) struct Run {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) status: Value,
}

impl Kubelet {
    /// Writes `ca.crt`, `server.crt` and `server.key` into `dir`.
    pub(crate) fn new(dir: &Path, address: SocketAddr) -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        std::fs::write(dir.join("ca.crt"), ca.pem()).unwrap();
        let issue = |names: Vec<String>, name: &str| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(names).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            (params.signed_by(&key, &issuer).unwrap(), key)
        };
        let (server, server_key) = issue(vec!["127.0.0.1".to_owned()], "node-a");
        std::fs::write(dir.join("server.crt"), server.pem()).unwrap();
        std::fs::write(dir.join("server.key"), server_key.serialize_pem()).unwrap();
        let (client, client_key) = issue(Vec::new(), "kube-apiserver-kubelet-client");
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(ca.der().to_vec())).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![CertificateDer::from(client.der().to_vec())],
                PrivateKeyDer::try_from(client_key.serialize_der()).unwrap(),
            )
            .unwrap();
        Self { address, connector: TlsConnector::from(Arc::new(config)) }
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        self.connector.connect(ServerName::try_from("127.0.0.1").unwrap(), stream).await.unwrap()
    }

    /// Code and body.
    pub(crate) async fn get(&self, path: impl AsRef<str>) -> (u16, String) {
        let mut stream = self.connect().await;
        let request = format!("GET {} HTTP/1.0\r\nHost: node-a\r\n\r\n", path.as_ref());
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A server may close without saying so in TLS.
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Runs a command over a v5 WebSocket; `input` is sent, and closed unless there is a terminal.
    pub(crate) async fn exec(&self, path: &str, input: &[u8]) -> Run {
        let mut request = format!("wss://127.0.0.1{path}").into_client_request().unwrap();
        request
            .headers_mut()
            .insert("sec-websocket-protocol", "v5.channel.k8s.io".parse().unwrap());
        let (socket, answer) =
            tokio_tungstenite::client_async(request, self.connect().await).await.unwrap();
        assert_eq!(answer.headers()["sec-websocket-protocol"], "v5.channel.k8s.io");
        let (mut sink, mut stream) = socket.split();
        let (input, terminal) = (input.to_vec(), path.contains("tty=1"));
        let writer = tokio::spawn(async move {
            for chunk in input.chunks(10_000) {
                sink.send(Message::Binary([&[0], chunk].concat().into())).await.unwrap();
            }
            if !terminal {
                sink.send(Message::Binary(vec![255, 0].into())).await.unwrap();
            }
            sink
        });
        let mut run = Run::default();
        while let Some(Ok(message)) = stream.next().await {
            if let Message::Close(frame) = &message {
                assert_eq!(u16::from(frame.as_ref().unwrap().code), 1000);
            }
            let Message::Binary(data) = message else { continue };
            let (channel, data) = data.split_first().unwrap();
            match channel {
                1 => run.stdout.push_str(&String::from_utf8_lossy(data)),
                2 => run.stderr.push_str(&String::from_utf8_lossy(data)),
                3 => run.status = serde_json::from_slice(data).unwrap(),
                other => panic!("channel {other}"),
            }
        }
        writer.abort();
        run
    }

    /// Sends `request` to a port of a pod through a SPDY tunnel, as kubectl does; the answer.
    pub(crate) async fn forward(&self, path: &str, port: u16, request: &[u8]) -> String {
        let protocol = "SPDY/3.1+portforward.k8s.io";
        let mut upgrade = format!("wss://127.0.0.1{path}").into_client_request().unwrap();
        upgrade.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
        let (mut socket, answer) =
            tokio_tungstenite::client_async(upgrade, self.connect().await).await.unwrap();
        assert_eq!(answer.headers()["sec-websocket-protocol"], protocol);
        let port = port.to_string();
        let mut wire = Vec::new();
        let mut sender = spdy::Sender::new(&mut wire);
        let headers = |kind| [("streamtype", kind), ("port", port.as_str()), ("requestid", "0")];
        let error = sender.open(&headers("error")).await.unwrap();
        sender.data(error, &[], true).await.unwrap();
        let data = sender.open(&headers("data")).await.unwrap();
        sender.data(data, request, false).await.unwrap();
        socket.send(Message::Binary(wire.into())).await.unwrap();
        let mut text = Vec::new();
        let mut frames = Vec::new();
        while let Some(Ok(message)) = socket.next().await {
            let Message::Binary(bytes) = message else { continue };
            frames.extend_from_slice(&bytes);
            let mut receiver = spdy::Receiver::new(tokio::io::empty(), &frames);
            text.clear();
            while let Some(frame) = receiver.next().await.unwrap() {
                let spdy::Frame::Data { stream, data: bytes, end } = frame else { continue };
                assert!(stream == data || bytes.is_empty(), "{}", String::from_utf8_lossy(&bytes));
                text.extend_from_slice(&bytes);
                if stream == data && end {
                    return String::from_utf8(text).unwrap();
                }
            }
        }
        panic!("the tunnel ended: {}", String::from_utf8_lossy(&text));
    }
}
