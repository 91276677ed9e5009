//! Ends connections of clients that ping too often, as grpc-go's server does with its enforcement
//! policy (`internal/transport/http2_server.go`, `handlePing`), which etcd sets with `--grpc-keepalive-min-time`.

use std::time::{Duration, Instant};

use bytes::BufMut;

use super::authority::PREFACE;

const HEADER: usize = 9;
const TYPE_DATA: u8 = 0;
const TYPE_HEADERS: u8 = 1;
const TYPE_PING: u8 = 6;
const TYPE_GOAWAY: u8 = 7;
const FLAG_ACK: u8 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;
/// grpc's clients double their interval when they read this.
const REASON: &[u8] = b"too_many_pings";
/// Pings that come too early and are let pass, as in grpc-go.
const STRIKES_MAX: u32 = 2;
/// Without calls there is nothing to keep alive, as in grpc-go.
const IDLE_MIN: Duration = Duration::from_hours(2);

/// Finds the frames in the bytes of one direction.
#[derive(Debug, Default)]
struct Frames {
    header: [u8; HEADER],
    held: usize,
    skip: usize,
}

impl Frames {
    /// Names type, flags and stream of each frame that begins.
    fn pass(&mut self, mut bytes: &[u8], mut begins: impl FnMut(u8, u8, u32)) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let taken = (HEADER - self.held).min(bytes.len());
            self.header[self.held..self.held + taken].copy_from_slice(&bytes[..taken]);
            self.held += taken;
            bytes = &bytes[taken..];
            if self.held == HEADER {
                let [high, middle, low, kind, flags, stream @ ..] = self.header;
                self.held = 0;
                self.skip = u32::from_be_bytes([0, high, middle, low]) as usize;
                begins(kind, flags, u32::from_be_bytes(stream) & 0x7fff_ffff);
            }
        }
    }

    fn is_between(&self) -> bool {
        self.held == 0 && self.skip == 0
    }
}

/// Watches over the pings of one HTTP/2 connection.
#[derive(Debug)]
pub(super) struct Pings {
    /// Zero: they may come as they like.
    min_time: Duration,
    incoming: Frames,
    outgoing: Frames,
    last_stream: u32,
    last_ping: Option<Instant>,
    strikes: u32,
    /// Something was answered since the last ping: clients measure the connection then.
    answered: bool,
}

impl Pings {
    pub(super) fn new(min_time: Duration) -> Self {
        let incoming = Frames { skip: PREFACE.len(), ..Frames::default() };
        let (outgoing, last_stream, last_ping, strikes, answered) = Default::default();
        Self { min_time, incoming, outgoing, last_stream, last_ping, strikes, answered }
    }

    /// What the client has sent, from the preface on. Whether it has pinged once too often.
    pub(super) fn received(&mut self, bytes: &[u8], has_calls: impl Fn() -> bool) -> bool {
        if self.min_time.is_zero() {
            return false;
        }
        let (mut pings, mut last_stream) = (0, self.last_stream);
        self.incoming.pass(bytes, |kind, flags, stream| match kind {
            TYPE_PING if flags & FLAG_ACK == 0 => pings += 1,
            TYPE_HEADERS => last_stream = last_stream.max(stream),
            _ => {}
        });
        self.last_stream = last_stream;
        (0..pings).fold(false, |refused, _| self.pinged(Instant::now(), has_calls()) || refused)
    }

    fn pinged(&mut self, now: Instant, has_calls: bool) -> bool {
        let last = self.last_ping.replace(now);
        if std::mem::take(&mut self.answered) {
            self.strikes = 0;
            return false;
        }
        let min_time = if has_calls { self.min_time } else { IDLE_MIN };
        if last.is_some_and(|last| now < last + min_time) {
            self.strikes += 1;
        }
        self.strikes > STRIKES_MAX
    }

    /// What goes to the client.
    pub(super) fn sent(&mut self, bytes: &[u8]) {
        if self.min_time.is_zero() {
            return;
        }
        let answered = &mut self.answered;
        self.outgoing
            .pass(bytes, |kind, _, _| *answered |= matches!(kind, TYPE_DATA | TYPE_HEADERS));
    }

    /// What to send before the connection is closed; nothing can be said in the middle of a frame.
    pub(super) fn refusal(&self, out: &mut Vec<u8>) {
        if !self.outgoing.is_between() {
            return;
        }
        let length = 8 + REASON.len();
        out.put_uint(length as u64, 3);
        out.put_slice(&[TYPE_GOAWAY, 0]);
        out.put_u32(0);
        out.put_u32(self.last_stream);
        out.put_u32(ENHANCE_YOUR_CALM);
        out.put_slice(REASON);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    fn ping() -> Vec<u8> {
        frame(TYPE_PING, 0, 0, &[7; 8])
    }

    /// Seconds between pings, whether calls are open, and which of the pings is refused.
    #[test]
    fn pings_that_come_early_are_let_pass_twice() {
        for (every, has_calls, refused) in
            [(1, true, Some(4)), (5, true, None), (5, false, Some(4)), (7_200, false, None)]
        {
            let mut pings = Pings::new(5 * SECOND);
            let began = Instant::now();
            let first =
                (1..=10).find(|number| pings.pinged(began + every * *number * SECOND, has_calls));
            assert_eq!(first, refused, "every {every} s, calls: {has_calls}");
        }
    }

    #[test]
    fn answers_forgive() {
        let mut pings = Pings::new(5 * SECOND);
        let now = Instant::now();
        for _ in 0..100 {
            assert!(!(0..3).any(|_| pings.pinged(now, true)));
            pings.sent(&frame(TYPE_DATA, 0, 1, b"answer"));
        }
        assert!(!pings.pinged(now, true), "the answer forgives one more");
        // What the protocol itself sends is no answer.
        for kind in [TYPE_PING, 4, 8] {
            pings.sent(&frame(kind, FLAG_ACK, 0, &[0; 8]));
        }
        assert!((0..3).any(|_| pings.pinged(now, true)));
    }

    #[test]
    fn frames_are_found_in_any_chunks() {
        // The payload of another frame looks like a ping.
        let sent = [
            PREFACE.to_vec(),
            frame(4, 0, 0, &[]),
            frame(TYPE_DATA, 0, 9, &ping()),
            ping(),
            frame(TYPE_PING, FLAG_ACK, 0, &[7; 8]),
            frame(TYPE_HEADERS, 4, 5, b"block"),
            ping(),
            ping(),
        ]
        .concat();
        for size in [1, 2, 8, 9, 10, 17, sent.len()] {
            let mut pings = Pings::new(5 * SECOND);
            for chunk in sent.chunks(size) {
                assert!(!pings.received(chunk, || true), "chunks of {size}");
            }
            assert_eq!((pings.strikes, pings.last_stream), (2, 5), "chunks of {size}");
            assert!(pings.received(&ping(), || true));
        }
    }

    #[test]
    fn a_refusal_is_said_between_frames_only() {
        let mut pings = Pings::new(5 * SECOND);
        pings.last_stream = 7;
        let said = |pings: &Pings| {
            let mut out = Vec::new();
            pings.refusal(&mut out);
            out
        };
        let payload = [&[0, 0, 0, 7, 0, 0, 0, 11], REASON].concat();
        assert_eq!(said(&pings), frame(TYPE_GOAWAY, 0, 0, &payload));
        let data = frame(TYPE_DATA, 0, 7, b"data");
        pings.sent(&data[..10]);
        assert!(said(&pings).is_empty());
        pings.sent(&data[10..]);
        assert!(!said(&pings).is_empty());
    }

    #[test]
    fn without_a_time_nothing_is_refused() {
        let mut pings = Pings::new(Duration::ZERO);
        assert!(!(0..10).any(|_| pings.received(&ping(), || false)));
    }
}
