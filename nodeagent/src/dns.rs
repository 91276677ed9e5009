//! Cluster DNS: names of services and endpoints (dns-specification 1.1.0), over UDP and TCP.
//!
//! [`zone`] answers from an index of services and slices and is pure; here is the I/O. Names
//! outside the cluster's domain are sent on, as they came, to the resolvers of the host.

mod forward;
mod zone;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::serialize::binary::{BinDecodable, BinEncodable};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use parking_lot::RwLock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use forward::Resolvers;
use zone::{Answer, Zone};

/// Queries under way at once; the surplus waits in the sockets.
const QUERIES_MAX: usize = 1024;
/// An idle TCP connection is closed after this.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// What a client takes over UDP when it does not say (RFC 1035).
const UDP_BYTES: u16 = 512;

/// What the server needs to know.
#[derive(Clone)]
pub struct Config {
    /// Watches services and slices.
    pub client: kube::Client,
    /// `cluster.local`.
    pub domain: String,
}

/// A bound server: its address is known before it answers.
#[derive(Debug)]
pub struct Server {
    udp: UdpSocket,
    tcp: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Binds one free loopback port for both protocols.
    pub async fn bind() -> io::Result<Self> {
        const ATTEMPTS: usize = 20;
        let mut last = io::Error::other("no free port");
        for _ in 0..ATTEMPTS {
            let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            let address = tcp.local_addr()?;
            match UdpSocket::bind(address).await {
                Ok(udp) => return Ok(Self { udp, tcp, address }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until told to stop.
    pub async fn run(self, config: Config, shutdown: CancellationToken) {
        let responder = Arc::new(Responder {
            zone: RwLock::new(Zone::new(&config.domain)),
            resolvers: Resolvers::of_host(),
            slots: Semaphore::new(QUERIES_MAX),
        });
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = watch_services(&config.client, &responder) => {}
            () = watch_slices(&config.client, &responder) => {}
            () = serve_udp(Arc::new(self.udp), &responder) => {}
            () = serve_tcp(&self.tcp, &responder) => {}
        }
    }
}

struct Responder {
    /// The index of names; held for one lookup or one change.
    zone: RwLock<Zone>,
    resolvers: Resolvers,
    slots: Semaphore,
}

async fn watch_services(client: &kube::Client, responder: &Responder) {
    let api = Api::<Service>::all(client.clone());
    let stream = watcher(api, watcher::Config::default()).default_backoff();
    let mut stream = pin!(stream);
    let mut listed = Vec::new();
    while let Some(event) = stream.next().await {
        match event {
            Ok(watcher::Event::Apply(service)) => responder.zone.write().put_service(&service),
            Ok(watcher::Event::Delete(service)) => responder.zone.write().remove_service(&service),
            Ok(watcher::Event::Init) => listed.clear(),
            Ok(watcher::Event::InitApply(service)) => listed.push(service),
            Ok(watcher::Event::InitDone) => responder.zone.write().replace_services(&listed),
            Err(error) => tracing::warn!(%error, "watching services"),
        }
    }
}

async fn watch_slices(client: &kube::Client, responder: &Responder) {
    let api = Api::<EndpointSlice>::all(client.clone());
    let stream = watcher(api, watcher::Config::default()).default_backoff();
    let mut stream = pin!(stream);
    let mut listed = Vec::new();
    while let Some(event) = stream.next().await {
        match event {
            Ok(watcher::Event::Apply(slice)) => responder.zone.write().put_slice(&slice),
            Ok(watcher::Event::Delete(slice)) => responder.zone.write().remove_slice(&slice),
            Ok(watcher::Event::Init) => listed.clear(),
            Ok(watcher::Event::InitApply(slice)) => listed.push(slice),
            Ok(watcher::Event::InitDone) => responder.zone.write().replace_slices(&listed),
            Err(error) => tracing::warn!(%error, "watching endpoint slices"),
        }
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, responder: &Arc<Responder>) {
    let mut buffer = vec![0u8; usize::from(u16::MAX)];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An earlier answer met a closed port; the socket itself is fine.
            Err(error) => {
                tracing::debug!(%error, "udp");
                continue;
            }
        };
        let query = buffer[..length].to_vec();
        let (socket, responder) = (socket.clone(), responder.clone());
        tokio::spawn(async move {
            if let Some(answer) = responder.respond(&query, true).await
                && let Err(error) = socket.send_to(&answer, from).await
            {
                tracing::debug!(%error, %from, "answer not sent");
            }
        });
    }
}

async fn serve_tcp(listener: &TcpListener, responder: &Arc<Responder>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let responder = responder.clone();
                tokio::spawn(async move {
                    if let Err(error) = serve_stream(stream, &responder).await {
                        tracing::debug!(%error, "tcp");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Two bytes of length before each message (RFC 1035, 4.2.2).
async fn serve_stream(mut stream: TcpStream, responder: &Responder) -> io::Result<()> {
    loop {
        let length = match tokio::time::timeout(TCP_IDLE, stream.read_u16()).await {
            Ok(Ok(length)) => length,
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Ok(()),
        };
        let mut query = vec![0u8; usize::from(length)];
        stream.read_exact(&mut query).await?;
        let Some(answer) = responder.respond(&query, false).await else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_u16(length).await?;
        stream.write_all(&answer).await?;
    }
}

impl Responder {
    /// The answer's bytes; `None` where silence is the answer (what came was no query).
    async fn respond(&self, query: &[u8], udp: bool) -> Option<Vec<u8>> {
        let _slot = self.slots.acquire().await.ok()?;
        let message = Message::from_bytes(query).ok()?;
        if message.metadata.message_type != MessageType::Query {
            return None;
        }
        let Some(question) = message.queries.first() else {
            return encode(error(&message, ResponseCode::FormErr), udp, &message);
        };
        if message.metadata.op_code != OpCode::Query {
            return encode(error(&message, ResponseCode::NotImp), udp, &message);
        }
        let answer = self.zone.read().answer(question);
        match answer {
            Answer::Elsewhere => match self.resolvers.forward(query, udp).await {
                Ok(answer) => Some(answer),
                Err(error_) => {
                    tracing::debug!(%error_, name = %question.name(), "forwarding");
                    encode(error(&message, ResponseCode::ServFail), udp, &message)
                }
            },
            Answer::Records { answers, additionals } => {
                let mut response = error(&message, ResponseCode::NoError);
                response.answers = answers;
                response.additionals = additionals;
                encode(response, udp, &message)
            }
            Answer::NoSuchName(soa) => {
                let mut response = error(&message, ResponseCode::NXDomain);
                response.authorities = vec![*soa];
                encode(response, udp, &message)
            }
        }
    }
}

/// An answer to `query` without records.
fn error(query: &Message, code: ResponseCode) -> Message {
    let mut response = Message::response(query.metadata.id, query.metadata.op_code);
    response.metadata.recursion_desired = query.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.metadata.authoritative = true;
    response.metadata.response_code = code;
    response.queries = query.queries.clone();
    response
}

/// Cut to what the client takes, so that it asks again over TCP.
fn encode(response: Message, udp: bool, query: &Message) -> Option<Vec<u8>> {
    let bytes = response.to_bytes().ok()?;
    let takes = query.edns.as_ref().map_or(UDP_BYTES, |edns| edns.max_payload().max(UDP_BYTES));
    if !udp || bytes.len() <= usize::from(takes) {
        return Some(bytes);
    }
    let mut cut = error(query, response.metadata.response_code);
    cut.metadata.truncation = true;
    cut.to_bytes().ok()
}
