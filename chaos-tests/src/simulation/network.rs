//! The network between members: carries gRPC calls, the frames of streamed ones, and the bytes of the
//! log's own connections.
//!
//! It behaves as connections do: within a stream everything arrives in order or not at all. Between
//! calls there is no order, a call may strike although its caller has long given up, an answer may
//! be lost, and what was held up by a partition arrives when that ends. What Raft must bear twice
//! (votes, appends, transfers, questions) is sometimes delivered twice.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, StreamBody};
use parking_lot::Mutex;
use pintle_store::simulation::{
    BoxError, Network, PeerRequest, PeerResponse, Pending, SimulatedMember,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex, split};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::{ConnectError, Status};

/// A connection over which nothing comes any more is given up after this.
const HELD_UP_MAX: Duration = Duration::from_secs(8);
/// Frames on their way.
const FRAMES: usize = 64;
/// Bytes of a connection that wait at either end.
const PIPE_BYTES: usize = 64 << 10;

/// How the network is at the moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    /// Milliseconds of every way, at most.
    pub(super) delay_max: u64,
    /// How often a way takes up to half a second.
    pub(super) stall: f64,
    /// How often a connection breaks.
    pub(super) loss: f64,
    /// How often what may come twice does.
    pub(super) duplicate: f64,
    /// How often a member is not found although it is there, as behind a firewall that refuses.
    pub(super) refusal: f64,
}

impl Weather {
    pub(super) const FAIR: Self =
        Self { delay_max: 2, stall: 0.0, loss: 0.0, duplicate: 0.0, refusal: 0.0 };
}

/// Where a member is reached.
#[derive(Clone, Debug)]
struct Door {
    place: usize,
    member: Arc<SimulatedMember>,
    gone: CancellationToken,
}

#[derive(Debug)]
struct Inner {
    rng: StdRng,
    doors: BTreeMap<String, Door>,
    /// Ways (from, to) on which nothing gets through.
    cuts: BTreeSet<(usize, usize)>,
    weather: Weather,
    framed_log: bool,
}

/// The network of one cluster.
#[derive(Debug)]
pub(super) struct Net {
    inner: Mutex<Inner>,
    changed: Notify,
}

/// One way between two members, and what ends it: that one of them is gone.
#[derive(Clone)]
struct Way {
    net: Arc<Net>,
    from: usize,
    to: usize,
    ends: [CancellationToken; 2],
}

fn broken() -> BoxError {
    Box::new(io::Error::new(io::ErrorKind::ConnectionReset, "simulated: the connection broke"))
}

fn refused() -> BoxError {
    let error = io::Error::new(io::ErrorKind::ConnectionRefused, "simulated: nobody listens");
    Box::new(ConnectError(Box::new(error)))
}

impl Net {
    /// `framed_log`: members know the log's own connections.
    pub(super) fn new(seed: u64, framed_log: bool) -> Arc<Self> {
        let inner = Inner {
            rng: StdRng::seed_from_u64(seed),
            doors: BTreeMap::new(),
            cuts: BTreeSet::new(),
            weather: Weather::FAIR,
            framed_log,
        };
        Arc::new(Self { inner: Mutex::new(inner), changed: Notify::new() })
    }

    pub(super) fn open(
        &self,
        url: &str,
        place: usize,
        member: Arc<SimulatedMember>,
        gone: CancellationToken,
    ) {
        self.inner.lock().doors.insert(url.to_owned(), Door { place, member, gone });
    }

    pub(super) fn close(&self, url: &str) {
        self.inner.lock().doors.remove(url);
    }

    pub(super) fn cut(&self, ways: impl IntoIterator<Item = (usize, usize)>) {
        self.inner.lock().cuts.extend(ways);
    }

    pub(super) fn heal(&self) {
        self.inner.lock().cuts.clear();
        self.changed.notify_waiters();
    }

    pub(super) fn weather(&self, weather: Weather) {
        self.inner.lock().weather = weather;
    }

    /// How long the next way takes, and whether the connection breaks on it.
    pub(super) fn roll(&self) -> (Duration, bool) {
        let mut inner = self.inner.lock();
        let Weather { delay_max, stall, loss, .. } = inner.weather;
        let max = if inner.rng.random_bool(stall) { 500 } else { delay_max };
        let delay = Duration::from_micros(inner.rng.random_range(100..=max * 1_000));
        (delay, inner.rng.random_bool(loss))
    }

    fn rolls_duplicate(&self) -> bool {
        let mut inner = self.inner.lock();
        let duplicate = inner.weather.duplicate;
        inner.rng.random_bool(duplicate)
    }

    fn rolls_refusal(&self) -> bool {
        let mut inner = self.inner.lock();
        let refusal = inner.weather.refusal;
        inner.rng.random_bool(refusal)
    }

    /// How many of the bytes that wait go on their way together: all of them, or now and then a few.
    fn roll_piece(&self) -> usize {
        let mut inner = self.inner.lock();
        let few = inner.rng.random_bool(0.1);
        if few { inner.rng.random_range(1..40) } else { PIPE_BYTES }
    }

    fn is_cut(&self, way: (usize, usize)) -> bool {
        self.inner.lock().cuts.contains(&way)
    }
}

impl Way {
    fn back(&self) -> Self {
        Self { from: self.to, to: self.from, ..self.clone() }
    }

    /// Resolves when one end is gone.
    async fn ended(&self) {
        let [here, there] = &self.ends;
        tokio::select! {
            biased;
            () = here.cancelled() => {}
            () = there.cancelled() => {}
        }
    }

    /// One message on its way.
    async fn travel(&self) -> Result<(), BoxError> {
        let (delay, breaks) = self.net.roll();
        sleep(delay).await;
        let deadline = Instant::now() + HELD_UP_MAX;
        loop {
            let changed = self.net.changed.notified();
            if !self.net.is_cut((self.from, self.to)) {
                break;
            }
            tokio::select! {
                biased;
                () = changed => {}
                () = sleep_until(deadline) => return Err(broken()),
                () = self.ended() => return Err(broken()),
            }
        }
        let gone = self.ends.iter().any(CancellationToken::is_cancelled);
        if breaks || gone { Err(broken()) } else { Ok(()) }
    }

    /// The same body at the other end.
    fn pump(self, mut body: Body) -> Body {
        let (sender, frames) = mpsc::channel(FRAMES);
        tokio::spawn(async move {
            loop {
                let frame = tokio::select! {
                    biased;
                    frame = body.frame() => frame,
                    () = self.ended() => Some(Err(Status::unavailable("simulated: gone"))),
                    () = sender.closed() => None,
                };
                let Some(mut frame) = frame else { return };
                if let Err(error) = self.travel().await {
                    frame = Err(Status::unavailable(error.to_string()));
                }
                let last = frame.is_err();
                if sender.send(frame).await.is_err() || last {
                    return;
                }
            }
        });
        Body::new(StreamBody::new(ReceiverStream::new(frames)))
    }
}

impl Way {
    /// Carries bytes until no more are said. An error: the connection breaks, both ways.
    async fn carry_bytes(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
    ) -> Result<(), BoxError> {
        let mut held = vec![0; PIPE_BYTES];
        loop {
            let piece = &mut held[..self.net.roll_piece()];
            let read = tokio::select! {
                biased;
                read = from.read(piece) => read?,
                () = self.ended() => return Err(broken()),
            };
            self.travel().await?;
            if read == 0 {
                return Ok(to.shutdown().await?);
            }
            to.write_all(&held[..read]).await?;
        }
    }
}

/// What may arrive twice.
fn may_repeat(path: &str) -> bool {
    ["/AppendOne", "/Vote", "/TransferLeader", "/ReadIndex"].iter().any(|end| path.ends_with(end))
}

/// The network as one incarnation of a member sees it.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    pub(super) net: Arc<Net>,
    pub(super) place: usize,
    pub(super) gone: CancellationToken,
}

impl Wire {
    /// The member behind a URL and the way to it, if somebody listens there.
    async fn dial(&self, url: &str) -> Result<(Door, Way), BoxError> {
        let door = self.net.inner.lock().doors.get(url).cloned();
        let refuses = self.gone.is_cancelled() || self.net.rolls_refusal();
        let Some(door) = door.filter(|_| !refuses) else {
            sleep(self.net.roll().0).await;
            return Err(refused());
        };
        let ends = [self.gone.clone(), door.gone.clone()];
        let way = Way { net: Arc::clone(&self.net), from: self.place, to: door.place, ends };
        way.travel().await?;
        Ok((door, way))
    }

    /// The near end of a connection for the log; `None` when members know none.
    async fn connect(self, url: String) -> Result<Option<DuplexStream>, BoxError> {
        if !self.net.inner.lock().framed_log {
            return Ok(None);
        }
        let (Door { member, gone, .. }, way) = self.dial(&url).await?;
        let (here, near) = duplex(PIPE_BYTES);
        let (far, there) = duplex(PIPE_BYTES);
        tokio::spawn(async move {
            tokio::select! {
                biased;
                served = member.serve_append(there) => drop(served),
                () = gone.cancelled() => {}
            }
        });
        let back = way.back();
        back.travel().await?;
        tokio::spawn(async move {
            let ((said, to_caller), (answered, to_member)) = (split(near), split(far));
            // Not tokio's, which begins with another one each time it is polled.
            let carried = futures::future::try_join(
                way.carry_bytes(said, to_member),
                back.carry_bytes(answered, to_caller),
            );
            let carried = carried.await;
            if let Err(error) = carried {
                tracing::debug!(%error, "a connection of the log has ended");
            }
        });
        Ok(Some(here))
    }

    async fn carry(self, url: String, request: PeerRequest) -> Result<PeerResponse, BoxError> {
        let (door, way) = self.dial(&url).await?;
        let path = request.uri().path();
        let both_ways = path.ends_with("/Append");
        let streamed = both_ways || path.ends_with("/Attend");
        let answer = if both_ways {
            let (head, body) = request.into_parts();
            deliver(&door, PeerRequest::from_parts(head, way.clone().pump(body)))
        } else if path.ends_with("/InstallSnapshot") {
            deliver_files(&way, &door, request).await?
        } else {
            deliver_whole(&way, &door, request).await?
        };
        let response = tokio::select! {
            biased;
            response = answer => response.map_err(|_| broken())?,
            () = way.ended() => return Err(broken()),
        };
        let back = way.back();
        back.travel().await?;
        if !streamed {
            return Ok(response);
        }
        let (head, body) = response.into_parts();
        Ok(PeerResponse::from_parts(head, back.pump(body)))
    }
}

/// Hands a request to the member; it goes on with it whether or not anybody waits.
fn deliver(door: &Door, request: PeerRequest) -> oneshot::Receiver<PeerResponse> {
    let (sender, answer) = oneshot::channel();
    let Door { member, gone, .. } = door.clone();
    tokio::spawn(async move {
        tokio::select! {
            biased;
            response = member.serve(request) => drop(sender.send(response)),
            () = gone.cancelled() => {}
        }
    });
    answer
}

async fn deliver_whole(
    way: &Way,
    door: &Door,
    request: PeerRequest,
) -> Result<oneshot::Receiver<PeerResponse>, BoxError> {
    let (head, body) = request.into_parts();
    let bytes = body.collect().await?.to_bytes();
    let whole = || {
        let body = Body::new(http_body_util::Full::new(bytes.clone()));
        PeerRequest::from_parts(head.clone(), body)
    };
    if may_repeat(head.uri.path()) && way.net.rolls_duplicate() {
        let (way, door, again) = (way.clone(), door.clone(), whole());
        tokio::spawn(async move {
            if way.travel().await.is_ok() {
                drop(deliver(&door, again).await);
            }
        });
    }
    Ok(deliver(door, whole()))
}

/// A snapshot arrives whole, or breaks off after its header. Into how many files and frames it is cut
/// is RocksDB's choice, which a seed does not decide; so nothing may depend on it, and what comes
/// next begins when everything else at this instant is done.
async fn deliver_files(
    way: &Way,
    door: &Door,
    request: PeerRequest,
) -> Result<oneshot::Receiver<PeerResponse>, BoxError> {
    let (head, mut body) = request.into_parts();
    let mut frames = Vec::new();
    tokio::task::unconstrained(async {
        while let Some(frame) = body.frame().await {
            frames.push(frame);
        }
    })
    .await;
    sleep(Duration::from_millis(5)).await;
    if way.travel().await.is_err() {
        frames.truncate(1);
        frames.push(Err(Status::unavailable("simulated: the snapshot breaks off")));
    }
    let body = Body::new(StreamBody::new(futures::stream::iter(frames)));
    Ok(deliver(door, PeerRequest::from_parts(head, body)))
}

impl Network for Wire {
    fn call(&self, url: &str, request: PeerRequest) -> Pending<Result<PeerResponse, BoxError>> {
        Box::pin(self.clone().carry(url.to_owned(), request))
    }

    fn open_append(&self, url: &str) -> Pending<io::Result<Option<DuplexStream>>> {
        let connecting = self.clone().connect(url.to_owned());
        Box::pin(async move { connecting.await.map_err(io::Error::other) })
    }
}
