//! Gathers what an HTTP/2 connection has to write into few system calls.
//!
//! When a batch is applied, hundreds of calls and watchers are answered, one after the other. The first of
//! them wakes its connection, which the runtime polls next: it would write that one answer, and the
//! others one by one later. Here a flush first lets every task that is ready already have its turn (the
//! connection wakes itself and goes to the end of the queue), then writes what has come together.
//!
//! One that has very much to write (watchers that catch up) would hold its thread for all of it: after
//! so much it ends its turn, too, and others get theirs before it goes on.
//!
//! A client that pings too often ([`pings`](super::pings)) is told so here, and its connection ends.
//!
//! Whether a flush belongs to the next turn is seen from reads: HTTP/2 reads until there is
//! nothing more, then writes and flushes, in every turn. HTTP/1 does not, and passes through.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::authority::MendAuthority;
use super::pings::Pings;
use super::short::Marker;

/// More is not held back: the client may as well begin to read.
const HELD_MAX: usize = 64 << 10;
/// What one turn writes, about.
const TURN_MAX: usize = 256 << 10;
/// Memory that an idle connection may keep.
const IDLE_MAX: usize = 4 << 10;

/// When what is held goes out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flush {
    /// Nothing was flushed.
    Idle,
    /// At the flush of the next turn, which was asked for.
    NextTurn,
    /// At the next flush.
    Due,
}

/// A connection that writes once a turn.
pub(super) struct Gather<S> {
    inner: MendAuthority<S>,
    held: Vec<u8>,
    /// How much of what is held was written already.
    gone: usize,
    flush: Flush,
    /// Bytes that this turn may still write.
    room: usize,
    pings: Pings,
    marker: Marker,
    /// What is held goes out, and that is the end.
    refused: bool,
}

impl<S> Gather<S> {
    pub(super) fn new(inner: MendAuthority<S>, pings: Pings, marker: Marker) -> Self {
        let (held, flush, room, refused) = (Vec::new(), Flush::Idle, TURN_MAX, false);
        Self { inner, held, gone: 0, flush, room, pings, marker, refused }
    }
}

impl<S: AsyncWrite + Unpin> Gather<S> {
    /// Writes to the socket, unless the turn is over: then after the next turn of others.
    fn write(
        &mut self,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.room == 0 && self.inner.is_http2() {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let written = ready!(Pin::new(&mut self.inner).poll_write_vectored(context, buffers))?;
        self.room = self.room.saturating_sub(written);
        Poll::Ready(Ok(written))
    }

    /// Writes what is held and then `more`, in one system call where the socket has room; the answer is
    /// how much of `more` was written.
    fn write_held(
        &mut self,
        context: &mut Context<'_>,
        more: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        while self.gone < self.held.len() {
            let held = std::mem::take(&mut self.held);
            let part = |at: usize| more.get(at).map_or(&[][..], |buffer| &**buffer);
            let all = [&held[self.gone..], part(0), part(1)].map(IoSlice::new);
            let count = if more.is_empty() { 1 } else { all.len() };
            let written = self.write(context, &all[..count]);
            self.held = held;
            let written = ready!(written)?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gone += written;
        }
        let written = self.gone - self.held.len();
        self.held.clear();
        self.gone = 0;
        Poll::Ready(Ok(written))
    }

    /// Gives back memory that an idle connection does not need.
    fn shrink(&mut self) {
        if self.held.capacity() > IDLE_MAX {
            self.held = Vec::new();
        }
    }

    fn hold(&mut self, buffers: &[IoSlice<'_>], length: usize) {
        if self.held.len() + length > self.held.capacity() && length > IDLE_MAX {
            // More will come: room for all of it at once.
            self.held.reserve_exact(HELD_MAX - self.held.len());
        }
        for buffer in buffers {
            self.pings.sent(buffer);
            self.held.extend_from_slice(buffer);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Gather<S> {
    /// What the client has sent since a turn began; it may be too much.
    fn received(&mut self, bytes: &[u8]) {
        if self.inner.is_http2() && self.pings.received(bytes, || self.marker.has_calls()) {
            self.pings.refusal(&mut self.held);
            self.refused = true;
        }
    }

    fn end(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.write_held(context, &[]))?;
        ready!(Pin::new(&mut self.inner).poll_flush(context))?;
        Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "too many pings")))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gather<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.flush == Flush::NextTurn {
            self.flush = Flush::Due;
        }
        let this = &mut *self;
        this.room = TURN_MAX;
        let before = buffer.filled().len();
        if !this.refused {
            ready!(Pin::new(&mut this.inner).poll_read(context, buffer))?;
            this.received(&buffer.filled()[before..]);
        }
        if this.refused {
            buffer.set_filled(before);
            return this.end(context);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gather<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let length: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        if this.inner.is_http2() && this.held.len() + length <= HELD_MAX {
            this.hold(buffers, length);
            return Poll::Ready(Ok(length));
        }
        let mut written = ready!(this.write_held(context, buffers))?;
        if written == 0 {
            written = ready!(this.write(context, buffers))?;
        }
        if this.inner.is_http2() {
            let mut rest = written;
            for buffer in buffers {
                let part = rest.min(buffer.len());
                this.pings.sent(&buffer[..part]);
                rest -= part;
            }
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// What is held counts as flushed once its turn is arranged.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.held.is_empty() && this.flush != Flush::Due {
            if this.flush == Flush::Idle {
                this.flush = Flush::NextTurn;
                context.waker().wake_by_ref();
            }
            return Poll::Ready(Ok(()));
        }
        ready!(this.write_held(context, &[]))?;
        this.shrink();
        this.flush = Flush::Idle;
        Pin::new(&mut this.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.write_held(context, &[]))?;
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Waker;

    use parking_lot::Mutex;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::authority::PREFACE;
    use super::*;

    /// A socket that keeps each write apart and takes at most `room` bytes at once.
    #[derive(Clone)]
    struct Socket {
        incoming: &'static [u8],
        writes: Arc<Mutex<Vec<Vec<u8>>>>,
        room: usize,
    }

    impl AsyncRead for Socket {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if self.incoming.is_empty() {
                return Poll::Pending;
            }
            buffer.put_slice(std::mem::take(&mut self.incoming));
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Socket {
        fn poll_write(
            self: Pin<&mut Self>,
            _context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let taken = bytes.len().min(self.room);
            if taken == 0 {
                return Poll::Pending;
            }
            self.writes.lock().push(bytes[..taken].to_vec());
            Poll::Ready(Ok(taken))
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffers: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all: Vec<u8> = buffers.iter().flat_map(|buffer| buffer.iter().copied()).collect();
            self.poll_write(context, &all)
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    async fn connection(preface: &'static [u8], room: usize) -> (Gather<Socket>, Socket) {
        let socket = Socket { incoming: preface, writes: Arc::default(), room };
        let pings = Pings::new(std::time::Duration::from_secs(5));
        let mut gather = Gather::new(MendAuthority::new(socket.clone()), pings, Marker::default());
        let mut seen = vec![0; preface.len()];
        gather.read_exact(&mut seen).await.expect("it is there");
        (gather, socket)
    }

    fn turn(gather: &mut Gather<Socket>, answers: &[&[u8]]) -> Poll<io::Result<()>> {
        let mut context = Context::from_waker(Waker::noop());
        let mut bytes = [0; 10];
        assert!(
            Pin::new(&mut *gather)
                .poll_read(&mut context, &mut ReadBuf::new(&mut bytes))
                .is_pending()
        );
        for answer in answers {
            let written = Pin::new(&mut *gather).poll_write(&mut context, answer);
            assert!(matches!(written, Poll::Ready(Ok(count)) if count == answer.len()));
            assert!(Pin::new(&mut *gather).poll_flush(&mut context).is_ready());
        }
        Pin::new(&mut *gather).poll_flush(&mut context)
    }

    #[tokio::test]
    async fn answers_of_a_turn_and_of_those_before_it_go_out_together() {
        let (mut gather, socket) = connection(PREFACE, usize::MAX).await;
        assert!(turn(&mut gather, &[b"one", b"two"]).is_ready());
        assert!(socket.writes.lock().is_empty());
        assert!(turn(&mut gather, &[]).is_ready());
        assert_eq!(*socket.writes.lock(), [b"onetwo".to_vec()]);
        assert!(turn(&mut gather, &[b"three"]).is_ready());
        assert!(turn(&mut gather, &[b"four"]).is_ready());
        let writes = socket.writes.lock().concat();
        assert_eq!(writes, b"onetwothreefour");
    }

    #[tokio::test]
    async fn a_full_socket_holds_the_writer_up_and_loses_nothing() {
        let (mut gather, socket) = connection(PREFACE, 0).await;
        let mut context = Context::from_waker(Waker::noop());
        let chunk = vec![7; 40 << 10];
        assert!(Pin::new(&mut gather).poll_write(&mut context, &chunk).is_ready());
        assert!(Pin::new(&mut gather).poll_write(&mut context, &chunk).is_pending());
        assert!(turn(&mut gather, &[]).is_ready(), "its turn is still to come");
        assert!(turn(&mut gather, &[]).is_pending(), "the socket is full");
        let mut open = Gather {
            inner: MendAuthority::new(Socket { room: 1_000, ..socket.clone() }),
            ..gather
        };
        open.shutdown().await.expect("written");
        assert_eq!(socket.writes.lock().concat(), chunk);
    }

    #[tokio::test]
    async fn what_was_held_and_what_is_too_much_go_out_together() {
        let (mut gather, socket) = connection(PREFACE, usize::MAX).await;
        let mut context = Context::from_waker(Waker::noop());
        let [small, large] = [vec![1; HELD_MAX - 9], vec![2; 16 << 10]];
        assert!(Pin::new(&mut gather).poll_write(&mut context, &small).is_ready());
        let (head, rest) = large.split_at(9);
        let frame = [IoSlice::new(head), IoSlice::new(rest)];
        let written = Pin::new(&mut gather).poll_write_vectored(&mut context, &frame);
        assert!(matches!(written, Poll::Ready(Ok(count)) if count == large.len()));
        assert_eq!(*socket.writes.lock(), [[small, large].concat()]);
        assert!(turn(&mut gather, &[]).is_ready());
        assert_eq!(gather.held.capacity(), 0, "an idle connection keeps little");
    }

    #[tokio::test]
    async fn a_socket_that_takes_little_at_a_time_gets_everything_in_order() {
        for room in [1_000, 40 << 10, (64 << 10) + 5] {
            let (mut gather, socket) = connection(PREFACE, room).await;
            let pieces = (1..=20).map(|byte| vec![byte; usize::from(byte) * 1_000]);
            let all: Vec<Vec<u8>> = pieces.collect();
            for piece in &all {
                gather.write_all(piece).await.expect("written");
            }
            gather.shutdown().await.expect("written");
            assert_eq!(socket.writes.lock().concat(), all.concat(), "{room}");
        }
    }

    #[tokio::test]
    async fn a_turn_ends_after_so_much_and_the_next_goes_on() {
        let (mut gather, socket) = connection(PREFACE, usize::MAX).await;
        let chunk = vec![7; TURN_MAX / 2];
        for _ in 0..3 {
            let mut context = Context::from_waker(Waker::noop());
            assert!(turn(&mut gather, &[&chunk, &chunk]).is_ready());
            assert!(Pin::new(&mut gather).poll_write(&mut context, &chunk).is_pending());
        }
        assert_eq!(socket.writes.lock().concat().len(), 3 * TURN_MAX);
    }

    #[tokio::test]
    async fn http1_is_written_at_once() {
        let (mut gather, socket) = connection(b"GET /health HTTP/1.1\r\n\r\n", usize::MAX).await;
        gather.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("written");
        assert_eq!(socket.writes.lock().len(), 1);
    }
}
