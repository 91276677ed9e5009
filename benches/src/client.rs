//! A gRPC client that does as little as possible: HTTP/2 frames, no layers in between. Everything
//! of one generator runs on one thread.

mod frame;
mod whole;

use std::fmt;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version, header};
use tokio::net::TcpStream;

use self::frame::Deframer;
pub(crate) use self::frame::{Pieces, encode};
use self::whole::Whole;

/// Receive windows: large enough that flow control never stops the server.
const STREAM_WINDOW: u32 = 8 << 20;
const CONNECTION_WINDOW: u32 = 64 << 20;
const UNAVAILABLE: i32 = 14;

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Range,
    RangeStream,
    Put,
    Txn,
    Compact,
    Watch,
    LeaseGrant,
    LeaseKeepAlive,
    Status,
}

impl Call {
    const ALL: [Self; 9] = [
        Self::Range,
        Self::RangeStream,
        Self::Put,
        Self::Txn,
        Self::Compact,
        Self::Watch,
        Self::LeaseGrant,
        Self::LeaseKeepAlive,
        Self::Status,
    ];

    fn path(self) -> &'static str {
        match self {
            Self::Range => "/etcdserverpb.KV/Range",
            Self::RangeStream => "/etcdserverpb.KV/RangeStream",
            Self::Put => "/etcdserverpb.KV/Put",
            Self::Txn => "/etcdserverpb.KV/Txn",
            Self::Compact => "/etcdserverpb.KV/Compact",
            Self::Watch => "/etcdserverpb.Watch/Watch",
            Self::LeaseGrant => "/etcdserverpb.Lease/LeaseGrant",
            Self::LeaseKeepAlive => "/etcdserverpb.Lease/LeaseKeepAlive",
            Self::Status => "/etcdserverpb.Maintenance/Status",
        }
    }
}

/// A request that was not answered as it should have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// gRPC's code.
    pub(crate) code: i32,
    pub(crate) message: String,
    /// Whether the request went onto a connection: otherwise another member may be asked instead.
    pub(crate) sent: bool,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (gRPC code {})", self.message, self.code)
    }
}

impl std::error::Error for Failure {}

impl From<h2::Error> for Failure {
    fn from(error: h2::Error) -> Self {
        Self { code: UNAVAILABLE, message: error.to_string(), sent: true }
    }
}

impl Failure {
    fn unsent(error: h2::Error) -> Self {
        Self { sent: false, ..error.into() }
    }

    fn broken(message: &str) -> Self {
        Self { code: UNAVAILABLE, message: message.to_owned(), sent: true }
    }

    /// What the headers or trailers say about the end of a call.
    fn from_headers(headers: &HeaderMap) -> Result<(), Self> {
        let text =
            |name: &str| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        match text("grpc-status") {
            None | Some("0") => Ok(()),
            Some(code) => Err(Self {
                code: code.parse().unwrap_or(2),
                message: text("grpc-message").unwrap_or_default().to_owned(),
                sent: true,
            }),
        }
    }
}

/// One HTTP/2 connection; clones share it.
#[derive(Clone)]
pub(crate) struct Connection {
    sender: SendRequest<Bytes>,
    /// One request for each call, ready to be copied.
    requests: [Request<()>; Call::ALL.len()],
}

fn request(authority: &str, call: Call) -> anyhow::Result<Request<()>> {
    let uri: Uri = format!("http://{authority}{}", call.path()).parse()?;
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    Ok(request)
}

impl Connection {
    /// Connects to `host:port`. Must be called within a `LocalSet`, which drives the connection.
    pub(crate) async fn open(authority: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(authority).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(Whole(stream))
            .await?;
        tokio::task::spawn_local(async move {
            // Every call on the connection fails with the reason.
            drop(connection.await);
        });
        let mut requests = Vec::with_capacity(Call::ALL.len());
        for call in Call::ALL {
            requests.push(request(authority, call)?);
        }
        let requests = requests.try_into().expect("one for each call");
        Ok(Self { sender, requests })
    }

    async fn send(
        &mut self,
        call: Call,
        body: Bytes,
        end: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), Failure> {
        let ready = std::future::poll_fn(|context| self.sender.poll_ready(context)).await;
        ready.map_err(Failure::unsent)?;
        let request = self.requests[call as usize].clone();
        let sent = self.sender.send_request(request, false);
        let (response, mut stream) = sent.map_err(Failure::unsent)?;
        stream.send_data(body, end)?;
        Ok((response, stream))
    }

    /// One request, one answer.
    pub(crate) async fn unary(&mut self, call: Call, body: Bytes) -> Result<Bytes, Failure> {
        let (response, _sent) = self.send(call, body, true).await?;
        let mut answers = Messages::Waiting(response);
        let mut answer = None;
        while let Some(message) = answers.next().await? {
            answer = Some(message.whole());
        }
        answer.ok_or_else(|| Failure::broken("no answer"))
    }

    /// One request, whose answer is read and forgotten: how many bytes it had.
    pub(crate) async fn drain(&mut self, call: Call, body: Bytes) -> Result<u64, Failure> {
        let (response, _sent) = self.send(call, body, true).await?;
        let (parts, mut body) = response.await?.into_parts();
        Failure::from_headers(&parts.headers)?;
        let mut bytes = 0;
        while let Some(chunk) = body.data().await {
            let length = chunk?.len();
            body.flow_control().release_capacity(length)?;
            bytes += length as u64;
        }
        let trailers = body.trailers().await?.unwrap_or_default();
        Failure::from_headers(&trailers).map(|()| bytes)
    }

    /// A stream in both directions, opened by its first message.
    pub(crate) async fn stream(
        &mut self,
        call: Call,
        first: Bytes,
    ) -> Result<(Requests, Messages), Failure> {
        let (response, stream) = self.send(call, first, false).await?;
        Ok((Requests(stream), Messages::Waiting(response)))
    }
}

/// The sending side of a stream.
pub(crate) struct Requests(SendStream<Bytes>);

impl Requests {
    pub(crate) fn send(&mut self, message: Bytes) -> Result<(), Failure> {
        Ok(self.0.send_data(message, false)?)
    }
}

/// The receiving side of a stream.
pub(crate) enum Messages {
    Waiting(ResponseFuture),
    Open(RecvStream, Deframer),
}

impl Messages {
    /// The next message; `None` at the end of a stream that ended well.
    pub(crate) async fn next(&mut self) -> Result<Option<Pieces>, Failure> {
        if let Self::Waiting(response) = self {
            let (parts, body) = response.await?.into_parts();
            Failure::from_headers(&parts.headers)?;
            *self = Self::Open(body, Deframer::default());
        }
        let Self::Open(body, deframer) = self else {
            return Err(Failure::broken("the stream did not open"));
        };
        loop {
            if let Some(message) = deframer.next() {
                return Ok(Some(message));
            }
            let Some(chunk) = body.data().await else {
                let trailers = body.trailers().await?.unwrap_or_default();
                return Failure::from_headers(&trailers).map(|()| None);
            };
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            deframer.push(chunk);
        }
    }
}
