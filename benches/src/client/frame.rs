//! gRPC's framing of messages: a flag, a length, the message.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

const PREFIX: usize = 5;

/// A message as it goes onto the wire.
pub(crate) fn encode(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(PREFIX + length);
    out.put_u8(0);
    out.put_u32(u32::try_from(length).expect("a request fits into 4 GiB"));
    message.encode(&mut out).expect("the buffer grows");
    out.freeze()
}

/// Bytes in the pieces in which they arrived. Most are in one, which costs no memory of its own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pieces {
    /// Empty only when there are none.
    first: Bytes,
    rest: VecDeque<Bytes>,
    length: usize,
}

impl Pieces {
    fn push(&mut self, piece: Bytes) {
        self.length += piece.len();
        if self.first.is_empty() {
            self.first = piece;
        } else if !piece.is_empty() {
            self.rest.push_back(piece);
        }
    }

    /// Up to `length` bytes of the first piece.
    fn take_first(&mut self, length: usize) -> Bytes {
        let part = self.first.split_to(length.min(self.first.len()));
        self.length -= part.len();
        if self.first.is_empty() {
            self.first = self.rest.pop_front().unwrap_or_default();
        }
        part
    }

    fn split_to(&mut self, length: usize) -> Self {
        let mut front = Self::default();
        while front.length < length {
            front.push(self.take_first(length - front.length));
        }
        front
    }

    /// All of it, if it is in one piece.
    pub(crate) fn one(&self) -> Option<&[u8]> {
        self.rest.is_empty().then_some(&self.first)
    }

    /// All of it in one piece; copied unless it is in one.
    pub(crate) fn whole(mut self) -> Bytes {
        self.copy_to_bytes(self.length)
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.length
    }

    fn chunk(&self) -> &[u8] {
        &self.first
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.length, "there are {} bytes", self.length);
        while count > 0 {
            count -= self.take_first(count).len();
        }
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        if length <= self.first.len() {
            return self.take_first(length);
        }
        let mut copy = BytesMut::with_capacity(length);
        copy.put(self.take(length));
        copy.freeze()
    }
}

/// Cuts what arrives into messages, which are not copied.
#[derive(Debug, Default)]
pub(crate) struct Deframer(Pieces);

impl Deframer {
    pub(crate) fn push(&mut self, chunk: Bytes) {
        self.0.push(chunk);
    }

    /// The next complete message.
    pub(crate) fn next(&mut self) -> Option<Pieces> {
        let length = self.announced().filter(|length| self.0.length >= *length)?;
        let mut message = self.0.split_to(length);
        message.advance(PREFIX);
        Some(message)
    }

    /// The length of the frame that comes next.
    fn announced(&self) -> Option<usize> {
        let mut prefix = [0; PREFIX];
        let mut have = 0;
        for piece in std::iter::once(&self.0.first).chain(&self.0.rest) {
            let part = piece.len().min(PREFIX - have);
            prefix[have..have + part].copy_from_slice(&piece[..part]);
            have += part;
            if have == PREFIX {
                let length = u32::from_be_bytes(*prefix.last_chunk()?);
                return usize::try_from(length).ok().map(|length| length + PREFIX);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use pintle_proto::etcdserverpb::PutRequest;
    use proptest::prelude::*;

    use super::*;

    fn put(size: usize) -> PutRequest {
        PutRequest { key: "key".into(), value: vec![7; size].into(), ..Default::default() }
    }

    proptest! {
        #[test]
        fn messages_survive_every_way_of_being_cut(
            sizes in proptest::collection::vec(0usize..400, 1..8), cut in 1usize..300,
        ) {
            let sent: Vec<PutRequest> = sizes.into_iter().map(put).collect();
            let bytes: Vec<u8> = sent.iter().flat_map(|message| encode(message).to_vec()).collect();
            let (mut deframer, mut received) = (Deframer::default(), Vec::new());
            for chunk in bytes.chunks(cut) {
                deframer.push(Bytes::copy_from_slice(chunk));
                while let Some(message) = deframer.next() {
                    received.push(PutRequest::decode(message).expect("a message"));
                }
            }
            prop_assert_eq!(received, sent);
        }

        #[test]
        fn pieces_are_read_as_if_they_were_one(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 0..9),
            steps in proptest::collection::vec((0usize..20, any::<bool>()), 0..9),
        ) {
            let mut whole = Bytes::from(pieces.concat());
            let mut cut = Pieces::default();
            pieces.into_iter().for_each(|piece| cut.push(piece.into()));
            for (step, copy) in steps {
                let step = step.min(whole.len());
                if copy {
                    prop_assert_eq!(cut.copy_to_bytes(step), whole.split_to(step));
                } else {
                    cut.advance(step);
                    whole.advance(step);
                }
                prop_assert_eq!(cut.remaining(), whole.len());
                prop_assert!(whole.starts_with(cut.chunk()));
                prop_assert_eq!(cut.chunk().is_empty(), whole.is_empty());
            }
            prop_assert_eq!(cut.whole(), whole);
        }
    }
}
