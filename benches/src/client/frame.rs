//! gRPC's framing of messages: a flag, a length, the message.

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

/// Cuts what arrives into messages; a message that lies in one chunk is not copied.
#[derive(Debug, Default)]
pub(crate) struct Deframer {
    whole: Bytes,
    partial: BytesMut,
}

impl Deframer {
    pub(crate) fn push(&mut self, chunk: Bytes) {
        if self.partial.is_empty() && self.whole.is_empty() {
            self.whole = chunk;
            return;
        }
        if !self.whole.is_empty() {
            let need = announced(&self.whole).unwrap_or(PREFIX).max(self.whole.len());
            self.partial.reserve(need);
            self.partial.extend_from_slice(&std::mem::take(&mut self.whole));
        }
        self.partial.extend_from_slice(&chunk);
    }

    /// The next complete message.
    pub(crate) fn next(&mut self) -> Option<Bytes> {
        let held: &[u8] = if self.partial.is_empty() { &self.whole } else { &self.partial };
        let length = announced(held).filter(|length| held.len() >= *length)?;
        let mut message = if self.partial.is_empty() {
            self.whole.split_to(length)
        } else {
            self.partial.split_to(length).freeze()
        };
        message.advance(PREFIX);
        Some(message)
    }
}

/// The length of the frame that begins here.
fn announced(held: &[u8]) -> Option<usize> {
    let length = held.get(1..PREFIX)?.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(length)).ok().map(|length| length + PREFIX)
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
    }
}
