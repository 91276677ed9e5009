//! The stream of log entries from a leader to another member, on a connection of its own.
//!
//! Each write crosses it three times: the entry, its acknowledgement, the commit index (which is not
//! acknowledged: nothing new would be said). So it carries messages behind their lengths and nothing
//! else; what HTTP/2 adds (streams, windows, headers) costs more than they do. It begins as an HTTP/1.1 request that is
//! upgraded, on the port and under the certificates of all other peer traffic. A peer that does
//! not know it is called with gRPC's `append` instead.
//!
//! Each side sends an empty frame when it has had nothing to say for a while, and lets go of a
//! connection on which it has heard nothing for longer than that.

use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{Sink, Stream, StreamExt};
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{StatusCode, Uri};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use pintle_proto::raft as pb;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::time::{Interval, MissedTickBehavior, interval_at};
use tokio_util::codec::{Decoder, Encoder, FramedRead, FramedWrite};

use super::connections::MESSAGE_BYTES_MAX;
use super::dial::{self, Io};
use super::traffic::PeerTraffic;
use crate::consensus::convert::{append_from_pb, append_result_to_pb};
use crate::consensus::{LogId, TypeConfig};
use crate::core::Core;
use crate::tls;

const PATH: &str = "/raft/append";
/// Goes up when what is said on the connection changes.
const PROTOCOL: &str = "pintle-append-1";
/// A connection is refused or stands within this time.
const OPEN_TIMEOUT: Duration = Duration::from_millis(500);
/// Who has said nothing for so long says that he is there.
const ALIVE_EVERY: Duration = Duration::from_secs(2);
/// Who was not heard for so long is not there.
const SILENCE_MAX: Duration = Duration::from_secs(6);
/// What is written at once, when there is much.
const WRITE_BYTES: usize = 256 << 10;
const LENGTH: usize = 4;

pub(crate) type Connection = Box<dyn Io>;

/// Messages behind their lengths; `None` is the empty frame.
struct Frames<M> {
    /// Where what is sent is counted, if it is.
    traffic: Option<Arc<PeerTraffic>>,
    message: PhantomData<fn() -> M>,
}

impl<M> Frames<M> {
    fn new(traffic: Option<Arc<PeerTraffic>>) -> Self {
        Self { traffic, message: PhantomData }
    }
}

impl<M: Message> Encoder<Option<M>> for Frames<M> {
    type Error = io::Error;

    fn encode(&mut self, message: Option<M>, out: &mut BytesMut) -> io::Result<()> {
        let length = message.as_ref().map_or(0, Message::encoded_len);
        if length > MESSAGE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the message is too large"));
        }
        out.reserve(LENGTH + length);
        out.put_u32(u32::try_from(length).map_err(io::Error::other)?);
        if let Some(message) = message {
            message.encode(out).map_err(io::Error::other)?;
        }
        if let Some(traffic) = &self.traffic {
            traffic.sent(LENGTH + length);
        }
        Ok(())
    }
}

impl<M: Message + Default> Decoder for Frames<M> {
    type Item = Option<M>;
    type Error = io::Error;

    fn decode(&mut self, held: &mut BytesMut) -> io::Result<Option<Option<M>>> {
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        let Some(length) = held.first_chunk::<LENGTH>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if length > MESSAGE_BYTES_MAX {
            return Err(invalid(format!("a message of {length} bytes")));
        }
        if held.len() < LENGTH + length {
            held.reserve(LENGTH + length - held.len());
            return Ok(None);
        }
        held.advance(LENGTH);
        if length == 0 {
            return Ok(Some(None));
        }
        let message = M::decode(held.split_to(length).freeze());
        message.map(|message| Some(Some(message))).map_err(|error| invalid(error.to_string()))
    }
}

fn every(period: Duration) -> Interval {
    let mut ticks = interval_at(tokio::time::Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// What the other side says. Ends with an error when it has fallen silent.
struct Hearing<M, R> {
    frames: FramedRead<R, Frames<M>>,
    ticks: Interval,
    heard: bool,
}

impl<M: Message + Default, R: AsyncRead + Unpin> Hearing<M, R> {
    fn new(reads: R) -> Self {
        let frames = FramedRead::new(reads, Frames::new(None));
        Self { frames, ticks: every(SILENCE_MAX), heard: false }
    }
}

impl<M: Message + Default, R: AsyncRead + Unpin> Stream for Hearing<M, R> {
    type Item = io::Result<M>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            match Pin::new(&mut this.frames).poll_next(context) {
                Poll::Ready(Some(Ok(message))) => {
                    this.heard = true;
                    if let Some(message) = message {
                        return Poll::Ready(Some(Ok(message)));
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {
                    ready!(this.ticks.poll_tick(context));
                    if !std::mem::take(&mut this.heard) {
                        return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
                    }
                }
            }
        }
    }
}

/// What this side says.
struct Saying<M, S, W> {
    frames: FramedWrite<W, Frames<M>>,
    messages: S,
    /// There are no more messages;
    ended: bool,
    /// and the other side knows it.
    closed: bool,
    ticks: Interval,
    said: bool,
}

impl<M, S, W> Saying<M, S, W>
where
    M: Message,
    S: Stream<Item = M> + Unpin,
    W: AsyncWrite + Unpin,
{
    fn new(writes: W, messages: S, traffic: Option<Arc<PeerTraffic>>) -> Self {
        let mut frames = FramedWrite::new(writes, Frames::new(traffic));
        frames.set_backpressure_boundary(WRITE_BYTES);
        let (ended, closed, said) = Default::default();
        Self { frames, messages, ended, closed, ticks: every(ALIVE_EVERY), said }
    }

    /// Writes what there is; ready when there will be nothing more.
    fn poll_say(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.ended {
            if Pin::new(&mut self.frames).poll_ready(context)?.is_pending() {
                return Poll::Pending;
            }
            let message = match self.messages.poll_next_unpin(context) {
                Poll::Ready(Some(message)) => Some(message),
                Poll::Ready(None) => {
                    self.ended = true;
                    break;
                }
                Poll::Pending => {
                    if self.ticks.poll_tick(context).is_pending() {
                        break;
                    }
                    if std::mem::take(&mut self.said) {
                        continue;
                    }
                    None
                }
            };
            self.said |= message.is_some();
            Pin::new(&mut self.frames).start_send(message)?;
        }
        if self.ended {
            if !self.closed {
                ready!(Pin::new(&mut self.frames).poll_close(context))?;
                self.closed = true;
            }
            return Poll::Ready(Ok(()));
        }
        ready!(Pin::new(&mut self.frames).poll_flush(context))?;
        Poll::Pending
    }
}

/// A leader's end: sends requests as they come and yields the answers.
pub(crate) struct Appending<S> {
    saying: Saying<pb::AppendRequest, S, WriteHalf<Connection>>,
    hearing: Hearing<pb::AppendResponse, ReadHalf<Connection>>,
}

impl<S: Stream<Item = pb::AppendRequest> + Unpin> Stream for Appending<S> {
    type Item = io::Result<pb::AppendResponse>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Poll::Ready(Err(error)) = this.saying.poll_say(context) {
            return Poll::Ready(Some(Err(error)));
        }
        match ready!(this.hearing.poll_next_unpin(context)) {
            None if !this.saying.ended => {
                Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())))
            }
            heard => Poll::Ready(heard),
        }
    }
}

/// A connection that the other member has agreed to.
pub(crate) struct Opened(Connection);

impl Opened {
    /// In a simulation, where nothing has to be asked of a server first.
    #[cfg(feature = "simulation")]
    pub(super) fn over(connection: impl Io + 'static) -> Self {
        Self(Box::new(connection))
    }

    /// Sends `requests` and yields the answers, in their order.
    pub(crate) fn append<S>(self, requests: S, traffic: &Arc<PeerTraffic>) -> Appending<S>
    where
        S: Stream<Item = pb::AppendRequest> + Unpin,
    {
        let (reads, writes) = tokio::io::split(self.0);
        let saying = Saying::new(writes, requests, Some(Arc::clone(traffic)));
        Appending { saying, hearing: Hearing::new(reads) }
    }
}

/// Calls the member at `url`; `None` when it does not know this protocol.
pub(super) async fn open(url: &str, tls: Option<&Arc<tls::Client>>) -> io::Result<Option<Opened>> {
    let opened = tokio::time::timeout(OPEN_TIMEOUT, async {
        let uri: Uri = url.parse().map_err(io::Error::other)?;
        let tls = tls.filter(|_| url.starts_with("https://"));
        let connection = dial::connect(tls, &uri).await?;
        upgrade(connection, &uri).await.map_err(io::Error::other)
    });
    opened.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn upgrade(connection: Box<dyn Io>, uri: &Uri) -> Result<Option<Opened>, hyper::Error> {
    let (mut sender, driver) =
        hyper::client::conn::http1::handshake(TokioIo::new(connection)).await?;
    tokio::spawn(driver.with_upgrades());
    let mut request = http::Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = Uri::from_static(PATH);
    let headers = request.headers_mut();
    let host = uri.authority().and_then(|authority| authority.as_str().parse().ok());
    headers.insert(HOST, host.unwrap_or_else(|| http::HeaderValue::from_static("peer")));
    headers.insert(CONNECTION, http::HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, http::HeaderValue::from_static(PROTOCOL));
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(None);
    }
    let upgraded = hyper::upgrade::on(response).await?;
    Ok(Some(Opened(Box::new(TokioIo::new(upgraded)))))
}

/// The other end, on the peer port.
pub(crate) fn routes(core: &Arc<Core>) -> Router {
    let core = Arc::clone(core);
    Router::new().route(PATH, get(move |request| accept(core, request)))
}

async fn accept(core: Arc<Core>, request: Request) -> Response {
    let asked = request.headers().get(UPGRADE).is_some_and(|protocol| protocol == PROTOCOL);
    if !asked {
        return (StatusCode::UPGRADE_REQUIRED, [(UPGRADE, PROTOCOL)]).into_response();
    }
    let upgrading = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let served = match upgrading.await {
            Ok(upgraded) => serve(&core, Box::new(TokioIo::new(upgraded))).await,
            Err(error) => Err(io::Error::other(error)),
        };
        if let Err(error) = served {
            tracing::debug!(%error, "a leader's connection has ended");
        }
    });
    let headers = [(CONNECTION, "upgrade"), (UPGRADE, PROTOCOL)];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// The end of the member that is appended to, until the leader or the member is gone.
pub(crate) async fn serve(core: &Arc<Core>, connection: Connection) -> io::Result<()> {
    let (reads, writes) = tokio::io::split(connection);
    let results = core.raft.stream_append(accepted(core, Hearing::new(reads)));
    // When consensus has stopped, the connection says so by ending.
    let results = tokio_stream::StreamExt::map_while(results, Result::ok);
    let mut reported = Reported::default();
    let answers = results.filter_map(move |result| {
        let answer = reported.is_news(&result).then(|| append_result_to_pb(&result));
        std::future::ready(answer)
    });
    let answers = answers.boxed();
    let mut saying = Saying::new(writes, answers, None);
    std::future::poll_fn(|context| saying.poll_say(context)).await
}

/// How far this member has said that its log matches the leader's, on one stream. A leader counts every
/// request up to there as answered, so it hears each position once.
#[derive(Default)]
struct Reported(Option<Option<LogId>>);

impl Reported {
    fn is_news(&mut self, result: &StreamAppendResult<TypeConfig>) -> bool {
        match result {
            Ok(matching) => self.0.replace(*matching) != Some(*matching),
            Err(_) => true,
        }
    }
}

/// What consensus may be asked of what a leader says. A broken or foreign message ends it; the
/// leader opens another stream.
pub(super) fn accepted<E, R>(
    core: &Core,
    requests: R,
) -> impl Stream<Item = AppendEntriesRequest<TypeConfig>> + use<E, R>
where
    R: Stream<Item = Result<pb::AppendRequest, E>>,
{
    let peers = Arc::clone(&core.peers);
    let mut traffic: Option<(u64, Arc<PeerTraffic>)> = None;
    let accept = move |message: Result<pb::AppendRequest, E>| {
        let message = message.ok()?;
        peers.check(message.addressed.as_ref()).ok()?;
        let from = message.addressed.as_ref().map_or(0, |addressed| addressed.from);
        if traffic.as_ref().is_none_or(|(known, _)| *known != from) {
            traffic = Some((from, peers.traffic.of(from)));
        }
        if let Some((_, traffic)) = &traffic {
            traffic.received(message.encoded_len());
        }
        append_from_pb(message).ok()
    };
    let shutdown = core.peers_stop.clone().cancelled_owned();
    tokio_stream::StreamExt::map_while(requests.take_until(shutdown), accept)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use openraft::raft::StreamAppendError;
    use tokio::io::DuplexStream;

    use super::*;
    use crate::consensus::convert::log_id_from_pb;

    type Messages = futures::stream::BoxStream<'static, pb::LogId>;

    fn frames() -> Frames<pb::LogId> {
        Frames::new(None)
    }

    fn message(index: u64) -> pb::LogId {
        pb::LogId { term: 3, index }
    }

    fn pair(messages: Messages) -> (Saying<pb::LogId, Messages, DuplexStream>, Hears) {
        let (here, there) = tokio::io::duplex(64);
        (Saying::new(here, messages, None), Hearing::new(there))
    }

    type Hears = Hearing<pb::LogId, DuplexStream>;

    async fn say(mut saying: Saying<pb::LogId, Messages, DuplexStream>) -> io::Result<()> {
        std::future::poll_fn(|context| saying.poll_say(context)).await
    }

    #[test]
    fn messages_arrive_whole_however_they_are_cut() {
        let messages = [Some(message(900)), None, Some(message(1))];
        let mut whole = BytesMut::new();
        for message in messages {
            frames().encode(message, &mut whole).expect("encoded");
        }
        for cut in 0..whole.len() {
            let mut held = BytesMut::new();
            let mut seen = Vec::new();
            for part in [&whole[..cut], &whole[cut..]] {
                held.extend_from_slice(part);
                while let Some(message) = frames().decode(&mut held).expect("decoded") {
                    seen.push(message);
                }
            }
            assert_eq!(seen, messages);
        }
    }

    #[test]
    fn a_position_is_reported_once() {
        let at = |index| log_id_from_pb(&message(index));
        let mut reported = Reported::default();
        for (result, news) in [
            (Ok(None), true),
            (Ok(None), false),
            (Ok(Some(at(3))), true),
            (Ok(Some(at(3))), false),
            (Ok(Some(at(4))), true),
            (Ok(Some(at(3))), true),
            (Err(StreamAppendError::Conflict(at(9))), true),
            (Err(StreamAppendError::Conflict(at(9))), true),
        ] {
            assert_eq!(reported.is_news(&result), news, "{result:?}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let mut long = BytesMut::from(&u32::MAX.to_be_bytes()[..]);
        assert!(frames().decode(&mut long).is_err());
        let mut garbage = BytesMut::from(&[0, 0, 0, 2, 0xff, 0xff][..]);
        assert!(frames().decode(&mut garbage).is_err());
    }

    #[tokio::test]
    async fn everything_arrives_in_order_through_a_narrow_pipe_and_then_the_end() {
        let all: Vec<pb::LogId> = (1..=1_000).map(message).collect();
        let (saying, hearing) = pair(futures::stream::iter(all.clone()).boxed());
        let heard = hearing.map(|heard| heard.expect("a message")).collect::<Vec<_>>();
        let (said, heard) = tokio::join!(say(saying), heard);
        said.expect("said");
        assert_eq!(heard, all);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_nothing_to_say_is_heard_all_the_same() {
        let (saying, mut hearing) = pair(futures::stream::pending().boxed());
        let speaker = tokio::spawn(say(saying));
        tokio::time::timeout(10 * SILENCE_MAX, hearing.next()).await.expect_err("nothing to yield");
        speaker.abort();
        drop(speaker.await);
        assert!(hearing.next().await.is_none(), "the pipe is closed");
    }

    #[tokio::test(start_paused = true)]
    async fn who_falls_silent_is_not_waited_for() {
        let (_silent, mut hearing) = pair(futures::stream::pending().boxed());
        assert!(hearing.next().now_or_never().is_none());
        let ended = tokio::time::timeout(3 * SILENCE_MAX, hearing.next()).await.expect("noticed");
        let error = ended.expect("an error").expect_err("silence");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
