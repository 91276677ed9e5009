//! As much of SPDY/3.1 as a client of the runtime's streaming server needs: opening streams, data in
//! both directions, half-close, ping.
//!
//! Headers go out as stored zlib blocks, which every inflater reads and which need neither the protocol's
//! dictionary nor a compressor; headers that come in carry nothing that we use. Like upstream's servers we
//! keep no flow-control windows: the connection's own backpressure is enough for one command.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const VERSION: u16 = 0x8003;
const SYN_STREAM: u16 = 1;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const FLAG_FIN: u8 = 1;
/// Both directions: one frame.
const FRAME_BYTES_MAX: usize = 1 << 20;
/// Data is sent in frames of at most this.
const DATA_BYTES_MAX: usize = 32 << 10;

/// A stream of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamId(u32);

/// Something that the server sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Data of a stream; `end` closes that direction.
    Data {
        /// The stream.
        stream: StreamId,
        /// The bytes.
        data: Bytes,
        /// Whether it is the last.
        end: bool,
    },
    /// A stream was reset.
    Reset(StreamId),
    /// To be sent back.
    Ping(u32),
    /// The server takes no more streams.
    GoAway,
    /// Anything that needs no answer.
    Other,
}

/// The sending half.
#[derive(Debug)]
pub struct Sender<W> {
    out: W,
    next_stream: u32,
    zlib_begun: bool,
}

impl<W: AsyncWrite + Unpin> Sender<W> {
    /// A client's half: its streams have odd ids.
    pub fn new(out: W) -> Self {
        Self { out, next_stream: 1, zlib_begun: false }
    }

    /// Opens a stream.
    pub async fn open(&mut self, headers: &[(&str, &str)]) -> io::Result<StreamId> {
        let id = StreamId(self.next_stream);
        self.next_stream += 2;
        let block = self.header_block(headers);
        let mut frame = BytesMut::with_capacity(18 + block.len());
        put_control(&mut frame, SYN_STREAM, 0, 10 + block.len());
        frame.put_u32(id.0);
        frame.put_u32(0);
        frame.put_u16(0);
        frame.put_slice(&block);
        self.out.write_all(&frame).await?;
        self.out.flush().await?;
        Ok(id)
    }

    /// Sends data; `end` closes our direction.
    pub async fn data(&mut self, stream: StreamId, data: &[u8], end: bool) -> io::Result<()> {
        let mut chunks = data.chunks(DATA_BYTES_MAX).peekable();
        if chunks.peek().is_none() {
            self.data_frame(stream, &[], end).await?;
        }
        while let Some(chunk) = chunks.next() {
            self.data_frame(stream, chunk, end && chunks.peek().is_none()).await?;
        }
        self.out.flush().await
    }

    async fn data_frame(&mut self, stream: StreamId, data: &[u8], end: bool) -> io::Result<()> {
        let mut head = [0; 8];
        head[..4].copy_from_slice(&stream.0.to_be_bytes());
        head[4..].copy_from_slice(&(data.len() as u32).to_be_bytes());
        head[4] = if end { FLAG_FIN } else { 0 };
        self.out.write_all(&head).await?;
        self.out.write_all(data).await
    }

    /// Answers a ping.
    pub async fn pong(&mut self, id: u32) -> io::Result<()> {
        let mut frame = BytesMut::new();
        put_control(&mut frame, PING, 0, 4);
        frame.put_u32(id);
        self.out.write_all(&frame).await?;
        self.out.flush().await
    }

    fn header_block(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut plain = Vec::new();
        plain.put_u32(headers.len() as u32);
        for (name, value) in headers {
            for text in [name, value] {
                plain.put_u32(text.len() as u32);
                plain.put_slice(text.as_bytes());
            }
        }
        let mut block = Vec::with_capacity(plain.len() + 16);
        if !std::mem::replace(&mut self.zlib_begun, true) {
            // Deflate, 32 KiB window, no dictionary.
            block.put_slice(&[0x78, 0x01]);
        }
        put_stored(&mut block, &plain);
        // The empty block is zlib's sync flush.
        put_stored(&mut block, &[]);
        block
    }
}

fn put_stored(out: &mut Vec<u8>, data: &[u8]) {
    let length = u16::try_from(data.len()).expect("headers of our streams are short");
    out.put_u8(0);
    out.put_u16_le(length);
    out.put_u16_le(!length);
    out.put_slice(data);
}

fn put_control(out: &mut BytesMut, kind: u16, flags: u8, length: usize) {
    out.put_u16(VERSION);
    out.put_u16(kind);
    out.put_u32(u32::from(flags) << 24 | length as u32);
}

/// The receiving half.
#[derive(Debug)]
pub struct Receiver<R> {
    input: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Receiver<R> {
    /// Reads frames; `rest` was read before.
    pub fn new(input: R, rest: &[u8]) -> Self {
        Self { input, buffer: BytesMut::from(rest) }
    }

    /// The next frame; `None` at the end. Dropping the future loses nothing.
    pub async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = parse(&mut self.buffer)? {
                return Ok(Some(frame));
            }
            if self.input.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }
}

/// Takes one frame off the buffer, if it is complete.
fn parse(buffer: &mut BytesMut) -> io::Result<Option<Frame>> {
    if buffer.len() < 8 {
        return Ok(None);
    }
    let first = u32::from_be_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]);
    let flags = buffer[4];
    let length =
        usize::from(buffer[5]) << 16 | usize::from(buffer[6]) << 8 | usize::from(buffer[7]);
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "SPDY frame too large"));
    }
    if buffer.len() < 8 + length {
        return Ok(None);
    }
    buffer.advance(8);
    let mut body = buffer.split_to(length).freeze();
    if first & 0x8000_0000 == 0 {
        return Ok(Some(Frame::Data {
            stream: StreamId(first),
            data: body,
            end: flags & FLAG_FIN != 0,
        }));
    }
    let word = |body: &mut Bytes| if body.len() >= 4 { body.get_u32() } else { 0 };
    Ok(Some(match (first & 0xffff) as u16 {
        RST_STREAM => Frame::Reset(StreamId(word(&mut body) & 0x7fff_ffff)),
        PING => Frame::Ping(word(&mut body)),
        GOAWAY => Frame::GoAway,
        _ => Frame::Other,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[tokio::test]
    async fn headers_are_a_valid_zlib_stream_across_frames() {
        let mut sender = Sender::new(Vec::new());
        sender.open(&[("streamtype", "error")]).await.unwrap();
        sender.open(&[("streamtype", "stdin"), ("port", "80")]).await.unwrap();
        let mut wire = &sender.out[..];
        let mut zlib = Vec::new();
        let mut ids = Vec::new();
        while !wire.is_empty() {
            assert_eq!(wire.get_u16(), VERSION);
            assert_eq!(wire.get_u16(), SYN_STREAM);
            let length = wire.get_u32() as usize;
            ids.push(wire.get_u32());
            wire.advance(6);
            zlib.extend_from_slice(&wire[..length - 10]);
            wire.advance(length - 10);
        }
        assert_eq!(ids, [1, 3]);
        let mut plain = Vec::new();
        // The stream has no end marker: it goes on for as long as the connection.
        let ended = flate2::read::ZlibDecoder::new(&zlib[..]).read_to_end(&mut plain);
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let mut plain = &plain[..];
        let text = |plain: &mut &[u8]| {
            let length = plain.get_u32() as usize;
            let text = String::from_utf8(plain[..length].to_vec()).unwrap();
            plain.advance(length);
            text
        };
        assert_eq!(plain.get_u32(), 1);
        assert_eq!((text(&mut plain), text(&mut plain)), ("streamtype".into(), "error".into()));
        assert_eq!(plain.get_u32(), 2);
        assert_eq!((text(&mut plain), text(&mut plain)), ("streamtype".into(), "stdin".into()));
    }

    #[tokio::test]
    async fn data_and_its_end_survive_any_cut() {
        let mut sender = Sender::new(Vec::new());
        sender.data(StreamId(5), b"hello", false).await.unwrap();
        sender.data(StreamId(5), b"", true).await.unwrap();
        sender.pong(7).await.unwrap();
        let wire = sender.out;
        for cut in 0..wire.len() {
            let (head, tail) = wire.split_at(cut);
            let mut receiver = Receiver::new(tail, head);
            let mut frames = Vec::new();
            while let Some(frame) = receiver.next().await.unwrap() {
                frames.push(frame);
            }
            let data = |bytes: &'static [u8], end| Frame::Data {
                stream: StreamId(5),
                data: bytes.into(),
                end,
            };
            assert_eq!(frames, [data(b"hello", false), data(b"", true), Frame::Ping(7)], "{cut}");
        }
    }
}
