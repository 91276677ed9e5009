//! Mends the authority that older etcd clients send.
//!
//! `etcdctl` 3.4 dials single endpoints with their whole URL as `:authority`
//! (`http://127.0.0.1:2379`). Go's server does not mind; ours refuses the stream. This filter
//! looks at the first HEADERS frame of a connection only: the client puts the authority there as a
//! literal and refers to it afterwards. A literal that begins with a scheme is replaced; all other
//! bytes pass untouched, and from then on without being looked at.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER: usize = 9;
const TYPE_HEADERS: u8 = 1;
const FLAG_PADDED: u8 = 0x8;
const FLAG_PRIORITY: u8 = 0x20;
/// A first header block that is larger is none of an etcd client: it passes unread.
const BLOCK_MAX: usize = 16 << 10;
/// What the authority is replaced with. Nothing here routes by it.
const REPLACEMENT: &[u8] = b"localhost";
/// `http://` and `https://` in HPACK's Huffman code: the bits, and how many they are.
const HUFFMAN_SCHEMES: [(u64, u32); 2] = [(0x013a_535d_c618, 41), (0x274a_6b45_c618, 46)];

enum State {
    Preface,
    Frames,
    Done,
}

/// A connection whose first header block is looked at.
pub(super) struct MendAuthority<S> {
    inner: S,
    state: State,
    http2: bool,
    incoming: BytesMut,
    mended: BytesMut,
}

impl<S> MendAuthority<S> {
    pub(super) fn new(inner: S) -> Self {
        let (incoming, mended) = (BytesMut::new(), BytesMut::new());
        Self { inner, state: State::Preface, http2: false, incoming, mended }
    }

    /// Whether it began as HTTP/2 does.
    pub(super) fn is_http2(&self) -> bool {
        self.http2
    }

    /// Moves what is understood from `incoming` to `mended`.
    fn advance(&mut self) {
        if matches!(self.state, State::Preface) {
            let seen = self.incoming.len().min(PREFACE.len());
            if self.incoming[..seen] != PREFACE[..seen] {
                return self.finish();
            }
            if seen < PREFACE.len() {
                return;
            }
            self.mended.put(self.incoming.split_to(PREFACE.len()));
            self.state = State::Frames;
            self.http2 = true;
        }
        while matches!(self.state, State::Frames) && self.incoming.len() >= FRAME_HEADER {
            let size = usize::try_from(self.incoming.clone().get_uint(3)).unwrap_or(usize::MAX);
            let (kind, flags) = (self.incoming[3], self.incoming[4]);
            if size > BLOCK_MAX {
                return self.finish();
            }
            if self.incoming.len() < FRAME_HEADER + size {
                return;
            }
            let frame = self.incoming.split_to(FRAME_HEADER + size);
            if kind == TYPE_HEADERS {
                let plain = flags & (FLAG_PADDED | FLAG_PRIORITY) == 0;
                let mended = plain.then(|| mend(&frame)).flatten();
                self.mended.put(mended.unwrap_or(frame));
                return self.finish();
            }
            self.mended.put(frame);
        }
    }

    fn finish(&mut self) {
        self.mended.put(self.incoming.split());
        self.state = State::Done;
    }
}

/// The frame with another authority, if its own begins with a scheme.
fn mend(frame: &BytesMut) -> Option<BytesMut> {
    let block = &frame[FRAME_HEADER..];
    let mut at = 0;
    while at < block.len() {
        let first = block[at];
        if first & 0x80 != 0 {
            // An indexed field.
            at += integer(&block[at..], 7)?.1;
            continue;
        }
        if first & 0xe0 == 0x20 {
            // A change of the table size.
            at += integer(&block[at..], 5)?.1;
            continue;
        }
        let index_bits = if first & 0x40 != 0 { 6 } else { 4 };
        let (name, used) = integer(&block[at..], index_bits)?;
        at += used;
        if name == 0 {
            at += string(&block[at..])?.1;
        }
        let (value, used) = string(&block[at..])?;
        // Static entry 1 is `:authority`.
        if name == 1 {
            return value.has_scheme().then(|| replace(frame, at, used)).flatten();
        }
        at += used;
    }
    None
}

fn replace(frame: &BytesMut, at: usize, used: usize) -> Option<BytesMut> {
    let block = &frame[FRAME_HEADER..];
    let size = block.len() - used + 1 + REPLACEMENT.len();
    let mut mended = BytesMut::with_capacity(FRAME_HEADER + size);
    mended.put_uint(u64::try_from(size).ok()?, 3);
    mended.put_slice(&frame[3..FRAME_HEADER]);
    mended.put_slice(&block[..at]);
    mended.put_u8(u8::try_from(REPLACEMENT.len()).ok()?);
    mended.put_slice(REPLACEMENT);
    mended.put_slice(&block[at + used..]);
    Some(mended)
}

/// An HPACK integer whose first byte has `bits` of it (RFC 7541, 5.1): its value and length.
fn integer(bytes: &[u8], bits: u32) -> Option<(usize, usize)> {
    let mask = (1_usize << bits) - 1;
    let mut value = usize::from(*bytes.first()?) & mask;
    if value < mask {
        return Some((value, 1));
    }
    for (position, byte) in bytes.iter().enumerate().skip(1).take(3) {
        value += usize::from(byte & 0x7f) << (7 * (position - 1));
        if byte & 0x80 == 0 {
            return Some((value, position + 1));
        }
    }
    None
}

struct Text<'a> {
    huffman: bool,
    bytes: &'a [u8],
}

impl Text<'_> {
    fn has_scheme(&self) -> bool {
        if !self.huffman {
            return self.bytes.starts_with(b"http://") || self.bytes.starts_with(b"https://");
        }
        let mut start = [0; 8];
        let held = self.bytes.len().min(8);
        start[..held].copy_from_slice(&self.bytes[..held]);
        let start = u64::from_be_bytes(start);
        HUFFMAN_SCHEMES.iter().any(|(code, bits)| start >> (64 - bits) == *code)
    }
}

/// An HPACK string (RFC 7541, 5.2) and the length of its encoding.
fn string(bytes: &[u8]) -> Option<(Text<'_>, usize)> {
    let (length, used) = integer(bytes, 7)?;
    let text = bytes.get(used..used + length)?;
    Some((Text { huffman: bytes[0] & 0x80 != 0, bytes: text }, used + length))
}

impl<S: AsyncRead + Unpin> AsyncRead for MendAuthority<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.mended.is_empty() {
            if matches!(this.state, State::Done) {
                return Pin::new(&mut this.inner).poll_read(context, buffer);
            }
            let mut bytes = [0; 4096];
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.inner).poll_read(context, &mut read))?;
            if read.filled().is_empty() {
                this.finish();
                continue;
            }
            this.incoming.put_slice(read.filled());
            this.advance();
        }
        let count = this.mended.len().min(buffer.remaining());
        buffer.put_slice(&this.mended.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for MendAuthority<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    /// Preface, SETTINGS, then HEADERS with `:method`, `:scheme` and the given authority.
    fn connection(authority: &[u8], huffman: bool) -> Vec<u8> {
        let mut bytes = PREFACE.to_vec();
        bytes.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
        let mut block = vec![0x83, 0x86, 0x41];
        let length = u8::try_from(authority.len()).expect("short");
        block.push(length | if huffman { 0x80 } else { 0 });
        block.extend_from_slice(authority);
        block.extend_from_slice(&[0x44, 2, b'/', b'x']);
        bytes.extend_from_slice(&[0, 0, u8::try_from(block.len()).expect("short")]);
        bytes.extend_from_slice(&[TYPE_HEADERS, 4, 0, 0, 0, 1]);
        bytes.extend_from_slice(&block);
        bytes.extend_from_slice(b"whatever follows");
        bytes
    }

    async fn through(bytes: &[u8]) -> Vec<u8> {
        let mut read = Vec::new();
        // In small pieces, as a network may deliver them.
        let pieces =
            bytes.chunks(5).map(|piece| Ok::<_, io::Error>(bytes::Bytes::copy_from_slice(piece)));
        let reader =
            tokio_util::io::StreamReader::new(futures::stream::iter(pieces.collect::<Vec<_>>()));
        let mut mended = MendAuthority::new(reader);
        mended.read_to_end(&mut read).await.expect("readable");
        read
    }

    #[tokio::test]
    async fn a_url_as_authority_is_replaced() {
        let expected = connection(REPLACEMENT, false);
        assert_eq!(through(&connection(b"http://127.0.0.1:2379", false)).await, expected);
        // "http://a" in Huffman code, padded with ones.
        let huffman = [0x9d, 0x29, 0xae, 0xe3, 0x0c, 0x0f];
        assert_eq!(through(&connection(&huffman, true)).await, expected);
    }

    #[tokio::test]
    async fn everything_else_passes_untouched() {
        for bytes in [
            connection(b"127.0.0.1:2379", false),
            connection(&[0x08, 0x9d, 0x5c, 0x0b, 0x81, 0x70], true),
            b"GET /health HTTP/1.1\r\n\r\n".to_vec(),
            PREFACE[..10].to_vec(),
        ] {
            assert_eq!(through(&bytes).await, bytes);
        }
    }
}
